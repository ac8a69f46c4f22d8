"""Parts of the report page beside an evaluation's numbers: retrieval examples, prototypes, training curves."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lgdea_jax.eval.harness import examples
from lgdea_jax.inference.prototypes import LEAST_SHARE, PATCHES
from lgdea_jax.pages.html import line_plot, picture, table, text
from lgdea_jax.runtime.log import EVALS, METRICS, read_rows

MOST_PROTOTYPES = 40
# Curves of a run: what its logs may hold, in this order, and how it is called.
_CURVES = (("loss", "training loss"), ("learning_rate", "learning rate"))
_EVAL_CURVES = ("zero_shot/auroc", "retrieval/precision@5", "grounding/pointing", "grounding/cnr")
_MOST_LOSSES = 8


def retrieval(folder: Path) -> str:
    """The retrieval examples that an evaluation wrote to its OUT; "" without any."""
    file = folder / examples.FOLDER / examples.LIST
    if not file.is_file():
        return ""
    shown = []
    for item in json.loads(file.read_text(encoding="utf-8")):
        first = "".join(
            f"<li>{'<b>Its own: </b>' if row['own'] else ''}{text(row['report'])} "
            f'<span class="dim">{text(_named(row["findings"]))}; score {row["score"]:.2f}</span></li>'
            for row in item["first"])
        image = picture(file.parent / item["file"], f"image with {_named(item['findings'])}", longest=256)
        shown.append(f'<figure class="example"><div>{image}</div><figcaption><b>{text(_named(item["findings"]))}</b>. '
                     f"Its own report, place {item['rank']} of {item['candidates']}: {text(item['report'])}"
                     f"<br>First in the ranking:<ol>{first}</ol></figcaption></figure>\n")
    return ('<h3>Retrieval examples</h3><p class="dim">A seeded sample, not a choice of good ones: an image, its '
            f'report, and the reports that score highest for it.</p><div class="gallery">{"".join(shown)}</div>')


def _named(findings: Sequence[str]) -> str:
    return ", ".join(findings) or "no positive finding"


def prototypes(content: Mapping[str, Any], folder: Path) -> str:
    """The table of `lgdea_jax.prototypes`: what each prototype stands for, with phrases and patches."""
    rows = [row for row in content["prototypes"] if row["share"] >= LEAST_SHARE]
    shown, listed = [], []
    for row in rows[:MOST_PROTOTYPES]:
        named = ", ".join(f"{item['finding']} {100 * item['share']:.0f}%" for item in row["findings"])
        patches = row["patches"]
        boxed = "-" if patches["in_a_box"] is None else (f"{patches['in_a_box']} of {patches['images']} "
                                                         f"(by chance {100 * patches['by_chance']:.1f}%)")
        listed.append([str(row["prototype"]), f"{100 * row['share']:.1f}%", named, boxed])
        phrases = "".join(f"<li>{text(item['phrase'])} <span class=\"dim\">p = {item['p']:.2f}, {text(item['finding'])}"
                          "</span></li>" for item in row["phrases"])
        main = row["findings"][0]["finding"] if row["findings"] else "nothing"
        image = picture(folder / PATCHES / row["file"], f"images nearest to prototype {row['prototype']} ({main}), the "
                        "nearest patch framed", css=' class="strip"')
        shown.append(f"<details><summary>Prototype {row['prototype']}: {text(named)}</summary>{image}<ul>{phrases}</ul>"
                     "</details>\n")
    more = len(rows) - len(listed)
    return (f"<p>{text(content['data'])}, {text(content['split'])} split: {content['records']} records, "
            f"{content['phrases']} evidence phrases. {len(content['prototypes'])} prototypes, "
            f"{content['effective_number']:.1f} in effect (exponential of the entropy of their use), "
            f"{content['hardly_used']} hardly used. Checkpoint {text(content['checkpoint'])}, step "
            f"{content['step']}.</p>"
            + table(("prototype", "share of phrases", "findings of its phrases", "patches in a box of the first"),
                    listed, numeric_from=9, name="prototypes")
            + (f'<p class="dim">{more} that are used less are not shown.</p>' if more else "")
            + "<h3>Phrases and patches</h3>" + "".join(shown))


def training(folder: Path) -> str:
    """Curves of a run of lgdea_jax.train from its logs."""
    rows, evaluations = read_rows(folder / METRICS), read_rows(folder / EVALS)
    plots = []
    for key, title in _CURVES:
        plots.append(_curve(rows, [key], title))
    losses = [key for key in dict.fromkeys(k for row in rows for k in row) if key.startswith("loss/")]
    plots += [_curve(rows, [key], key) for key in losses[:_MOST_LOSSES]]
    plots += [_curve(evaluations, [key], f"{key} while training") for key in _EVAL_CURVES]
    return f'<div class="plots">{"".join(plots)}</div>'


def _curve(rows: Sequence[Mapping[str, Any]], keys: Sequence[str], title: str) -> str:
    lines = {key: [(float(row["step"]), float(row[key])) for row in rows
                   if isinstance(row.get(key), (int, float)) and math.isfinite(row[key])] for key in keys}
    return line_plot({key: line for key, line in lines.items() if len(line) > 1}, title)
