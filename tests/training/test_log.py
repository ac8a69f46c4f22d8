"""The clock, the logs, the guards: everything around the step that needs no model."""

import json
import logging
import re
import signal
import socket
import struct
import subprocess
import sys

import jax
import numpy as np
import pytest

from lgdea_jax import cli
from lgdea_jax.errors import UserError
from lgdea_jax.runtime import guards
from lgdea_jax.runtime import log as train_log
from lgdea_jax.runtime.guards import StopSignals, Watchdog, check_collapse, mean_metrics
from lgdea_jax.runtime.log import Clock, TrainLog, read_rows, slow_input, utilisation
from lgdea_jax.training import loop
from lgdea_jax.training.evaluation import headline
from tests.training import runs


@pytest.fixture
def time(monkeypatch):
    """A clock that is set by hand."""
    class Time:
        now = 100.0

    monkeypatch.setattr(train_log.time, "perf_counter", lambda: Time.now)
    monkeypatch.setattr(train_log.time, "monotonic", lambda: Time.now)
    return Time


def test_an_input_slower_than_the_step_is_said_with_both_rates():
    line = slow_input(0.8, 0.1, rows=256, workers=8)
    assert "8 worker processes read 320 rows a second" in line and "could take 2,560" in line and "\n" not in line
    assert "threads of this process" in slow_input(0.8, 0.1, rows=256, workers=0)
    # The loop that runs ahead waits for batches too, for less than a step each; and before a step was timed.
    assert not slow_input(0.09, 0.1, rows=256, workers=8) and not slow_input(0.8, 0.0, rows=256, workers=8)


def test_pauses_are_no_training(time):
    clock = Clock()
    with clock.pause("compile"):
        time.now += 50
    clock.reset_mark(10)
    time.now += 3
    with clock.data_wait():
        time.now += 1
    with clock.pause("evaluate"):
        time.now += 500
    assert clock.rates(12, rows=8) == {"time/step_seconds": 2.0, "time/examples_per_second": 4.0,
                                       "time/data_wait_share": 0.25}
    assert clock.rates(12, rows=8) == {}
    time.now += 1
    assert clock.rates(13, rows=8)["time/data_wait_share"] == 0.0
    assert clock.pauses == {"compile": 50.0, "evaluate": 500.0} and clock.training_seconds() == 5.0


def test_a_pause_that_fails_is_a_pause(time):
    clock = Clock()
    with pytest.raises(ZeroDivisionError), clock.pause("x"):
        time.now += 7
        raise ZeroDivisionError
    assert clock.training_seconds() == 0.0


def pieces(data, block=32768):
    """The records of a .wandb file: LevelDB's log format after a header of 7 bytes."""
    place, whole = 7, b""
    while place + 7 <= len(data):
        if block - place % block < 7:  # Too little room for a record's head: the rest of the block is empty.
            place += block - place % block
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        whole += data[place + 7:place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # A whole record, or the last part of one.
            yield whole
            whole = b""


def test_weights_and_biases_get_scalars_and_nothing_else(tmp_path, monkeypatch):
    """With the real package, offline: what would be sent is in the file that it leaves."""
    wandb = pytest.importorskip("wandb", reason="the extra wandb is not installed")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    config = {"seed": 3, "data": {"dir": "secret/place", "workers": 2}}
    for first, steps in ((0, (1, 2)), (1, (2,))):  # The second goes on from step 1.
        log = TrainLog(tmp_path / "run", first_step=first, active=True, tensorboard=False, wandb="some", config=config)
        for step in steps:
            log.write(step, {"loss": 0.5 * step, "gone": float("nan")})
        log.close()
    wandb.teardown()  # Its process has written everything when it ends.
    stored = sorted((tmp_path / "run/wandb").glob("offline-run-*/*.wandb"))
    assert len(stored) == 2 and len({path.stem for path in stored}) == 1  # One id: the service joins them.
    rows, text = [], ""
    for path in stored:
        for piece in pieces(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(piece)
            text += str(record)
            if record.HasField("history"):
                found = {"/".join(item.nested_key) or item.key: json.loads(item.value_json)
                         for item in record.history.item}
                rows.append({key: found[key] for key in found if not key.startswith("_")})
    assert rows == [{"loss": 0.5, "step": 1}, {"loss": 1.0, "step": 2}, {"loss": 1.0, "step": 2}]
    assert "workers" in text and "secret" not in text and socket.gethostname() not in text
    assert sys.argv[0] not in text and wandb.run is None


def test_weights_and_biases_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"config\.log\.wandb needs wandb: pip install .*wandb"):
        TrainLog(tmp_path, first_step=0, active=True, tensorboard=False, wandb="some", config={})
    TrainLog(tmp_path, first_step=0, active=False, tensorboard=False, wandb="some", config={})  # Not process 0.


def test_rows_of_an_interrupted_run_are_replaced(tmp_path):
    log = TrainLog(tmp_path, first_step=0, active=True, tensorboard=False)
    for step in (1, 2, 3):
        log.write(step, {"loss": float(step), "undefined": float("nan")})
    log.write(3, {"auroc": 0.5}, file=train_log.EVALS)
    log.close()
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 4, "lo')  # The kill came here.
    again = TrainLog(tmp_path, first_step=2, active=True, tensorboard=False)
    assert [row["step"] for row in read_rows(tmp_path / "metrics.jsonl")] == [1, 2]
    assert not again.has_eval(3)
    again.write(3, {"loss": 9.0})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]
    assert json.loads(lines[0])["undefined"] is None
    again.write(3, {"auroc": 0.5}, file=train_log.EVALS)
    assert again.has_eval(3) and not again.has_eval(2)
    assert read_rows(tmp_path / "none.jsonl") == []


