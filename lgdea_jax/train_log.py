"""What a run tells: metrics.jsonl, TensorBoard, a progress line with the time left, honest timing.

Step timing leaves out what is not training: compilation, checkpoints and evaluations are clocked apart.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

METRICS = "metrics.jsonl"
EVALS = "evals.jsonl"


class Clock:
    """Splits wall time into training, waiting for data and pauses (anything under `pause`)."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._paused = 0.0
        self._waited = 0.0
        self._mark = (0.0, 0.0, 0)
        self.pauses: dict[str, float] = {}

    @contextlib.contextmanager
    def pause(self, name: str) -> Iterator[None]:
        """Time in here is not training; it is added up under `name`."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - begin
            self._paused += spent
            self.pauses[name] = self.pauses.get(name, 0.0) + spent

    @contextlib.contextmanager
    def data_wait(self) -> Iterator[None]:
        """Time in here is the step waiting for its batch."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self._waited += time.perf_counter() - begin

    def training_seconds(self) -> float:
        """Seconds of training so far, pauses left out."""
        return time.perf_counter() - self._start - self._paused

    def rates(self, step: int, rows: int) -> dict[str, float]:
        """Since the last call: seconds a step, rows (examples) a second, share of the time spent waiting for data."""
        now = (self.training_seconds(), self._waited, step)
        seconds, waited, steps = (new - old for new, old in zip(now, self._mark, strict=True))
        self._mark = now
        if steps <= 0 or seconds <= 0:
            return {}
        return {"time/step_seconds": seconds / steps, "time/examples_per_second": rows * steps / seconds,
                "time/data_wait_share": min(1.0, waited / seconds)}

    def reset_mark(self, step: int) -> None:
        """Starts the next interval of `rates` here."""
        self._mark = (self.training_seconds(), self._waited, step)


class TrainLog:
    """Writes scalars of process 0 to RUN/metrics.jsonl, RUN/evals.jsonl and TensorBoard; other processes write nothing.

    Args:
      workdir: the run's directory.
      first_step: rows of later steps that an interrupted run left behind are removed, so that a step has one row.
      active: whether this process writes.
    """

    def __init__(self, workdir: str | Path, *, first_step: int, active: bool, tensorboard: bool) -> None:
        self._workdir, self._active = Path(workdir), active
        self._board = None
        if not active:
            return
        for name in (METRICS, EVALS):
            _keep_rows(self._workdir / name, lambda row: row["step"] <= first_step)
        if tensorboard:
            from tensorboardX import SummaryWriter

            self._board = SummaryWriter(str(self._workdir / "tensorboard"), purge_step=first_step + 1)

    def write(self, step: int, scalars: Mapping[str, float], *, file: str = METRICS) -> None:
        """Adds one row of scalars at `step`."""
        if not self._active:
            return
        row = {"step": step, **{name: float(value) for name, value in sorted(scalars.items())}}
        with open(self._workdir / file, "a", encoding="utf-8") as out:
            out.write(json.dumps(row) + "\n")
        if self._board is not None:
            for name, value in row.items():
                if name != "step":
                    self._board.add_scalar(name, value, step)

    def has_eval(self, step: int) -> bool:
        """Whether the evaluations at `step` were finished (by this run or the one that it resumes)."""
        return any(row["step"] == step for row in read_rows(self._workdir / EVALS))

    def close(self) -> None:
        """Flushes TensorBoard."""
        if self._board is not None:
            self._board.close()


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file; [] if there is none. A last line cut by a kill is left out."""
    rows = []
    if Path(path).is_file():
        for line in Path(path).read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                rows.append(json.loads(line))
    return rows


def _keep_rows(path: Path, wanted: Any) -> None:
    if path.is_file():
        rows = [row for row in read_rows(path) if wanted(row)]
        temporary = path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        temporary.replace(path)


class Progress:
    """One line on stderr that is rewritten in a terminal, and printed now and then elsewhere."""

    def __init__(self, total: int, *, active: bool, every_seconds: float = 15.0) -> None:
        self._total, self._active = total, active
        self._live = sys.stderr.isatty()
        self._every = 0.5 if self._live else every_seconds
        self._last = 0.0

    def show(self, step: int, *, loss: float, seconds_per_step: float, note: str = "", force: bool = False) -> None:
        """Shows step, loss, speed and time left, if it is time for it."""
        now = time.monotonic()
        if not self._active or (now - self._last < self._every and not force):
            return
        self._last = now
        left = max(0.0, (self._total - step) * seconds_per_step)
        text = (f"step {step}/{self._total}  loss {loss:.4f}  {1000 * seconds_per_step:.0f} ms/step  "
                f"{clock_text(left)} left{'  ' + note if note else ''}")
        print(f"\r{text}\033[K" if self._live else text, end="" if self._live else "\n", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leaves the line."""
        if self._active and self._live:
            print(file=sys.stderr)


def clock_text(seconds: float) -> str:
    """Seconds as "1:02:03" or "2:03"."""
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
