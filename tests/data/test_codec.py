"""Record <-> bytes: nothing is lost, and TFDS reads and writes the same."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.shards.features import features
from lgdea_jax.data.codec import decode_image_fields, decode_record, encode_record
from lgdea_jax.data.source import open_records
from lgdea_jax.records import Record, hash64
from tests.data.make import assert_equal, records
from tests.data.tfds_examples import from_example, to_example

QUICK = settings(max_examples=40, deadline=None)


@QUICK
@given(st.integers(0, 3).flatmap(records))
def test_round_trip(record):
    data = encode_record(record)
    assert_equal(record, decode_record(data))
    assert encode_record(decode_record(data)) == data


@QUICK
@given(st.sampled_from((0, 3)).flatmap(records))
def test_tfds_reads_ours_and_we_read_theirs(record):
    import tensorflow_datasets as tfds

    assert hasattr(tfds, "data_source")  # TFDS only logs it when tensorflow-metadata does not fit.
    spec = features(tuple("abc")[:len(record.labels)])
    assert_equal(record, from_example(spec.deserialize_example_np(encode_record(record))))
    assert_equal(record, decode_record(spec.serialize_example(spec.encode_example(to_example(record)))))


@QUICK
@given(records())
def test_image_fields_are_those_of_the_record(record):
    fields = decode_image_fields(encode_record(record))
    assert (fields.image, fields.study) == (record.image, hash64(record.study_id))
    assert fields.labels.dtype == np.int8 and fields.labels.tolist() == record.labels.tolist()


def test_records_are_found_in_any_order_from_several_threads(phantom_data):
    source = open_records(phantom_data, "train")
    expected = [record.study_id for record in source]
    order = np.random.default_rng(0).integers(len(source), size=400).tolist()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda row: source[row].study_id, order)) == [expected[row] for row in order]
    assert len(set(expected)) == len(expected)


def test_the_spec_has_every_field_of_the_record():
    assert set(features(())) == {field.name for field in dataclasses.fields(Record)}


@QUICK
@given(st.binary(max_size=60))
def test_other_bytes_are_refused(data):
    with pytest.raises(ValueError, match="not a record"):
        decode_record(data)


@QUICK
@given(records(), st.data())
def test_half_a_record_is_refused(record, data):
    whole = encode_record(record)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(ValueError, match="not a record"):
        decode_record(whole[:cut])


@QUICK
@given(records(), st.sampled_from(("label_source", "licence", "image", "boxes/z")))
def test_a_record_without_a_field_is_refused(record, name):
    from lgdea_jax.data.codec import _example_class

    example = _example_class().FromString(encode_record(record))
    del example.features.feature[name]
    with pytest.raises(ValueError, match="not a record of this schema"):
        decode_record(example.SerializeToString())
