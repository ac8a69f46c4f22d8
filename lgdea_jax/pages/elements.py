"""What the pages consist of: tables, plots, images as data, and `render`, which fills a template with them.

Python makes values, templates make HTML: nothing here returns markup. Autoescape is on for every template, so that no
text from data needs to be escaped by hand.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
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
SERIES = 6  # Colours of the style, `--s0` to `--s5`: series after these take them again.
# Dash patterns of the lines of a plot, so that they differ without their colours.
_DASHES = ("none", "6 3", "1.5 3", "9 3 2 3")


def render(template: str, **values: Any) -> str:
    """The document that `templates/TEMPLATE.html.j2` makes of the values; an undefined name is an error."""
    return _TEMPLATES.get_template(f"{template}.html.j2").render(**values)


def script_digest(name: str) -> str:
    """Of the script `templates/NAME.js`, as a content security policy names it: no other may run on the page then."""
    text = _TEMPLATES.get_template(f"{name}.js").render()
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode()}"


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

    SIZE, LEFT, TOP, BELOW = 160, 44, 6, 36  # Pixels of the square, and of the margins around it.

    @classmethod
    def of(cls, x: np.ndarray, y: np.ndarray, title: str, x_name: str, y_name: str, *, dots: bool = False) -> Curve:
        """The curve through x, y: float [N] in [0, 1]."""
        points = tuple(f"{cls.LEFT + cls.SIZE * a:.1f},{cls.TOP + cls.SIZE * (1 - b):.1f}" for a, b in _thinned(x, y))
        return cls(points, title, x_name, y_name, dots)


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of a plot: "x,y x,y ..." in the plot's pixels, its name, colour and dash pattern."""

    points: str
    name: str
    series: int
    dash: str


@dataclasses.dataclass(frozen=True)
class LinePlot:
    """Lines over steps.

    Attributes:
      lines: several have a legend; title: of the plot; x_range, y_range: as text.
    """

    lines: tuple[Line, ...]
    title: str
    x_range: tuple[str, str]
    y_range: tuple[str, str]

    WIDTH, HEIGHT, LEFT, TOP, BELOW = 300, 130, 72, 8, 34  # Pixels of the plot, and of the margins around it.

    @classmethod
    def of(cls, lines: Mapping[str, Sequence[tuple[float, float]]], title: str) -> LinePlot | None:
        """Lines {name: [(x, y)]}, y finite; None without a point."""
        points = [point for line in lines.values() for point in line]
        if not points:
            return None
        (x0, x1), (y0, y1) = ((min(values), max(values)) for values in zip(*points))
        spread_x, spread_y = (x1 - x0) or 1.0, (y1 - y0) or 1.0
        drawn = []
        for number, (name, line) in enumerate(lines.items()):
            rows = _thinned(np.array([x for x, _ in line]), np.array([y for _, y in line]))
            drawn.append(Line(" ".join(f"{cls.LEFT + cls.WIDTH * (x - x0) / spread_x:.1f},"
                                       f"{cls.TOP + cls.HEIGHT * (y1 - y) / spread_y:.1f}" for x, y in rows),
                              name, number % SERIES, _DASHES[number % len(_DASHES)]))
        return cls(tuple(drawn), title, (f"{x0:g}", f"{x1:g}"), (f"{y0:.3g}", f"{y1:.3g}"))


@dataclasses.dataclass(frozen=True)
class Bar:
    """One value of `Bars`.

    Attributes:
      name, text: before the bar and behind it.
      start, end: of the bar; low, high: of the interval, or None. All in percent of the axis.
      series: number of its colour.
    """

    name: str
    text: str
    start: float
    end: float
    low: float | None
    high: float | None
    series: int


@dataclasses.dataclass(frozen=True)
class Bars:
    """Values with their intervals on one axis.

    Attributes:
      title: what is measured; bars: the values; axis: its ends, as text.
      marks: (place in percent, as text) of lines across all bars: zero, or chance.
    """

    title: str
    bars: tuple[Bar, ...]
    axis: tuple[str, str]
    marks: tuple[tuple[float, str], ...] = ()

    @classmethod
    def of(cls, title: str, rows: Sequence[tuple[str, float, float | None, float | None, int]], *, unit: bool,
           marks: Sequence[float] = (), signed: bool = False) -> Bars:
        """The bars of (name, value, low, high, series).

        Args:
          title: what is measured; rows: the values.
          unit: whether 1 is the highest possible value, and the axis ends there.
          marks: values to draw a line at.
          signed: whether texts begin with their sign: differences.
        """
        ends = [0.0, *(number for _, *numbers, _ in rows for number in numbers if number is not None)]
        low, high = min(ends), max([*ends, 1.0] if unit else ends)
        low, high = (1.06 * low if not unit else low), (1.06 * high if not unit else high)
        spread = (high - low) or 1.0

        def place(value: float) -> float:
            return round(100 * (value - low) / spread, 2)

        sign = "+" if signed else ""
        bars = [Bar(name, f"{value:{sign}.3f}" + ("" if a is None else f" [{a:{sign}.3f}, {b:{sign}.3f}]"),
                    place(min(0.0, value)), place(max(0.0, value)), None if a is None else place(a),
                    None if b is None else place(b), series % SERIES) for name, value, a, b, series in rows]
        lines = [(place(mark), f"{mark:g}") for mark in marks if low <= mark <= high]
        return cls(title, tuple(bars), (f"{low:.2g}", f"{high:.2g}"), tuple(lines))


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
