"""The limited-pairs experiment's plots: metrics against the pairs, against unpaired images, and by finding."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.experiments.arms import Setting
from benchmarks.experiments.comparisons import METRICS, Cell
from lgdea_jax.errors import require
from lgdea_jax.metrics.hierarchical import mean_interval

# Colour (Okabe and Ito's, distinguishable with colour blindness), marker and line of each method: baselines are dashed.
STYLES: Mapping[str, tuple[str, str, str]] = {
    "clip": ("#8c8c8c", "o", "--"), "clip_evidence_soft": ("#56B4E9", "^", "--"),
    "lgdea_pairs_alone": ("#CC79A7", "v", "-"), "lgdea_pairs": ("#0072B2", "P", "-"),
    "mean_teacher": ("#009E73", "D", "-."), "lgdea": ("#D55E00", "*", "-"), "oracle": ("#000000", "X", ":"),
}


def plot_shares(cells: Sequence[Cell], metric: str, path: Path) -> Path:
    """Draws a metric against the share of pairs, one line per arm, with 95% intervals over seeds and subjects.

    The shares are evenly spaced, and the methods stand side by side so that their intervals do not overlap. A mean
    of one seed has no interval and a hollow marker; the interval of two seeds is so wide (t with one degree of freedom)
    that it may leave the plot.

    Raises:
      UserError: matplotlib is missing.
    """
    figure, (axes,) = _figure(1)
    shares = _with_runs(cells, "phantom")
    shown = _lines(axes, cells, metric, {share: place for place, share in enumerate(shares)})
    axes.set_xticks(range(len(shares)), [share.name for share in shares])
    axes.set_xlabel("studies that stay paired", fontsize=12)
    mine = [cell for cell in cells if cell.setting.world.name == "phantom"]
    return _finish(figure, [axes], mine, metric, shown, path)


def plot_images(cells: Sequence[Cell], metric: str, path: Path) -> Path:
    """Draws a metric against the number of unpaired images, one panel for each number of pairs; see `plot_shares`.

    The method that reads no unpaired images stands at 0.

    Raises:
      UserError: matplotlib is missing.
    """
    settings = _with_runs(cells, "large")
    pairs = list(dict.fromkeys(setting.pairs for setting in settings))
    figure, panels = _figure(len(pairs))
    images = sorted({setting.images for setting in settings})
    shown: list[float] = []
    for axes, number in zip(panels, pairs):
        shown += _lines(axes, cells, metric, {
            setting: images.index(setting.images) for setting in settings if setting.pairs == number})
        axes.set_xticks(range(len(images)), [f"{count:,}" for count in images])
        axes.set_title(f"{number:g} pairs", fontsize=12)
        axes.set_xlabel("unpaired images", fontsize=12)
    return _finish(figure, panels, [cell for cell in cells if cell.setting.world.name == "large"], metric, shown, path)


def plot_findings(cells: Sequence[Cell], path: Path) -> Path | None:
    """Draws, for each finding and seed, AUROC of lgdea minus lgdea_pairs against the finding's positive pairs.

    At the smallest share that has both. The line joins the means over findings of as many positive pairs.

    Returns:
      The file, or None without such runs.

    Raises:
      UserError: matplotlib is missing.
    """
    points = finding_differences(cells)
    if not points:
        return None
    figure, (axes,) = _figure(1)
    counts = sorted({count for count, _ in points})
    # Many findings have equal counts: spread them a little, always in the same way.
    spread = np.random.default_rng(0).uniform(-0.25, 0.25, len(points))
    axes.scatter([counts.index(count) + shift for (count, _), shift in zip(points, spread)],
                 [difference for _, difference in points], s=16, color=STYLES["lgdea"][0], alpha=0.5, linewidths=0)
    axes.plot(range(len(counts)), [np.mean([d for c, d in points if c == count]) for count in counts],
              color="#000000", marker="_", linewidth=1.3, markersize=12)
    axes.axhline(0.0, color="#8c8c8c", linewidth=1)
    axes.set_xticks(range(len(counts)), [str(count) for count in counts])
    axes.set_xlabel("positive pairs of the finding", fontsize=12)
    axes.set_ylabel("AUROC, lgdea minus lgdea_pairs", fontsize=12)
    _plain(axes)
    figure.savefig(path)
    return path


def finding_differences(cells: Sequence[Cell]) -> list[tuple[int, float]]:
    """[(positive pairs, AUROC of lgdea minus lgdea_pairs)] of findings and seeds at the smallest share with both."""
    for setting in sorted({cell.setting for cell in cells if cell.setting.world.name == "phantom"}):
        rows = {method: {row["seed"]: row["findings"] for cell in cells for row in cell.rows
                         if (cell.method, cell.setting) == (method, setting) and row.get("findings")}
                for method in ("lgdea", "lgdea_pairs")}
        points = [(own[1], own[0] - rows["lgdea_pairs"][seed][name][0])
                  for seed in sorted(rows["lgdea"].keys() & rows["lgdea_pairs"].keys())
                  for name, own in rows["lgdea"][seed].items()
                  if own[0] is not None and rows["lgdea_pairs"][seed][name][0] is not None]
        if points:
            return points
    return []


def _with_runs(cells: Sequence[Cell], world: str) -> list[Setting]:
    """The settings of a world with a finished run, or all of it without any."""
    mine = [cell for cell in cells if cell.setting.world.name == world]
    return sorted({cell.setting for cell in mine if cell.rows} or {cell.setting for cell in mine})


def _figure(panels: int) -> tuple[Any, list[Any]]:
    """A figure with panels side by side that share the vertical axis."""
    figure_module = require("matplotlib.figure", "colab", "the plots")
    figure = figure_module.Figure(figsize=(6.4 if panels == 1 else 5.2 * panels, 5.6), dpi=160, layout="constrained")
    return figure, list(figure.subplots(1, panels, sharey=True, squeeze=False)[0])


def _lines(axes: Any, cells: Sequence[Cell], metric: str, places: Mapping[Setting, int]) -> list[float]:
    """Draws the cells of these settings at their places; returns what the vertical axis must hold."""
    cells = [cell for cell in cells if cell.setting in places and cell.metric(metric).seeds]
    methods = [name for name in STYLES if any(cell.method == name for cell in cells)]
    shown: list[float] = []
    gap = min(0.09, 0.7 / max(1, len(methods)))
    for row, method in enumerate(methods):
        colour, marker, line = STYLES[method]
        shift = gap * (row - (len(methods) - 1) / 2)
        points = []
        for cell in cells:
            if cell.method == method:
                found = mean_interval(cell.metric(metric))
                seeds = len(cell.metric(metric).values)
                points.append((places[cell.setting] + shift, found, seeds))
                shown += [found.value, *((found.low, found.high) if seeds > 2 else ())]
        points.sort(key=lambda point: point[0])
        axes.plot([point[0] for point in points], [point[1].value for point in points], color=colour, linestyle=line,
                  linewidth=1.3, alpha=0.8)
        for position, found, seeds in points:
            ends = None if math.isnan(found.low) else [[max(0.0, found.value - found.low)],
                                                       [max(0.0, found.high - found.value)]]
            axes.errorbar([position], [found.value], yerr=ends, color=colour, marker=marker, capsize=2.5, linewidth=1.3,
                          markersize=10 if marker == "*" else 7, markerfacecolor=colour if seeds > 1 else "white")
    axes.set_xlim(-0.5, max(places.values(), default=0) + 0.5)
    for border in range(1, max(places.values(), default=0) + 1):
        axes.axvline(border - 0.5, color="#e4e4e4", linewidth=1, zorder=0)
    _plain(axes)
    return shown


def _plain(axes: Any) -> None:
    axes.tick_params(labelsize=11)
    axes.grid(axis="y", color="#e4e4e4")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _finish(figure: Any, panels: Sequence[Any], cells: Sequence[Cell], metric: str, shown: Sequence[float],
            path: Path) -> Path:
    """Axis, legend and file."""
    first = panels[0]
    first.set_ylabel(METRICS[metric], fontsize=12)
    if shown:
        low, high = np.nanmin(shown), np.nanmax(shown)
        room = 0.05 * (high - low) or 0.05
        first.set_ylim(low - room, high + room)
    drawn = [name for name in STYLES if any(
        cell.method == name and cell.rows and cell.metric(metric).seeds for cell in cells)]
    for name in drawn:
        colour, marker, line = STYLES[name]
        first.plot([], [], color=colour, marker=marker, linestyle=line, markersize=10 if marker == "*" else 7,
                   label=name)
    if drawn and shown:
        figure.legend(loc="outside lower center", ncols=3, fontsize=11, frameon=False)
    else:
        first.text(0.5, 0.5, "no finished run has a value", transform=first.transAxes, ha="center")
    figure.savefig(path)
    return path
