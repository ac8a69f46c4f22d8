"""The pictures that open the results page: the main numbers of all runs with intervals, and paired differences."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lgdea_jax.eval.harness.output import SAMPLES
from lgdea_jax.evaluators import tasks
from lgdea_jax.metrics.bootstrap import distribution, percentiles
from lgdea_jax.pages.elements import Bars, Table
from lgdea_jax.pages.runs import Run, cell, finding_of, has_value, label

# Of these the first MAIN with a value are the main numbers; a benchmark with none of them has its own first ones.
HEADLINE = ("zero_shot/auroc", "retrieval/precision@5", "grounding/pointing", "grounding/cnr",
            "retrieval/recall@10/image_to_text", "zero_shot/accuracy", "grounding/miou", "classifier/auroc")
MAIN = 4
# Of these the first with a value is drawn finding by finding.
_BY_FINDING = ("zero_shot/auroc", "grounding/pointing", "grounding/cnr")
RESAMPLES = 1000
# {metric: (subjects, values under resamples)} of one run.
Replicates = Mapping[str, tuple[np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Summary:
    """The evaluations of one benchmark, data set and split in one mode.

    Attributes:
      title, mode: of the group.
      bars: the main numbers, a run a row.
      table: the same and the other numbers of HEADLINE; None for a single run, whose own table has them.
      first: the run that the others are compared with; differences: to it; note: why some are not there, or "".
    """

    title: str
    mode: str
    bars: tuple[Bars, ...]
    table: Table | None
    first: str
    differences: tuple[Bars, ...]
    note: str


def summaries(runs: Sequence[Run], names: Sequence[str]) -> list[Summary]:
    """One for each benchmark with its data and each mode that has a value; `names` are the runs' titles."""
    groups: dict[tuple[str, str, str], list[int]] = {}
    for row, run in enumerate(runs):
        groups.setdefault((run.title, str(run.content["data"]), str(run.content["split"])), []).append(row)
    out = []
    for (title, data, split), rows in groups.items():
        # Its own name is enough where a benchmark was run on one data set only.
        shown = title if sum(key[0] == title for key in groups) == 1 else f"{title}: {data}, {split}"
        short = {row: names[row].removeprefix(f"{title}: ") for row in rows}
        for mode in tasks.RESULT_MODES:
            having = [row for row in rows if mode in runs[row].modes]
            summary = _summary(shown, mode, {row: runs[row] for row in having}, short)
            out += [summary] if summary.bars else []
    return out


def _summary(title: str, mode: str, runs: Mapping[int, Run], names: Mapping[int, str]) -> Summary:
    metrics = {row: run.modes[mode]["metrics"] for row, run in runs.items()}
    measured = [name for name in dict.fromkeys(name for entries in metrics.values() for name in entries)
                if not finding_of(name) and any(has_value(entries.get(name)) for entries in metrics.values())]
    headline = [name for name in HEADLINE if name in measured] or measured
    bars = tuple(_bars(name, {names[row] if len(runs) > 1 else "": (row, entries[name])
                              for row, entries in metrics.items() if has_value(entries.get(name))})
                 for name in headline[:MAIN])
    if len(runs) < 2:
        return Summary(title, mode, bars, None, "", (), "")
    table = Table(("checkpoint", *map(label, headline)),
                  [[names[row], *(cell(entries.get(name)) for name in headline)] for row, entries in metrics.items()],
                  name=f"{title}, {mode} mode")
    first, *others = runs
    drawn = {row: replicates(run, mode, headline) for row, run in runs.items()}
    found = {row: {name: found for name in headline if (found := difference(
        name, runs[row], runs[first], mode, drawn[row], drawn[first]))} for row in others}
    unpaired = [names[row] for row in others if not found[row]]
    note = (f"Not compared with {names[first]}, for want of results per sample of the same subjects: "
            f"{', '.join(unpaired)}." if unpaired else "")
    compared = [Bars.of(label(name), [(names[row], *found[row][name], row) for row in others if name in found[row]],
                        unit=False, marks=(0.0,), signed=True)
                for name in headline if any(name in item for item in found.values())]
    return Summary(title, mode, bars, table, names[first], tuple(compared), note)


def _bars(name: str, entries: Mapping[str, tuple[int, Mapping[str, Any]]]) -> Bars:
    """A metric's values {name of the row: (series, entry)}."""
    rows = [(title, entry["value"], entry["low"], entry["high"], row) for title, (row, entry) in entries.items()]
    return Bars.of(label(name), rows, unit="cnr" not in name, marks=(0.5,) if "auroc" in name else ())


def by_finding(run: Run) -> tuple[str, Bars] | None:
    """(mode, bars) of one metric in the first mode that has it finding by finding, the highest value first."""
    for name in _BY_FINDING:
        for mode, result in run.modes.items():
            found = {finding_of(key): (0, entry) for key, entry in result["metrics"].items()
                     if finding_of(key) and key.startswith(f"{name}/") and has_value(entry)}
            if len(found) > 1:
                return mode, _bars(name, dict(sorted(found.items(), key=lambda item: -item[1][1]["value"])))
    return None


def difference(name: str, run: Run, minus: Run, mode: str, drawn: Replicates, drawn_minus: Replicates,
               ) -> tuple[float, float, float] | None:
    """(difference, low, high) of a metric of two runs, with a 95% bootstrap interval over subjects.

    Every resample of the subjects is drawn for both runs together, so that what is common to them falls out. The
    interval holds for these two checkpoints: the spread between training seeds is not in it, and it is not corrected
    for the number of comparisons. None where a run lacks the metric, or it rests on other samples.
    """
    if name not in drawn or name not in drawn_minus or not np.array_equal(drawn[name][0], drawn_minus[name][0]):
        return None
    entries = [item.modes[mode]["metrics"].get(name) for item in (run, minus)]
    if not all(map(has_value, entries)):
        return None
    return entries[0]["value"] - entries[1]["value"], *percentiles(drawn[name][1] - drawn_minus[name][1])


def replicates(run: Run, mode: str, names: Sequence[str]) -> Replicates:
    """{metric: (subjects of its samples, sorted; values under resamples of them, float64 [RESAMPLES])}.

    Runs with the same subjects have the same resamples. {} where the folder has no results per sample.
    """
    if not (run.folder / SAMPLES).is_file():
        return {}
    out = {}
    for item in tasks.load_samples(run.folder / SAMPLES, mode).values():
        wanted = set(names) & set(item.metrics(None))
        if wanted:
            values = distribution(item.metrics, item.subjects, resamples=RESAMPLES, seed=0)
            out |= {name: (np.sort(item.subjects), values[name]) for name in wanted}
    return out
