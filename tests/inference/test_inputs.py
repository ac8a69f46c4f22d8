"""Files, folders and patterns; pictures with their warnings; reading ahead that keeps order and stops."""

import os
import re
import sys
import threading

import numpy as np
import pytest
from PIL import Image

from lgdea_jax.errors import UserError
from lgdea_jax.inference.images import Picture, ReadAhead, Reader, Rejected, find_images
from lgdea_jax.preprocess import image_statistics
from tests.io import dicom

RNG = np.random.default_rng(0)


def radiograph(seed=0, size=64):
    """Bright middle on dark sides, with noise: all alike in their coarse shape."""
    rng = np.random.default_rng(seed)
    x = np.linspace(-1, 1, size)
    shape = 60 + 120 * np.exp(-4 * x[None, :] ** 2) * (1 - 0.4 * x[:, None] ** 2)
    return np.clip(shape + rng.normal(0, 6, (size, size)) + rng.normal(0, 10), 0, 255).astype(np.uint8)


def save(path, array):
    Image.fromarray(array).save(path)
    return str(path)


def test_files_folders_and_patterns(tmp_path):
    (tmp_path / "deep").mkdir()
    a, b = save(tmp_path / "a.png", radiograph()), save(tmp_path / "deep/b.JPG", radiograph())
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "deep/1.2.840.10008").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "deep/1.2.840.10009").write_bytes(b"\0" * 200)
    scan = tmp_path / "c.nii.gz"
    scan.write_bytes(b"\x1f\x8b")
    found, others = find_images([str(tmp_path)])
    assert found == [a, str(scan), str(tmp_path / "deep/1.2.840.10008"), b] and others == 2
    assert find_images([str(tmp_path / "*.png"), a, str(tmp_path / "**/*.JPG")]) == ([a, b], 0)
    assert find_images(["missing.png"]) == (["missing.png"], 0)  # Reported later, like any broken file.
    with pytest.raises(UserError, match="fits the pattern"):
        find_images([str(tmp_path / "*.bmp")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no image in the folder"):
        find_images([str(tmp_path / "empty")])


@pytest.mark.skipif(sys.platform == "win32", reason="pipes and links")
def test_odd_entries_of_a_folder(tmp_path):
    image = save(tmp_path / "a.png", radiograph())
    os.symlink("nowhere", tmp_path / "dead.png")  # A DataLad folder whose content was not fetched.
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "pipe.png")
    dicom.write_dicom(tmp_path / "DICOMDIR", radiograph().astype(np.uint16))
    whole = dicom.write_dicom(tmp_path / "b", radiograph().astype(np.uint16)).read_bytes()
    (tmp_path / "bare").write_bytes(whole[132:])  # Without its preamble.
    found, others = find_images([str(tmp_path)])
    expected = [image, *(str(tmp_path / name) for name in ("b", "bare", "dead.png", "pipe.png"))]
    assert found == expected and others == 2


def test_conversions_that_a_user_should_know_of_are_said(tmp_path):
    path = tmp_path / "a.dcm"
    dicom.write_dicom(path, radiograph().astype(np.uint16), PatientOrientation=["R", "F"],
                      PresentationLUTShape="INVERSE", WindowCenter="-900", WindowWidth="10")
    warnings = " ".join(Reader(32).read(str(path), "a").warnings)
    assert "turned to the orientation" in warnings and "inverted" in warnings and "window" in warnings


def test_a_broken_file_is_rejected_with_its_reason(tmp_path):
    good = save(tmp_path / "a.png", radiograph())
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:90])
    reader = Reader(32)
    for source, reason in ((tmp_path / "cut.png", "truncated"), (tmp_path / "none.png", "missing"),
                           ("x.nii.gz", r"a volume \(NIfTI\)"), (np.full((40, 40), np.nan), "not finite"),
                           (np.zeros((2, 3, 4, 5)), "not an image"), (np.zeros((0, 5), np.uint8), "not an image")):
        item = reader.read(source, "x")
        assert isinstance(item, Rejected) and re.search(reason, item.reason), item
    assert isinstance(reader.read(good, "x"), Picture)


