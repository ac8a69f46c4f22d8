"""The dry run for devices that are not at hand: how they are named, what is missing, and what is said."""

import importlib.util
import json

import pytest

from lgdea_jax import cli
from lgdea_jax.errors import UserError
from lgdea_jax.experiment import Experiment
from lgdea_jax.runtime.devices import DEVICES, of_kind
from lgdea_jax.training.aot import costs, report, topologies
from tests.training import runs
from tests.training.aot import programs


def test_targets():
    found = topologies.read_targets("v5e:4x4, h100,h200x8,a100x16")
    assert [(target.device.name, target.shape, target.count) for target in found] == [
        ("v5e", (4, 4), 16), ("h100", (1,), 1), ("h200", (8,), 8), ("a100", (16,), 16)]


@pytest.mark.parametrize(("text", "words"), [
    ("h10", "h100"), ("h100:8", "known: a100"), ("v5e", "write v5e:2x2"), ("h100x12", "whole hosts of 8"),
    ("h100x0", "at least one"), ("b200", "known:")])
def test_targets_that_there_are_not(text, words):
    with pytest.raises(UserError, match="dry_run_on") as error:
        topologies.read_targets(text)
    assert words in str(error.value)


@pytest.mark.parametrize("target", ["h100", "v5e:2x2"])
def test_a_missing_compiler_is_one_line(target, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *args: None if name.startswith(
        ("libtpu", "jax_plugins")) else find(name, *args))
    with pytest.raises(UserError, match=rf"dry_run_on={target} needs .*pip install .*\[aot\]"):
        runs.here(tmp_path / "run", "nowhere", f"dry_run_on={target}")
    assert not (tmp_path / "run").exists()


def test_devices_of_jax():
    kinds = {"TPU v5 lite": "v5e", "TPU v5": "v5p", "TPU v6 lite": "v6e", "NVIDIA H100 80GB HBM3": "h100",
             "NVIDIA A100-SXM4-80GB": "a100"}
    assert {kind: of_kind(kind).name for kind in kinds} == kinds
    assert of_kind("cpu") is None
    assert {device.name for device in DEVICES if device.platform == "cuda"} == set(topologies.GPUS)


def test_needed_products_are_the_same_with_rematerialisation():
    found = []
    for flags in ((), ("--config.model.remat=True",), ("--config.batch.micro=2",)):
        config, _ = cli.load_config(["--config=tests/training/tiny.py:clip", *flags])
        mesh = report.sharding.make_mesh(**config.mesh)
        traced = report.dry_run.trace(Experiment.of(config, mesh), mesh).traced
        found.append((report.flops.needed(traced.jaxpr), report.needed_flops(config, mesh, traced)))
    assert found[0][0] == found[0][1] == found[1][1] == found[2][1]
    assert found[1][0] > found[0][0] and found[2][0] > found[0][0]  # What is really computed.


def test_what_is_said_of_a_program():
    program = programs.program(programs.PRODUCT)
    found = report.read(program, programs.DEVICE, {}, 512.0, "bfloat16")
    (row,) = costs.rows(program, programs.DEVICE)
    assert found["mfu"] == pytest.approx(512 / 1e12 / row.seconds)
    assert found["dearest"][0]["line"] == "lgdea_jax/models/vit.py:40"
    json.dumps(found)
    held = {"peak": 3 * 2**30, "device": 2 * 2**30, "arguments": 2**30, "temporaries": 2**31, "results": 0}
    lines = "\n".join(report.describe({
        **found, "target": "toy", "devices": "1 x Toy", "rows": {"pairs": 8, "images": 0}, "assumed": [],
        "needed_flops": 512.0, "memory": held}))
    assert "8 rows a step (8 pairs)" in lines and "3.00 of 2.0 GiB" in lines and "DOES NOT FIT" in lines
    assert "host callbacks: none" in lines and "lgdea_jax/models/vit.py:40  dot dot_general" in lines


def test_the_compiler_says_that_it_does_not_fit():
    message = ("RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used "
               "20.15G of 15.75G hbm. Exceeded hbm capacity by 4.40G.\n\nTotal hbm usage >= 20.65G:\n")
    assert report.does_not_fit(message) == "Used 20.15G of 15.75G hbm. Exceeded hbm capacity by 4.40G"
    assert report.does_not_fit("RESOURCE_EXHAUSTED:\n  no room") == "RESOURCE_EXHAUSTED: no room"
