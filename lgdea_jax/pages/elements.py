"""What the pages consist of: tables, plots, images as data, and `render`, which fills a template with them.

Python makes values, templates make HTML: nothing here returns markup. Autoescape is on for every template, so that no
text from data needs to be escaped by hand.
"""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image

_TEMPLATES = jinja2.Environment(loader=jinja2.PackageLoader("lgdea_jax.pages"), autoescape=True,
                                undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
MOST_POINTS = 150  # Of a line in a plot.
# Dash patterns of the lines of a plot, and their names in its legend.
_DASHES = (("none", "solid"), ("5 3", "dashed"), ("1.5 3", "dotted"), ("8 3 2 3", "dash-dot"))


def render(template: str, **values: Any) -> str:
    """The document that `templates/TEMPLATE.html.j2` makes of the values; an undefined name is an error."""
    return _TEMPLATES.get_template(f"{template}.html.j2").render(**values)


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of text; the first cell of a row is its header.

    Attributes:
      header, rows: cells; a number and its interval, "0.5 [0.4, 0.6]", may break between the two.
      numeric_from: columns from here on are aligned right.
      name: for screen readers.
      code: whether `backquotes` in the cells mark code.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric_from: int = 1
    name: str = "table"
    code: bool = False


@dataclasses.dataclass(frozen=True)
class Curve:
    """A line over [0, 1] x [0, 1], drawn with the diagonal.

    Attributes:
      points: "x,y" in the plot's pixels.
      title, x_name, y_name: texts.
      dots: whether the points are marked.
    """

    points: tuple[str, ...]
    title: str
    x_name: str
    y_name: str
    dots: bool = False

    SIZE, LEFT, TOP = 130, 22, 6  # Pixels of the square, and of the margins before it.

    @classmethod
    def of(cls, x: np.ndarray, y: np.ndarray, title: str, x_name: str, y_name: str, *, dots: bool = False) -> Curve:
        """The curve through x, y: float [N] in [0, 1]."""
        points = tuple(f"{cls.LEFT + cls.SIZE * a:.1f},{cls.TOP + cls.SIZE * (1 - b):.1f}" for a, b in _thinned(x, y))
        return cls(points, title, x_name, y_name, dots)


@dataclasses.dataclass(frozen=True)
class LinePlot:
    """Lines over steps.

    Attributes:
      lines: ("x,y x,y ...", dash pattern) of each.
      title: with the legend, if there are several lines.
      x_range, y_range: as text.
    """

    lines: tuple[tuple[str, str], ...]
    title: str
    x_range: tuple[str, str]
    y_range: tuple[str, str]

    WIDTH, HEIGHT, LEFT, TOP = 300, 130, 46, 8  # Pixels of the plot, and of the margins before it.

    @classmethod
    def of(cls, lines: Mapping[str, Sequence[tuple[float, float]]], title: str) -> LinePlot | None:
        """At most four lines {name: [(x, y)]}, y finite; None without a point."""
        points = [point for line in lines.values() for point in line]
        if not points:
            return None
        (x0, x1), (y0, y1) = ((min(values), max(values)) for values in zip(*points))
        spread_x, spread_y = (x1 - x0) or 1.0, (y1 - y0) or 1.0
        drawn, legend = [], []
        for (name, line), (dash, look) in zip(lines.items(), _DASHES):
            rows = _thinned(np.array([x for x, _ in line]), np.array([y for _, y in line]))
            drawn.append((" ".join(f"{cls.LEFT + cls.WIDTH * (x - x0) / spread_x:.1f},"
                                   f"{cls.TOP + cls.HEIGHT * (y1 - y) / spread_y:.1f}" for x, y in rows), dash))
            legend.append(f"{look} {name}")
        named = f": {'; '.join(legend)}" if len(lines) > 1 else ""
        return cls(tuple(drawn), title + named, (f"{x0:g}", f"{x1:g}"), (f"{y0:.3g}", f"{y1:.3g}"))


def _thinned(x: np.ndarray, y: np.ndarray) -> list[tuple[float, float]]:
    """At most MOST_POINTS points of a line, its ends among them."""
    rows = np.unique(np.linspace(0, len(x) - 1, min(MOST_POINTS, len(x))).astype(int)) if len(x) else []
    return [(float(x[row]), float(y[row])) for row in rows]


def image_url(path: Path, *, longest: int = 480) -> str:
    """A whole image as a data: URL (JPEG)."""
    with Image.open(path) as image:
        size = image.size
    return panel_urls(path, [[0, 0, *size]], longest=longest)[0]


def panel_urls(path: Path, boxes: Sequence[Sequence[int]], *, longest: int = 480) -> list[str]:
    """Parts [left, top, width, height] of an image as data: URLs (JPEG), reduced to `longest` pixels."""
    out = []
    with Image.open(path) as image:
        for left, top, width, height in boxes:
            part = image.crop((left, top, left + width, top + height)).convert("RGB")
            part.thumbnail((longest, longest), Image.Resampling.LANCZOS)
            buffer = io.BytesIO()
            part.save(buffer, "JPEG", quality=85)
            out.append("data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode())
    return out


def picture_url(pixels: np.ndarray) -> str:
    """uint8 [h, w] grey levels as a data: URL (JPEG)."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def png_url(path: Path) -> str:
    """A PNG file, unchanged, as a data: URL: plots keep their lines sharp."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
