"""Every config in configs/ takes training steps on stand-in data, with every method it could run."""

from pathlib import Path

import pytest

from lgdea_jax import cli, train
from lgdea_jax.errors import UserError
from lgdea_jax.experiment import Experiment
from lgdea_jax.runtime.log import read_rows
from lgdea_jax.training import optim
from tests.shrink import shrink

FILES = sorted(path for path in Path("configs").glob("*.py") if path.stem not in ("__init__", "common"))
# With the other towers that an experiment has an argument for.
CONFIGS = [*(str(path) for path in FILES), "configs/clip_mimic.py:resnet50", "configs/finetune.py:partial",
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
    config.model.image.name = config.model.image.name or "vit"  # An empty one is that of a checkpoint.
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


@pytest.mark.parametrize("path", [
    "configs/phantom.py:limited", "configs/small.py:limited", "configs/lgdea_mimic.py:limited",
    "configs/lgdea_mimic.py:resnet50,limited", "configs/lgdea_ct.py:limited",
    pytest.param("configs/lgdea_ct.py:phantom,limited", marks=pytest.mark.slow)], ids=lambda path: path[8:])
def test_unpaired_data_are_trained_on_by_default(path, request, compile_cache, tmp_path):
    """With a share of the pairs, and nothing else: the batch has unpaired rows, and their loss is not zero."""
    config = shrink(cli.read_config(path))
    assert 0 < config.data.pairs < 1
    volumes = config.image.modality == "ct"
    config.data.dir = str(request.getfixturevalue("phantom_ct_data" if volumes else "phantom_data"))
    config.data.pairs, config.compile_cache = 0.5, str(compile_cache)
    assert train.train(config, tmp_path) == cli.OK
    last = read_rows(tmp_path / "metrics.jsonl")[-1]
    assert last["loss/evid_image"] > 0 and last["memory/ramp"] == 1.0


def test_the_limited_argument_is_a_share_of_pairs():
    limited, _ = cli.load_config(["--config=configs/phantom.py:limited"])
    share, _ = cli.load_config(["--config=configs/phantom.py", "--config.data.pairs=0.01"])
    assert limited.to_json_best_effort() == share.to_json_best_effort()
    assert limited.total_steps == 2000 and limited.augment.noise == 6
    # The command line wins, and without a share nothing changes.
    assert cli.load_config(["--config=configs/phantom.py:limited", "--config.total_steps=7"])[0].total_steps == 7
    whole, _ = cli.load_config(["--config=configs/phantom.py:limited", "--config.data.pairs=1.0"])
    assert whole.total_steps == 500 and whole.augment.noise == 2
    with pytest.raises(UserError, match=r"config key 'data.pairs': 'many' is not of type float"):
        cli.load_config(["--config=configs/phantom.py", "--config.data.pairs=many"])
    with pytest.raises(UserError, match=r"configs/phantom.py:limted: unknown argument 'limted'; known: limited"):
        cli.read_config("configs/phantom.py:limted")
