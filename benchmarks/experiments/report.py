"""The results page of the limited-pairs experiment: titled tables (Markdown and HTML), one HTML page."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from lgdea_jax.pages import experiment
from lgdea_jax.pages.elements import Table

READING = (
    "Each number is the mean over training seeds, ± the standard deviation between them.",
    "Intervals (95%) and p-values are over training seeds and test subjects, both random effects: subjects are "
    "resampled, the same for every run; the mean over seeds has t-distributed deviations; the interaction of seeds and "
    "subjects counts once. Two methods with the same pairs are compared seed by seed. p is two-sided and adjusted "
    "over the three primary metrics (Holm).",
    "With all pairs nothing is unpaired: arms that differ from lgdea_pairs by unpaired items only are left out there.",
    "The oracle is an upper bound and not a method: its targets come from the hidden reports of the unpaired images.",
)


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


def page(blocks: Sequence[Block], pictures: Mapping[str, Path], *, command: str, notes: Sequence[str]) -> str:
    """One HTML page that loads nothing from elsewhere: the plots, by their titles, are inside."""
    parts = [experiment.Part(block.title, block.sentences, Table(block.header, block.rows, code=True, name=block.title,
                                                                 numeric_from=len(block.header))) for block in blocks]
    return experiment.page("Limited pairs", parts, pictures, command=command, notes=notes, reading=READING,
                           caption="Bars are 95% intervals over seeds and subjects; a hollow marker is one seed alone, "
                                   "and the bars of two may leave the plot.")
