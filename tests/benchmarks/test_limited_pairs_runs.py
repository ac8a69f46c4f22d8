"""The experiment's real runs: killed, failing and stopped ones."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.experiments.comparisons import METRICS

ROOT = Path(__file__).parents[2]

TINY = ("model.width=16", "model.prototypes=8", "model.lesion_queries=2", "model.image.resnet.sizes.width=8",
        "model.text.bert.sizes.width=16", "model.text.bert.sizes.heads=2", "model.text.bert.sizes.mlp_dim=32",
        "text.length.report=24", "text.length.evidence=16", "text.length.phrases=8", "batch.pairs=4", "eval.records=8")


def command(out, data, cache, *flags):
    """The experiment of two cells with one seed, one run at a time."""
    return [sys.executable, "-m", "benchmarks.experiments.limited_pairs",
            f"--out={out}", f"--data={data}", "--seeds=1", "--jobs=1",
            "--cells=lgdea_pairs@0.1,clip@1.0", "--fresh", *(f"--set={setting}" for setting in TINY),
            f"--set=compile_cache={cache}", *flags]


def execute(*args, status=0):
    """Runs it to its end and returns (stdout, stderr)."""
    environment = {**os.environ, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    done = subprocess.run(command(*args), cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == status, done.stderr
    return done.stdout, done.stderr


def living(folder):
    """Command lines of processes that name `folder`, this one's excepted."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            found += [line] if str(folder) in line else []
    return found


@pytest.fixture
def start():
    """Starts an experiment in its own process, which does not outlive the test."""
    started = []

    def begin(*args):
        started.append(subprocess.Popen(command(*args), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                        text=True))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()


def wait_until(happened, seconds=500):
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


@pytest.mark.slow
def test_end_to_end_with_a_kill_in_the_middle(start, phantom_data, compile_cache, tmp_path):
    """Killed while the second run trains: nothing lives on, the first is not done again, the second goes on."""
    flags = ("--steps=600",)
    process = start(tmp_path, phantom_data, compile_cache, *flags)
    journal = tmp_path / "runs.jsonl"

    def second_trains():
        assert process.poll() is None, process.stderr.read()
        log = next(iter(tmp_path.glob("clip_1_0_*/metrics.jsonl")), None)
        return log is not None and log.read_text().count("\n") >= 2

    wait_until(lambda: list(tmp_path.glob("*/lock")))
    _, refused = execute(tmp_path, phantom_data, compile_cache, *flags, status=2)
    assert refused == f"error: another experiment is running in {tmp_path}: wait for it, or use another --out\n"
    wait_until(second_trains)
    process.send_signal(signal.SIGKILL)
    process.wait()
    first = journal.read_text()
    assert first.count("\n") == 1
    wait_until(lambda: not living(tmp_path))
    with open(journal, "a", encoding="utf-8") as file:
        file.write('{"key": "cut sh')  # A kill in the middle of a line.
    folder = next(tmp_path.glob("clip_1_0_*"))
    saved = [int(path.name) for path in (folder / "checkpoints").iterdir() if path.name.isdigit()]
    assert saved and max(saved) < 600
    trained = (next(tmp_path.glob("lgdea_pairs_0.1_0_*")) / "metrics.jsonl").stat().st_mtime_ns

    out, errors = execute(tmp_path, phantom_data, compile_cache, *flags)
    assert f"from step {max(saved)} of this run" in (folder / "log.txt").read_text()
    assert "lgdea_pairs" not in errors and "clip 100% seed 0: zero-shot AUROC" in errors
    assert (next(tmp_path.glob("lgdea_pairs_0.1_0_*")) / "metrics.jsonl").stat().st_mtime_ns == trained
    assert journal.read_text().startswith(first)
    rows = [json.loads(line) for line in journal.read_text().splitlines() if "cut sh" not in line]
    assert [row["method"] for row in rows] == ["lgdea_pairs", "clip"]
    assert [row["resumed"] for row in rows] == [False, True]
    for row in rows:
        assert set(row["metrics"]) == set(row["replicates"]) == set(METRICS)
        assert all(len(values) == 400 for values in row["replicates"].values())
        # The metric lies where its replicates do.
        for name, value in row["metrics"].items():
            drawn = [v for v in row["replicates"][name] if v is not None]
            if drawn and value is not None:
                assert min(drawn) - 1e-5 <= value <= max(drawn) + 1e-5
        assert row["seconds"]["train"] > 0 and row["seconds"]["evaluate"] > 0
    assert rows[0]["subjects"] == rows[1]["subjects"]
    assert "| 10% | `lgdea_pairs` | 1 |" in out and "| 100% | `clip` | 1 |" in out
    assert (tmp_path / "index.html").exists()

    out, errors = execute(tmp_path, phantom_data, compile_cache, *flags)  # Nothing is left to do.
    assert "left, about" not in errors and len(journal.read_text().splitlines()) == 3


@pytest.mark.slow
def test_a_run_that_fails_does_not_stop_the_others(phantom_data, compile_cache, tmp_path):
    """1% of 40 studies is no pair at all."""
    out, errors = execute(tmp_path, phantom_data, compile_cache, "--steps=2", "--cells=clip@0.01,clip@1.0", status=3)
    assert "failed: clip 1% seed 0: lgdea_jax.train ended with 2: error: data.pairs=0.01 asks for 0" in errors
    assert "Not run yet: 1% (`clip`)." in out and "| 100% | `clip` | 1 |" in out
    assert "Traceback" not in errors


@pytest.mark.slow
def test_sigterm_stops_in_order(start, phantom_data, compile_cache, tmp_path):
    process = start(tmp_path, phantom_data, compile_cache, "--steps=100000")
    wait_until(lambda: list(tmp_path.glob("lgdea_pairs_0.1_0_*/metrics.jsonl")))
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 143 and "Traceback" not in errors
    assert not living(tmp_path) and not (tmp_path / "runs.jsonl").exists()
    folder = next(tmp_path.glob("lgdea_pairs_0.1_0_*"))
    assert [path for path in (folder / "checkpoints").iterdir() if path.name.isdigit()]
