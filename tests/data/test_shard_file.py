"""Records of volumes read around ArrayRecord, as a whole or in parts, are the records that ArrayRecord reads."""

import dataclasses
import pickle

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.build import build
from lgdea_jax import cli
from lgdea_jax.data import source as record_source
from lgdea_jax.data.codec import encode_record
from lgdea_jax.data.shard_file import ShardFile, StoredVolume, find_offsets, fingerprint, without_image
from lgdea_jax.data.source import open_records
from lgdea_jax.errors import UserError
from lgdea_jax.io import decode_volume, encode_volume
from lgdea_jax.io.encoded_volume import volume_shape
from lgdea_jax.records import hash64
from tests.data.make import assert_equal, records, write_sums


def write(path, made, options="group_size:1,uncompressed"):
    data = [encode_record(record) for record in made]
    writer = ArrayRecordWriter(str(path), options)
    for one in data:
        writer.write(one)
    writer.close()
    return [fingerprint(record, one) for record, one in zip(made, data)], data


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(records(), st.integers(1, 300_000)), min_size=1, max_size=4,
                unique_by=lambda pair: pair[0].study_id), st.integers(0, 9))
def test_offsets(tmp_path_factory, made, seed):
    """Images of any size, over any number of blocks."""
    path = tmp_path_factory.mktemp("p") / "shard"
    rng = np.random.default_rng(seed)
    made = [dataclasses.replace(record, image=rng.bytes(size)) for record, size in made]
    fingerprints, data = write(path, made)
    file = ShardFile(path)
    for record, whole, offsets in zip(made, data, find_offsets(path, fingerprints), strict=True):
        assert file.read(int(offsets[0]), 0, len(whole)).tobytes() == whole
        assert_equal(without_image(file, offsets), dataclasses.replace(record, image=b""))
        stored = StoredVolume(file, offsets.tolist())
        assert stored.read(0, len(stored)).tobytes() == record.image
        low = int(rng.integers(len(stored)))
        high = int(rng.integers(low, len(stored) + 1))
        assert stored.read(low, high).tobytes() == record.image[low:high]


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    """A data set of 5 volumes in 3 shards."""
    config = cli.read_config("configs/data/phantom_ct.py")
    config.phantom_ct.train, config.phantom_ct.validation, config.phantom_ct.test = 5, 0, 0
    config.workers, config.shard_studies, config.tokenizer.vocab_size = 1, 2, 300
    folder = tmp_path_factory.mktemp("volumes") / "d"
    build(config, folder, progress=False)
    return folder


@pytest.fixture(scope="module")
def template(volumes):
    """One record."""
    return open_records(volumes, "train")[0]


def _stored(path, template, image):
    fingerprints, _ = write(path, [dataclasses.replace(template, image=image)])
    return StoredVolume(ShardFile(path), find_offsets(path, fingerprints)[0].tolist())


def test_ranges_that_begin_or_end_around_the_edge_of_a_block(tmp_path, template):
    image = np.random.default_rng(0).bytes(200_000)
    stored = _stored(tmp_path / "shard", template, image)
    edge = 65_536 - (stored._start + stored._image) % 65_536  # The image's first byte behind the next block header.
    for at in range(edge - 30, edge + 30):
        assert stored.read(at, at + 5).tobytes() == image[at:at + 5]
        assert stored.read(at, at + 70_000).tobytes() == image[at:at + 70_000]
        assert stored.read(7, at).tobytes() == image[7:at]
        assert stored.read(at, at).size == 0


def test_a_shard_that_ends_too_early(tmp_path, template):
    stored = _stored(tmp_path / "shard", template, bytes(200_000))
    stored.read(0, 200_000)
    with open(tmp_path / "shard", "r+b") as file:
        file.truncate(150_000)
    with pytest.raises(ValueError, match="ends inside a record"):
        stored.read(0, 200_000)


def test_a_record_that_begins_at_the_edge_of_a_block(tmp_path, template):
    """Wherever the second record begins around the edge: its first bytes may have the block's header among them."""
    overhead = len(encode_record(dataclasses.replace(template, image=b"\0" * 60_000))) - 60_000
    split = 0
    for size in range(65_536 - overhead - 400, 65_536 - overhead, 5):
        made = [dataclasses.replace(template, study_id=f"{n}", image=bytes(size)) for n in range(2)]
        fingerprints, data = write(tmp_path / "shard", made)
        found = find_offsets(tmp_path / "shard", fingerprints)
        file = ShardFile(tmp_path / "shard")
        for whole, offsets in zip(data, found, strict=True):
            assert file.read(int(offsets[0]), 0, int(offsets[1])).tobytes() == whole
        split += 65_536 - 64 < found[1][0] < 65_536
    assert split


