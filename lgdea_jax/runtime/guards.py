"""Reasons to stop a run: signals (after saving), losses that are not finite, collapsed evidence, a step that hangs."""

from __future__ import annotations

import contextlib
import faulthandler
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from lgdea_jax import cli
from lgdea_jax.errors import UserError
from lgdea_jax.runtime import sharding

# Several processes compare their signals every so many steps, and act on it at the next such step.
STOP_CHECK_STEPS = 5


class StopSignals:
    """Remembers SIGTERM and SIGINT, so that the loop can save before it stops. A second one stops at once.

    Use as a context: the signals are given back at its end.
    """

    def __init__(self) -> None:
        self.number = 0
        self._asked: jax.Array | None = None
        self._old: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                self._old[number] = signal.signal(number, self._remember)
            except ValueError:  # Not the main thread (a notebook's): signals stay as they are.
                break
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
        self._old = {}

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """While this context lasts there is nothing to save: a signal ends the process, also in a long compilation.

        Python's handlers run in the main thread between two of its instructions, so not while XLA compiles; the bytes
        that the system's handler writes to a pipe reach a thread.
        """
        if self.number:  # It came before.
            raise SystemExit(self.status)
        if not self._old:  # Not the main thread.
            yield
            return
        reader, writer = os.pipe()
        os.set_blocking(writer, False)

        def wait() -> None:
            while number := os.read(reader, 1)[0]:
                if number in self._old:
                    print(f"stopped by {signal.Signals(number).name}: no step was in flight", file=sys.stderr,
                          flush=True)
                    os._exit(_status(number))

        thread = threading.Thread(target=wait, daemon=True)
        before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        thread.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            os.write(writer, b"\0")  # Ends the thread, if no signal has.
            thread.join()
            os.close(reader)
            os.close(writer)

    def _remember(self, number: int, frame: Any) -> None:
        if self.number:
            self.__exit__()
            signal.raise_signal(number)
        self.number = number

    def agreed(self) -> bool:
        """Whether to stop; all processes of a run get the same answer, once their devices have done what they have."""
        return self._stops(sharding.highest(self.number))

    def after(self, step: int) -> bool:
        """Whether to stop after a step of training; all processes call it after every step and get the same answer.

        Several processes wait for nothing: the devices compare the signals behind the steps that they have, and the
        answer is read `STOP_CHECK_STEPS` steps later. So they stop less than twice as many steps after a signal; one
        process stops at once.
        """
        if jax.process_count() == 1:
            return bool(self.number)
        if step % STOP_CHECK_STEPS:
            return False
        before, self._asked = self._asked, sharding.highest(self.number)
        return before is not None and self._stops(before)

    def _stops(self, highest: jax.Array | int) -> bool:
        # A signal that came since the others were asked stays remembered, and waits for the next answer.
        found = int(highest)
        self.number = found or self.number
        return bool(found)

    @property
    def name(self) -> str:
        """For example "SIGTERM"."""
        return signal.Signals(self.number).name

    @property
    def status(self) -> int:
        """The exit status for the signal."""
        return _status(self.number)


def _status(number: int) -> int:
    return cli.INTERRUPTED if number == signal.SIGINT else cli.TERMINATED


class Watchdog:
    """Prints the stack of every thread and ends the process when a step takes longer than `seconds` (0: never).

    On many hosts all wait for one that hangs: the process ends, so that the scheduler can start the run again.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def restart(self) -> None:
        """A step begins."""
        if self._seconds:
            faulthandler.dump_traceback_later(self._seconds, exit=True)

    def rest(self) -> None:
        """Something begins that may take long: a checkpoint, an evaluation, the end of the run."""
        if self._seconds:
            faulthandler.cancel_dump_traceback_later()


def mean_metrics(rows: Sequence[tuple[int, Mapping[str, np.ndarray]]], *, saved: Callable[[], Sequence[int]]
                 ) -> dict[str, float]:
    """The mean of each metric over some steps.

    Args:
      rows: (step, metrics on the host), ascending.
      saved: gives the steps of the checkpoints, for the message.

    Raises:
      UserError: a metric is NaN or infinite; the first step and the loss are named.
    """
    for step, metrics in rows:
        bad = [name for name in sorted(metrics, key=lambda name: (not name.startswith("loss/"), name))
               if not np.isfinite(metrics[name])]
        if bad:
            steps = saved()
            where = f"the last good checkpoint is step {steps[-1]}" if steps else "there is no checkpoint yet"
            raise UserError(f"{bad[0]} became {metrics[bad[0]]} at step {step}; {where}. Try a lower "
                            "--config.optim.rate, a smaller --config.optim.clip_norm, or that loss's weight at 0 to "
                            "see if it is the cause")
    return {name: float(np.mean([metrics[name] for _, metrics in rows])) for name in rows[0][1]}


def check_collapse(metrics: Mapping[str, float], step: int, *, after: int, information: float) -> None:
    """Stops a run whose evidence no longer differs between items.

    The measure is the mutual information of items and prototypes: the entropy of the mean distribution (the log of the
    effective number of prototypes) less the mean entropy. It is near 0 when all items have the same evidence, on one
    prototype or spread evenly over all.

    Args:
      metrics: of some steps; a side is checked if it has `evidence/SIDE_prototypes` and `evidence/SIDE_entropy`.
      step: the last of them, counted from the end of the warm-up.
      after: steps without a check: untrained towers have no evidence yet.
      information: the least that either side must have, in nats; 0 switches the alarm off.

    Raises:
      UserError: names the side, the number, and what to try.
    """
    if not information or step < after:
        return
    for side in ("report", "image"):
        if f"evidence/{side}_prototypes" not in metrics:
            continue
        have = math.log(metrics[f"evidence/{side}_prototypes"]) - metrics[f"evidence/{side}_entropy"]
        if have < information:
            raise UserError(
                f"the {side} evidence has collapsed {step} steps after the warm-up: its mutual information with the "
                f"{side}s is {max(have, 0.0):.3f} nats, less than alarm.information={information:g}. Keep "
                "stop_report=True, raise the weights rec and anchor, try a lower --config.optim.rate or more pairs; "
                "where it rises slowly, --config.alarm.after=STEPS gives it time; --config.alarm.information=0 "
                "switches this check off")
