"""One HTML page from any results: tables with intervals, ROC curves, retrieval examples, heatmaps, prototypes, curves.

    python -m lgdea_jax.report OUT... --html=page.html

OUT is what an eval binary wrote, what lgdea_jax.prototypes wrote, or a run directory of lgdea_jax.train (its training
curves). The page is self-contained: no script, nothing is loaded from anywhere. Published numbers
(benchmarks/published.csv:
benchmark, mode, metric, method, value, source) stand beside ours of the same benchmark, metric and mode only. Modes
have columns of their own. The page holds pictures of patients: it is under the terms of the data.
"""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lgdea_jax import cli
from lgdea_jax.errors import UserError, choose
from lgdea_jax.eval.harness.notes import notes
from lgdea_jax.eval.harness.output import OVERLAYS, RESULTS, SAMPLES
from lgdea_jax.eval.harness.pictures import LIST
from lgdea_jax.evaluators import tasks
from lgdea_jax.evaluators.classified import ClassifierSamples, probabilities
from lgdea_jax.inference import prototypes
from lgdea_jax.metrics import classification
from lgdea_jax.pages import parts as report_parts
from lgdea_jax.pages.html import curve, gallery_figure, listing, page, panels, table, text
from lgdea_jax.runtime.log import METRICS

# In a checkout, or in the installed package.
_PLACES = (Path(__file__).parents[1] / "benchmarks" / "published.csv", Path(__file__).with_name("published.csv"))
PUBLISHED = next((path for path in _PLACES if path.is_file()), _PLACES[0])
COLUMNS = ("benchmark", "mode", "metric", "method", "value", "source")
MOST_CURVES = 18
# What a line of the overview has room for, in this order.
HEADLINE = ("zero_shot/auroc", "zero_shot/accuracy", "grounding/cnr", "grounding/pointing", "grounding/miou",
            "retrieval/recall@10/image_to_text", "retrieval/precision@5")
_NAMES = {
    "auroc": "AUROC", "average_precision": "average precision", "ece": "calibration error (ECE)", "f1": "F1",
    "mcc": "MCC", "accuracy": "accuracy", "kappa": "Cohen's kappa", "macro_precision": "macro precision",
    "macro_recall": "macro recall", "macro_f1": "macro F1", "cnr": "CNR", "cnr_signed": "CNR, signed",
    "pointing": "pointing game", "miou": "mIoU", "dice": "Dice at 0.5", "dice_best": "Dice, best threshold"}


@dataclasses.dataclass(frozen=True)
class Published:
    """A number from the literature."""

    benchmark: str
    mode: str
    metric: str
    method: str
    value: float
    source: str


@dataclasses.dataclass(frozen=True)
class Run:
    """One OUT folder: its results.json."""

    folder: Path
    content: Mapping[str, Any]

    @property
    def modes(self) -> dict[str, Mapping[str, Any]]:
        """{mode: its entry of `results`}."""
        return {result["mode"]: result for result in self.content["results"]}


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
        raise UserError(f"no {RESULTS} in {folder}: run an eval binary with --out={folder} first") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{file} is not the results of an eval binary") from None
    return run


@dataclasses.dataclass(frozen=True)
class Extra:
    """A section beside the evaluations: its title, its HTML, and the terms of the data that it shows."""

    title: str
    body: str
    terms: tuple[str, ...] = ()


def load_extra(folder: Path) -> Extra | None:
    """A folder that is no evaluation's: prototypes or a training run; None for anything else.

    Raises:
      UserError: a prototype table that cannot be read.
    """
    if (folder / prototypes.FILE).is_file():
        content = prototypes.load(folder)
        return Extra(f"Prototypes of {content['checkpoint']}", report_parts.prototypes(content, folder),
                     tuple(content.get("terms", ())))
    if (folder / METRICS).is_file():
        return Extra(f"Training of {folder}", report_parts.training(folder))
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
        choose(f"mode in line {number} of {path.name}", row["mode"], tasks.MODES)
        try:
            value = float(row["value"])
        except ValueError:
            raise UserError(f"{path}, line {number}: {row['value']!r} is no number") from None
        out.append(Published(row["benchmark"], row["mode"], row["metric"], row["method"], value, row["source"]))
    return out


