"""The page of an experiment, a series of runs: tables, plots, and how to read them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from lgdea_jax.pages.elements import Table, png_url, render


@dataclasses.dataclass(frozen=True)
class Part:
    """A titled table with sentences before it; what stands in `backquotes` is code."""

    title: str
    sentences: Sequence[str]
    table: Table


def page(title: str, parts: Sequence[Part], plots: Mapping[str, Path], *, command: str, notes: Sequence[str],
         caption: str, reading: Sequence[str]) -> str:
    """The HTML document.

    Args:
      title: of the page.
      parts: the first stands before the plots.
      plots: {title: PNG file}; the files go into the page.
      command: that made the rows.
      notes: sentences for the top of the page.
      caption: of the plots.
      reading: sentences on how to read the tables.
    """
    urls = [(name, png_url(path)) for name, path in plots.items()]
    return render("experiment", title=title, blocks=parts, plots=urls, command=command, notes=notes, caption=caption,
                  reading=reading)
