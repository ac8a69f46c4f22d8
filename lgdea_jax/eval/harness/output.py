"""What an evaluation leaves behind: results.json, and the printed tables."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import secrets
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lgdea_jax.data.dataset import DatasetMetadata
from lgdea_jax.errors import UserError, environment_fault
from lgdea_jax.eval.harness.notes import few_subjects, notes
from lgdea_jax.evaluators.samples import Samples
from lgdea_jax.metrics.bootstrap import Interval
from lgdea_jax.runtime.files import write_atomically, write_text_atomically

RESULTS, SAMPLES, OVERLAYS, SECRET = "results.json", "samples.npz", "overlays", ".subject_key"


@dataclasses.dataclass(frozen=True)
class ModeResult:
    """One mode: intervals, on how many samples each metric rests, the `info` of each task, and subgroups.

    `subgroups` is {attribute: {group: {"n_subjects", "metrics": {name: {"value", "low", "high", "n"}}}}}.
    """

    mode: str
    intervals: dict[str, Interval]
    sizes: dict[str, int]
    info: dict[str, Any]
    samples: tuple[Samples, ...]
    subgroups: dict[str, Any] = dataclasses.field(default_factory=dict)


def as_json(result: ModeResult) -> dict[str, Any]:
    """One entry of `results`: undefined numbers are null."""
    metrics = {name: entry(interval, result.sizes[name]) for name, interval in result.intervals.items()}
    return {"mode": result.mode, "metrics": metrics, "info": result.info, "subgroups": result.subgroups}


def entry(interval: Interval, size: int) -> dict[str, Any]:
    """{"value", "low", "high", "n"} of one metric."""
    def number(value: float) -> float | None:
        return float(value) if math.isfinite(value) else None

    return {"value": number(interval.value), "low": number(interval.low), "high": number(interval.high), "n": size}


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes strict JSON, whole or not at all."""
    write_text_atomically(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def save_samples(path: Path, samples: Mapping[str, Sequence[Samples]], *, key: bytes = b"") -> None:
    """Writes {mode: samples of each task} as one .npz without pickles; `evaluators.tasks.load_samples` reads it.

    Args:
      path: of the file; samples: what it is to hold.
      key: of `secret_key`; the subjects' keys are hashed with it. b"" leaves them as they are.
    """
    entries: dict[str, np.ndarray] = {}
    for mode, items in samples.items():
        for item in items:
            if key:
                item = dataclasses.replace(item, subjects=np.array([hashlib.blake2b(
                    str(subject).encode(), digest_size=8, key=key).hexdigest() for subject in item.subjects], "U16"))
            entries |= item.dump(f"{mode}/")
    write_atomically(path, lambda file: np.savez_compressed(file, **entries))


def secret_key(data_dir: Path, metadata: DatasetMetadata) -> bytes:
    """32 random bytes that belong to a data set and stay with it: DATA/.subject_key, made when it is first needed.

    A plain hash of a subject's id is no secret: all ids of seven digits are tried in seconds. With the key only who has
    the data set can find a subject in its results, and results on one data set still pair. Open data (all sources under
    open terms) have public ids: b"", so that results pair between copies that were built apart.

    Raises:
      UserError: it cannot be written.
    """
    if {item.terms for item in metadata.sources} == {"open"}:
        return b""
    file = data_dir / SECRET
    try:
        if not file.is_file():
            made = data_dir / f"{SECRET}.{os.getpid()}"
            made.write_bytes(secrets.token_bytes(32))
            with contextlib.suppress(FileExistsError):  # Another evaluation was faster: its key is the one.
                os.link(made, file)
            made.unlink()
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"{file}, with which the subjects in {SAMPLES} are hashed, cannot be made or read "
                        f"({environment_fault(error) or error.strerror}): whoever may write to the data set evaluates "
                        "on it once") from None


def config_hash(config: Any) -> str:
    """12 hex digits of a config's canonical JSON."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12]


def command_line(benchmark: str, argv: Sequence[str]) -> str:
    """The command, to be run again."""
    return shlex.join(["python", "-m", f"lgdea_jax.eval.{benchmark}", *argv])


def table(head: dict[str, Any], results: Sequence[ModeResult]) -> str:
    """The printed tables: metrics with intervals, a column per mode; then the findings, a row each.

    Metrics that rest on no sample in any mode are left out: `head["lacks"]` says once what the data lack.
    """
    # Each mode has columns of its own: the two never mix.
    lines = ["", f"{head['benchmark']}: {head['data']} / {head['split']}, {head['records']} records of "
             f"{head['subjects']} subjects, checkpoint {head['checkpoint']} step {head['step']}"]
    if head["bootstrap"]:
        lines.append(f"95% intervals: {head['bootstrap']} resamples of subjects, seed {head['seed']}")
        lines += [f"  {line}" for line in (few_subjects(head["subjects"]),) if line]
    if head.get("report_sections"):
        lines.append(f"  reports: {', '.join(head['report_sections'])}")
    lines += [f"  {line}" for line in (head.get("label_note"), *head.get("lacks", ())) if line]
    lines += [f"  {line}" for line in notes({result.mode: result.info for result in results})]
    overall = [name for name in dict.fromkeys(name for result in results for name in result.intervals)
               if name.count("/") == 1 or name.startswith("retrieval/")]
    sizes: dict[str, int] = {}
    for result in results:
        sizes |= {name: max(size, sizes.get(name, 0)) for name, size in result.sizes.items()}
    overall = [name for name in overall if sizes[name]]
    width = max((len(name) for name in overall), default=0)
    lines += ["", f"{'metric':<{width}}" + "".join(f"  {r.mode:>22}" for r in results) + f"  {'n':>6}"]
    lines += [f"{name:<{width}}" + "".join(f"  {_cell(r.intervals.get(name)):>22}" for r in results)
              + f"  {sizes[name]:>6}" for name in overall]
    return "\n".join(lines + _finding_lines(results[0])) + "\n"


def _finding_lines(result: ModeResult) -> list[str]:
    columns = {"zero_shot/auroc": "AUROC", "classifier/auroc": "AUROC", "grounding/cnr": "CNR",
               "grounding/pointing": "pointing"}
    per_finding = [name.split("/", 2) for name in result.intervals if name.rsplit("/", 1)[0] in columns]
    columns = {name: title for name, title in columns.items() if any(name == f"{a}/{b}" for a, b, _ in per_finding)}
    findings = list(dict.fromkeys(finding for *_, finding in per_finding))
    if not findings:
        return []
    width = max(len(name) for name in (*findings, "finding"))
    lines = ["", f"{'finding':<{width}}" + "".join(f"  {f'{title} ({result.mode})':>22}  {'n':>6}"
                                                   for title in columns.values())]
    for finding in findings:
        cells = []
        for name in columns:
            interval = result.intervals.get(f"{name}/{finding}")
            size = result.sizes.get(f"{name}/{finding}", 0)
            cells.append(f"  {_cell(interval) if interval else '':>22}  {size if interval else '':>6}")
        lines.append(f"{finding:<{width}}" + "".join(cells))
    return lines


def _cell(interval: Interval | None) -> str:
    if interval is None:
        return "-"
    if not math.isfinite(interval.value):
        return "undefined"
    if not math.isfinite(interval.low):
        return f"{interval.value:.3f}"
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
