"""The table of compiled steps, and the script for a GPU in small."""

import json
import os
import subprocess
import sys

import pytest

from benchmarks import aot
from lgdea_jax import cli
from lgdea_jax.training.aot import topologies
from tests.training import runs

ROW = {
    "config": "lgdea_mimic", "flags": [], "target": "h100", "versions": {"jax": "1"},
    "rows": {"pairs": 256, "images": 0}, "memory": {"peak": 30 * 2**30, "device": 80e9},
    "flops": {"bf16": 37e12, "f32": 1e11}, "needed_flops": 29e12, "bytes": 282.4e9, "bound_seconds": 0.0927,
    "mfu": 0.316, "transposes": {"count": 3, "bytes": 2e9},
    "collectives": {"all-gather": {"a.py:1": {"count": 2, "bytes": 5e6}}},
    "attention": {"fused": 0, "scores": {"image f32": {"count": 12, "bytes": 6e9}}}}


@pytest.fixture
def compiled(monkeypatch):
    """What was compiled, instead of compiling it."""
    calls = []

    def compile_row(config, target, flags):
        calls.append((config, target))
        broken = {"failed": "no such grid"} if config == "clip_ct" and len(calls) < 3 else {}
        return {**ROW, "config": config, "target": target, "flags": list(flags), **broken}

    monkeypatch.setattr(aot, "compile_row", compile_row)
    monkeypatch.setattr(aot, "versions", lambda: ROW["versions"])
    monkeypatch.setattr(topologies, "missing", lambda target: "")
    return calls


def test_the_table_goes_on_where_it_stopped(tmp_path, capsys, compiled):
    out = tmp_path / "aot.json"
    command = [f"--out={out}", "--configs=lgdea_mimic,clip_ct", "--targets=h100"]
    assert aot.main(command) == cli.PARTIAL
    assert "no such grid" in capsys.readouterr().out
    assert aot.main([*command[:2], "--targets=h100,v5e:2x2"]) == cli.OK  # Compiles what failed again, and the rest.
    assert compiled == [("lgdea_mimic", "h100"), ("clip_ct", "h100"), ("clip_ct", "h100"), ("lgdea_mimic", "v5e:2x2"),
                        ("clip_ct", "v5e:2x2")]
    assert len(json.loads(out.read_text())) == 4
    assert aot.main([*command, "--table"]) == cli.OK and len(compiled) == 5
    lines = capsys.readouterr().out.splitlines()
    assert ("| `lgdea_mimic` | h100 | 256 | 30.0 | 37.1 (29) | 282 | 92.7 | 32% | 5 | 6.0 GB of scores | 3, 2.0 GB |"
            in lines)


def test_a_step_that_does_not_fit_says_so():
    cells = aot.cells({**ROW, "does_not_fit": "Used 20G of 16G hbm"})
    assert len(cells) == len(aot.HEAD) and cells[-1] == "does not fit: Used 20G of 16G hbm"


@pytest.mark.slow
def test_the_script_for_a_gpu_in_small(tmp_path):
    environment = {**runs.environment(), "SMALL": "1", "PYTHON": sys.executable, "BUDGET": "1800", "LIMIT": "600"}
    command = ["bash", str(runs.ROOT / "benchmarks/gpu.sh"), str(tmp_path)]
    for _ in range(2):  # The second time everything is there.
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        rows = [line.split("|")[1:4] for line in done.stdout.splitlines()[2:]]
        assert [row[0].strip() for row in rows] == ["lgdea_mimic", "clip_mimic", "lgdea_mimic_unpaired",
                                                    "clip_mimic_resnet50", "clip_ct", "losses"]
        assert all("not finished" not in row[2] and "no time" not in row[2] for row in rows), done.stdout
    assert done.stderr == ""
    found = json.loads((tmp_path / "lgdea_mimic.json").read_text())
    assert found["seconds"] > 0 and found["needed_flops"] > 0 and "over_bound" not in found  # No peak of a CPU.
    assert (tmp_path / "table.md").read_text() == done.stdout


def test_the_script_begins_nothing_without_time(tmp_path):
    done = subprocess.run(["bash", str(runs.ROOT / "benchmarks/gpu.sh"), str(tmp_path)], capture_output=True, text=True,
                          env={**os.environ, "BUDGET": "5", "SMALL": "1", "PYTHON": "false"}, check=False)
    assert done.returncode == 0 and done.stdout.count("no time left") == 6