def render(runs: Sequence[Run], published: Sequence[Published], extras: Sequence[Extra] = ()) -> str:
    """The page of some runs, and of what there is besides."""
    credentialed = any("credentialed" in terms for terms in
                       (*(run.content.get("terms", ()) for run in runs), *(extra.terms for extra in extras)))
    warning = ('<p class="warn">Holds images of a data set under credentialed terms: do not pass this page on to '
               "people without access to it.</p>" if credentialed else "")
    overview, names = "", _names(runs)
    if len(runs) + len(extras) > 1:
        if len(runs) > 1:
            overview = f"<h2>Overview</h2>{''.join(_overview(runs, mode) for mode in tasks.MODES)}"
        links = [f'<a href="#run{i}">{text(name)}</a>' for i, name in enumerate(names)]
        links += [f'<a href="#extra{i}">{text(extra.title)}</a>' for i, extra in enumerate(extras)]
        overview += f'<nav aria-label="sections">{" &middot; ".join(links)}</nav>'
    body = (f"<h1>Evaluation results</h1>{warning}"
            '<p class="dim">Research use only, not a medical device. Values with 95% bootstrap intervals over '
            "subjects. <b>official</b>: as public scripts compute it; <b>clean</b>: what the metric's name says. The "
            f"two do not compare.</p>{overview}"
            + "".join(_section(i, run, names[i], published) for i, run in enumerate(runs))
            + "".join(f'<section id="extra{i}"><h2>{text(extra.title)}</h2>{extra.body}</section>\n'
                      for i, extra in enumerate(extras)))
    titles = dict.fromkeys([*(_title(run) for run in runs), *(extra.title for extra in extras)])
    return page(f"Results: {', '.join(titles)}", body)


def _overview(runs: Sequence[Run], mode: str) -> str:
    """A row for each run that has the mode; a table for each mode, so that no column holds both."""
    having = [(run, run.modes[mode]["metrics"]) for run in runs if mode in run.modes]
    shown = [name for name in HEADLINE if any(name in metrics for _, metrics in having)]
    if not shown:
        return ""
    rows = [[_title(run), str(run.content["checkpoint"]), *(_cell(metrics.get(name)) for name in shown)]
            for run, metrics in having]
    return f"<h3>{text(mode)} mode</h3>" + table(("benchmark", "checkpoint", *map(_label, shown)), rows, numeric_from=2)


def _title(run: Run) -> str:
    return str(run.content["benchmark"])


def _names(runs: Sequence[Run]) -> list[str]:
    """What each run is called: its benchmark, and where two have the same one, their checkpoints as well."""
    titles, places = [_title(run) for run in runs], [Path(str(run.content["checkpoint"])) for run in runs]
    unlike = len({place.name for place in places}) == len(runs)
    return [f"{title}: {place.name if unlike else place}" if titles.count(title) > 1 else title
            for title, place in zip(titles, places, strict=True)]


def _section(number: int, run: Run, name: str, published: Sequence[Published]) -> str:
    parts = [f'<section id="run{number}"><h2>{text(name)}</h2>', _head(run), _metrics(run),
             _published(run, published), _findings(run), _curves(run), _subgroups(run),
             report_parts.retrieval(run.folder), _gallery(run)]
    return "".join(parts) + "</section>\n"


