"""How long the runs of the limited-pairs experiment take, and its plan: what is finished and what would run."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from benchmarks.experiments.arms import Run
from lgdea_jax.runtime.progress import clock_text

# Before anything is finished: what a step and the start, compilation and evaluation take on one core of a laptop.
GUESS_STEP_SECONDS, GUESS_START_SECONDS = 0.25, 60.0


def expected_seconds(run: Run, rows: Sequence[dict]) -> float:
    """Of a run on one core, from finished rows: of its method and steps, else of its method, else of all, else a guess.

    Runs that were interrupted have lost the seconds of their first part and do not count.
    """
    timed = [row for row in rows if not row["resumed"]]
    total = [(row, sum(row["seconds"].values())) for row in timed]
    for like in ([s for row, s in total if (row["method"], row["steps"]) == (run.method, run.steps)],
                 [s * run.steps / row["steps"] for row, s in total if row["method"] == run.method],
                 [s * run.steps / row["steps"] for row, s in total]):
        if like:
            return statistics.median(like)
    return GUESS_START_SECONDS + GUESS_STEP_SECONDS * run.steps


def plan(runs: Sequence[Run], todo: Sequence[Run], rows: Sequence[dict], *, jobs: int) -> str:
    """What is finished, what would run and for how long."""
    lines = ["| pairs | method | steps | seeds | finished | about |", "|---|---|---|---|---|---|"]
    for method, setting in dict.fromkeys((run.method, run.setting) for run in runs):
        cell = [run for run in runs if (run.method, run.setting) == (method, setting)]
        left = [run for run in cell if run in todo]
        seconds = sum(expected_seconds(run, rows) for run in left)
        lines.append(f"| {setting.name} | `{method}` | {cell[0].steps} "
                     f"| {len(cell)} | {len(cell) - len(left)} | {clock_text(seconds)} |")
    seconds = sum(expected_seconds(run, rows) for run in todo) / max(1, min(jobs, len(todo)))
    source = "by the finished runs" if any(not row["resumed"] for row in rows) else "a guess, no run is finished"
    lines += ["", f"{len(runs)} runs, {len(runs) - len(todo)} finished, {len(todo)} to do, {jobs} at a time: "
              f"about {clock_text(seconds)} ({source})"]
    return "\n".join(lines)
