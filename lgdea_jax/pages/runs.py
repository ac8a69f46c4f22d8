"""The results of one evaluation as read from its folder, and how metrics and their values are written on the page."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lgdea_jax.errors import UserError
from lgdea_jax.eval.harness.output import RESULTS

_NAMES = {
    "auroc": "AUROC", "average_precision": "average precision", "ece": "calibration error (ECE)", "f1": "F1",
    "mcc": "MCC", "accuracy": "accuracy", "kappa": "Cohen's kappa", "macro_precision": "macro precision",
    "macro_recall": "macro recall", "macro_f1": "macro F1", "cnr": "CNR", "cnr_signed": "CNR, signed",
    "pointing": "pointing game", "miou": "mIoU", "dice": "Dice at 0.5", "dice_best": "Dice, best threshold"}


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


def titles(runs: Sequence[Run]) -> list[str]:
    """A title for each run: its benchmark, and where two have the same one, their checkpoints as well."""
    benchmarks, folders = [run.title for run in runs], [Path(str(run.content["checkpoint"])) for run in runs]
    unlike = len({folder.name for folder in folders}) == len(runs)
    return [f"{title}: {folder.name if unlike else folder}" if benchmarks.count(title) > 1 else title
            for title, folder in zip(benchmarks, folders, strict=True)]


def finding_of(name: str) -> str:
    """The finding of a metric, "" for one over all."""
    parts = name.split("/", 2)
    return parts[2] if len(parts) == 3 and parts[0] != "retrieval" else ""


def label(name: str) -> str:
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


def has_value(entry: Mapping[str, Any] | None) -> bool:
    """Whether a metric was measured and is defined."""
    return entry is not None and entry["value"] is not None


def cell(entry: Mapping[str, Any] | None) -> str:
    """A metric's value with its interval."""
    if entry is None:
        return "-"
    if entry["value"] is None:
        return "undefined"
    if entry["low"] is None:
        return f"{entry['value']:.3f}"
    return f"{entry['value']:.3f} [{entry['low']:.3f}, {entry['high']:.3f}]"
