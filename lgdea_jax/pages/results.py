"""The page of evaluations: what their folders hold, beside published numbers, as values for the template."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lgdea_jax.eval.harness import examples
from lgdea_jax.eval.harness.notes import ENOUGH_SUBJECTS, few_subjects, notes
from lgdea_jax.eval.harness.output import OVERLAYS, SAMPLES
from lgdea_jax.evaluators import tasks
from lgdea_jax.evaluators.classified import ClassifierSamples, probabilities
from lgdea_jax.inference import prototypes
from lgdea_jax.metrics import classification
from lgdea_jax.pages import sections
from lgdea_jax.pages.elements import Curve, Table, render
from lgdea_jax.pages.published import Published, tables
from lgdea_jax.pages.runs import Run, cell, finding_of, has_value, label, titles
from lgdea_jax.pages.summary import by_finding, summaries
from lgdea_jax.runtime.log import METRICS

MOST_CURVES = 18


@dataclasses.dataclass(frozen=True)
class Extra:
    """A folder beside the evaluations.

    Attributes:
      kind: "prototypes" or "training"; folder: it; terms: of the data that its section shows.
    """

    kind: str
    folder: Path
    terms: tuple[str, ...] = ()


def load_extra(folder: Path) -> Extra | None:
    """A folder with prototypes or a training run; None for anything else.

    Raises:
      UserError: a prototype table that cannot be read.
    """
    if (folder / prototypes.FILE).is_file():
        return Extra("prototypes", folder, tuple(prototypes.load(folder).get("terms", ())))
    return Extra("training", folder) if (folder / METRICS).is_file() else None


def page(runs: Sequence[Run], published: Sequence[Published], extras: Sequence[Extra] = ()) -> str:
    """The HTML document of some evaluations, and of prototypes and training runs."""
    credentialed = any("credentialed" in terms for terms in
                       (*(run.content.get("terms", ()) for run in runs), *(extra.terms for extra in extras)))
    names = titles(runs)
    listed = [{"id": f"run{i}", "kind": "evaluation", "title": name, "data": evaluation(run, published)}
              for i, (run, name) in enumerate(zip(runs, names))]
    for number, extra in enumerate(item for item in extras if item.kind == "prototypes"):
        content = prototypes.load(extra.folder)
        listed.append({"id": f"prototypes{number}", "kind": "prototypes", "data": sections.prototypes(
            content, extra.folder), "title": f"Prototypes of {content['checkpoint']}"})
    trained = [extra.folder for extra in extras if extra.kind == "training"]
    if plots := sections.training(trained):
        title = f"Training of {trained[0]}" if len(trained) == 1 else f"Training of {len(trained)} runs"
        listed.append({"id": "training", "kind": "training", "title": title, "data": plots})
    shown = dict.fromkeys([*(run.title for run in runs), *(item["title"] for item in listed[len(runs):])])
    return render("results", title=f"Results: {', '.join(shown)}", credentialed=credentialed,
                  summaries=summaries(runs, names), sections=listed,
                  modes=[mode for mode in tasks.RESULT_MODES if any(mode in run.modes for run in runs)])


def evaluation(run: Run, published: Sequence[Published]) -> dict[str, Any]:
    """The values of one evaluation's section."""
    warning, leakage = _leakage(run)
    content = run.content
    facts = [f"{content['data']}, {content['split']} split: {content.get('records', '?')} records, "
             f"{content.get('images', '?')} images of {content.get('subjects', '?')} subjects",
             f"checkpoint {content['checkpoint']}, step {content.get('step', '?')}"
             + (f", method {content['method']}" if content.get("method") else ""), *leakage]
    if content.get("bootstrap", 1):  # With intervals.
        facts += filter(None, [few_subjects(content.get("subjects", ENOUGH_SUBJECTS))])
    if content.get("rejected"):
        facts.append(f"{len(content['rejected'])} records left out: their images could not be read")
    remarks = [*filter(None, [content.get("label_note")]), *content.get("lacks", ()),
               *notes({mode: result.get("info", {}) for mode, result in run.modes.items()})]
    if content.get("report_sections"):
        remarks.append(f"reports: {', '.join(content['report_sections'])}")
    metrics, undefined = _metrics(run)
    return {"warning": warning, "facts": facts, "remarks": remarks, "command": content["command"],
            "metrics": metrics, "undefined": undefined, "published": tables(run, published),
            "findings": _findings(run), "by_finding": by_finding(run),
            "curves": _curves(run), "subgroups": _subgroups(run),
            "examples": sections.retrieval(run.folder / examples.FOLDER),
            "gallery": sections.gallery(run.folder / OVERLAYS), "gallery_mode": content.get("overlays", "")}


