"""A progress line with the time left."""

from __future__ import annotations

import sys
import time


class Progress:
    """One line on stderr with the time left: rewritten in a terminal, printed now and then elsewhere.

    Args:
      total: number of things to do.
      what: what one of them is called.
      active: whether this process shows anything.
      every_seconds: between two lines where stderr is not a terminal.
    """

    def __init__(self, total: int, what: str, *, active: bool, every_seconds: float = 15.0) -> None:
        self._total, self._what, self._active = total, what, active
        self._live = sys.stderr.isatty()
        self._every = 0.5 if self._live else every_seconds
        self._start = self._last = time.monotonic()
        self._done = 0
        self._shown = False

    def advance(self) -> None:
        """One more is done; the time left follows from the mean speed so far."""
        self._done += 1
        seconds = (time.monotonic() - self._start) / self._done
        self.show(self._done, seconds_left=(self._total - self._done) * seconds)

    def show(self, done: int, *, seconds_left: float, note: str = "", force: bool = False) -> None:
        """Shows how much is done and how long the rest takes, if it is time for it."""
        now = time.monotonic()
        if not self._active or (now - self._last < self._every and not force):
            return
        self._last = now
        text = f"{self._what} {done}/{self._total}  {note}{'  ' if note else ''}{clock_text(seconds_left)} left"
        print(f"\r{text}\033[K" if self._live else text, end="" if self._live else "\n", file=sys.stderr, flush=True)
        self._shown = True

    def end(self) -> None:
        """Leaves the line."""
        if self._shown and self._live:
            print(file=sys.stderr)
            self._shown = False


def clock_text(seconds: float) -> str:
    """Seconds as "1:02:03" or "2:03"."""
    hours, rest = divmod(max(0, int(seconds)), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
