"""The files of one shard: its ArrayRecord file, and the side file that makes it count as finished.

The shard is written under a temporary name, synced and renamed. Its side file (`.build/SPLIT-NNNNN.npz`: counts,
rejections, index columns, checksum) comes after it: a shard without one is made again.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from data_prep.shards.plan import ShardTask
from data_prep.study import Rejection
from lgdea_jax.data.dataset import BUILD_FOLDER
from lgdea_jax.data.shard_file import WRITER_OPTIONS
from lgdea_jax.records import Record, hash64
from lgdea_jax.runtime.files import sync_folder, write_atomically


@dataclasses.dataclass
class ShardResult:
    """The result of a finished task.

    Attributes:
      counts: COUNTS -> number.
      converted: conversion -> number of images.
      rejections: refused rows in order.
      sources: (source, licence, terms) of the studies; languages and modalities likewise.
      corrections: of a table of corrected evidence: lines that were "used" or "refused", studies with such lines, and
        those of them that were "corrected"; empty without a table.
      file, records, bytes, sha256: of the shard; "" and 0 when nothing was written.
      columns: INDEX_COLUMNS, "key" (64-bit hash of study and image id) and, of a written shard of volumes, "offsets"
        (`data.shard_file`) -> array, one row per record.
    """

    counts: dict[str, int]
    converted: dict[str, int]
    rejections: list[Rejection]
    sources: list[tuple[str, str, str]]
    languages: list[str]
    modalities: list[str]
    file: str = ""
    records: int = 0
    corrections: dict[str, int] = dataclasses.field(default_factory=dict)
    bytes: int = 0
    sha256: str = ""
    columns: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)


def report_hash(report: str) -> int:
    """64-bit hash of a report's words in lower case, equal whatever the spacing and punctuation; 0 without words."""
    words = re.findall(r"\w+", report.lower())
    return hash64(" ".join(words)) if words else 0


def index_row(record: Record, image_hash: np.ndarray) -> tuple[Any, ...]:
    """The record's row of the index: `key` and then INDEX_COLUMNS in order."""
    present = sum(item.certainty == "present" for item in record.evidence)
    return (hash64(f"{record.study_id}\0{record.image_id}"), hash64(record.subject_id), hash64(record.study_id),
            image_hash, report_hash(record.report), min(len(record.report.split()), 65535), record.has_image,
            record.has_report, min(present, 255), record.normal)


def shard_name(name: str, task: ShardTask) -> str:
    """TFDS's file name of a shard."""
    return f"{name}-{task.split}.array_record-{task.shard:05d}-of-{task.shards:05d}"


def side_file(out: Path, task: ShardTask) -> Path:
    """The file of a finished task's result until the build is complete."""
    return out / BUILD_FOLDER / f"{task.split}-{task.shard:05d}.npz"


class ShardWriter:
    """An ArrayRecord file under a temporary name until `finish`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # The name has the process in it: a worker that outlives a killed build never writes to the same file.
        self._temporary = path.parent / BUILD_FOLDER / f"{path.name}.{os.getpid()}.tmp"
        self._writer = self._guard(lambda: ArrayRecordWriter(str(self._temporary), WRITER_OPTIONS))

    def write(self, data: bytes) -> None:
        """Appends a record."""
        self._guard(lambda: self._writer.write(data))

    def finish(self, records: int) -> tuple[int, str]:
        """Closes, checks, syncs and renames the file; returns its size in bytes and SHA-256."""
        try:
            self._guard(self._writer.close)
            with open(self._temporary, "rb") as file:
                os.fsync(file.fileno())
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            reader = ArrayRecordReader(str(self._temporary), "readahead_buffer_size:0,max_parallelism:0")
            if reader.num_records() != records:
                raise OSError(errno.EIO, "the shard cannot be read back", self.path.name)
            reader.close()
            size = self._temporary.stat().st_size
            os.replace(self._temporary, self.path)
            sync_folder(self.path.parent)
        except BaseException:
            self._temporary.unlink(missing_ok=True)
            raise
        return size, digest

    def abort(self) -> None:
        """Closes and removes the file. A full disk is not raised again: the caller has the first error."""
        try:
            self._writer.close()
        except RuntimeError as error:
            if "No space left" not in str(error) and "quota" not in str(error):
                raise
        finally:
            self._temporary.unlink(missing_ok=True)

    def _guard(self, call: Callable[[], Any]) -> Any:
        """Raises the writer's RuntimeError about a full disk as the OSError that caused it."""
        try:
            return call()
        except RuntimeError as error:
            text = str(error)
            if "No space left on device" in text:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path)) from None
            if "quota exceeded" in text.lower():
                raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), str(self.path)) from None
            raise


def write_side_file(path: Path, result: ShardResult) -> None:
    """Writes the side file of a finished shard, which makes the shard count."""
    names = (field.name for field in dataclasses.fields(result) if field.name != "columns")
    values = {name: getattr(result, name) for name in names}
    values["rejections"] = [dataclasses.astuple(rejection) for rejection in result.rejections]
    text = np.frombuffer(json.dumps(values).encode("utf-8"), np.uint8)
    write_atomically(path, lambda file: np.savez(file, result=text, **result.columns))


def read_side_file(out: Path, task: ShardTask, *, columns: tuple[str, ...] = ()) -> ShardResult | None:
    """The result of a finished task with the named `columns`, or None when the task has to be (re)done."""
    path = side_file(out, task)
    try:
        with np.load(path) as archive:
            values = json.loads(archive["result"].tobytes().decode("utf-8"))
            arrays = {name: archive[name] for name in columns}
    except FileNotFoundError:
        return None
    except (EOFError, ValueError, KeyError, zipfile.BadZipFile):
        return None
    shard = out / values["file"]
    if not shard.is_file() or shard.stat().st_size != values["bytes"]:
        return None
    values["rejections"] = [Rejection(*row) for row in values["rejections"]]
    values["sources"] = [tuple(row) for row in values["sources"]]
    return ShardResult(**values, columns=arrays)
