"""The page of evaluations: what their folders hold, beside published numbers, as values for the template."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lgdea_jax.errors import UserError, choose
from lgdea_jax.eval.harness import examples
from lgdea_jax.eval.harness.notes import notes
from lgdea_jax.eval.harness.output import OVERLAYS, RESULTS, SAMPLES
from lgdea_jax.evaluators import tasks
from lgdea_jax.evaluators.classified import ClassifierSamples, probabilities
from lgdea_jax.inference import prototypes
from lgdea_jax.metrics import classification
from lgdea_jax.pages import sections
from lgdea_jax.pages.elements import Curve, Table, render
from lgdea_jax.runtime.log import METRICS

# In a checkout, or in the installed package.
_ROOTS = (Path(__file__).parents[2] / "benchmarks", Path(__file__).parents[1])
PUBLISHED = next((root / "published.csv" for root in _ROOTS if (root / "published.csv").is_file()),
                 _ROOTS[0] / "published.csv")
COLUMNS = ("benchmark", "mode", "metric", "method", "value", "source")
OPTIONAL = ("protocol", "pool", "labels")
MOST_CURVES = 18
# The metrics of the overview, in this order.
HEADLINE = ("zero_shot/auroc", "zero_shot/accuracy", "grounding/cnr", "grounding/pointing", "grounding/miou",
            "retrieval/recall@10/image_to_text", "retrieval/precision@5")
_NAMES = {
    "auroc": "AUROC", "average_precision": "average precision", "ece": "calibration error (ECE)", "f1": "F1",
    "mcc": "MCC", "accuracy": "accuracy", "kappa": "Cohen's kappa", "macro_precision": "macro precision",
    "macro_recall": "macro recall", "macro_f1": "macro F1", "cnr": "CNR", "cnr_signed": "CNR, signed",
    "pointing": "pointing game", "miou": "mIoU", "dice": "Dice at 0.5", "dice_best": "Dice, best threshold"}


@dataclasses.dataclass(frozen=True)
class Published:
    """A number from the literature, of a protocol (`eval.harness.protocol`; "" where the file does not say).

    `pool` is what it was measured on, `labels` how many labels were averaged.
    """

    benchmark: str
    mode: str
    metric: str
    method: str
    value: float
    source: str
    protocol: str = ""
    pool: str = ""
    labels: str = ""


@dataclasses.dataclass(frozen=True)
class Run:
    """One OUT folder: its results.json."""

    folder: Path
    content: Mapping[str, Any]

    @property
    def modes(self) -> dict[str, Mapping[str, Any]]:
        """{mode: its entry of `results`}."""
        return {result["mode"]: result for result in self.content["results"]}

    @property
    def title(self) -> str:
        """The benchmark's name."""
        return str(self.content["benchmark"])


@dataclasses.dataclass(frozen=True)
class Extra:
    """A section beside the evaluations.

    Attributes:
      kind: "prototypes" or "training"; title: of the section; data: of `sections`.
      terms: of the data that it shows.
    """

    kind: str
    title: str
    data: Any
    terms: tuple[str, ...] = ()


def load_run(folder: Path) -> Run:
    """Reads OUT/results.json.

    Raises:
      UserError: there is none, or it is not one of ours.
    """
    file = folder / RESULTS
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        run = Run(folder, content)
        if not run.modes or not all(isinstance(result["metrics"], dict) for result in run.modes.values()):
            raise ValueError
        for key in ("benchmark", "data", "split", "checkpoint", "command"):
            content[key]
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"no {RESULTS} in {folder}: run an evaluation script with --out={folder} first") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{file} is not the results of an evaluation script") from None
    return run


def load_extra(folder: Path) -> Extra | None:
    """A folder with prototypes or a training run; None for anything else.

    Raises:
      UserError: a prototype table that cannot be read.
    """
    if (folder / prototypes.FILE).is_file():
        content = prototypes.load(folder)
        return Extra("prototypes", f"Prototypes of {content['checkpoint']}", sections.prototypes(content, folder),
                     tuple(content.get("terms", ())))
    if (folder / METRICS).is_file():
        return Extra("training", f"Training of {folder}", sections.training(folder))
    return None