def test_other_processes_write_nothing(tmp_path):
    log = TrainLog(tmp_path, first_step=0, active=False, tensorboard=True)
    log.write(1, {"loss": 1.0})
    log.close()
    assert not list(tmp_path.iterdir())


def test_utilisation():
    known = utilisation(989e12, 2.0, device_kind="NVIDIA H100 80GB HBM3", peak_tflops=0.0)
    assert known == {"time/tflops": 494.5, "time/mfu": 0.5}
    assert utilisation(1e12, 1.0, device_kind="TPU v5 lite", peak_tflops=0.0)["time/mfu"] == pytest.approx(1 / 197)
    assert utilisation(1e12, 1.0, device_kind="TPU v5", peak_tflops=0.0)["time/mfu"] == pytest.approx(1 / 459)
    assert utilisation(1e12, 1.0, device_kind="cpu", peak_tflops=0.0) == {"time/tflops": 1.0}
    assert utilisation(1e12, 1.0, device_kind="cpu", peak_tflops=4.0)["time/mfu"] == 0.25
    assert utilisation(0.0, 1.0, device_kind="cpu", peak_tflops=4.0) == {}


def test_means_and_the_first_metric_that_is_not_finite():
    rows = [(step, {"loss": np.float32(2 * step), "loss/a": np.float32(4 * step - 3)}) for step in (1, 2)]
    assert mean_metrics(rows, saved=list) == {"loss": 3.0, "loss/a": 3.0}
    rows.append((3, {"loss": np.float32("nan"), "loss/a": np.float32("inf")}))
    with pytest.raises(UserError, match=r"^loss/a became inf at step 3; there is no checkpoint yet"):
        mean_metrics(rows, saved=list)
    with pytest.raises(UserError, match="the last good checkpoint is step 2"):
        mean_metrics(rows, saved=lambda: [1, 2])


def test_signals_are_remembered_and_given_back():
    # A shell's background job starts with SIGINT ignored.
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        check_signals()
    finally:
        signal.signal(signal.SIGINT, inherited)


def check_signals():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with StopSignals() as stop:
        assert not stop.agreed()
        signal.raise_signal(signal.SIGTERM)
        assert stop.agreed() and stop.after(1)
        assert (stop.name, stop.status) == ("SIGTERM", cli.TERMINATED)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    with StopSignals() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.status == cli.INTERRUPTED
        with pytest.raises(KeyboardInterrupt):  # The second one stops at once.
            signal.raise_signal(signal.SIGINT)


