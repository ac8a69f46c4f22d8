"""The release gate: six steps equal three steps, an end by `kill -9`, and three more: losses, parameters, batches."""

import os
import time

import pytest

from tests.training import runs

UNPAIRED = ("data.pairs=0.5", "batch.images=4", "batch.reports=4", "optim.ema=0.9", "eval.every=2",
            "model.text.bert.dropout_rate=0.1", "methods.lgdea.weights.evid_report=0.2")


@pytest.fixture(scope="module")
def straight(phantom_data, compile_cache, tmp_path_factory):
    """A run of six steps that nothing disturbs, with unpaired streams and an average of the parameters."""
    workdir = tmp_path_factory.mktemp("straight")
    runs.run(workdir, phantom_data, *UNPAIRED, cache=compile_cache)
    return workdir


def test_killed_and_resumed_is_bit_for_bit_the_same(straight, phantom_data, compile_cache, tmp_path):
    runs.run(tmp_path, phantom_data, *UNPAIRED, when="step", number=5, status=-9,
             cache=compile_cache)
    assert {"3", "4"} <= {p.name for p in (tmp_path / "checkpoints").iterdir()}
    read = len(runs.batches(tmp_path))
    errors = runs.run(tmp_path, phantom_data, *UNPAIRED, cache=compile_cache)
    assert "from step 4 of this run" in errors
    assert [row["step"] for row in runs.rows(straight)] == [1, 2, 3, 4, 5, 6]
    assert runs.rows(tmp_path) == runs.rows(straight)
    assert runs.rows(tmp_path, "evals.jsonl") == runs.rows(straight, "evals.jsonl")
    assert len(runs.rows(straight, "evals.jsonl")) == 3
    # Relations were made from the memory before steps 3 and 5; the resumed run made neither again, and used them.
    assert [row["memory/confidence"] > 0 for row in runs.rows(straight)] == [False, False, True, True, True, True]
    assert all(row["loss/evid_image"] > 0 and row["loss/evid_report"] > 0 for row in runs.rows(straight)[3:])
    visited = runs.state(straight, 6)["aux/images/visited"]
    assert max(visited) == 6 and len(set(visited.tolist())) > 2 and min(visited) >= 0
    runs.assert_same_state(straight, tmp_path, 6)
    # Batch n is the same whoever reads it: those of the second process begin with number 4, and go on past the end.
    whole = runs.batches(straight)
    assert len(set(whole)) == len(whole) >= 8
    assert runs.batches(tmp_path)[:read] == whole[:read]
    resumed = runs.batches(tmp_path)[read:]
    assert len(resumed) >= 3 and resumed[: len(whole) - 4] == whole[4:4 + len(resumed)]


@pytest.mark.slow
def test_a_constant_rate_is_extended_bit_for_bit(phantom_data, compile_cache, tmp_path):
    flags = ("method=clip", "optim.schedule=constant", "checkpoint.every=2", "eval.split=none")
    for folder, steps in (("one", 4), ("two", 3), ("two", 4)):
        assert runs.here(tmp_path / folder, phantom_data, *flags, f"total_steps={steps}", cache=compile_cache) == 0
    runs.assert_same_state(tmp_path / "one", tmp_path / "two", 4)


def test_worker_processes_give_the_same_run(straight, phantom_data, compile_cache, tmp_path):
    process = runs.start(tmp_path, phantom_data, *UNPAIRED, "data.workers=2", "data.cache=False", when="step",
                         number=4, cache=compile_cache)
    runs.finish(process, -9)
    assert runs.here(tmp_path, phantom_data, *UNPAIRED, "data.workers=2", cache=compile_cache) == 0
    assert runs.rows(tmp_path) == runs.rows(straight)
    runs.assert_same_state(straight, tmp_path, 6)
    deadline = time.monotonic() + 60
    while (left := workers_of(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left, "the workers of a killed run live on"


def workers_of(pid):
    """Processes that a dead process `pid` left behind."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/environ", "rb") as file:
                    mine = f"LGDEA_TEST_PARENT={pid}".encode() in file.read()
            except OSError:
                continue
            found += [int(entry)] if mine else []
    return found


@pytest.mark.parametrize("signal, status", [("SIGTERM", 143), pytest.param("SIGINT", 130, marks=pytest.mark.slow)])
def test_signals_save_first(straight, phantom_data, compile_cache, tmp_path, signal, status):
    errors = runs.run(tmp_path, phantom_data, *UNPAIRED, "checkpoint.every=100", "eval.every=0", when="step", number=5,
                      signal=signal, status=status, cache=compile_cache)
    assert f"stopped by {signal}" in errors and "Traceback" not in errors
    assert [p.name for p in (tmp_path / "checkpoints").glob("[0-9]*")] == ["5"]
    assert runs.rows(tmp_path) == runs.rows(straight)[:5]
    if signal == "SIGTERM":  # The gate has seen a run go on; the slow twin of this test does too.
        return
    assert runs.here(tmp_path, phantom_data, *UNPAIRED, cache=compile_cache) == 0
    assert runs.rows(tmp_path) == runs.rows(straight)
    runs.assert_same_state(straight, tmp_path, 6)


@pytest.mark.slow
def test_a_signal_while_compiling_is_honoured_at_once(phantom_data, compile_cache, tmp_path):
    """There is nothing to save yet, and the first step may be an hour away."""
    errors = runs.run(tmp_path, phantom_data, when="compile", number=1, signal="SIGTERM", status=143,
                      cache=compile_cache)
    assert "stopped by SIGTERM: no step was in flight" in errors and "Traceback" not in errors
    assert not (tmp_path / "metrics.jsonl").exists() and not list((tmp_path / "checkpoints").glob("[0-9]*"))


@pytest.mark.slow
def test_an_evaluation_cut_short_is_made_up_for(straight, phantom_data, compile_cache, tmp_path):
    errors = runs.run(tmp_path, phantom_data, *UNPAIRED, when="evaluate", number=2, signal="SIGTERM", status=143,
                      cache=compile_cache)
    assert "Traceback" not in errors
    assert [row["step"] for row in runs.rows(tmp_path, "evals.jsonl")] == [2]
    runs.run(tmp_path, phantom_data, *UNPAIRED, when="evaluate", number=2, status=-9, cache=compile_cache)
    assert [row["step"] for row in runs.rows(tmp_path, "evals.jsonl")] == [2, 4]
    assert runs.here(tmp_path, phantom_data, *UNPAIRED, cache=compile_cache) == 0
    assert runs.rows(tmp_path, "evals.jsonl") == runs.rows(straight, "evals.jsonl")
    assert runs.rows(tmp_path) == runs.rows(straight)


@pytest.mark.slow
def test_half_a_checkpoint_never_counts(straight, phantom_data, compile_cache, tmp_path):
    runs.run(tmp_path, phantom_data, *UNPAIRED, "eval.every=0", when="save", number=2, status=-9, cache=compile_cache)
    left = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert "3" in left
    errors = runs.run(tmp_path, phantom_data, *UNPAIRED, "eval.every=0", cache=compile_cache)
    assert "from step 3 of this run" in errors or "6" in left
    assert not [p for p in (tmp_path / "checkpoints").iterdir() if "tmp" in p.name]
    assert runs.rows(tmp_path) == runs.rows(straight)
    runs.assert_same_state(straight, tmp_path, 6)