def _head(run: Run) -> str:
    content = run.content
    facts = [f"{content['data']}, {content['split']} split: {content.get('records', '?')} records, "
             f"{content.get('images', '?')} images of {content.get('subjects', '?')} subjects",
             f"checkpoint {content['checkpoint']}, step {content.get('step', '?')}"
             + (f", method {content['method']}" if content.get("method") else "")]
    remarks = [*content.get("lacks", ()), *notes({mode: result.get("info", {}) for mode, result in run.modes.items()})]
    if content.get("report_sections"):
        remarks.append(f"reports: {', '.join(content['report_sections'])}")
    leakage = content.get("leakage")
    warning = ""
    if leakage and leakage["checked"] and not leakage["subjects_in_common"]:
        facts.append("no subject in common with the checkpoint's training data"
                     + (f" ({leakage['note']})" if leakage["note"] else ""))
    elif leakage and leakage["checked"]:
        warning = (f"{leakage['subjects_in_common']} subjects were in the checkpoint's training data: these numbers "
                   "do not measure generalisation.")
    elif leakage:
        warning = f"Subjects in common with the training data: {leakage['note']}."
    if content.get("rejected"):
        facts.append(f"{len(content['rejected'])} records left out: their images could not be read")
    shown = f'<p class="warn">{text(warning)}</p>' if warning else ""
    protocol = f"<details><summary>Protocol</summary>{listing(remarks)}</details>" if remarks else ""
    command = text(content["command"])
    return f'{shown}{listing(facts)}{protocol}<code class="line">{command}</code>'


def _metrics(run: Run) -> str:
    names = [name for name in dict.fromkeys(n for result in run.modes.values() for n in result["metrics"])
             if not _finding_of(name, run)]
    header = ["metric", *run.modes, "n"]
    rows = []
    for name in names:
        entries = [result["metrics"].get(name) for result in run.modes.values()]
        sizes = sorted({entry["n"] for entry in entries if entry})
        rows.append([_label(name), *map(_cell, entries), " / ".join(map(str, sizes))])
    return "<h3>Metrics</h3>" + table(header, rows, name=f"metrics of {_title(run)}")


def _published(run: Run, published: Sequence[Published]) -> str:
    out = ""
    for mode, result in run.modes.items():
        rows = [[item.method, _label(item.metric), f"{item.value:.3f}", _cell(result["metrics"].get(item.metric)),
                 item.source] for item in published
                if (item.benchmark, item.mode) == (_title(run), mode) and item.metric in result["metrics"]]
        if rows:
            out += f"<h3>Published numbers, {text(mode)} mode</h3>" + table(
                ("method", "metric", "published", f"ours ({mode})", "source"), rows, numeric_from=2)
    return out or '<p class="dim">No published number is on file for this benchmark in these modes.</p>'


def _findings(run: Run) -> str:
    """A row for each finding, a column for each metric and mode."""
    cells: dict[str, dict[tuple[str, str], Any]] = {}
    columns: dict[tuple[str, str], None] = {}
    for mode, result in run.modes.items():
        for name, entry in result["metrics"].items():
            finding = _finding_of(name, run)
            if finding:
                key = name[: -len(finding) - 1], mode
                columns[key] = None
                cells.setdefault(finding, {})[key] = entry
    if not cells:
        return ""
    keys = sorted(columns, key=lambda key: list(dict.fromkeys(k[0] for k in columns)).index(key[0]))
    rows = [[finding, *(_cell(row.get(key)) for key in keys), str(max(entry["n"] for entry in row.values()))]
            for finding, row in cells.items()]
    header = ("finding", *(f"{_label(name)} ({mode})" for name, mode in keys), "n")
    return f"<details><summary>By finding ({len(rows)})</summary>{table(header, rows)}</details>"


def _curves(run: Run) -> str:
    if not (run.folder / SAMPLES).is_file():
        return ""
    drawn: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for mode in run.modes:
        for key, samples in tasks.load_samples(run.folder / SAMPLES, mode).items():
            if isinstance(samples, ClassifierSamples) and (plots := _roc_plots(samples)):
                drawn.setdefault((key, plots), []).append((mode, _calibration(samples)))
    out = ""
    for (key, plots), modes in drawn.items():  # Modes that rank alike share their curves.
        out += f"<h3>ROC curves, {text(key)} ({text(', '.join(mode for mode, _ in modes))})</h3>{plots}"
        reliable = "".join(plot for _, plot in modes)
        if reliable:
            out += f'<details><summary>Calibration</summary><div class="grid">{reliable}</div></details>'
    return out


