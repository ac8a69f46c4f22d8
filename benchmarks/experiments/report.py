"""What a study says: the table, the comparisons with their p-values, the plots (PNG), and one HTML page of all of it.

Everything is made from the rows of finished runs alone (see `limited_pairs.py`); cells that are not finished are shown
with the seeds that they have.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.experiments.statistics import Cell, Difference, compare, headroom_closed, mean_interval
from lgdea_jax.errors import UserError, require
from lgdea_jax.metrics.bootstrap import holm
from lgdea_jax.pages import experiment
from lgdea_jax.pages.elements import Table
from lgdea_jax.runtime.files import write_text_atomically

# Metrics that a row keeps, with their names for readers. Holm's family is the primary ones.
METRICS: Mapping[str, str] = {"zero_shot/auroc": "zero-shot AUROC", "retrieval/precision@5": "precision@5",
                              "grounding/pointing": "pointing", "grounding/cnr": "CNR"}
PRIMARY = ("zero_shot/auroc", "retrieval/precision@5", "grounding/cnr")
LEVEL = 0.05

# Colour (Okabe and Ito's, told apart by the colour-blind), marker and line of each method: baselines are dashed.
STYLES: Mapping[str, tuple[str, str, str]] = {
    "clip": ("#8c8c8c", "o", "--"), "clip_evidence": ("#E69F00", "s", "--"),
    "clip_evidence_soft": ("#56B4E9", "^", "--"), "local": ("#CC79A7", "v", "--"),
    "lgdea_pairs": ("#0072B2", "P", "-"), "lgdea_pairs_place": ("#7A4EAB", "p", "-"),
    "mean_teacher": ("#009E73", "D", "-."), "lgdea": ("#D55E00", "*", "-"),
    "lgdea_place": ("#8B0000", "h", "-"), "oracle": ("#000000", "X", ":"),
}

READING = (
    "Each number is the mean over training seeds, ± the standard deviation between them.",
    "Intervals (95%) and p-values come from a hierarchical paired bootstrap: test subjects are resampled, the same for "
    "every run, and seeds with replacement; two methods at one share of pairs are compared seed by seed. p is "
    "two-sided, and adjusted over the three primary metrics (Holm). Resampling a few seeds understates how much they "
    "scatter: the intervals and p make up for it (t distribution); the last column's p, \"plain\", do not.",
    "With all pairs nothing is unpaired: lgdea, mean_teacher and oracle would be lgdea_pairs there, and are left out.",
    "The oracle is no method: it reads the hidden reports of the unpaired images. It marks what better targets could "
    "give.",
)


@dataclasses.dataclass(frozen=True)
class StudyCell:
    """The runs of one method at one share of pairs.

    Attributes:
      method, pairs, steps, reads: as of the runs; `reads` are the unpaired streams.
      config: hash of the config without the seed.
      expected: number of runs when the cell is finished.
      rows: of the finished runs.
    """

    method: str
    pairs: float
    steps: int
    reads: tuple[str, ...]
    config: str
    expected: int
    rows: tuple[Mapping[str, Any], ...]

    @property
    def name(self) -> str:
        """For readers."""
        return f"`{self.method}` at {share_name(self.pairs)}"

    @property
    def progress(self) -> str:
        """Number of seeds, and of how many if some are missing."""
        return f"{len(self.rows)}" if len(self.rows) == self.expected else f"{len(self.rows)} of {self.expected}"

    def metric(self, name: str) -> Cell:
        """One metric of its runs; runs that leave it undefined are left out."""
        rows = sorted((row for row in self.rows if row["metrics"][name] is not None), key=lambda row: row["seed"])
        replicates = np.array([row["replicates"][name] for row in rows], np.float64)  # None becomes NaN.
        return Cell(tuple(row["seed"] for row in rows), np.array([row["metrics"][name] for row in rows], np.float64),
                    replicates.reshape(len(rows), -1) if rows else np.zeros((0, 0)))


@dataclasses.dataclass(frozen=True)
class Question:
    """A comparison of two cells, METHOD@SHARE each: is A better than B?

    With `margins` the question is whether A is level with B: no worse than by that much of each metric.
    """

    title: str
    a: str
    b: str
    margins: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Block:
    """A titled table of text with sentences before it, for Markdown and HTML alike; `code` in backquotes."""

    title: str
    sentences: tuple[str, ...]
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """As Markdown."""
        lines = [f"### {self.title}", "", *(line for sentence in self.sentences for line in (sentence, ""))]
        for row in (self.header, ("---",) * len(self.header), *self.rows):
            lines.append("| " + " | ".join(row) + " |")
        return "\n".join(lines)


def share_name(pairs: float) -> str:
    """0.01 as "1%"."""
    return f"{100 * pairs:g}%"


def write(cells: Sequence[StudyCell], questions: Sequence[Question], out: Path, *, command: str,
          notes: Sequence[str] = ()) -> str:
    """Writes OUT/table.md, OUT/index.html and a PNG for each metric; returns the tables as Markdown.

    Args:
      cells: in the order of the tables.
      questions: those about cells that are not among `cells` are left out.
      out: a folder.
      command: that made the rows.
      notes: sentences for the top of the page.

    Raises:
      UserError: runs were evaluated on different subjects, or matplotlib is missing.
    """
    if len({row["subjects"] for cell in cells for row in cell.rows}) > 1:
        raise UserError("the finished runs were evaluated on different subjects: use another --out for each data set")
    made = (answers(cells, questions), means(cells), differences(cells, questions), headroom(cells), settings(cells))
    blocks = [block for block in made if block]
    text = "\n\n".join(block.markdown() for block in blocks)
    write_text_atomically(out / "table.md", "\n".join(f"{note}\n" for note in [*notes, *READING]) + "\n" + text + "\n")
    pictures = {name: plot(cells, name, out / f"{name.replace('/', '_').replace('@', '_at_')}.png") for name in METRICS}
    write_text_atomically(out / "index.html", page(blocks, pictures, command=command, notes=notes))
    return text


# --- Tables -----------------------------------------------------------------------------------------------------------


def means(cells: Sequence[StudyCell]) -> Block:
    """Mean and standard deviation over seeds of every cell."""
    rows = []
    for cell in cells:
        shown = []
        for name in METRICS:
            values = cell.metric(name).values
            spread = f" ± {values.std(ddof=1):.3f}" if len(values) > 1 else ""
            shown.append(f"{values.mean():.3f}{spread}" if len(values) else "-")
        rows.append((share_name(cell.pairs), f"`{cell.method}`", cell.progress, *shown))
    return Block("Means over seeds", (), ("pairs", "method", "seeds", *METRICS.values()), tuple(rows))


def answers(cells: Sequence[StudyCell], questions: Sequence[Question]) -> Block | None:
    """One line for each question; None without any."""
    rows = []
    for question, a, b in _asked(cells, questions):
        state = "final" if len(a.rows) == a.expected and len(b.rows) == b.expected else "preliminary"
        rows.append((f"{question.title} ({a.name}, {b.name})", answer(question, a, b), state))
    return Block("Answers", (), ("question", "answer", "state"), tuple(rows)) if rows else None


def answer(question: Question, a: StudyCell, b: StudyCell) -> str:
    """What the comparisons say, in words."""
    found, adjusted = _differences(a, b), _adjusted(_differences(a, b), lambda d: d.result.p_two_sided)
    if not any(math.isfinite(found[name].result.low) for name in PRIMARY):
        return "not known yet: at least two seeds of both are needed"
    if question.margins:
        parts = []
        for name, margin in question.margins.items():
            low = found[name].result.low
            verdict = "level or better" if low > -margin else "not shown to be level"
            parts.append(f"{METRICS[name]}: {verdict} (lower bound {low:+.3f}, margin {-margin:g})")
        return "; ".join(parts)
    better, worse = ([METRICS[n] for n in PRIMARY if adjusted[n] < LEVEL and sign * found[n].result.difference > 0]
                     for sign in (1, -1))
    text = f"better on {len(better)} of {len(PRIMARY)} at p < {LEVEL:g}" + (f" ({', '.join(better)})" if better else "")
    return text + (f"; worse on {', '.join(worse)}" if worse else "")


def differences(cells: Sequence[StudyCell], questions: Sequence[Question]) -> Block | None:
    """A row for each question: the difference of each primary metric, its interval and p-values; None without any."""
    rows = []
    for _, a, b in _asked(cells, questions):
        found = _differences(a, b)
        adjusted = _adjusted(found, lambda d: d.result.p_two_sided)
        plain = _adjusted(found, lambda d: d.plain.p_two_sided)
        shown = []
        for name in PRIMARY:
            result = found[name].result
            interval = _range(result.low, result.high, sign=True)
            p = f", p {p_text(adjusted[name])}" if interval else ""
            shown.append(f"{_number(result.difference, sign=True)} {interval}{p}".strip())
        one, other = found[PRIMARY[0]].seeds
        paired = a.pairs == b.pairs
        title = f"`{a.method}` - `{b.method}`, {share_name(a.pairs)}" if paired else f"{a.name} - {b.name}"
        rows.append((title, str(one) if paired else f"{one} and {other}", *shown,
                     ", ".join(p_text(plain[name]) for name in PRIMARY)))
    if not rows:
        return None
    return Block("Differences", ("The last column: plain p of the three (Holm).",),
                 ("difference", "seeds", *(METRICS[name] for name in PRIMARY), "plain p"), tuple(rows))


def headroom(cells: Sequence[StudyCell]) -> Block | None:
    """How much of the way from lgdea_pairs to the oracle the methods of the unpaired images go; None without both."""
    rows = []
    for pairs in dict.fromkeys(cell.pairs for cell in cells):
        at = {cell.method: cell for cell in cells if cell.pairs == pairs}
        if not {"lgdea_pairs", "oracle"} <= set(at):
            continue
        for method in ("mean_teacher", "lgdea"):
            if method not in at:
                continue
            three = [at[m] for m in (method, "lgdea_pairs", "oracle")]
            seeds = set.intersection(*({row["seed"] for row in cell.rows} for cell in three))
            shown = []
            for name in PRIMARY:
                found = headroom_closed(*(cell.metric(name) for cell in three))
                shown.append("-" if math.isnan(found.value) else
                             f"{100 * found.value:.0f}% {_range(100 * found.low, 100 * found.high, digits=0)}".strip())
            rows.append((share_name(pairs), f"`{method}`", str(len(seeds)), *shown))
    if not rows:
        return None
    return Block("Share of the oracle's headroom that is closed", (
        "(method - lgdea_pairs) / (oracle - lgdea_pairs), with its 95% interval; 0% is lgdea_pairs, 100% the oracle. "
        "No interval where the oracle is not clearly above lgdea_pairs. `seeds` are those that all three have.",),
        ("pairs", "method", "seeds", *(METRICS[name] for name in PRIMARY)), tuple(rows))


def settings(cells: Sequence[StudyCell]) -> Block:
    """How the cells were trained, and how long that took."""
    rows = []
    for cell in cells:
        seconds = [sum(row["seconds"].values()) for row in cell.rows if not row["resumed"]]
        rows.append((share_name(cell.pairs), f"`{cell.method}`", str(cell.steps), ", ".join(cell.reads) or "-",
                     f"{np.median(seconds):.0f}" if seconds else "-", f"`{cell.config}`"))
    return Block("Settings", ("Seconds are the median of a run, training and evaluation, on one core. The hash is of "
                              "all of the config but the seed.",),
                 ("pairs", "method", "steps", "unpaired it reads", "seconds", "config"), tuple(rows))


def _asked(cells: Sequence[StudyCell], questions: Sequence[Question],
           ) -> list[tuple[Question, StudyCell, StudyCell]]:
    by_name = {(cell.method, cell.pairs): cell for cell in cells}
    found = []
    for question in questions:
        a, b = (by_name.get((method, float(share))) for method, share in
                (side.strip().split("@") for side in (question.a, question.b)))
        if a and b:
            found.append((question, a, b))
    return found


def _differences(a: StudyCell, b: StudyCell) -> dict[str, Difference]:
    found = {}
    for name in PRIMARY:
        one, other = a.metric(name), b.metric(name)
        width = max(one.replicates.shape[1], other.replicates.shape[1])
        # A cell without runs has no replicates; it takes the other's number of them.
        one, other = (cell if cell.seeds else dataclasses.replace(cell, replicates=np.zeros((0, width)))
                      for cell in (one, other))
        found[name] = compare(one, other, pair_seeds=a.pairs == b.pairs)
    return found


def _adjusted(found: Mapping[str, Difference], p: Callable[[Difference], float]) -> dict[str, float]:
    return holm({name: p(difference) for name, difference in found.items()})


def _number(value: float, *, digits: int = 3, sign: bool = False) -> str:
    return "-" if math.isnan(value) else f"{value:{'+' if sign else ''}.{digits}f}"


def _range(low: float, high: float, *, digits: int = 3, sign: bool = False) -> str:
    if math.isnan(low) or math.isnan(high):
        return ""
    return f"[{_number(low, digits=digits, sign=sign)}, {_number(high, digits=digits, sign=sign)}]"


def p_text(value: float) -> str:
    """A p-value for tables; "-" for NaN."""
    return "-" if math.isnan(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


# --- Plots and page ---------------------------------------------------------------------------------------------------


def plot(cells: Sequence[StudyCell], metric: str, path: Path) -> Path:
    """Draws a metric against the share of pairs, a line a method, with 95% intervals over seeds and subjects.

    The shares are evenly spaced, and the methods stand side by side so that their intervals can be told apart. A mean
    of one seed has no interval and a hollow marker; the interval of two seeds is so wide (t with one degree of freedom)
    that it may leave the plot.

    Raises:
      UserError: matplotlib is missing.
    """
    figure_module = require("matplotlib.figure", "colab", "the study's plots")
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
        for place, found, seeds in points:
            ends = None if math.isnan(found.low) else [[max(0.0, found.value - found.low)],
                                                       [max(0.0, found.high - found.value)]]
            axes.errorbar([place], [found.value], yerr=ends, color=colour, marker=marker, capsize=2.5, linewidth=1.3,
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


def page(blocks: Sequence[Block], pictures: Mapping[str, Path], *, command: str, notes: Sequence[str]) -> str:
    """One HTML page that loads nothing from elsewhere: the plots are inside."""
    parts = [experiment.Part(block.title, block.sentences, Table(block.header, block.rows, code=True, name=block.title,
                                                                 numeric_from=len(block.header))) for block in blocks]
    plots = {f"{METRICS[name]} against the share of pairs": path for name, path in pictures.items()}
    return experiment.page("Limited pairs", parts, plots, command=command, notes=notes, reading=READING,
                           caption="Bars are 95% intervals over seeds and subjects; a hollow marker is one seed alone, "
                                   "and the bars of two may leave the plot.")
