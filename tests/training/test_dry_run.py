"""The dry run: its batch is that of the data, and it says what a step costs without touching any."""

import re

import jax
import pytest

from lgdea_jax import cli
from lgdea_jax.experiment import Experiment
from lgdea_jax.runtime import sharding
from lgdea_jax.training import data as train_data
from lgdea_jax.training import dry_run
from tests.training import runs


@pytest.mark.parametrize("method", ["clip", "clip_evidence", "lgdea_pairs", "lgdea", "supervised"])
def test_batch_is_that_of_the_data(method, phantom_data):
    config = cli.read_config(f"tests/training/tiny.py:{method}")
    config.data.dir, config.data.pairs = str(phantom_data), 0.5
    experiment = Experiment.of(config)
    for stream in experiment.method.unpaired_streams:
        config.batch[stream] = 4
    mesh = sharding.make_mesh(**config.mesh)
    data = train_data.prepare_data(experiment, mesh, show=False)
    ours = dry_run.abstract_batch(experiment.batch_schema(len(data.label_names)), data.sizes, mesh)
    theirs = data.batches[0]
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), ours) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), theirs)


@pytest.mark.parametrize("method", ["clip", "lgdea"])  # Without and with an evidence memory.
def test_says_what_a_step_costs_and_writes_nothing(method, tmp_path, capsys):
    flags = (f"method={method}", "dry_run=true", "log.peak_tflops=1.0", "total_steps=3600", "data.pairs=0.05")
    assert runs.here(tmp_path / "run", "nowhere", *flags) == cli.OK
    text = capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    memory, flops = (float(re.search(pattern, text)[1])
                     for pattern in (r"device: ([\d.]+) GiB", r"device: ([\d.e+]+)\n"))
    step, hours = map(float, re.search(r"1 TFLOP/s: ([\d.]+) ms a step, .* rows/s, ([\d.]+) hours", text).groups())
    assert memory >= 0 and flops > 1e6
    assert step == pytest.approx(flops / 0.4e12 * 1000, abs=0.06) and hours == pytest.approx(step / 1000, abs=0.01)
    assert "vocabulary assumed: 30,522" in text
    held = re.search(r"evidence memory of a device: ([\d.]+) GiB for 377,000 images and 227,000 reports", text)
    assert (float(held[1]) if held else None) == (0.06 if method == "lgdea" else None)  # 604,000 x 100 bytes.
