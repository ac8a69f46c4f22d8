"""The plots of the limited-pairs experiment: each metric against the share of pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.experiments.arms import share_name
from benchmarks.experiments.comparisons import METRICS, Cell
from lgdea_jax.errors import require
from lgdea_jax.metrics.hierarchical import mean_interval

# Colour (Okabe and Ito's, distinguishable with colour blindness), marker and line of each method: baselines are dashed.
STYLES: Mapping[str, tuple[str, str, str]] = {
    "clip": ("#8c8c8c", "o", "--"), "clip_evidence_soft": ("#56B4E9", "^", "--"),
    "lgdea_pairs_alone": ("#CC79A7", "v", "-"), "lgdea_pairs": ("#0072B2", "P", "-"),
    "mean_teacher": ("#009E73", "D", "-."), "lgdea": ("#D55E00", "*", "-"), "oracle": ("#000000", "X", ":"),
}


def plot(cells: Sequence[Cell], metric: str, path: Path) -> Path:
    """Draws a metric against the share of pairs, one line per arm, with 95% intervals over seeds and subjects.

    The shares are evenly spaced, and the methods stand side by side so that their intervals do not overlap. A mean
    of one seed has no interval and a hollow marker; the interval of two seeds is so wide (t with one degree of freedom)
    that it may leave the plot.

    Raises:
      UserError: matplotlib is missing.
    """
    figure_module = require("matplotlib.figure", "colab", "the plots")
    figure = figure_module.Figure(figsize=(6.4, 5.6), dpi=160, layout="constrained")
    axes = figure.add_subplot()
    shares = sorted({cell.pairs for cell in cells})
    methods = [name for name in STYLES if any(cell.method == name and cell.metric(metric).seeds for cell in cells)]
    shown: list[float] = []  # What the vertical axis must hold.
    gap = min(0.09, 0.7 / max(1, len(methods)))
    for row, method in enumerate(methods):
        colour, marker, line = STYLES[method]
        shift = gap * (row - (len(methods) - 1) / 2)
        points = []
        for cell in cells:
            if cell.method == method and len(values := cell.metric(metric).values):
                found = mean_interval(cell.metric(metric))
                points.append((shares.index(cell.pairs) + shift, found, len(values)))
                shown += [found.value, *((found.low, found.high) if len(values) > 2 else ())]
        points.sort(key=lambda point: point[0])
        x = [point[0] for point in points]
        axes.plot(x, [point[1].value for point in points], color=colour, linestyle=line, linewidth=1.3, alpha=0.8)
        for position, found, seeds in points:
            ends = None if math.isnan(found.low) else [[max(0.0, found.value - found.low)],
                                                       [max(0.0, found.high - found.value)]]
            axes.errorbar([position], [found.value], yerr=ends, color=colour, marker=marker, capsize=2.5, linewidth=1.3,
                          markersize=10 if marker == "*" else 7, markerfacecolor=colour if seeds > 1 else "white")
        axes.plot([], [], color=colour, marker=marker, linestyle=line, markersize=10 if marker == "*" else 7,
                  label=method)
    axes.set_xticks(range(len(shares)), [share_name(share) for share in shares])
    axes.set_xlim(-0.5, len(shares) - 0.5)
    for border in range(1, len(shares)):
        axes.axvline(border - 0.5, color="#e4e4e4", linewidth=1, zorder=0)
    if shown:
        low, high = np.nanmin(shown), np.nanmax(shown)
        room = 0.05 * (high - low) or 0.05
        axes.set_ylim(low - room, high + room)
    axes.set_xlabel("studies that stay paired", fontsize=12)
    axes.set_ylabel(METRICS[metric], fontsize=12)
    axes.tick_params(labelsize=11)
    axes.grid(axis="y", color="#e4e4e4")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if methods:
        figure.legend(loc="outside lower center", ncols=3, fontsize=11, frameon=False)
    else:
        axes.text(0.5, 0.5, "no finished run has a value", transform=axes.transAxes, ha="center")
    figure.savefig(path)
    return path
