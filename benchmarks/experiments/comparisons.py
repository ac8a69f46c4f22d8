"""The limited-pairs experiment's comparisons: cells of runs, pre-specified and post hoc contrasts, verdicts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.experiments.arms import Setting, check_setting
from benchmarks.experiments.results import runs_of
from lgdea_jax.metrics.hierarchical import Comparison, Runs, compare, holm

# Metrics that a row keeps, with their names for readers. Holm's correction is over the primary ones.
METRICS: Mapping[str, str] = {"zero_shot/auroc": "zero-shot AUROC", "retrieval/precision@5": "precision@5",
                              "grounding/pointing": "pointing", "grounding/cnr": "CNR"}
PRIMARY = ("zero_shot/auroc", "retrieval/precision@5", "grounding/cnr")
LEVEL = 0.05


@dataclasses.dataclass(frozen=True)
class Cell:
    """The runs of one arm in one setting.

    Attributes:
      method, setting, steps: as of the runs; `method` is the arm's name.
      config: hash of the config without the seed.
      expected: number of runs when the cell is finished.
      rows: of the finished runs.
    """

    method: str
    setting: Setting
    steps: int
    config: str
    expected: int
    rows: tuple[Mapping[str, Any], ...]

    @property
    def name(self) -> str:
        """For readers."""
        return f"`{self.method}` at {self.setting.name}"

    @property
    def progress(self) -> str:
        """Number of seeds, and of how many if some are missing."""
        return f"{len(self.rows)}" if len(self.rows) == self.expected else f"{len(self.rows)} of {self.expected}"

    def metric(self, name: str) -> Runs:
        """One metric of its runs; runs that leave it undefined are left out."""
        return runs_of(self.rows, name)


@dataclasses.dataclass(frozen=True)
class Contrast:
    """Two cells, METHOD@SETTING each: does A exceed B?

    With `margins` the hypothesis is that A is non-inferior to B: lower by less than the margin of each metric.
    """

    title: str
    a: str
    b: str
    margins: Mapping[str, float] = dataclasses.field(default_factory=dict)


PRE_SPECIFIED = (
    Contrast("LGDEA against plain CLIP", "lgdea@0.01", "clip@0.01"),
    Contrast("Pairs-only LGDEA against the strongest CLIP baseline", "lgdea_pairs@0.01", "clip_evidence_soft@0.01"),
    Contrast("LGDEA at 5% pairs against plain CLIP at 100%", "lgdea@0.05", "clip@1.0",
             margins={"zero_shot/auroc": 0.02, "grounding/cnr": 0.05}),
    Contrast("Effect of the unpaired images", "lgdea@0.01", "lgdea_pairs@0.01"),
    Contrast("Effect of the unpaired images", "lgdea@0.05", "lgdea_pairs@0.05"),
    Contrast("Relations against a mean teacher", "lgdea@0.01", "mean_teacher@0.01"),
    Contrast("Relations against a mean teacher", "lgdea@0.05", "mean_teacher@0.05"),
    Contrast("Effect of the unpaired reports", "lgdea_pairs@0.01", "lgdea_pairs_alone@0.01"),
    Contrast("Effect of true targets", "oracle@0.01", "lgdea_pairs@0.01"),
    Contrast("Effect of true targets", "oracle@0.05", "lgdea_pairs@0.05"),
    Contrast("Effect of 20,000 unpaired images", "lgdea@40+20000", "lgdea_pairs@40"),
    Contrast("Effect of 20,000 unpaired images", "lgdea@200+20000", "lgdea_pairs@200"),
    Contrast("20,000 unpaired images against 500", "lgdea@40+20000", "lgdea@40+500"),
    Contrast("Relations against a mean teacher", "lgdea@40+20000", "mean_teacher@40+20000"),
    Contrast("LGDEA against plain CLIP, chest CT", "lgdea@0.05ct", "clip@0.05ct"),
    Contrast("Effect of the unpaired volumes, chest CT", "lgdea@0.05ct", "lgdea_pairs@0.05ct"),
)
# Added after the results were known: exploratory.
POST_HOC = (Contrast("Pairs-only LGDEA against plain CLIP (post hoc)", "lgdea_pairs@0.01", "clip@0.01"),)


def available(cells: Sequence[Cell], contrasts: Sequence[Contrast]) -> list[tuple[Contrast, Cell, Cell]]:
    """(contrast, A, B) of the contrasts whose cells are among `cells`."""
    by_name = {(cell.method, cell.setting): cell for cell in cells}
    found = []
    for contrast in contrasts:
        a, b = (by_name.get((method, check_setting(setting))) for method, setting in
                (side.strip().split("@") for side in (contrast.a, contrast.b)))
        if a and b:
            found.append((contrast, a, b))
    return found


def differences(a: Cell, b: Cell) -> dict[str, Comparison]:
    """A minus B for each primary metric; runs are paired by seed where both have the same pairs.

    A seed fixes which studies stay paired, so that at two numbers of pairs it means nothing in common.
    """
    found = {}
    for name in PRIMARY:
        one, other = a.metric(name), b.metric(name)
        width = max(one.replicates.shape[1], other.replicates.shape[1])
        # A cell without runs has no replicates; it takes the other's number of them.
        one, other = (runs if runs.seeds else dataclasses.replace(runs, replicates=np.zeros((0, width)))
                      for runs in (one, other))
        found[name] = compare(one, other, pair_seeds=a.setting.pairs == b.setting.pairs)
    return found


def adjusted(found: Mapping[str, Comparison]) -> dict[str, float]:
    """Holm's p-values over the primary metrics."""
    return holm({name: comparison.p for name, comparison in found.items()})


def verdict(contrast: Contrast, a: Cell, b: Cell) -> str:
    """The result of a contrast in words."""
    found = differences(a, b)
    p = adjusted(found)
    if not any(math.isfinite(found[name].low) for name in PRIMARY):
        return "not known yet: at least two seeds of both are needed"
    if contrast.margins:
        parts = []
        for name, margin in contrast.margins.items():
            low = found[name].low
            state = "non-inferior" if low > -margin else "non-inferiority not shown"
            parts.append(f"{METRICS[name]}: {state} (lower bound {low:+.3f}, margin {-margin:g})")
        return "; ".join(parts)
    better, worse = ([METRICS[name] for name in PRIMARY if p[name] < LEVEL and sign * found[name].difference > 0]
                     for sign in (1, -1))
    text = f"better on {len(better)} of {len(PRIMARY)} at p < {LEVEL:g}" + (f" ({', '.join(better)})" if better else "")
    return text + (f"; worse on {', '.join(worse)}" if worse else "")
