"""The page that shows what is in a folder: counts, what would be refused and why, thumbnails."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from lgdea_jax.pages.elements import Table, picture_url, render

MOST_ROWS = 50  # Of a table.


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading, a sentence or "", and a table."""

    heading: str
    note: str
    table: Table


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """A thumbnail.

    Attributes:
      pixels: uint8 [h, w]; wide: whether it takes two columns.
      caption: below it; alternative: for screen readers.
    """

    pixels: np.ndarray
    wide: bool
    caption: str
    alternative: str


def page(title: str, notes: Sequence[str], sections: Sequence[Section], pictures: Sequence[Picture],
         pictures_note: str) -> str:
    """The HTML document.

    Args:
      title: of the page.
      notes: sentences for its top.
      sections: those without rows are left out; of many rows the first MOST_ROWS are shown, and the others counted.
      pictures: thumbnails in order; pictures_note: a sentence above them.
    """
    return render("scan", title=title, notes=notes, pictures_note=pictures_note,
                  sections=[_view(section) for section in sections if section.table.rows],
                  pictures=[{"url": picture_url(item.pixels), "width": item.pixels.shape[1], "wide": item.wide,
                             "height": item.pixels.shape[0], "caption": item.caption,
                             "alternative": item.alternative} for item in pictures])


def _view(section: Section) -> dict[str, object]:
    rows = section.table.rows
    return {"heading": section.heading, "note": section.note, "more": max(0, len(rows) - MOST_ROWS),
            "table": dataclasses.replace(section.table, rows=rows[:MOST_ROWS])}
