"""The logs of a run: metrics.jsonl, evals.jsonl, TensorBoard, Weights & Biases, and the time per step.

The time per step leaves out what is not training: compilation, checkpoints and evaluations are measured apart.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lgdea_jax.errors import UserError, require
from lgdea_jax.runtime.files import write_text_atomically

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
        """Time in this context is not training; it is added up under `name`."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - begin
            self._paused += spent
            self.pauses[name] = self.pauses.get(name, 0.0) + spent

    @contextlib.contextmanager
    def data_wait(self) -> Iterator[None]:
        """Time in this context is the step waiting for its batch."""
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
    """Writes scalars of process 0 to RUN/metrics.jsonl, RUN/evals.jsonl and the boards; other processes write nothing.

    Args:
      workdir: the run's directory.
      first_step: rows of later steps, which an interrupted run wrote, are removed, so that a step has one row.
      active: whether this process writes.
      tensorboard: whether to write RUN/tensorboard.
      wandb: the project of Weights & Biases to write to, or ""; config: of the run, for it.

    Raises:
      UserError: the package of a board is missing, or the board cannot be reached.
    """

    def __init__(self, workdir: str | Path, *, first_step: int, active: bool, tensorboard: bool, wandb: str = "",
                 config: Mapping[str, Any] | None = None) -> None:
        self._workdir, self._active = Path(workdir), active
        self._board = self._wandb = None
        if not active:
            return
        for name in (METRICS, EVALS):
            _keep_rows(self._workdir / name, lambda row: row["step"] <= first_step)
        if tensorboard:
            from tensorboardX import SummaryWriter

            self._board = SummaryWriter(str(self._workdir / "tensorboard"), purge_step=first_step + 1)
        if wandb:
            self._wandb = _wandb_run(wandb, self._workdir, config or {})

    def write(self, step: int, scalars: Mapping[str, float], *, file: str = METRICS) -> None:
        """Adds one row of scalars at `step`; a metric that is undefined (NaN) is null."""
        if not self._active:
            return
        values = {name: float(value) if math.isfinite(value) else None for name, value in sorted(scalars.items())}
        with open(self._workdir / file, "a", encoding="utf-8") as out:
            out.write(json.dumps({"step": step, **values}, allow_nan=False) + "\n")
        if self._board is not None:
            for name, value in values.items():
                if value is not None:
                    self._board.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log({"step": step, **{name: value for name, value in values.items() if value is not None}})

    def has_eval(self, step: int) -> bool:
        """Whether the evaluations at `step` were finished (by this run or the one that it resumes)."""
        return any(row["step"] == step for row in step_rows(self._workdir / EVALS))

    def close(self) -> None:
        """Flushes the boards."""
        if self._board is not None:
            self._board.close()
        if self._wandb is not None:
            self._wandb.finish()


def _wandb_run(project: str, workdir: Path, config: Mapping[str, Any]) -> Any:
    """A run of Weights & Biases; the same one when training in `workdir` goes on.

    Scalars and the configuration without its paths are all that leaves this machine: no code, commands, console, names
    of hosts, or use of the machine. Its own environment variables hold, WANDB_MODE=offline for one.
    """
    package = require("wandb", "wandb", "config.log.wandb")
    name = hashlib.sha256(str(workdir.resolve()).encode()).hexdigest()[:16]
    settings = package.Settings(disable_code=True, disable_git=True, console="off", silent=True, x_disable_meta=True,
                                x_disable_stats=True, x_disable_machine_info=True, x_save_requirements=False,
                                host="-")
    try:
        run = package.init(project=project, id=name, name=workdir.name, resume="allow", dir=str(workdir),
                           config=_without_paths(config), settings=settings)
    except package.errors.Error as error:
        raise UserError(f"config.log.wandb: {str(error).splitlines()[0]}; WANDB_MODE=offline keeps the log here, and "
                        "`wandb sync` sends it later") from None
    # The axis is our own step: a resumed run repeats some.
    run.define_metric("*", step_metric="step")
    return run


def _without_paths(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _without_paths(value) if isinstance(value, Mapping) else value for key, value in config.items()
            if isinstance(value, Mapping) or not re.search(r"[/\\]", str(value))}


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file; [] if there is none. An incomplete last line, of a killed run, is left out."""
    rows = []
    if Path(path).is_file():
        for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                row = json.loads(line)
                if isinstance(row, dict):
                    rows.append(row)
    return rows


def step_rows(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a run's log, as of `read_rows`; those without a step, of a damaged file, are left out."""
    return [row for row in read_rows(path) if isinstance(row.get("step"), int)]


def _keep_rows(path: Path, wanted: Any) -> None:
    if path.is_file():
        rows = [row for row in step_rows(path) if wanted(row)]
        write_text_atomically(path, "".join(json.dumps(row) + "\n" for row in rows))


# Dense bf16 peak of one device in TFLOP/s, from the vendors' data sheets; the first name that fits is used.
PEAK_TFLOPS = {"NVIDIA A100": 312, "NVIDIA H100": 989, "NVIDIA H200": 989, "TPU v4": 275, "TPU v5 lite": 197,
               "TPU v5": 459, "TPU v6 lite": 918}


def utilisation(flops: float, seconds: float, *, device_kind: str, peak_tflops: float) -> dict[str, float]:
    """TFLOP/s of one device and, where its peak is known, the share of it.

    Args:
      flops: of one step on one device as its compiler counts them (recomputation to save memory included).
      seconds: of one step.
      device_kind: JAX's name of the device.
      peak_tflops: its peak; 0 takes it from `PEAK_TFLOPS`.
    """
    if not flops or not seconds:
        return {}
    rate = flops / seconds / 1e12
    peak = peak_tflops or next((value for name, value in PEAK_TFLOPS.items() if device_kind.startswith(name)), 0.0)
    return {"time/tflops": rate, **({"time/mfu": rate / peak} if peak else {})}


def slow_input(waited: float, step_seconds: float, *, rows: int, workers: int) -> str:
    """One line where the input is slower than the step, "" elsewhere.

    The loop runs ahead of the devices, so that it waits for every batch that is not there yet, whatever the devices do:
    that it waits longer for a batch than a step takes is what tells.

    Args:
      waited: seconds that the loop waits for a batch.
      step_seconds: of a step whose batch is there.
      rows: of a batch; workers: `data.workers`.
    """
    if not waited > 1.1 * step_seconds > 0:
        return ""
    readers = f"{workers} worker processes read" if workers else "the threads of this process read"
    return (f"input: {readers} {rows / waited:,.0f} rows a second, and the step could take {rows / step_seconds:,.0f}: "
            "raise --config.data.workers, or store less work in the data set (docs/performance.md, The input)")
