"""Records read around ArrayRecord are the records that ArrayRecord reads; where they cannot be, ArrayRecord does."""

import dataclasses
import itertools
import pickle

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.build import build
from lgdea_jax import cli
from lgdea_jax.cli import UserError
from lgdea_jax.data import source as record_source
from lgdea_jax.data.codec import encode_record
from lgdea_jax.data.shard_file import ShardFile, StoredImage, find_places, row_type, summary, without_image
from lgdea_jax.data.source import RecordSource, open_records
from lgdea_jax.io import decode_volume, encode_volume
from lgdea_jax.io.encoded_volume import volume_shape
from lgdea_jax.records import hash64
from tests.data.make import assert_equal, records


def write(path, made, options="group_size:1,uncompressed"):
    data = [encode_record(record) for record in made]
    writer = ArrayRecordWriter(str(path), options)
    for one in data:
        writer.write(one)
    writer.close()
    return [summary(record, one) for record, one in zip(made, data)], data


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(records(), st.integers(1, 300_000)), min_size=1, max_size=4,
                unique_by=lambda pair: pair[0].study_id), st.integers(0, 9))
def test_places(tmp_path_factory, made, seed):
    """Images of any size, over any number of blocks."""
    path = tmp_path_factory.mktemp("p") / "shard"
    rng = np.random.default_rng(seed)
    made = [dataclasses.replace(record, image=rng.bytes(size)) for record, size in made]
    summaries, data = write(path, made)
    places = find_places(path, summaries)
    assert (places[:, 0] >= 0).all()
    file = ShardFile(path)
    for record, whole, place in zip(made, data, places):
        assert file.read(int(place[0]), 0, len(whole)).tobytes() == whole
        assert_equal(without_image(file, place), dataclasses.replace(record, image=b""))
        stored = StoredImage(file, place.tolist())
        assert stored.read(0, len(stored)).tobytes() == record.image
        low = int(rng.integers(len(stored)))
        high = int(rng.integers(low, len(stored) + 1))
        assert stored.read(low, high).tobytes() == record.image[low:high]
        whole = bytearray(high)
        cuts = [0, *sorted(rng.integers(0, high + 1, 3).tolist()), high]
        stored.read_into([memoryview(whole)[a:b] for a, b in itertools.pairwise(cuts)])
        assert whole == record.image[:high]


def _stored(path, template, image):
    summaries, _ = write(path, [dataclasses.replace(template, image=image)])
    return StoredImage(ShardFile(path), find_places(path, summaries)[0].tolist())


def test_reading_into_two_places_that_part_at_any_byte(tmp_path):
    """Of the 70,000 cuts one is at the edge of a block."""
    image = np.random.default_rng(0).bytes(70_100)
    stored = _stored(tmp_path / "shard", next(iter(open_records(_built(tmp_path / "a", 2), "train"))), image)
    first, second = bytearray(70_000), bytearray(5)
    for cut in range(70_000):
        stored.read_into([memoryview(first)[:cut], memoryview(second)])
        assert second == image[cut:cut + 5]
    assert first[:-1] == image[:len(first) - 1]


def test_a_shard_that_ends_too_early(tmp_path):
    stored = _stored(tmp_path / "shard", next(iter(open_records(_built(tmp_path / "a", 2), "train"))), bytes(200_000))
    stored.read(0, 200_000)
    with open(tmp_path / "shard", "r+b") as file:
        file.truncate(150_000)
    with pytest.raises(ValueError, match="ends inside a record"):
        stored.read(0, 200_000)
    with pytest.raises(ValueError, match="ends inside a record"):
        stored.read_into([memoryview(bytearray(100)), memoryview(bytearray(160_000))])


