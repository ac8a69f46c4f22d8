"""Parts of the results page that come from files of their own: examples, heatmaps, prototypes, training curves."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lgdea_jax.eval.harness import examples, pictures
from lgdea_jax.inference.prototypes import PATCHES
from lgdea_jax.pages.elements import LinePlot, Table, image_url, panel_urls
from lgdea_jax.runtime.log import EVALS, METRICS, step_rows

MOST_PROTOTYPES = 40
# Curves of a run: keys that its logs may have, in this order, and their titles.
_CURVES = (("loss", "training loss"), ("learning_rate", "learning rate"))
_EVAL_CURVES = ("zero_shot/auroc", "retrieval/precision@5", "grounding/pointing", "grounding/cnr",
                "classifier/auroc")
_MOST_LOSSES = 8


def retrieval(folder: Path) -> list[dict[str, Any]]:
    """The retrieval examples of an evaluation's folder; [] without any."""
    file = folder / examples.LIST
    return [{"url": image_url(folder / item["file"], longest=256), "findings": _named(item["findings"]),
             "rank": item["rank"], "candidates": item["candidates"], "report": item["report"],
             "first": [{"own": row["own"], "report": row["report"], "findings": _named(row["findings"]),
                        "score": f"{row['score']:.2f}"} for row in item["first"]]} for item in _read(file)]


def gallery(folder: Path) -> list[dict[str, Any]]:
    """The heatmaps of an evaluation's folder; [] without any."""
    return [{"urls": panel_urls(folder / item["file"], item["panels"]), "title": item["title"],
             "lines": [" · ".join(line.split("    ")) for line in item["lines"]]}
            for item in _read(folder / pictures.LIST)]


def _read(file: Path) -> list[dict[str, Any]]:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []


def _named(findings: Sequence[str]) -> str:
    return ", ".join(findings) or "no positive finding"


def prototypes(content: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What each prototype stands for, with phrases and patches, from the content of prototypes.json in a folder."""
    rows = [row for row in content["prototypes"] if row["file"]]  # Prototypes that are hardly used have no picture.
    listed, details = [], []
    for row in rows[:MOST_PROTOTYPES]:
        named = ", ".join(f"{item['finding']} {100 * item['share']:.0f}%" for item in row["findings"])
        patches = row["patches"]
        boxed = "-" if patches["in_a_box"] is None else (f"{patches['in_a_box']} of {patches['images']} "
                                                         f"(by chance {100 * patches['by_chance']:.1f}%)")
        listed.append((str(row["prototype"]), f"{100 * row['share']:.1f}%", named, boxed))
        details.append({
            "prototype": row["prototype"], "findings": named, "url": image_url(folder / PATCHES / row["file"]),
            "first": row["findings"][0]["finding"] if row["findings"] else "nothing",
            "phrases": [{"text": item["phrase"], "p": f"{item['p']:.2f}", "finding": item["finding"]}
                        for item in row["phrases"]]})
    header = ("prototype", "share of phrases", "findings of its phrases", "patches in a box of the first")
    return {"summary": f"{content['data']}, {content['split']} split: {content['records']} records, "
                       f"{content['phrases']} evidence phrases. {len(content['prototypes'])} prototypes, "
                       f"{content['effective_number']:.1f} in effect (exponential of the entropy of their use), "
                       f"{content['hardly_used']} hardly used. Checkpoint {content['checkpoint']}, step "
                       f"{content['step']}.",
            "table": Table(header, listed, numeric_from=len(header), name="prototypes"),
            "more": len(rows) - len(listed), "details": details}


def training(folders: Sequence[Path]) -> list[LinePlot]:
    """Curves of runs of lgdea_jax.train from their logs: a plot for each key, a line for each run."""
    unlike = len({folder.name for folder in folders}) == len(folders)
    logs = {folder.name if unlike else str(folder): (step_rows(folder / METRICS), step_rows(folder / EVALS))
            for folder in folders}
    losses = [key for key in dict.fromkeys(k for rows, _ in logs.values() for row in rows for k in row)
              if key.startswith("loss/")]
    asked = [*((0, key, title) for key, title in _CURVES), *((0, key, key) for key in losses[:_MOST_LOSSES]),
             *((1, key, f"{key} during training") for key in _EVAL_CURVES)]
    plots = [LinePlot.of({name: line for name, rows in logs.items() if len(line := _line(rows[kind], key)) > 1}, title)
             for kind, key, title in asked]
    return [plot for plot in plots if plot]


def _line(rows: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    return [(float(row["step"]), float(row[key])) for row in rows
            if isinstance(row.get(key), (int, float)) and math.isfinite(row[key])]
