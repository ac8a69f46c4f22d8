"""Ratios of times taken in turns, and their intervals."""

import math
import statistics

import pytest
from scipy import stats

from benchmarks.speed import turns
from benchmarks.speed.turns import Turns, take_turns


class Clock:
    """A clock that moves when something is done, at a pace that changes from turn to turn."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(turns.time, "perf_counter", lambda: self.now)


def test_a_pace_that_changes_between_turns_leaves_the_ratio(monkeypatch):
    clock, log = Clock(monkeypatch), []

    def function(name, cost):
        def run(steps):
            log.append((name, steps))
            clock.now += steps * cost * (1 + (len(log) - 1) // 4)  # Two calls of each of two functions: a turn.
        return run

    taken = take_turns({"slow": function("slow", 3.0), "quick": function("quick", 2.0)}, turns=3, steps=4)
    # The first call of each function in a turn is one step that is not timed, and another function begins each time.
    assert [name for name, steps in log if steps == 1] == ["slow", "quick", "quick", "slow", "slow", "quick"]
    assert [name for name, steps in log if steps == 4] == [name for name, steps in log if steps == 1]
    assert taken.seconds["slow"] == pytest.approx([3.0, 6.0, 9.0]) and taken.median("quick") == pytest.approx(4.0)
    ratio = taken.ratio("slow", "quick")
    assert ratio.worst == ratio.median == pytest.approx(1.5)


@pytest.mark.parametrize("count", [6, 9, 15, 40])
def test_interval_is_the_narrowest_pair_of_sorted_turns_that_holds_95_percent(count):
    values = [1 + math.sin(7.0 * i) / 10 for i in range(count)]
    ratio = Turns({"a": values, "b": [1.0] * count}).ratio("a", "b")
    # The median lies below the k-th or above the k-th from the end of n sorted values with 2 P(Bin(n, 1/2) < k).
    k = max(k for k in range(1, count) if 2 * stats.binom.cdf(k - 1, count, 0.5) <= 0.05)
    assert (ratio.low, ratio.high) == (sorted(values)[k - 1], sorted(values)[-k])
    assert ratio.median == statistics.median(values) and ratio.worst == min(values)
    assert str(ratio) == f"{ratio.median:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"


def test_few_turns_bound_nothing():
    ratio = Turns({"a": [1.0, 2.0, 3.0], "b": [1.0, 1.0, 1.0]}).ratio("a", "b")
    assert (ratio.median, ratio.low, ratio.high) == (2.0, None, None)
    assert str(ratio) == "2.00 [-, -]"