def test_a_record_that_begins_at_the_edge_of_a_block(tmp_path):
    """Wherever the second record begins around the edge: its first bytes may have the block's header among them."""
    template = next(iter(open_records(_built(tmp_path / "a", 2), "train")))
    overhead = len(encode_record(dataclasses.replace(template, image=b"\0" * 60_000))) - 60_000
    split = 0
    for size in range(65_536 - overhead - 400, 65_536 - overhead, 5):
        made = [dataclasses.replace(template, study_id=f"{n}", image=bytes(size)) for n in range(2)]
        summaries, data = write(tmp_path / "shard", made)
        places = find_places(tmp_path / "shard", summaries)
        file = ShardFile(tmp_path / "shard")
        for whole, place in zip(data, places, strict=True):
            assert file.read(int(place[0]), 0, int(place[1])).tobytes() == whole
        split += 65_536 - 64 < places[1][0] < 65_536
    assert split


def test_compressed_shards_have_no_places(tmp_path):
    source = open_records(_built(tmp_path / "a", 2), "train")
    made = list(source)
    summaries, _ = write(tmp_path / "shard", made, "group_size:1")
    assert (find_places(tmp_path / "shard", summaries)[:, 0] == -1).all()


def _built(folder, studies):
    config = cli.read_config("configs/data/phantom_ct.py")
    config.phantom_ct.train, config.phantom_ct.validation, config.phantom_ct.test = studies, 0, 0
    config.workers, config.shard_studies, config.tokenizer.vocab_size = 1, 2, 300
    build(config, folder, progress=False)
    return folder


def test_with_and_without_the_places(tmp_path):
    folder = _built(tmp_path / "d", 5)
    quick = open_records(folder, "train")
    parts = [quick.parts(i) for i in range(5)]
    assert all(image is not None for _, image in parts)
    slow = RecordSource(folder, quick._shards)
    for i in range(5):
        assert_equal(quick[i], slow[i])
        assert_equal(quick[i - 5], slow[i])
        np.testing.assert_array_equal(decode_volume(parts[i][1]), decode_volume(slow[i].image))
        assert volume_shape(parts[i][1]) == tuple(slow[i].image_shape)
    wanted = [3, 0, 3, 4, 1]
    for i, seen, whole in zip(wanted, quick.image_fields(wanted), slow.image_fields(wanted), strict=True):
        assert isinstance(seen.image, StoredImage) and seen.image.read(0, len(seen.image)).tobytes() == whole.image
        assert whole.image == slow[i].image
        for fields in (seen, whole):
            assert fields.study == hash64(slow[i].study_id)
            np.testing.assert_array_equal(fields.labels, slow[i].labels)
    rows = np.load(folder / "rows_train.npy")
    rows["place"][3, 0] = -1
    np.save(folder / "rows_train.npy", rows)
    some = [fields.image for fields in open_records(folder, "train").image_fields(wanted)]
    assert [isinstance(image, bytes) for image in some] == [True, False, True, False, False]
    assert some[0] == slow[3].image
    again = pickle.loads(pickle.dumps(quick))
    assert_equal(again[4], slow[4])
    assert len(pickle.dumps(quick)) < 3000  # The rows stay in their file.
    np.save(folder / "rows_train.npy", np.zeros(3, row_type(2)))
    with pytest.raises(UserError, match="damaged"):
        open_records(folder, "train")
    (folder / "rows_train.npy").unlink()
    assert open_records(folder, "train").parts(0)[1] is None
    assert_equal(open_records(folder, "train")[3], slow[3])


def test_few_shards_are_held_open(tmp_path, monkeypatch):
    source = open_records(_built(tmp_path / "d", 9), "train")
    assert len(source._shards) == 5
    expected = list(source)
    monkeypatch.setattr(record_source, "MOST_OPEN", 2)
    source = open_records(tmp_path / "d", "train")
    held = [source.parts(i)[1] for i in range(9)]
    for i in (8, 0, 5, 3, 1, 8, 7):
        assert_equal(source[i], expected[i])
        assert held[i].read(0, len(held[i])).tobytes() == expected[i].image
    assert len(source._files) == 2


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
