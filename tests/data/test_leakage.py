"""Near-duplicates against brute force, the pixels' last word, and every kind of leak refused."""

import csv
import io
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lgdea_jax.data import dataset, leakage, source
from lgdea_jax.data.leakage import allowed_rows, near_duplicates, same_picture
from lgdea_jax.errors import UserError
from lgdea_jax.io import decode_image
from lgdea_jax.preprocess.image import difference_hash, resize


def brute_force(one, other, bits):
    distance = np.bitwise_count(one[:, None] ^ other[None]).sum(-1)
    near = (distance <= bits) & one.any(1)[:, None] & other.any(1)[None]
    return np.argwhere(near)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 40), st.integers(0, 40), st.integers(0, 7), st.booleans())
def test_near_duplicates_are_those_of_brute_force(seed, n, m, bits, crowded):
    rng = np.random.default_rng(seed)
    pool = rng.integers(0, 2**64, (4, 4), dtype=np.uint64)
    if crowded:  # Black borders: words that nearly all images share.
        pool[:, :2] = 0
    one, other = pool[rng.integers(0, 4, n)], pool[rng.integers(0, 4, m)]
    for part in (one, other):
        for row in part:
            for bit in rng.integers(0, 256, rng.integers(0, 6)):
                row[bit // 64] ^= np.uint64(1) << np.uint64(bit % 64)
        part[rng.random(len(part)) < 0.1] = 0
    found = near_duplicates(one, other, max_bits=bits)
    np.testing.assert_array_equal(found, brute_force(one, other, bits))
    assert found.dtype == np.int64


@pytest.mark.parametrize("same_word", range(8))
def test_seven_bits_in_seven_words(same_word):
    """One word of 32 bits is left to find the candidate by."""
    one = np.random.default_rng(0).integers(0, 2**64, (1, 4), dtype=np.uint64)
    other = one.copy().view(np.uint32)
    other[0, [word for word in range(8) if word != same_word]] ^= np.uint32(1 << 5)
    assert near_duplicates(one, other.view(np.uint64)).tolist() == [[0, 0]]
    other[0, same_word] ^= np.uint32(1)
    assert near_duplicates(one, other.view(np.uint64)).tolist() == []


def test_blocks_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    one = rng.integers(0, 2, (60, 4), dtype=np.uint64)
    whole = near_duplicates(one, one)
    monkeypatch.setattr(leakage, "_BLOCK", 50)
    np.testing.assert_array_equal(near_duplicates(one, one), whole)
    np.testing.assert_array_equal(whole, brute_force(one, one, 7))


def test_at_most_seven_bits():
    with pytest.raises(ValueError, match="0 to 7"):
        near_duplicates(np.zeros((1, 4), np.uint64), np.zeros((1, 4), np.uint64), max_bits=8)


@pytest.fixture(scope="module")
def images(phantom_data):
    return [decode_image(r.image, r.image_format) for r in source.open_records(phantom_data, "train")]


def copies(image):
    """Ways in which a picture comes again."""
    for quality in (50, 75, 90):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=quality)
        yield np.asarray(Image.open(buffer))
    yield resize(image, (image.shape[0] // 2, image.shape[1] // 2))
    yield resize(image, (image.shape[0] * 2, image.shape[1] * 2))
    yield (255 * (image / 255) ** 0.9 + 0.5).astype(np.uint8)
    yield np.clip(image * 0.8 + 20, 0, 255).astype(np.uint8)


def test_a_copy_is_the_same_picture_and_another_phantom_is_not(images):
    for i, image in enumerate(images[:12]):
        assert all(same_picture(image, copy) for copy in copies(image))
        assert not any(same_picture(image, other) for other in images[i + 1:])


def test_phantoms_of_other_splits_are_no_duplicates(phantom_data):
    hashes = {split: dataset.load_index(phantom_data, split)["image_hash"] for split in ("train", "test")}
    assert hashes["train"].any() and len(near_duplicates(hashes["train"], hashes["train"])) >= 40
    indexes = {str(phantom_data): dataset.load_index(phantom_data, "train")}
    allowed = allowed_rows(indexes, split="train", held_out=[], equal_reports="allow")
    assert allowed[str(phantom_data)].all()


class World:
    """Data sets in memory: {(directory, split): index} and pictures by (directory, split)."""

    def __init__(self, monkeypatch):
        self.indexes, self.images = {}, {}
        monkeypatch.setattr(dataset, "load_metadata", self.metadata)
        monkeypatch.setattr(dataset, "load_index", lambda d, s: self.indexes[d, s])
        monkeypatch.setattr(source, "open_records", lambda d, s: self.images[d, s])

    def metadata(self, directory):
        return SimpleNamespace(splits=[split for d, split in self.indexes if d == directory])

    def add(self, directory, split, images, subjects, reports):
        class Record:
            image_format = "raw"

            def __init__(self, image, row):
                self.image, self.study_id, self.image_id = image, f"{directory}-{split}-{row}", f"view {row}"

        self.images[directory, split] = [Record(image, row) for row, image in enumerate(images)]
        self.indexes[directory, split] = {
            "subject": np.array(subjects, np.uint64), "report_hash": np.array(reports, np.uint64),
            "image_hash": np.stack([difference_hash(image) for image in images])}

    def check(self, *, held_out=(), equal_reports="refuse", **how):
        return allowed_rows({"A": self.indexes["A", "train"]}, split="train", held_out=held_out,
                            equal_reports=equal_reports, **how)["A"]


@pytest.fixture
def world(monkeypatch, images):
    world = World(monkeypatch)
    monkeypatch.setattr(leakage, "decode_image", lambda image, image_format: image)
    world.add("A", "train", images[:4], [1, 2, 3, 4], [11, 12, 0, 14])
    world.add("A", "test", images[4:6], [5, 6], [15, 0])
    world.add("B", "train", images[6:8], [7, 8], [17, 18])
    return world


def test_a_clean_world_passes(world):
    assert world.check().all() and world.check(held_out=["B"]).all()


def test_shared_subjects_are_refused(world, images):
    world.add("A", "test", images[4:6], [3, 6], [15, 16])
    with pytest.raises(UserError, match=r"split leak: 1 subjects in both A \(train\) and A \(test\)$"):
        world.check()


def test_data_sets_held_out_count_with_all_splits(world, images):
    world.add("B", "train", images[6:8], [1, 2], [17, 18])
    assert world.check().all()
    with pytest.raises(UserError, match=r"2 subjects in both A \(train\) and B \(train\); give the ids a prefix"):
        world.check(held_out=["B"])


def test_near_duplicate_images_are_refused(world, images):
    world.add("A", "test", [images[8], next(copies(images[2]))], [5, 6], [15, 16])
    with pytest.raises(UserError, match=r"1 near-duplicate images in both A \(train\) and A \(test\) \(--config\.data\."
                                        r"near_duplicates=drop leaves them out of training\)$"):
        world.check()


def test_near_duplicates_by_policy_and_their_pairs_in_a_file(world, images, tmp_path, caplog):
    file = tmp_path / "pairs.csv"
    near = list(copies(images[2]))
    world.add("A", "test", [images[8], near[0], near[2]], [5, 6, 9], [15, 16, 19])
    world.add("B", "train", [next(copies(images[0])), images[7]], [7, 8], [17, 18])

    def listed():
        with open(file, newline="", encoding="utf-8") as lines:
            return [(r["study_id"], r["image_id"], int(r["row"]), r["other_data_set"], r["other_split"],
                     r["other_study_id"], int(r["other_row"])) for r in csv.DictReader(lines)]

    pairs = [("A-train-2", "view 2", 2, "A", "test", "A-test-1", 1),
             ("A-train-2", "view 2", 2, "A", "test", "A-test-2", 2),
             ("A-train-0", "view 0", 0, "B", "train", "B-train-0", 0)]
    for policy, kept in (("refuse", None), ("drop", [False, True, False, True]), ("allow", [True] * 4)):
        file.unlink(missing_ok=True)
        caplog.clear()
        if kept is None:
            with pytest.raises(UserError, match=r"split leak: 2 near-duplicate images in both A \(train\) and A \(test"
                                                r"\), 1 near-.* A \(train\) and B \(train\); .*listed in .*pairs\.csv"):
                world.check(held_out=["B"], duplicates=policy, pairs_file=file)
        else:
            assert world.check(held_out=["B"], duplicates=policy, pairs_file=file).tolist() == kept
            assert ("left out of training" in caplog.text) == (policy == "drop") and "pairs.csv" in caplog.text
        assert listed() == pairs
    # What is dropped, is dropped beside equal reports.
    world.indexes["A", "test"]["report_hash"][0] = 12
    kept = world.check(held_out=["B"], duplicates="drop", equal_reports="drop", pairs_file=file)
    assert kept.tolist() == [False, False, False, True]
    world.add("A", "test", images[4:6], [5, 6], [15, 0])
    assert world.check(pairs_file=file).all() and not file.exists()  # Nothing to list any more.
    with pytest.raises(UserError, match="did you mean 'allow'"):
        world.check(duplicates="alow")


def test_pictures_are_decoded_once_unless_there_are_too_many(world, images, monkeypatch):
    decoded = []
    monkeypatch.setattr(leakage, "decode_image", lambda image, image_format: (decoded.append(1), image)[1])
    copy = next(copies(images[2]))
    world.add("A", "test", [copy, copy, copy], [5, 6, 9], [15, 16, 19])
    assert world.check(duplicates="drop").tolist() == [True, True, False, True] and len(decoded) == 4
    monkeypatch.setattr(leakage, "_KEPT", 2)
    assert world.check(duplicates="drop").tolist() == [True, True, False, True] and len(decoded) > 8


def test_a_hash_alone_convicts_nobody(world, images):
    world.indexes["A", "test"]["image_hash"][0] = world.indexes["A", "train"]["image_hash"][1]
    assert world.check().all()


def test_equal_reports_by_policy(world, images):
    world.add("A", "test", images[4:6], [5, 6], [12, 0])
    with pytest.raises(UserError, match="1 equal reports"):
        world.check()
    assert world.check(equal_reports="drop").tolist() == [True, False, True, True]
    assert world.check(equal_reports="allow").all()
    with pytest.raises(UserError, match="did you mean 'drop'"):
        world.check(equal_reports="drp")


def test_volumes_are_one_scan_by_their_voxels():
    rng = np.random.default_rng(0)
    anatomy = rng.normal(-400, 300, (8, 12, 12))
    scan, other = (np.rint(anatomy + rng.normal(0, 20, anatomy.shape)).astype(np.int16) for _ in range(2))
    copy = scan + rng.integers(-3, 4, scan.shape).astype(np.int16)
    assert leakage.same_volume(scan, copy)
    assert not leakage.same_volume(scan, other)  # The same shapes with noise of their own: another scan.
    assert not leakage.same_volume(scan, scan[:4])
