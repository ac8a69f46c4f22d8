"""Progress: a bar in a terminal, few lines in a file, the time left."""

import io
import sys

import pytest

from lgdea_jax.runtime import progress
from lgdea_jax.runtime.progress import Progress, clock_text


@pytest.fixture
def time(monkeypatch):
    """A clock that is set by hand."""
    class Time:
        now = 100.0

    monkeypatch.setattr(progress.time, "monotonic", lambda: Time.now)
    real = progress.time.strftime
    at = progress.time.struct_time((2026, 1, 2, 13, 5, 9, 4, 2, 0))
    monkeypatch.setattr(progress.time, "strftime", lambda form: real(form, at))
    return Time


class Terminal(io.StringIO):
    """A stream that tqdm and we take for a terminal."""

    encoding = "ascii"

    def isatty(self):
        return True


def steps(monkeypatch, time, stream, active=True):
    """What 1000 steps of 0.1 seconds write."""
    monkeypatch.setattr(sys, "stderr", stream)
    bar = Progress(1000, "step", active=active)
    for step in range(1, 1001):
        time.now += 0.1
        bar.show(step, seconds_left=(1000 - step) * 0.1, note="loss 1.0", force=step == 1000)
    bar.end()
    return stream.getvalue()


def test_few_lines_in_a_file(monkeypatch, time):
    lines = steps(monkeypatch, time, io.StringIO()).splitlines()
    assert len(lines) == 7 and "\r" not in "".join(lines)  # 100 seconds, every 15, and the last.
    assert lines[0] in [f"step {done} left  at 13:05:09" for done in (
        "150/1000  loss 1.0  1:25", "151/1000  loss 1.0  1:24")]
    assert lines[-1] == "step 1000/1000  loss 1.0  0:00 left  at 13:05:09"


def test_a_bar_in_a_terminal(monkeypatch, time):
    live = steps(monkeypatch, time, Terminal())
    assert live.count("\n") == 1 and live.endswith("\n") and 150 < live.count("\r") <= 202
    last = live.rstrip("\n").split("\r")[-1].split()
    assert last == ["step", "1000/1000", "#" * 20, "loss", "1.0", "0:00", "left"]
    half = next(line for line in live.split("\r") if line.startswith("step 50"))
    assert half.split()[2] == "#" * 10 and "0:49 left" in half


def test_other_processes_show_nothing(monkeypatch, time):
    for stream in (io.StringIO(), Terminal()):
        assert steps(monkeypatch, time, stream, active=False) == ""


def test_a_name_with_braces_is_a_name(monkeypatch, time):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    bar = Progress(2, "a {bar}", active=True)
    bar.show(1, seconds_left=1, force=True)
    bar.end()
    assert "a {bar} 1/2" in stream.getvalue()


def test_the_time_left_follows_from_the_mean_speed(monkeypatch, time):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    bar = Progress(100, "reading item", active=True)
    for _ in range(100):
        time.now += 1
        bar.advance()
    assert stream.getvalue().splitlines()[0] == "reading item 15/100  1:25 left  at 13:05:09"


@pytest.mark.parametrize("seconds, text", [(0, "0:00"), (59.9, "0:59"), (61, "1:01"), (3723, "1:02:03"), (-5, "0:00")])
def test_time_as_text(seconds, text):
    assert clock_text(seconds) == text