def test_a_compressed_shard_has_no_offsets(tmp_path, volumes):
    fingerprints, _ = write(tmp_path / "shard", list(open_records(volumes, "train")), "group_size:1")
    with pytest.raises(RuntimeError, match="record 0 is not found"):
        find_offsets(tmp_path / "shard", fingerprints)


def test_parts_are_those_of_the_whole_record(volumes):
    source = open_records(volumes, "train")
    for i in [*range(5), -1]:
        whole, (record, volume) = source[i], source.parts(i)
        assert_equal(record, dataclasses.replace(whole, image=b""))
        assert volume.read(0, len(volume)).tobytes() == whole.image
        np.testing.assert_array_equal(decode_volume(volume), decode_volume(whole.image))
        assert volume_shape(volume) == tuple(whole.image_shape)
    wanted = [3, 0, 3, 4, 1]
    for i, fields in zip(wanted, source.image_fields(wanted), strict=True):
        assert fields.image == source[i].image and fields.study == hash64(source[i].study_id)
        np.testing.assert_array_equal(fields.labels, source[i].labels)
    again = pickle.loads(pickle.dumps(source))
    assert_equal(again[4], source[4])
    assert_equal(again.parts(4)[0], source.parts(4)[0])
    assert len(pickle.dumps(source)) < 3000  # The offsets stay in their file.


@pytest.mark.parametrize(("content", "message"), [
    (b"", "missing or damaged"), (b"\x93NUMPY", "missing or damaged"), (None, "missing or damaged"),
    (np.zeros((4, 6), np.int64), "does not belong to its shards"), (np.zeros((5, 6)), "does not belong")])
def test_offsets_that_are_none_are_refused(volumes, tmp_path, content, message):
    folder = tmp_path / "d"
    folder.mkdir()
    for file in volumes.iterdir():
        if file.name != "offsets_train.npy":
            (folder / file.name).symlink_to(file)
    if isinstance(content, bytes):
        (folder / "offsets_train.npy").write_bytes(content)
    elif content is not None:
        np.save(folder / "offsets_train.npy", content)
    with pytest.raises(UserError, match=r"offsets_train\.npy is (missing or )?damaged.*build it again"):
        open_records(folder, "train")
    if content is not None:
        write_sums(folder)
        with pytest.raises(UserError, match=f"offsets_train.npy.* {message}.*: build the data set again"):
            open_records(folder, "train")


def test_images_have_no_offsets(phantom_data):
    assert not list(phantom_data.glob("offsets_*")) and not list(phantom_data.glob("rows_*"))


def test_few_shards_are_held_open(volumes, monkeypatch):
    expected = list(open_records(volumes, "train"))
    monkeypatch.setattr(record_source, "MOST_OPEN", 2)
    source = open_records(volumes, "train")
    assert len(source._shards) == 3
    held = [source.parts(i)[1] for i in range(5)]
    for i in (4, 0, 2, 3, 1, 4, 3):
        assert_equal(source[i], expected[i])
        assert held[i].read(0, len(held[i])).tobytes() == expected[i].image
        assert list(source._readers)[-1] == i // 2  # The least recently used one goes.
    assert len(source._files) == len(source._readers) == 2


class _Counted:
    """A stored volume that says how much of it was read."""

    def __init__(self, data):
        self.data, self.taken = data, 0

    def __len__(self):
        return len(self.data)

    def read(self, start, stop):
        self.taken += stop - start
        return np.frombuffer(self.data[start:stop], np.uint8)


@settings(max_examples=15, deadline=None)
@given(st.tuples(st.integers(1, 90), st.integers(1, 120), st.integers(1, 120)), st.data())
def test_parts_of_volumes(shape, data):
    """Any region, whether chunks are noise or of one value (which have no bytes)."""
    volume = np.random.default_rng(1).integers(-1000, 1000, shape).astype(np.int16)
    volume[data.draw(st.integers(0, shape[0])):] = data.draw(st.sampled_from((0, -1024)))
    stored = encode_volume(volume)
    low = [data.draw(st.integers(0, n - 1)) for n in shape]
    region = tuple(slice(a, data.draw(st.integers(a + 1, n))) for a, n in zip(low, shape))
    np.testing.assert_array_equal(decode_volume(_Counted(stored), region), volume[region])


def test_a_crop_reads_its_chunks_only():
    volume = np.random.default_rng(1).integers(-1000, 1000, (128, 192, 192)).astype(np.int16)
    stored = _Counted(encode_volume(volume))
    np.testing.assert_array_equal(decode_volume(stored, (slice(0, 9), slice(5, 9), slice(100, 180))),
                                  volume[:9, 5:9, 100:180])
    assert stored.taken < 0.2 * len(stored)
