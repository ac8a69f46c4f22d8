"""Fixtures of the build's tests: a source without files, and a finished data set of it."""

import pytest
from ml_collections import ConfigDict

from data_prep.build import build
from data_prep.sources.registry import SOURCES


@pytest.fixture(autouse=True)
def fake(monkeypatch):
    """The source "fake" (`fake_source.py`)."""
    monkeypatch.setitem(SOURCES, "fake", "tests.data_prep.shards.fake_source")


def config(**changes):
    """A config of the source "fake"."""
    out = ConfigDict({
        "name": "fake", "source": "fake", "fake": {"counts": {"train": 45, "validation": 7, "test": 5}, "seed": 3,
                                                   "reject_every": 6},
        "image_size": 24, "image_encoding": "png", "extractor": "rules", "shard_studies": 10, "workers": 1,
        "tokenizer": {"vocab_size": 200, "subjects": 2}})
    out.update(changes)
    return out


@pytest.fixture(scope="package")
def built(tmp_path_factory):
    """One finished data set, for tests that only read it: (folder, result of the build)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SOURCES, "fake", "tests.data_prep.shards.fake_source")
        folder = tmp_path_factory.mktemp("built") / "data"
        return folder, build(config(), folder)