def test_processes_agree_to_stop(monkeypatch):
    """Each answer is read when the next question is asked; a signal that came in between is not forgotten."""
    others = iter([0, 0, signal.SIGTERM, signal.SIGTERM])
    asked = []
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(guards.sharding, "highest", lambda number: asked.append(number) or max(number, next(others)))
    stop, every = StopSignals(), guards.STOP_CHECK_STEPS
    answers = []
    for step in range(1, 3 * every + 1):
        answers.append(stop.after(step))
        if step == every:
            stop.number = signal.SIGINT  # Came after the question: the answer, no signal, leaves it.
    assert asked == [0, signal.SIGINT, signal.SIGINT] and answers == [False] * (3 * every - 1) + [True]
    assert stop.agreed() and stop.status == cli.TERMINATED


@pytest.mark.slow
@pytest.mark.parametrize("when", [0, 3, 5, 7])
def test_two_processes_stop_after_the_same_step(when):
    """One of them gets the signal; nobody waits for the other in between."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        coordinator = f"localhost:{probe.getsockname()[1]}"
    both = [subprocess.Popen(
        [sys.executable, "tests/runtime/stop_together.py", coordinator, "2", str(process), str(when * process)],
        cwd=runs.ROOT, env=runs.environment(devices=2), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for process in range(2)]
    said = [process.communicate(timeout=200) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    first, second = (out.strip().splitlines()[-1].split() for out, _ in said)
    # Asked after step 5 or 10, read five steps later.
    expected = [str({0: 0, 3: 10, 5: 10, 7: 15}[when]), str(int(signal.SIGTERM) if when else 0), str(int(bool(when)))]
    assert first == second == expected


def test_the_watchdog_barks_between_steps_only(monkeypatch):
    calls = []
    monkeypatch.setattr(guards.faulthandler, "dump_traceback_later", lambda s, exit: calls.append((s, exit)))
    monkeypatch.setattr(guards.faulthandler, "cancel_dump_traceback_later", lambda: calls.append("rest"))
    for seconds in (30, 0):
        dog = Watchdog(seconds)
        dog.restart()
        dog.rest()
    assert calls == [(30, True), "rest"]


def test_the_watchdog_ends_a_process_that_hangs():
    code = "import time; from lgdea_jax.runtime.guards import Watchdog; Watchdog(0.2).restart(); time.sleep(60)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=runs.ROOT,
                         env=runs.environment(), timeout=50)
    assert out.returncode == 1 and "Timeout" in out.stderr and "most recent call first" in out.stderr


def test_no_patient_in_the_log(phantom_data, compile_cache, tmp_path, caplog):
    """Identifiers and report text stay out of what a run tells at the default level."""
    from lgdea_jax.data.source import open_records

    with caplog.at_level(logging.INFO):
        runs.here(tmp_path, phantom_data, "method=supervised", "total_steps=1", "eval.split=none",
                  cache=compile_cache)
    for record in open_records(phantom_data, "train"):
        assert record.subject_id not in caplog.text and record.study_id not in caplog.text


def test_the_line_of_an_evaluation_shows_what_is_measured():
    reports = {"retrieval/recall@5/image_to_text": 0.25, "retrieval/recall@5/text_to_image": 0.5}
    nothing = {"zero_shot/auroc": float("nan"), "grounding/cnr": float("nan")}
    assert headline({**nothing, **reports}) == (
        "retrieval/recall@5/image_to_text 0.250  retrieval/recall@5/text_to_image 0.500")
    assert headline({**nothing, **reports, "zero_shot/auroc": 0.75}) == "zero_shot/auroc 0.750"
    assert headline(nothing) == "nothing is measured"


def test_a_run_states_what_it_runs_on_and_what_it_does_not_evaluate(phantom_data, compile_cache, tmp_path, capsys):
    devices = jax.device_count()
    runs.here(tmp_path, phantom_data, "method=supervised", "total_steps=1", "eval.split=none", cache=compile_cache)
    told = capsys.readouterr().err
    lines = told.splitlines()
    assert lines[0] == f"devices: {devices} x cpu, mesh data {devices}, fsdp 1, computing in float32"
    assert re.fullmatch(r"data: 40 pairs, 0 images, 0 reports", lines[1])
    assert lines[2] == f"batch: 8 pairs; {8 // devices} rows a device"
    [why] = [line for line in lines if line.startswith("not evaluated while training: ")]
    assert "has no split 'none' (it has: train, validation, test)" in why and "--config.eval.split" in why
    [metrics] = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    [step] = [line for line in lines if line.startswith("step 1/1  ")]
    rate, rows = re.fullmatch(r"step 1/1  loss [\d.]+  rate (\S+)  \d+ ms/step  (\d+) rows/s  0:00 left"
                              r"  at \d\d:\d\d:\d\d", step).groups()
    assert float(rate) == pytest.approx(metrics["learning_rate"], rel=0.05)
    assert int(rows) == pytest.approx(metrics["time/examples_per_second"], abs=1)


def test_what_is_evaluated_without_a_text_tower_is_stated(phantom_data, compile_cache, tmp_path, capsys):
    runs.here(tmp_path, phantom_data, "method=supervised", "total_steps=1", cache=compile_cache)
    assert "the classifier alone, because the method supervised has no text tower" in capsys.readouterr().err


def evidence_metrics(side, table):
    """Diagnostics of a [items, prototypes] table of evidence, computed apart."""
    mean = table.mean(0)
    entropy = -(mean * np.log(np.maximum(mean, 1e-30))).sum()
    rows = -(table * np.log(np.maximum(table, 1e-30))).sum(1).mean()
    return {f"evidence/{side}_prototypes": float(np.exp(entropy)), f"evidence/{side}_entropy": float(rows)}


@pytest.mark.parametrize("side", ["report", "image"])
def test_collapsed_evidence_stops_the_run(side):
    apart = evidence_metrics("report", np.eye(4)) | evidence_metrics("image", np.eye(4))
    check_collapse(apart, 500, after=100, information=0.1)
    check_collapse({"loss": 1.0}, 500, after=100, information=0.1)  # Methods without evidence.
    for table in (np.full((4, 4), 0.25), np.tile([0.97, 0.01, 0.01, 0.01], (4, 1))):  # Even, and all on one prototype.
        collapsed = apart | evidence_metrics(side, table)
        with pytest.raises(UserError, match=rf"the {side} evidence has collapsed .* stop_report=True"):
            check_collapse(collapsed, 100, after=100, information=0.1)
        check_collapse(collapsed, 99, after=100, information=0.1)
        check_collapse(collapsed, 500, after=100, information=0.0)


@pytest.mark.parametrize("name, status", [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_in_a_long_call_of_a_library_ends_the_process(name, status):
    """As a compilation it gives Python no chance to run a handler; it would take hours."""
    code = """
