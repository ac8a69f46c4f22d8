"""Progress with the time left: a tqdm bar in a terminal, a line now and then, with the time of day, in a file."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm


class Progress:
    """How much of a total is done, and how long the rest takes, on stderr.

    tqdm draws the bar and fits it to the terminal. It has no mode for files, where its redrawn lines would pile up, and
    its own estimate of the time left counts pauses: both are made here.

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
        self._bar: tqdm | None = None

    def advance(self) -> None:
        """One more is done; the time left follows from the mean speed so far."""
        self._done += 1
        seconds = (time.monotonic() - self._start) / self._done
        self.show(self._done, seconds_left=(self._total - self._done) * seconds)

    def show(self, done: int, *, seconds_left: float, note: str = "", force: bool = False) -> None:
        """Shows how much is done and how long the rest takes, if the last time is long enough ago or with `force`."""
        now = time.monotonic()
        if not self._active or (now - self._last < self._every and not force):
            return
        self._last = now
        text = f"{note}{'  ' if note else ''}{clock_text(seconds_left)} left"
        if not self._live:
            print(f"{self._what} {done}/{self._total}  {text}  at {time.strftime('%H:%M:%S')}", file=sys.stderr,
                  flush=True)
            return
        if self._bar is None:
            what = self._what.replace("{", "{{").replace("}", "}}")
            self._bar = tqdm(total=self._total, initial=done, desc=text, file=sys.stderr, dynamic_ncols=True,
                             bar_format=f"{what} {{n_fmt}}/{{total_fmt}} {{bar:20}} {{desc}}")
        else:
            self._bar.n = done
            self._bar.set_description_str(text)

    def end(self) -> None:
        """Leaves the line."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def clock_text(seconds: float) -> str:
    """Seconds as "1:02:03" or "2:03"."""
    hours, rest = divmod(max(0, int(seconds)), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
