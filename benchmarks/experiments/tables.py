"""The tables of the limited-pairs experiment, each a `Block` made from the rows of finished runs alone."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from benchmarks.experiments.comparisons import (
    METRICS,
    PRIMARY,
    Cell,
    Contrast,
    adjusted,
    available,
    differences,
    verdict,
)
from benchmarks.experiments.report import Block
from lgdea_jax.metrics.hierarchical import gap_closed


def means(cells: Sequence[Cell]) -> Block:
    """Mean and standard deviation over seeds of every cell that has a finished run; the others are named."""
    rows, missing = [], [cell for cell in cells if not cell.rows]
    left = "; ".join(
        f"{setting.name} ({', '.join(f'`{cell.method}`' for cell in missing if cell.setting == setting)})"
        for setting in dict.fromkeys(cell.setting for cell in missing))
    for cell in cells:
        if not cell.rows:
            continue
        shown = []
        for name in METRICS:
            values = cell.metric(name).values
            spread = f" ± {values.std(ddof=1):.3f}" if len(values) > 1 else ""
            shown.append(f"{values.mean():.3f}{spread}" if len(values) else "-")
        rows.append((cell.setting.name, f"`{cell.method}`", cell.progress, *shown))
    sentences = (f"Not run yet: {left}.",) if left else ()
    return Block("Means over seeds", sentences, ("pairs", "method", "seeds", *METRICS.values()), tuple(rows))


def results(cells: Sequence[Cell], chosen: Sequence[Contrast]) -> Block | None:
    """One line for each contrast of which two seeds are finished; None without any."""
    rows = []
    for contrast, a, b in available(cells, chosen):
        if min(len(a.rows), len(b.rows)) < 2:
            continue
        state = "final" if len(a.rows) == a.expected and len(b.rows) == b.expected else "preliminary"
        rows.append((f"{contrast.title} ({a.name}, {b.name})", verdict(contrast, a, b), state))
    return Block("Results", (), ("comparison", "result", "state"), tuple(rows)) if rows else None


def contrasts(cells: Sequence[Cell], chosen: Sequence[Contrast]) -> Block | None:
    """The difference of each primary metric, its interval and p-value, as `results` chooses them; None without any."""
    rows = []
    for _, a, b in available(cells, chosen):
        if min(len(a.rows), len(b.rows)) < 2:
            continue
        found = differences(a, b)
        p = adjusted(found)
        shown = []
        for name in PRIMARY:
            interval = _range(found[name].low, found[name].high, sign=True)
            p_value = f", p {p_text(p[name])}" if interval else ""
            shown.append(f"{_number(found[name].difference, sign=True)} {interval}{p_value}".strip())
        one, other = found[PRIMARY[0]].seeds
        paired = a.setting.pairs == b.setting.pairs
        title = (f"`{a.method}` - `{b.method}`, {a.setting.name}" if a.setting == b.setting
                 else f"{a.name} - {b.name}")
        rows.append((title, str(one) if paired else f"{one} and {other}", *shown))
    if not rows:
        return None
    return Block("Differences", (), ("difference", "seeds", *(METRICS[name] for name in PRIMARY)), tuple(rows))


def gap(cells: Sequence[Cell]) -> Block | None:
    """How much of the gap between lgdea_pairs and the oracle unpaired images close; None without both."""
    rows = []
    by_name = {(cell.method, cell.setting): cell for cell in cells}
    for setting in dict.fromkeys(cell.setting for cell in cells):
        # In the large world lgdea_pairs is the same for every number of images.
        ends = [by_name.get(("lgdea_pairs", dataclasses.replace(setting, images=0))), by_name.get(("oracle", setting))]
        for method in ("mean_teacher", "lgdea"):
            three = [by_name.get((method, setting)), *ends]
            if not all(cell is not None and cell.rows for cell in three):
                continue
            seeds = set.intersection(*({row["seed"] for row in cell.rows} for cell in three))
            shown = []
            for name in PRIMARY:
                found = gap_closed(*(cell.metric(name) for cell in three))
                shown.append("-" if math.isnan(found.value) else
                             f"{100 * found.value:.0f}% {_range(100 * found.low, 100 * found.high, digits=0)}".strip())
            rows.append((setting.name, f"`{method}`", str(len(seeds)), *shown))
    if not rows:
        return None
    return Block("Share of the gap to the oracle", (
        "(method - lgdea_pairs) / (oracle - lgdea_pairs), with its 95% interval; 0% is lgdea_pairs, 100% the oracle. "
        "No interval where the oracle is not clearly above lgdea_pairs. `seeds` are those that all three have.",),
        ("pairs", "method", "seeds", *(METRICS[name] for name in PRIMARY)), tuple(rows))


def settings(cells: Sequence[Cell]) -> Block:
    """How the cells were trained, and how long that took."""
    rows = []
    for cell in cells:
        if not cell.rows:
            continue
        seconds = [sum(row["seconds"].values()) for row in cell.rows if not row["resumed"]]
        rows.append((cell.setting.name, f"`{cell.method}`", str(cell.steps),
                     f"{np.median(seconds):.0f}" if seconds else "-", f"`{cell.config}`"))
    return Block("Settings", ("Seconds are the median of a run, training and evaluation, on one core. The hash is of "
                              "all of the config but the seed.",),
                 ("pairs", "method", "steps", "seconds", "config"), tuple(rows))


def _number(value: float, *, digits: int = 3, sign: bool = False) -> str:
    return "-" if math.isnan(value) else f"{value:{'+' if sign else ''}.{digits}f}"


def _range(low: float, high: float, *, digits: int = 3, sign: bool = False) -> str:
    if math.isnan(low) or math.isnan(high):
        return ""
    return f"[{_number(low, digits=digits, sign=sign)}, {_number(high, digits=digits, sign=sign)}]"


def p_text(value: float) -> str:
    """A p-value for tables; "-" for NaN."""
    return "-" if math.isnan(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"
