"""Every config in configs/ takes training steps on stand-in data, with every method it could run."""

from pathlib import Path

import pytest

from lgdea_jax import cli, train
from lgdea_jax.experiment import Experiment
from lgdea_jax.runtime.log import read_rows
from lgdea_jax.training import optim
from tests.shrink import shrink

FILES = sorted(path for path in Path("configs").glob("*.py") if path.stem not in ("__init__", "common"))
# With the other towers that an experiment has an argument for.
CONFIGS = [*(str(path) for path in FILES), "configs/clip_mimic.py:resnet50",
           "configs/silver_ct.py:image", "configs/silver_ct.py:text,lite",
           *(pytest.param(f"configs/{name}", marks=pytest.mark.slow)
             for name in ("supervised_ct.py:phantom", "clip_ct.py:phantom", "lgdea_ct.py:phantom",
                          "silver_ct.py:ct_clip", "silver_ct.py:image,phantom", "silver_ct.py:text,phantom",
                          "silver_ct.py:phantom"))]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.removeprefix("configs/"))
def test_config_is_whole(path):
    """At its full size, without computing anything: known keys, a model that can be built, rules that match."""
    config = cli.read_config(path)
    train.check_config(config)
    experiment = Experiment.of(config)
    optim.build(experiment.model.abstract(vocab_size=28_996, num_labels=14)[1], experiment.optim)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.removeprefix("configs/"))
def test_config_trains(path, request, compile_cache, tmp_path):
    config = shrink(cli.read_config(path))
    volumes = config.image.modality == "ct"
    config.data.dir = str(request.getfixturevalue("phantom_ct_data" if volumes else "phantom_data"))
    config.compile_cache = str(compile_cache)
    assert train.train(config, tmp_path) == cli.OK
    rows = read_rows(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2]
    assert all(row["loss"] > 0 for row in rows)


@pytest.mark.parametrize("method", sorted(cli.read_config("configs/common.py").methods))
def test_method_lowers_its_loss(method, phantom_data, compile_cache, tmp_path):
    config = cli.read_config(f"tests/training/tiny.py:{method}")
    config.data.dir, config.compile_cache = str(phantom_data), str(compile_cache)
    config.total_steps, config.batch.pairs, config.optim.rate = 12, 8, 3e-3
    assert train.train(config, tmp_path) == cli.OK
    losses = [row["loss"] for row in read_rows(tmp_path / "metrics.jsonl")]
    assert min(losses[6:]) < losses[0]
