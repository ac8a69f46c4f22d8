"""Progress of an evaluation on stderr: a line for each stage in a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
import time

from lgdea_jax.runtime.progress import Progress


class StageProgress:
    """A `ProgressCallback`: called with (stage, done, total), it shows each stage in a line of its own.

    A context manager; the last line ends with it.
    """

    def __init__(self) -> None:
        self._stage, self._line, self._start = "", None, 0.0
        # A file or a pipe would collect hundreds of lines.
        self._active = sys.stderr.isatty()

    def __enter__(self) -> StageProgress:
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    def __call__(self, stage: str, done: int, total: int) -> None:
        if self._line is None or stage != self._stage:
            self._end()
            self._stage, self._start = stage, time.monotonic()
            self._line = Progress(total, stage, active=self._active)
        seconds = (time.monotonic() - self._start) / max(1, done)
        self._line.show(done, seconds_left=(total - done) * seconds)

    def _end(self) -> None:
        if self._line is not None:
            self._line.end()
            self._line = None
