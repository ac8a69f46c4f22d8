"""Pieces of the report page: tables, curves as inline SVG, pictures as data, style. Text goes in escaped.

Everything is in the page itself: no script, no font, no request to anybody.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

# Light and dark by the reader's setting; one column on a phone; wide tables scroll in a box of their own.
STYLE = """
:root{--ink:#1b1f24;--dim:#5a636e;--paper:#fff;--card:#f5f7f9;--line:#d5dbe1;--mark:#0b62c4;--warn:#9a4a00}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ec;--dim:#9aa4af;--paper:#14171a;--card:#1d2126;--line:#363d45;
--mark:#6db1ff;--warn:#f0a35e}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1rem;max-width:76rem;font:16px/1.5 system-ui,sans-serif;color:var(--ink);
background:var(--paper);overflow-wrap:anywhere}
a{color:var(--mark)}h1{font-size:1.6rem;line-height:1.2;margin:.5rem 0}h2{font-size:1.3rem;margin:0}
h3{font-size:1.05rem;margin:1.4rem 0 .4rem}
section{margin:2.2rem 0 0;padding-top:1.4rem;border-top:3px solid var(--line)}
p,ul{margin:.4rem 0}.dim{color:var(--dim)}.warn{color:var(--warn);font-weight:600}
code{font-size:.85em;background:var(--card);padding:.1em .3em;border-radius:4px}
.line{display:block;overflow-x:auto;white-space:pre;padding:.35rem .5rem}
.scroll{overflow-x:auto;margin:.3rem 0}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.92rem;overflow-wrap:normal}
th,td{padding:.28rem .7rem .28rem 0;text-align:left;border-bottom:1px solid var(--line);vertical-align:top}
th{color:var(--dim);font-weight:600}td.n,th.n{text-align:right}td span{white-space:nowrap}
tbody th{color:inherit;font-weight:400;position:sticky;left:0;background:var(--paper);max-width:14rem}
details{margin:.6rem 0}summary{cursor:pointer;color:var(--mark)}
.grid{display:grid;gap:.8rem;grid-template-columns:repeat(auto-fill,minmax(150px,1fr))}
.gallery{display:grid;gap:1rem;grid-template-columns:repeat(auto-fill,minmax(min(100%,30rem),1fr))}
figure{margin:0;background:var(--card);padding:.6rem;border-radius:6px}
.pair{display:grid;grid-template-columns:1fr 1fr;gap:.3rem}.pair img{width:100%;height:auto;display:block}
figcaption{font-size:.9rem;margin-top:.35rem}
svg{max-width:100%;height:auto}svg text{font:11px system-ui,sans-serif;fill:var(--dim)}
:focus-visible{outline:3px solid var(--mark);outline-offset:2px}
.skip{position:absolute;left:-99rem}.skip:focus{left:.5rem;top:.5rem;background:var(--paper);padding:.3rem .6rem;
z-index:1}
.example{display:grid;grid-template-columns:minmax(6rem,11rem) 1fr;gap:.8rem;align-items:start}
.example img{width:100%;height:auto;display:block}.example ol{margin:.3rem 0;padding-left:1.4rem}
.strip{width:100%;max-width:29rem;height:auto;display:block;margin:.3rem 0}
.plots{display:grid;gap:.8rem;grid-template-columns:repeat(auto-fill,minmax(min(100%,17rem),1fr))}
@media(max-width:34rem){.example{grid-template-columns:1fr}.example img{max-width:12rem}
body{padding:.7rem;font-size:15px}table{font-size:.85rem}th,td{padding-right:.5rem}
td:not(.n){overflow-wrap:anywhere;min-width:6.5rem}tbody th{min-width:3.4rem}}
"""


# Dash pattern of each line of a plot, and how the legend shows it.
_DASHES = (("none", "solid"), ("5 3", "dashed"), ("1.5 3", "dotted"), ("8 3 2 3", "dash-dot"))


def text(value: object) -> str:
    """`value` as HTML text."""
    return html.escape(str(value))


def page(title: str, body: str) -> str:
    """The whole document."""
    # The policy makes the browser itself refuse any request, should one ever slip in.
    return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
            f'style-src \'unsafe-inline\'">'
            f"<title>{text(title)}</title><style>{STYLE}</style></head>\n<body>\n"
            f'<a class="skip" href="#main">Skip to the results</a>\n<main id="main">\n{body}\n</main></body></html>\n')


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, numeric_from: int = 1, name: str = "table") -> str:
    """A table in a box that scrolls sideways; cells are text, the first of a row is its header.

    Args:
      name: of the table, for those who hear the page; the box takes the focus, so that arrow keys scroll it.
      numeric_from: columns from here on are aligned right.
    """
    def classed(column: int) -> str:
        return ' class="n"' if column >= numeric_from else ""

    head = "".join(f'<th scope="col"{classed(c)}>{text(name)}</th>' for c, name in enumerate(header))
    body = "".join(
        "<tr>" + "".join(f'<th scope="row">{text(cell)}</th>' if c == 0 else f"<td{classed(c)}>{_cell(cell)}</td>"
                         for c, cell in enumerate(row)) + "</tr>\n" for row in rows)
    return (f'<div class="scroll" tabindex="0" role="region" aria-label="{text(name)}"><table>'
            f'<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>\n')


def _cell(value: str) -> str:
    """Text whose interval, if it ends with one, moves to a second line where the column is narrow."""
    number, bracket, interval = value.partition(" [")
    if not bracket:
        return text(value)
    return f'<span>{text(number)}</span> <span class="dim">[{text(interval)}</span>'


def listing(items: Sequence[str]) -> str:
    """A bulleted list of texts, "" without any."""
    return "<ul>" + "".join(f"<li>{text(item)}</li>" for item in items) + "</ul>\n" if items else ""


def curve(x: np.ndarray, y: np.ndarray, title: str, x_name: str, y_name: str, *, dots: bool = False) -> str:
    """A small square plot over [0, 1] x [0, 1] with its diagonal."""
    size, left, top = 130, 22, 6
    points = [f"{left + size * a:.1f},{top + size * (1 - b):.1f}" for a, b in _thinned(x, y)]
    marks = "".join('<circle cx="{}" cy="{}" r="2.5" fill="var(--mark)"/>'.format(*point.split(","))
                    for point in points) if dots else ""
    return (f'<figure><svg viewBox="0 0 {left + size + 6} {top + size + 26}" role="img" aria-label="{text(title)}">'
            f'<rect x="{left}" y="{top}" width="{size}" height="{size}" fill="none" stroke="var(--line)"/>'
            f'<line x1="{left}" y1="{top + size}" x2="{left + size}" y2="{top}" stroke="var(--line)" '
            f'stroke-dasharray="3 3"/>'
            f'<polyline points="{" ".join(points)}" fill="none" stroke="var(--mark)" stroke-width="1.8"/>{marks}'
            f'<text x="{left}" y="{top + size + 12}">0</text>'
            f'<text x="{left + size}" y="{top + size + 12}" text-anchor="end">1</text>'
            f'<text x="{left + size / 2}" y="{top + size + 22}" text-anchor="middle">{text(x_name)}</text>'
            f'<text x="{left - 5}" y="{top + size / 2}" text-anchor="middle" '
            f'transform="rotate(-90 {left - 7} {top + size / 2})">{text(y_name)}</text></svg>'
            f"<figcaption>{text(title)}</figcaption></figure>\n")


def line_plot(lines: Mapping[str, Sequence[tuple[float, float]]], title: str, x_name: str = "step") -> str:
    """Lines over steps with their ranges on the axes; at most four lines.

    Args:
      lines: {name: [(x, y)]}, y finite; names are told apart by dash patterns as well as by the legend's order.
    """
    width, height, left, top = 300, 130, 46, 8
    points = [point for line in lines.values() for point in line]
    if not points:
        return ""
    (x0, x1), (y0, y1) = ((min(values), max(values)) for values in zip(*points))
    spread_x, spread_y = (x1 - x0) or 1.0, (y1 - y0) or 1.0
    drawn, legend = "", []
    for (name, line), (dash, mark) in zip(lines.items(), _DASHES):
        rows = _thinned(np.array([x for x, _ in line]), np.array([y for _, y in line]))
        path = " ".join(f"{left + width * (x - x0) / spread_x:.1f},{top + height * (y1 - y) / spread_y:.1f}"
                        for x, y in rows)
        drawn += (f'<polyline points="{path}" fill="none" stroke="var(--mark)" stroke-width="1.8" '
                  f'stroke-dasharray="{dash}"/>')
        legend.append(f"{mark} {name}")
    said = f": {'; '.join(legend)}" if len(lines) > 1 else ""
    return (f'<figure><svg viewBox="0 0 {left + width + 8} {top + height + 26}" role="img" aria-label="{text(title)}">'
            f'<rect x="{left}" y="{top}" width="{width}" height="{height}" fill="none" stroke="var(--line)"/>{drawn}'
            f'<text x="{left - 4}" y="{top + 10}" text-anchor="end">{y1:.3g}</text>'
            f'<text x="{left - 4}" y="{top + height}" text-anchor="end">{y0:.3g}</text>'
            f'<text x="{left}" y="{top + height + 14}">{x0:g}</text>'
            f'<text x="{left + width}" y="{top + height + 14}" text-anchor="end">{x1:g}</text>'
            f'<text x="{left + width / 2}" y="{top + height + 20}" text-anchor="middle">{text(x_name)}</text></svg>'
            f"<figcaption>{text(title + said)}</figcaption></figure>\n")


def picture(path: Path, alt: str, *, longest: int = 480, css: str = "") -> str:
    """A whole picture as an <img> whose data are in the page."""
    with Image.open(path) as image:
        size = image.size
    return f'<img src="{panels(path, [[0, 0, *size]], longest=longest)[0]}" alt="{text(alt)}"{css}>'


def _thinned(x: np.ndarray, y: np.ndarray, most: int = 150) -> list[tuple[float, float]]:
    """At most about `most` points of a curve, its ends among them."""
    rows = np.unique(np.linspace(0, len(x) - 1, min(most, len(x))).astype(int)) if len(x) else []
    return [(float(x[row]), float(y[row])) for row in rows]


def panels(path: Path, boxes: Sequence[Sequence[int]], *, longest: int = 480) -> list[str]:
    """Parts [left, top, width, height] of a picture as data: URLs, reduced to `longest` pixels."""
    out = []
    with Image.open(path) as picture:
        for left, top, width, height in boxes:
            part = picture.crop((left, top, left + width, top + height)).convert("RGB")
            part.thumbnail((longest, longest), Image.Resampling.LANCZOS)
            buffer = io.BytesIO()
            part.save(buffer, "JPEG", quality=85)
            out.append("data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode())
    return out


def gallery_figure(urls: Sequence[str], title: str, lines: Sequence[str]) -> str:
    """The panels of one picture side by side, with a caption."""
    images = "".join(f'<img src="{url}" alt="{text(name)}: {text(title)}">'
                     for url, name in zip(urls, ("image", "heatmap")))
    caption = "".join(f"<br>{text(' · '.join(line.split('    ')))}" for line in lines)
    return f'<figure><div class="pair">{images}</div><figcaption><b>{text(title)}</b>{caption}</figcaption></figure>\n'