import hashlib
from lgdea_jax.runtime.guards import StopSignals
with StopSignals() as stop:
    with stop.at_once():
        pass
    with stop.at_once():
        print("ready", flush=True)
        hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(getattr(signal, name))
        assert process.wait(timeout=120) == status
        assert process.stderr.read() == f"stopped by {name}: no step was in flight\n"
    finally:
        process.kill()


def test_a_signal_that_came_before_is_honoured():
    with StopSignals() as stop:
        with stop.at_once():
            pass
        signal.raise_signal(signal.SIGTERM)
        assert stop.number == signal.SIGTERM  # After the context a signal is remembered again.
        with pytest.raises(SystemExit) as left, stop.at_once():
            pass
        assert left.value.code == 143


def test_a_slow_input_is_said_once_in_a_run(tmp_path, caplog, time):
    config, clock, checkpoints = cli.read_config("tests/training/tiny.py"), Clock(), None
    config.data.workers = 3
    journal = TrainLog(tmp_path, first_step=0, active=True, tensorboard=False)
    metrics_log = loop.MetricsLog(config, journal, clock, checkpoints, rows=10, start=0, flops=0.0)
    for step in range(1, 4):
        with clock.data_wait():
            time.now += 2.0
        dispatched = time.now
        time.now += 0.5
        metrics_log.add(step, {"loss": np.float32(1), "learning_rate": np.float32(1)}, dispatched)
        metrics_log.write()
    said = [record.message for record in caplog.records if record.message.startswith("input:")]
    assert len(said) == 1 and "3 worker processes read 5 rows a second, and the step could take 20" in said[0]
