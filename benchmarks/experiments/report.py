"""The results page of the limited-pairs experiment: titled tables (Markdown and HTML), one HTML page."""

from __future__ import annotations

import base64
import dataclasses
import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.experiments.comparisons import METRICS

READING = (
    "Each number is the mean over training seeds, ± the standard deviation between them.",
    "Intervals (95%) and p-values are over training seeds and test subjects, both random effects: subjects are "
    "resampled, the same for every run; the mean over seeds has t-distributed deviations; the interaction of seeds and "
    "subjects counts once. Two methods at one share of pairs are compared seed by seed. p is two-sided and adjusted "
    "over the three primary metrics (Holm).",
    "With all pairs nothing is unpaired: lgdea, mean_teacher and oracle would be lgdea_pairs there, and are left out.",
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

    def html(self) -> str:
        """As HTML."""
        def cells(row: Sequence[str], tag: str) -> str:
            long = [" class=long" if len(text) > 30 else "" for text in row]  # Numbers stay on one line.
            return "<tr>" + "".join(f"<{tag}{c}>{_inline(text)}</{tag}>" for text, c in zip(row, long)) + "</tr>"

        body = "".join(cells(row, "td") for row in self.rows)
        words = "".join(f"<p>{_inline(sentence)}</p>" for sentence in self.sentences)
        return (f"<h2>{_inline(self.title)}</h2>{words}<div class=wide><table><thead>{cells(self.header, 'th')}</thead>"
                f"<tbody>{body}</tbody></table></div>")


_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60em;margin:1.5em auto;padding:0 1em;color:#222;background:#fff}
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:1.8em}
img{width:100%;max-width:40em;height:auto;display:block}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,24em),1fr));gap:1em}
figure{margin:0}figcaption{font-weight:600}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:14px;font-variant-numeric:tabular-nums}
td,th{border-bottom:1px solid #ddd;padding:4px 10px 4px 0;text-align:left;vertical-align:top;white-space:nowrap}
.long{white-space:normal;min-width:9em}
th{border-bottom:2px solid #888}
code{font-size:.95em}pre{white-space:pre-wrap;overflow-wrap:anywhere;background:#f5f5f5;padding:.8em;border-radius:6px}
"""


def page(blocks: Sequence[Block], pictures: Mapping[str, Path], *, command: str, notes: Sequence[str]) -> str:
    """One self-contained HTML page: pictures inside, nothing loaded from elsewhere."""
    figures = []
    for name, path in pictures.items():
        encoded = base64.b64encode(path.read_bytes()).decode()
        title = f"{METRICS[name]} against the share of pairs"
        figures.append(f'<figure><figcaption>{html.escape(title)}</figcaption>'
                       f'<img alt="{html.escape(title)}" src="data:image/png;base64,{encoded}"></figure>')
    return "\n".join([
        "<!doctype html><html lang=en><meta charset=utf-8>",
        '<meta name=viewport content="width=device-width,initial-scale=1">',
        f"<title>Limited pairs</title><style>{_STYLE}</style><h1>Limited pairs</h1>",
        *(f"<p>{_inline(note)}</p>" for note in notes),
        f"<pre>{html.escape(command)}</pre>",
        blocks[0].html(), "<h2>Plots</h2>", f"<div class=plots>{''.join(figures)}</div>",
        "<p>Bars are 95% intervals over seeds and subjects; a hollow marker is one seed alone, and the bars of two may "
        "leave the plot.</p>",
        "<h2>How to read this</h2><ul>", *(f"<li>{_inline(line)}</li>" for line in READING), "</ul>",
        *(block.html() for block in blocks[1:]), "</html>", ""])


def _inline(text: str) -> str:
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(text))