def _leakage(run: Run) -> tuple[str, list[str]]:
    """(a warning or "", facts) on subjects that the training data and the evaluation share."""
    leakage = run.content.get("leakage")
    if not leakage:
        return "", []
    if not leakage["checked"]:
        return f"Subjects in common with the training data: {leakage['note']}.", []
    if leakage["subjects_in_common"]:
        return (f"{leakage['subjects_in_common']} subjects were in the checkpoint's training data: these numbers do "
                "not measure generalisation."), []
    note = f" ({leakage['note']})" if leakage["note"] else ""
    return "", [f"no subject in common with the checkpoint's training data{note}"]


def _metrics(run: Run) -> tuple[Table, int]:
    """(all metrics over all findings that have a value, the number of those without one)."""
    names = [name for name in dict.fromkeys(n for result in run.modes.values() for n in result["metrics"])
             if not finding_of(name)]
    rows = []
    for name in names:
        entries = [result["metrics"].get(name) for result in run.modes.values()]
        if any(map(has_value, entries)):
            sizes = sorted({entry["n"] for entry in entries if entry})
            rows.append([label(name), *map(cell, entries), " / ".join(map(str, sizes))])
    return Table(("metric", *run.modes, "n"), rows, name=f"metrics of {run.title}"), len(names) - len(rows)


def _findings(run: Run) -> Table | None:
    """A row for each finding, a column for each metric and mode."""
    cells: dict[str, dict[tuple[str, str], Any]] = {}
    columns: dict[tuple[str, str], None] = {}
    for mode, result in run.modes.items():
        for name, entry in result["metrics"].items():
            if (finding := finding_of(name)) and has_value(entry):
                key = name[: -len(finding) - 1], mode
                columns[key] = None
                cells.setdefault(finding, {})[key] = entry
    if not cells:
        return None
    order = list(dict.fromkeys(name for name, _ in columns))
    keys = sorted(columns, key=lambda key: order.index(key[0]))
    rows = [[finding, *(cell(row.get(key)) for key in keys), str(max(entry["n"] for entry in row.values()))]
            for finding, row in cells.items()]
    return Table(("finding", *(f"{label(name)} ({mode})" for name, mode in keys), "n"), rows, name="by finding")


def _curves(run: Run) -> list[dict[str, Any]]:
    """ROC curves of each classifier, and its calibration; modes that rank alike share their curves."""
    if not (run.folder / SAMPLES).is_file():
        return []
    drawn: list[dict[str, Any]] = []
    for mode in run.modes:
        for key, samples in tasks.load_samples(run.folder / SAMPLES, mode).items():
            if not isinstance(samples, ClassifierSamples) or not (roc := _roc(samples)):
                continue
            item = next((item for item in drawn if (item["key"], item["roc"]) == (key, roc)), None)
            if item is None:
                left_out = max(0, len(samples.names["findings"]) - MOST_CURVES)
                item = {"key": key, "roc": roc, "left_out": left_out, "modes": [], "calibration": []}
                drawn.append(item)
            item["modes"].append(mode)
            item["calibration"] += _calibration(samples)
    return drawn


def _calibration(samples: ClassifierSamples) -> list[Curve]:
    """The reliability curve of all findings together; [] where scores are no probabilities."""
    if not samples.info.get("probabilities"):
        return []
    rows = classification.reliability(probabilities(samples.arrays["scores"]).ravel(), samples.arrays["labels"].ravel())
    title = f"{samples.info.get('ensemble', samples.key)}: all findings together; on the diagonal: calibrated"
    return [Curve.of(np.array([row[0] for row in rows]), np.array([row[1] for row in rows]), title, "predicted",
                     "observed", dots=True)]


def _roc(samples: ClassifierSamples) -> list[Curve]:
    scores, labels = samples.arrays["scores"], samples.arrays["labels"]
    order = np.argsort(-(labels == 1).sum(0), kind="stable")[:MOST_CURVES]
    plots = []
    for f in sorted(order.tolist()):
        false, true, _ = classification.roc_curve(scores[:, f], labels[:, f])
        if len(false):
            area = classification.auroc(scores[:, f], labels[:, f])
            title = f"{samples.names['findings'][f]}: AUROC {area:.3f}"
            plots.append(Curve.of(false, true, title, "false positive rate", "sensitivity"))
    return plots


def _subgroups(run: Run) -> list[tuple[str, str, Table]]:
    out = []
    for mode, result in run.modes.items():
        for attribute, groups in result.get("subgroups", {}).items():
            names = list(dict.fromkeys(name for group in groups.values() for name in group["metrics"]))
            rows = [[group, str(entry["images"]), str(entry["n_subjects"]),
                     *(cell(entry["metrics"].get(name)) if entry["metrics"] else "too few" for name in names)]
                    for group, entry in groups.items()]
            out.append((attribute, mode, Table((attribute, "images", "subjects", *map(label, names)), rows,
                                               name=f"by {attribute}, {mode} mode")))
    return out
