"""Every config in configs/ takes training steps on stand-in data, with every method it could run."""

from pathlib import Path

import pytest

from lgdea_jax import assemble, cli, train
from lgdea_jax.train_log import read_rows

CONFIGS = sorted(path for path in Path("configs").glob("*.py") if path.stem not in ("__init__", "common"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_trains(path, phantom_data, compile_cache, tmp_path):
    config = cli.read_config(str(path))
    config.data.dir, config.compile_cache = str(phantom_data), str(compile_cache)
    config.total_steps, config.log.every, config.eval.every, config.batch.pairs = 2, 1, 0, 4
    config.eval.records = 12
    assert train.train(config, tmp_path) == cli.OK
    rows = read_rows(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2]
    assert all(row["loss"] > 0 for row in rows)


@pytest.mark.parametrize("method", assemble.method_names())
def test_method_lowers_its_loss(method, phantom_data, compile_cache, tmp_path):
    config = cli.read_config(f"tests/train/tiny.py:{method}")
    config.data.dir, config.compile_cache = str(phantom_data), str(compile_cache)
    config.total_steps, config.batch.pairs, config.optim.rate = 12, 8, 3e-3
    assert train.train(config, tmp_path) == cli.OK
    losses = [row["loss"] for row in read_rows(tmp_path / "metrics.jsonl")]
    assert min(losses[6:]) < losses[0]