def load_published(path: Path) -> list[Published]:
    """Reads published numbers.

    Raises:
      UserError: a column is missing, a value is no number, a mode is unknown, or a source is not given.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path} ({type(error).__name__})") from None
    out = []
    for number, row in enumerate(rows, start=2):
        if any(not (row.get(column) or "").strip() for column in COLUMNS):
            raise UserError(f"{path}, line {number}: every row needs {', '.join(COLUMNS)}")
        choose(f"mode in line {number} of {path.name}", row["mode"], tasks.RESULT_MODES)
        try:
            value = float(row["value"])
        except ValueError:
            raise UserError(f"{path}, line {number}: {row['value']!r} is no number") from None
        out.append(Published(row["benchmark"], row["mode"], row["metric"], row["method"], value, row["source"],
                             **{column: row.get(column) or "" for column in OPTIONAL}))
    return out


def page(runs: Sequence[Run], published: Sequence[Published], extras: Sequence[Extra] = ()) -> str:
    """The HTML document of some evaluations, and of prototypes and training runs."""
    credentialed = any("credentialed" in terms for terms in
                       (*(run.content.get("terms", ()) for run in runs), *(extra.terms for extra in extras)))
    listed = [{"id": f"run{i}", "kind": "evaluation", "title": name, "data": evaluation(run, published)}
              for i, (run, name) in enumerate(zip(runs, _names(runs)))]
    listed += [{"id": f"extra{i}", "kind": extra.kind, "title": extra.title, "data": extra.data}
               for i, extra in enumerate(extras)]
    titles = dict.fromkeys([*(run.title for run in runs), *(extra.title for extra in extras)])
    overview = [(mode, table) for mode in tasks.RESULT_MODES if len(runs) > 1 and (table := _overview(runs, mode))]
    return render("results", title=f"Results: {', '.join(titles)}", credentialed=credentialed, overview=overview,
                  sections=listed)


def _overview(runs: Sequence[Run], mode: str) -> Table | None:
    """A row for each run that has the mode; a table for each mode, so that no column holds both."""
    having = [(run, run.modes[mode]["metrics"]) for run in runs if mode in run.modes]
    shown = [name for name in HEADLINE if any(name in metrics for _, metrics in having)]
    if not shown:
        return None
    return Table(("benchmark", "checkpoint", *map(_label, shown)),
                 [[run.title, str(run.content["checkpoint"]), *(_cell(metrics.get(name)) for name in shown)]
                  for run, metrics in having], numeric_from=2, name=f"overview, {mode} mode")


def _names(runs: Sequence[Run]) -> list[str]:
    """A title for each run: its benchmark, and where two have the same one, their checkpoints as well."""
    titles, folders = [run.title for run in runs], [Path(str(run.content["checkpoint"])) for run in runs]
    unlike = len({folder.name for folder in folders}) == len(runs)
    return [f"{title}: {folder.name if unlike else folder}" if titles.count(title) > 1 else title
            for title, folder in zip(titles, folders, strict=True)]


def evaluation(run: Run, published: Sequence[Published]) -> dict[str, Any]:
    """The values of one evaluation's section."""
    warning, leakage = _leakage(run)
    content = run.content
    facts = [f"{content['data']}, {content['split']} split: {content.get('records', '?')} records, "
             f"{content.get('images', '?')} images of {content.get('subjects', '?')} subjects",
             f"checkpoint {content['checkpoint']}, step {content.get('step', '?')}"
             + (f", method {content['method']}" if content.get("method") else ""), *leakage]
    if content.get("rejected"):
        facts.append(f"{len(content['rejected'])} records left out: their images could not be read")
    remarks = [*filter(None, [content.get("label_note")]), *content.get("lacks", ()),
               *notes({mode: result.get("info", {}) for mode, result in run.modes.items()})]
    if content.get("report_sections"):
        remarks.append(f"reports: {', '.join(content['report_sections'])}")
    return {"warning": warning, "facts": facts, "remarks": remarks, "command": content["command"],
            "metrics": _metrics(run), "published": _published(run, published), "findings": _findings(run),
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


def _metrics(run: Run) -> Table:
    names = [name for name in dict.fromkeys(n for result in run.modes.values() for n in result["metrics"])
             if not _finding_of(name)]
    rows = []
    for name in names:
        entries = [result["metrics"].get(name) for result in run.modes.values()]
        sizes = sorted({entry["n"] for entry in entries if entry})
        if not any(sizes):
            continue  # Nothing to measure it by: the remarks say what the data lack.
        rows.append([_label(name), *map(_cell, entries), " / ".join(map(str, sizes))])
    return Table(("metric", *run.modes, "n"), rows, name=f"metrics of {run.title}")


def _published(run: Run, published: Sequence[Published]) -> list[tuple[str, Table]]:
    out = []
    for mode, result in run.modes.items():
        protocol = result.get("info", {}).get("protocol", {}).get("name", "")
        rows = [[item.method, _label(item.metric), f"{item.value:.3f}", _cell(result["metrics"].get(item.metric)),
                 item.labels, item.pool, item.source] for item in published
                if (item.benchmark, item.mode) == (run.title, mode) and item.metric in result["metrics"]
                and item.protocol in ("", protocol)]
        if rows:
            out.append((mode, Table(("method", "metric", "published", f"ours ({mode})", "labels", "pool", "source"),
                                    rows, numeric_from=2, name=f"published numbers, {mode} mode")))
    return out


def _findings(run: Run) -> Table | None:
    """A row for each finding, a column for each metric and mode."""
    cells: dict[str, dict[tuple[str, str], Any]] = {}
    columns: dict[tuple[str, str], None] = {}
    for mode, result in run.modes.items():
        for name, entry in result["metrics"].items():
            if finding := _finding_of(name):
                key = name[: -len(finding) - 1], mode
                columns[key] = None
                cells.setdefault(finding, {})[key] = entry
    if not cells:
        return None
    order = list(dict.fromkeys(name for name, _ in columns))
    keys = sorted(columns, key=lambda key: order.index(key[0]))
    rows = [[finding, *(_cell(row.get(key)) for key in keys), str(max(entry["n"] for entry in row.values()))]
            for finding, row in cells.items()]
    return Table(("finding", *(f"{_label(name)} ({mode})" for name, mode in keys), "n"), rows, name="by finding")


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
            plots.append(Curve.of(false, true, f"{samples.names['findings'][f]}: {area:.3f}", "false positive rate",
                                  "sensitivity"))
    return plots


def _subgroups(run: Run) -> list[tuple[str, str, Table]]:
    out = []
    for mode, result in run.modes.items():
        for attribute, groups in result.get("subgroups", {}).items():
            names = list(dict.fromkeys(name for group in groups.values() for name in group["metrics"]))
            rows = [[group, str(entry["images"]), str(entry["n_subjects"]),
                     *(_cell(entry["metrics"].get(name)) if entry["metrics"] else "too few" for name in names)]
                    for group, entry in groups.items()]
            out.append((attribute, mode, Table((attribute, "images", "subjects", *map(_label, names)), rows,
                                               name=f"by {attribute}, {mode} mode")))
    return out


def _finding_of(name: str) -> str:
    """The finding of a metric, "" for one over all."""
    parts = name.split("/", 2)
    return parts[2] if len(parts) == 3 and parts[0] != "retrieval" else ""


def _label(name: str) -> str:
    """A metric's name in words."""
    task, _, rest = name.partition("/")
    if task == "retrieval":
        metric, _, way = rest.partition("/")
        return f"{metric} {way.replace('_', ' ')}".strip()
    metric, _, group = rest.partition("@")
    base = _NAMES.get(metric, metric.replace("_", " "))
    group = f", {group}" if group else ""
    probed = f"{task.replace('probe@', 'probe, share ')}: " if task.startswith("probe@") else ""
    return f"{probed}{base}{group}"


def _cell(entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return "-"
    if entry["value"] is None:
        return "undefined"
    if entry["low"] is None:
        return f"{entry['value']:.3f}"
    return f"{entry['value']:.3f} [{entry['low']:.3f}, {entry['high']:.3f}]"
