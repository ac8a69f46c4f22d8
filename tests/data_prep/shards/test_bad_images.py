"""A build of a table of which a third cannot be used: nothing stops it, and each row is listed with its reason."""

import csv
import sys

import numpy as np
import pytest
from PIL import Image

from configs.data.table import get_config
from data_prep.build import build
from lgdea_jax.data.source import open_records
from lgdea_jax.errors import UserError
from lgdea_jax.io.image_info import UnreadableImage
from tests.data_prep.shards import tables
from tests.data_prep.shards.run import build as run_build
from tests.fixtures import bad_images
from tests.io.fuzz import exif, saved


@pytest.mark.skipif(sys.platform == "win32", reason="pipes and links")
def test_sixty_bad_images_of_two_hundred(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    bad = bad_images.write(folder) | {"a\0b.png": "a null character"}
    del bad[next(iter(bad))]
    assert len(bad) == 60
    rng, rows = np.random.default_rng(0), []
    for number in range(140):
        name = f"good_{number}.png"
        Image.fromarray(rng.integers(0, 256, (24, 20), dtype=np.uint8)).save(folder / name)
        rows.append(tables.row(f"g{number}", image=name))
    rows += [tables.row(f"b{number}", image=name) for number, name in enumerate(bad)]
    rng.shuffle(rows)
    tables.write(folder, rows)
    process = run_build("--config=configs/data/table.py", f"--config.table.path={folder}", f"--out={tmp_path / 'out'}",
                        "--config.workers=2", "--config.image_size=32")
    assert process.returncode == 3, process.stderr
    assert "Traceback" not in process.stderr and "Warning" not in process.stderr
    assert len(open_records(tmp_path / "out", "train")) == 140
    with open(tmp_path / "out/rejected.csv", encoding="utf-8", newline="") as file:
        reasons = {row["study_id"]: row["reason"] for row in csv.DictReader(file)}
    assert len(reasons) == 60
    for number, (name, words) in enumerate(bad.items()):
        assert words in reasons[f"b{number}"], name


def test_whatever_a_file_raises_is_one_reason(tmp_path, monkeypatch):
    from lgdea_jax.io import files

    path = tmp_path / "a.png"
    Image.fromarray(bad_images.GREY).save(path)
    for error in (RuntimeError("x"), MemoryError(), OSError(5, "Input/output error"), RecursionError(), KeyError("x")):
        def fail(data, error=error):
            raise error

        monkeypatch.setattr(files, "_read_png", fail)
        with pytest.raises(UnreadableImage, match="the PNG file is truncated or damaged"):
            files.read_image_file(path)
    monkeypatch.setattr(files, "_read_png", lambda data: (_ for _ in ()).throw(UserError("install it")))
    with pytest.raises(UserError, match="install it"):
        files.read_image_file(path)


def test_boxes_on_an_image_that_is_turned(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(saved(bad_images.GREY, "JPEG", exif=exif(3)))
    tables.write(folder, [tables.row("s1", image="a.jpg"), tables.row("s2", report=tables.REPORT)])
    box = {"study_id": "s1", "image_id": "a.jpg", "finding": "Nodule", "phrase": "", "x": 1, "y": 2, "w": 3, "h": 4}
    tables.write(folder, [box], name="boxes.csv")
    config = get_config()
    config.workers, config.table.path = 1, str(folder)
    assert build(config, tmp_path / "out").rejected == 1
    assert "boxes on an image that its header turns" in (tmp_path / "out/rejected.csv").read_text()
    (folder / "boxes.csv").unlink()
    report = build(config, tmp_path / "out2")
    assert report.rejected == 0
    np.testing.assert_array_equal(open_records(tmp_path / "out2", "train")[0].original_shape[1:], bad_images.GREY.shape)
