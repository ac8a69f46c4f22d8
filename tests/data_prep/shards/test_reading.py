"""Reading a finished data set: what readers refuse, random access, and what they import."""

import subprocess
import sys
import time

import numpy as np
import pytest

from data_prep.build import build
from lgdea_jax.data.dataset import load_index, load_metadata
from lgdea_jax.data.source import RecordSource, open_records
from lgdea_jax.errors import UserError
from lgdea_jax.records import SCHEMA_VERSION
from tests.data.make import assert_equal, write_sums
from tests.data_prep.shards.conftest import config
from tests.data_prep.shards.run import environment


def copy(folder, to):
    import shutil

    return shutil.copytree(folder, to)


def test_what_readers_refuse(built, tmp_path):
    with pytest.raises(UserError, match=r"python -m data_prep\.build --config=configs/data/NAME\.py --out="):
        open_records(tmp_path / "nothing", "train")
    folder = copy(built[0], tmp_path / "data")
    with pytest.raises(UserError, match="did you mean 'train'"):
        open_records(folder, "trian")
    shard = next(folder.glob("fake-train*"))
    data = shard.read_bytes()
    shard.write_bytes(data[:-1])
    with pytest.raises(UserError, match="bytes instead of"):
        open_records(folder, "train")
    shard.unlink()
    with pytest.raises(UserError, match="is missing"):
        open_records(folder, "train")
    (folder / "index_train.npz").write_bytes(b"")
    with pytest.raises(UserError, match="is damaged"):
        load_index(folder, "train")
    text = (folder / "dataset.json").read_text()
    (folder / "dataset.json").write_text(text.replace(f'"schema_version": {SCHEMA_VERSION}', '"schema_version": 99'))
    write_sums(folder)
    for read in (load_metadata, lambda f: open_records(f, "test"), lambda f: load_index(f, "test"),
                 lambda f: build(config(), f)):
        with pytest.raises(UserError, match="schema version 99"):
            read(folder)
    (folder / "dataset.json").write_text(text[:100])
    with pytest.raises(UserError, match="damaged"):
        load_metadata(folder)


def test_random_access(built):
    import pickle

    source = open_records(built[0], "train")
    everything = list(source)
    copied = pickle.loads(pickle.dumps(source))
    order = np.random.default_rng(0).permutation(len(source))
    for i in order:
        assert_equal(copied[np.int64(i)], everything[i])
    assert_equal(source[-1], everything[-1])
    for outside in (len(source), -len(source) - 1):
        with pytest.raises(IndexError):
            source[outside]
    assert len(RecordSource(built[0], ())) == 0


def test_reading_needs_neither_tfds_nor_jax(built):
    code = ("import sys; from lgdea_jax.data.dataset import load_index; "
            "from lgdea_jax.data.source import open_records; "
            f"open_records({str(built[0])!r}, 'train')[0]; load_index({str(built[0])!r}, 'train'); "
            "print([m for m in ('jax', 'tensorflow', 'tensorflow_datasets', 'grain') if m in sys.modules])")
    shown = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_reading_is_quick(built):
    source = open_records(built[0], "train")
    list(source)
    started = time.process_time()
    for _ in range(5):
        list(source)
    assert (time.process_time() - started) / (5 * len(source)) < 0.0015  # About 0.1 ms; room for a busy machine.