def test_the_picture_is_what_training_saw(tmp_path):
    from lgdea_jax.preprocess.image import grey8, letterbox

    image = RNG.integers(0, 256, (300, 200), dtype=np.uint8)
    item = Reader(64, record_size=128).read(save(tmp_path / "a.png", image), "a")
    np.testing.assert_array_equal(item.model_input, letterbox(grey8(image, 128)[0], 64))
    assert item.shape == (300, 200) and item.stored == (128, 85) and item.grey is None
    assert Reader(64, keep_grey=True).read(image, "a").grey.shape == (300, 200)


def test_dicom_and_its_modality(tmp_path):
    path = tmp_path / "a.dcm"
    for modality, warned in (("DX", False), ("MR", True)):
        dicom.write_dicom(path, radiograph().astype(np.uint16), Modality=modality)
        item = Reader(32).read(str(path), "a")
        assert any("DICOM modality MR" in warning for warning in item.warnings) == warned


def test_what_is_unlike_the_training_images_is_said():
    statistics = image_statistics.measure(radiograph(seed) for seed in range(100))
    assert statistics["count"] == 100 and len(statistics["thumbnail"]) == 12
    assert not any(image_statistics.unusual(radiograph(seed), statistics) for seed in range(100, 140))
    assert any("inverted" in text for text in image_statistics.unusual(255 - radiograph(7), statistics))
    noise = RNG.integers(0, 256, (64, 64), dtype=np.uint8)
    assert any("coarse shape" in text for text in image_statistics.unusual(noise, statistics))
    assert any("fine detail" in text for text in image_statistics.unusual(noise, statistics))
    dark = (radiograph(3) // 8).astype(np.uint8)
    assert any("grey level" in text for text in image_statistics.unusual(dark, statistics))
    assert image_statistics.unusual(np.full((64, 64), 9, np.uint8), {}) == ["hardly any contrast: is it an image?"]
    assert image_statistics.unusual(noise, {}) == []  # A checkpoint without statistics has nothing to compare with.


def test_colour_and_tiny_images_are_pointed_out():
    colour = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert any("colour" in text for text in Reader(32).read(colour, "x").warnings)
    grey = np.repeat(radiograph()[..., None], 3, axis=2)
    assert not any("colour" in text for text in Reader(32).read(grey, "x").warnings)
    assert any("only 20 x 64" in text for text in Reader(32).read(radiograph()[:, :20], "x").warnings)


def test_a_sample_is_spread_over_all_parts():
    parts = [[{"image": np.full((8, 8), value, np.uint8)} for value in range(start, start + 10)] for start in (0, 100)]
    ranges = image_statistics.of_items(parts, sample=5)["ranges"]["mean"]
    assert ranges[0] < 1 and ranges[1] > 108 and image_statistics.of_items([]) == {}
    assert image_statistics.of_items([[{"image": np.zeros((4, 8, 8), np.uint8)}]]) == {}  # Volumes.


def test_reading_ahead_keeps_order_and_stops_early():
    images = [np.full((40, 40), value, np.uint8) for value in range(25)]
    batches = list(ReadAhead([(image, str(n)) for n, image in enumerate(images)], Reader(8), batch_size=4))
    assert [len(batch) for batch in batches] == [4] * 6 + [1]
    assert [item.name for batch in batches for item in batch] == [str(n) for n in range(25)]
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield images[0], "x"

    stream = ReadAhead(endless(), Reader(8), batch_size=4)
    next(stream)
    stream.close()
    assert len(taken) < 20  # At most three batches are held, whatever follows.


def test_reading_begins_before_the_first_batch_is_asked_for():
    begun = threading.Semaphore(0)

    class Noticed(Reader):
        def read(self, source, name):
            item = super().read(source, name)
            begun.release()
            return item

    image = np.full((40, 40), 9, np.uint8)
    stream = ReadAhead([(image, str(n)) for n in range(100)], Noticed(8), batch_size=4, ahead=3)
    for _ in range(12):  # Three batches; without anybody asking.
        assert begun.acquire(timeout=30)
    assert not begun.acquire(timeout=0.2)  # And no more than those.
    assert [item.name for item in next(stream)] == ["0", "1", "2", "3"]
    for _ in range(4):  # What was handed out is made up for while the caller works.
        assert begun.acquire(timeout=30)
    stream.close()
