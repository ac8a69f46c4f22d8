"""The command data_prep.beam: the data set of data_prep.build, made in a pipeline."""

import json

import pytest

from data_prep import beam, build
from lgdea_jax import cli
from lgdea_jax.errors import UserError
from tests.data_prep.shards.run import PHANTOM, files

SMALL = (*PHANTOM, "--config.phantom.train=12", "--config.workers=1")


def test_the_pipeline_builds_the_same_data_set(tmp_path):
    assert beam.main([*SMALL, f"--out={tmp_path / 'beam'}", "--", "--direct_num_workers=1"]) == cli.OK
    assert build.main([*SMALL, f"--out={tmp_path / 'local'}"]) == cli.OK
    one, two = files(tmp_path / "beam"), files(tmp_path / "local")
    assert {name for name in one if one[name] != two[name]} <= {"dataset.json", "SHA256SUMS"}
    command = json.loads((tmp_path / "beam/dataset.json").read_text())["command"]
    assert command.startswith("python -m data_prep.build ") and "--runner=beam -- --direct_num_workers=1" in command


def test_wrong_use(tmp_path):
    with pytest.raises(UserError, match="--config=FILE is needed"):
        beam.main([])
    with pytest.raises(UserError, match="did you mean '--out'"):
        beam.main([*SMALL, "--oot=x"])
