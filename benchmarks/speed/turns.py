"""Functions timed turn by turn, and the ratio of two of them with an interval.

Times of a machine that others use too swing by half within minutes, so one after the other proves nothing. In turns
whatever else the machine does meets all of them, and a ratio is taken within a turn.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

from scipy import stats


@dataclasses.dataclass(frozen=True)
class Ratio:
    """Of two functions' times: the median over the turns, its 95% interval, and the least of any turn.

    low, high: None where so few turns bound nothing.
    """

    median: float
    low: float | None
    high: float | None
    worst: float

    def __str__(self) -> str:
        low, high = ("-" if limit is None else f"{limit:.2f}" for limit in (self.low, self.high))
        return f"{self.median:.2f} [{low}, {high}]"


@dataclasses.dataclass(frozen=True)
class Turns:
    """seconds: by function, of a step in each turn."""

    seconds: dict[str, list[float]]

    def median(self, name: str) -> float:
        """Seconds of a step."""
        return statistics.median(self.seconds[name])

    def ratio(self, over: str, under: str) -> Ratio:
        """Seconds of `over` by those of `under`; above 1 `under` is faster.

        The interval is that of the sign test: it assumes nothing about how times are spread, and needs six turns.
        """
        ratios = [a / b for a, b in zip(self.seconds[over], self.seconds[under], strict=True)]
        interval = stats.quantile_test(ratios, q=1.0, p=0.5).confidence_interval(0.95)
        low, high = (float(limit) if math.isfinite(limit) else None for limit in interval)
        return Ratio(statistics.median(ratios), low, high, min(ratios))


def take_turns(functions: Mapping[str, Callable[[int], Any]], *, turns: int, steps: int,
               clock: Callable[[], float] | None = None) -> Turns:
    """Times `steps` steps of each function in each turn, the first function of a turn another one each time.

    Args:
      functions: by name; called with a number of steps, to return when they are done.
      turns: how many, >= 1.
      steps: in a row, of each function in a turn, after one that is not timed: the threads of the one before may still
        spin on the cores, and its data fill the caches.
      clock: seconds, `time.perf_counter` if None; `time.process_time` hardly depends on what else the machine does.
    """
    clock = clock or time.perf_counter
    names = list(functions)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(turns):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            functions[name](1)
            start = clock()
            functions[name](steps)
            seconds[name].append((clock() - start) / steps)
    return Turns(seconds)