def _calibration(samples: ClassifierSamples) -> str:
    """The reliability curve of all findings together, "" where scores are no probabilities."""
    if not samples.info.get("probabilities"):
        return ""
    rows = classification.reliability(probabilities(samples.arrays["scores"]).ravel(), samples.arrays["labels"].ravel())
    return curve(np.array([row[0] for row in rows]), np.array([row[1] for row in rows]),
                 f"{samples.info.get('ensemble', samples.key)}: all findings together; on the diagonal: calibrated",
                 "predicted", "observed", dots=True)


def _roc_plots(samples: ClassifierSamples) -> str:
    scores, labels = samples.arrays["scores"], samples.arrays["labels"]
    order = np.argsort(-(labels == 1).sum(0), kind="stable")[:MOST_CURVES]
    plots = []
    for f in sorted(order.tolist()):
        false, true, _ = classification.roc_curve(scores[:, f], labels[:, f])
        if len(false):
            area = classification.auroc(scores[:, f], labels[:, f])
            plots.append(curve(false, true, f"{samples.names['findings'][f]}: {area:.3f}", "false positive rate",
                               "sensitivity"))
    if not plots:
        return ""
    left = len(samples.names["findings"]) - len(order)
    said = f'<p class="dim">The {MOST_CURVES} with most positives; {left} more are not drawn.</p>' if left else ""
    return f'<div class="grid">{"".join(plots)}</div>{said}'


def _subgroups(run: Run) -> str:
    out = ""
    for mode, result in run.modes.items():
        for attribute, groups in result.get("subgroups", {}).items():
            names = list(dict.fromkeys(name for group in groups.values() for name in group["metrics"]))
            rows = [[group, str(entry["images"]), str(entry["n_subjects"]),
                     *(_cell(entry["metrics"].get(name)) if entry["metrics"] else "too few" for name in names)]
                    for group, entry in groups.items()]
            out += f"<h3>By {text(attribute)} ({text(mode)})</h3>" + table(
                (attribute, "images", "subjects", *map(_label, names)), rows)
    return f"<details><summary>Subgroups</summary>{out}</details>" if out else ""


def _gallery(run: Run) -> str:
    file = run.folder / OVERLAYS / LIST
    if not file.is_file():
        return ""
    figures = [gallery_figure(panels(file.parent / item["file"], item["panels"]), item["title"], item["lines"])
               for item in json.loads(file.read_text(encoding="utf-8"))]
    mode = run.content.get("overlays", "")
    return (f"<h3>Heatmaps on the original images{f' ({text(mode)} mode)' if mode else ''}</h3>"
            '<p class="dim">A seeded sample, not a choice of good ones. Cyan frame: reference; white cross: '
            "highest value; the patient's right is image left. Colours run from each map's own lowest to its highest "
            f'value.</p><div class="gallery">{"".join(figures)}</div>')


def _finding_of(name: str, run: Run) -> str:
    """The finding that a metric is about, "" for one over all."""
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


def main(argv: list[str]) -> int:
    """Parses the flags, writes the page; returns the exit status."""
    first, _, *rest = __doc__.split("\n\n")
    parser = cli.Parser(prog="python -m lgdea_jax.report", description=first, epilog="\n\n".join(rest))
    parser.add_argument("out", nargs="+", metavar="OUT",
                        help="folder that an eval binary or lgdea_jax.prototypes wrote, or a run directory")
    parser.add_argument("--html", required=True, metavar="FILE", help="the page")
    parser.add_argument("--published", default="", metavar="FILE",
                        help="CSV of published numbers (default: ours)")
    args = parser.parse_args(argv)
    folders = [Path(folder) for folder in args.out]
    extras = {folder: load_extra(folder) for folder in folders if not (folder / RESULTS).is_file()}
    runs = [load_run(folder) for folder in folders if extras.get(folder) is None]
    file = Path(args.published) if args.published else PUBLISHED
    published = load_published(file)
    target = Path(args.html)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(render(runs, published, [extra for extra in extras.values() if extra]), encoding="utf-8")
    except (IsADirectoryError, NotADirectoryError, FileExistsError, PermissionError) as error:
        raise UserError(f"cannot write {target} ({type(error).__name__})") from None
    print(f"wrote {target} ({target.stat().st_size / 1e6:.1f} MB)")
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
