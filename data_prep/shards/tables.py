"""The tables of a data set: `evidence.csv`, a line per statement, and `labels_SPLIT.csv`, a line per study.

Each shard's lines are written beside its side file and put together when all are done, so that no shard is read again.
Both quote or describe reports: they are as private as the data set itself.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from data_prep.extract.evidence_table import COLUMNS, FILE
from data_prep.shards.plan import ShardSpec, ShardTask
from lgdea_jax.data.dataset import BUILD_FOLDER
from lgdea_jax.records import MISSING, Record
from lgdea_jax.runtime.files import TableWriter, write_atomically

EVIDENCE, LABELS = "evidence", "labels"


def label_row(record: Record) -> tuple[str, ...]:
    """A study's line of labels: 1, 0, -1 (uncertain) or empty (missing)."""
    return (record.study_id, *("" if value == MISSING else str(value) for value in record.labels.tolist()))


def write_parts(out: Path, task: ShardTask, evidence: Iterable[Sequence[str]], labels: Iterable[Sequence[str]]) -> None:
    """Writes a shard's lines of both tables."""
    for kind, rows in ((EVIDENCE, evidence), (LABELS, labels)):
        write_atomically(_part(out, task, kind), lambda file, rows=rows: _write(file, rows))


def join(out: Path, splits: dict[str, list[ShardTask]], spec: ShardSpec, extractor: str) -> list[str]:
    """Writes the tables over the parts of all shards; returns the files' names.

    Args:
      out: the data set's folder.
      splits: with records, and all of their tasks; spec: what the shards share.
      extractor: its name; without one there is no table of evidence. Without labels there is none of them.
    """
    tables = [(FILE, COLUMNS, EVIDENCE, [task for tasks in splits.values() for task in tasks])] if extractor else []
    if spec.label_names:
        tables += [(f"labels_{split}.csv", ("study", *spec.label_names), LABELS, tasks)
                   for split, tasks in splits.items()]
    for name, header, kind, tasks in tables:
        write_atomically(out / name, lambda file, header=header, kind=kind, tasks=tasks: _join(
            file, header, [_part(out, task, kind) for task in tasks]))
    return [name for name, *_ in tables]


def _part(out: Path, task: ShardTask, kind: str) -> Path:
    return out / BUILD_FOLDER / f"{task.split}-{task.shard:05d}.{kind}.csv"


def _write(file: Any, rows: Iterable[Sequence[str]]) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="", write_through=True)
    table = TableWriter(text)
    for row in rows:
        table.writerow(row)
    text.detach()


def _join(file: Any, header: Sequence[str], parts: Iterable[Path]) -> None:
    _write(file, [header])
    for part in parts:
        with open(part, "rb") as lines:
            shutil.copyfileobj(lines, file)
