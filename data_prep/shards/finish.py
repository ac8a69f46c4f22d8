"""The last step of a build: over finished shards, the tokeniser, index files, TFDS metadata, rejections and checksums.

Everything is streamed from the shards and their side files, so memory does not grow with the data set. `dataset.json`
is written last: a folder without it is not a data set.
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.extract.evidence_table import EvidenceTable
from data_prep.extract.llm import quality
from data_prep.shards import tables
from data_prep.shards.plan import COUNTS, ShardSpec, ShardTask
from data_prep.shards.shard_writer import ShardResult, read_side_file
from data_prep.shards.tfds_metadata import write_metadata
from data_prep.study import Rejection
from lgdea_jax.data.dataset import (
    BUILD_FOLDER,
    INDEX_COLUMNS,
    METADATA_FILE,
    TOKENIZER_FILE,
    DatasetMetadata,
    Shard,
    SourceTerms,
)
from lgdea_jax.data.shard_file import offsets_file
from lgdea_jax.data.source import RecordSource
from lgdea_jax.data.sums import SUMS_FILE, read_checked
from lgdea_jax.errors import UserError
from lgdea_jax.preprocess.text import train_tokenizer
from lgdea_jax.records import hash64
from lgdea_jax.runtime.files import TableWriter, remove_locked, write_atomically

REJECTED_FILE = "rejected.csv"
KEPT_REJECTIONS = 1000


def finish(folder: Path, tasks: Sequence[ShardTask], spec: ShardSpec, config: Any, fingerprint: dict[str, Any],
           command: str) -> tuple[DatasetMetadata, tuple[Rejection, ...]]:
    """Writes everything but the shards; `tasks` are all finished.

    Returns:
      The metadata, and the first KEPT_REJECTIONS refused rows.

    Raises:
      UserError: no record at all, a subject in two splits, or a (study, image) key twice.
    """
    splits: dict[str, list[ShardTask]] = {}
    for task in tasks:
        splits.setdefault(task.split, []).append(task)
    shards: dict[str, list[Shard]] = {split: [] for split in splits}
    sources, languages, modalities = set(), set(), set()

    def results() -> Iterator[ShardResult]:
        for task in tasks:
            result = _finished(folder, task)
            sources.update(result.sources)
            languages.update(result.languages)
            modalities.update(result.modalities)
            shards[task.split].append(Shard(result.file, result.records, result.bytes, result.sha256))
            yield result

    counts, converted = add_up(tasks, results())
    for split in splits:
        if not counts[split]["records"]:
            shards[split] = []
    corrections = count_corrections(spec.evidence, (_finished(folder, task) for task in tasks))
    kept = _write_rejected(folder, tasks, _strangers(folder, tasks, spec.evidence))
    if not any(shards.values()):
        reasons = Counter(rejection.reason for rejection in kept).most_common(1)
        why = "".join(f" ({count} x {reason})" for reason, count in reasons)
        raise UserError(f"no row of the source could be used{why}: see {folder / REJECTED_FILE}")
    _check_keys(folder, splits)
    for split, parts in splits.items():
        if shards[split]:
            write_atomically(folder / f"index_{split}.npz", lambda f, parts=parts: _write_index(f, folder, parts))
            if spec.volume:
                write_atomically(offsets_file(folder, split), lambda f, parts=parts: np.save(
                    f, np.concatenate([_finished(folder, task, "offsets").columns["offsets"] for task in parts])))
    written = tables.join(folder, {split: parts for split, parts in splits.items() if shards[split]}, spec,
                          fingerprint["extractor"])
    tokenizer = _write_tokenizer(folder, shards.get("train", []), config.tokenizer)
    metadata = DatasetMetadata(
        schema_version=fingerprint["schema_version"], name=spec.name, modalities=tuple(sorted(modalities)),
        languages=tuple(sorted(languages)), label_names=spec.label_names, transform=spec.transform,
        image_size=spec.image_size, image_encoding=spec.image_encoding,
        sources=tuple(SourceTerms(*source) for source in sorted(sources)), extractor=fingerprint["extractor"],
        tokenizer=tokenizer, shards={split: tuple(files) for split, files in shards.items()}, counts=counts,
        converted=converted, config=fingerprint["config"],
        input=fingerprint["input"], command=command,
        seed=int(config[config.source].get("seed", 0)), volume=spec.volume,
        extraction=quality.record(spec.job) if spec.job else {}, corrections=corrections)
    write_metadata(folder, metadata)
    text = metadata.to_json().encode("utf-8")
    _write_sums(folder, metadata, text, written)
    write_atomically(folder / METADATA_FILE, lambda f: f.write(text))
    return metadata, kept


def add_up(tasks: Sequence[ShardTask], results: Iterable[ShardResult]
           ) -> tuple[dict[str, dict[str, int]], dict[str, int]]:
    """Sums over shards.

    Args:
      tasks: all of a build; results: theirs, in the same order.

    Returns:
      (split -> COUNTS -> number, conversion -> number of images).
    """
    counts = {task.split: dict.fromkeys(COUNTS, 0) for task in tasks}
    converted: Counter[str] = Counter()
    for task, result in zip(tasks, results, strict=True):
        for name in COUNTS:
            counts[task.split][name] += result.counts[name]
        converted.update(result.converted)
    return counts, dict(sorted(converted.items()))


def count_corrections(table: EvidenceTable | None, results: Iterable[ShardResult]) -> dict[str, int]:
    """What became of a table of corrected evidence; empty without one.

    Returns:
      `{"lines", "used", "refused", "strangers"` (lines of studies that are not in the data set; the first is the sum
      of these three)`, "studies"` (of the data set, with lines)`, "corrected"` (those whose evidence is changed)`}`.
    """
    if table is None:
        return {}
    counts = Counter(dict.fromkeys(("used", "refused", "studies", "corrected"), 0))
    for result in results:
        counts.update(result.corrections)
    return {"lines": len(table), **counts, "strangers": len(table) - counts["used"] - counts["refused"]}


def remove_build_folder(folder: Path) -> None:
    """Removes the work folder of a finished data set."""
    remove_locked(folder / BUILD_FOLDER)


def read_rejected(folder: Path) -> tuple[Rejection, ...]:
    """The first KEPT_REJECTIONS lines of a data set's rejected.csv."""
    rows = csv.DictReader(io.StringIO(read_checked(folder, REJECTED_FILE).decode("utf-8"), newline=""))
    return tuple(Rejection(row["study_id"], row["image_id"], int(row["row"]), row["reason"])
                 for row, _ in zip(rows, range(KEPT_REJECTIONS), strict=False))


def _finished(folder: Path, task: ShardTask, *columns: str) -> ShardResult:
    result = read_side_file(folder, task, columns=columns)
    if result is None:
        raise UserError(f"shard {task.shard} of {task.split} disappeared while the build was finishing: run it again")
    return result


def _strangers(folder: Path, tasks: Sequence[ShardTask], table: EvidenceTable | None) -> Iterator[Rejection]:
    """The lines of studies that are not in the data set, neither used nor refused."""
    if table is None:
        return
    met: set[int] = set()
    for task in tasks:
        result = _finished(folder, task, "study")
        met.update(result.columns["study"].tolist())
        met.update(hash64(rejection.study_id) for rejection in result.rejections)
    for study, number in table.others(met):
        yield Rejection(study, "", number, "evidence of a study that is not in the data set")


def _write_rejected(folder: Path, tasks: Sequence[ShardTask], more: Iterable[Rejection]) -> tuple[Rejection, ...]:
    kept: list[Rejection] = []

    def write(file: Any) -> None:
        text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="", write_through=True)
        rows = TableWriter(text)
        rows.writerow(("study_id", "image_id", "row", "reason"))
        for rejection in itertools.chain(*(_finished(folder, task).rejections for task in tasks), more):
            rows.writerow((rejection.study_id, rejection.image_id, rejection.row, rejection.reason))
            if len(kept) < KEPT_REJECTIONS:
                kept.append(rejection)
        text.detach()

    write_atomically(folder / REJECTED_FILE, write)
    return tuple(kept)


def _check_keys(folder: Path, splits: dict[str, list[ShardTask]]) -> None:
    """Refuses a data set in which a subject lies in two splits or a key occurs twice, whatever its source."""
    keys, subjects = [], {}
    for split, parts in splits.items():
        columns = [_finished(folder, task, "key", "subject").columns for task in parts]
        keys += [column["key"] for column in columns]
        subjects[split] = np.unique(np.concatenate([column["subject"] for column in columns]))
    keys = np.concatenate(keys)
    twice = len(keys) - len(np.unique(keys))
    if twice:
        raise UserError(f"{twice} pairs of study_id and image_id occur more than once in the source")
    names = list(subjects)
    for i, first in enumerate(names):
        for second in names[i + 1:]:
            shared = len(np.intersect1d(subjects[first], subjects[second], assume_unique=True))
            if shared:
                raise UserError(f"{shared} subjects lie both in the {first} and in the {second} split of the source")


def _write_index(file: Any, folder: Path, parts: Sequence[ShardTask]) -> None:
    """An .npz written column by column, task by task: no column is ever whole in memory."""
    rows = sum(_finished(folder, task).records for task in parts)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, (dtype, trailing) in INDEX_COLUMNS.items():
            # A fixed date: equal data gives equal bytes.
            with archive.open(zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), "w", force_zip64=True) as column:
                header = {"descr": dtype, "fortran_order": False, "shape": (rows, *trailing)}
                np.lib.format.write_array_header_1_0(column, header)
                for task in parts:
                    column.write(np.ascontiguousarray(_finished(folder, task, name).columns[name]).tobytes())


def _train_reports(folder: Path, shards: Sequence[Shard]) -> Iterator[tuple[str, str]]:
    """(subject, report) of the training split's reports, those of several views once."""
    previous = None
    for record in RecordSource(folder, shards) if shards else ():
        if record.has_report and record.study_id != previous:
            yield record.subject_id, record.report
        previous = record.study_id


def _write_tokenizer(folder: Path, shards: Sequence[Shard], settings: Any) -> str:
    reports = _train_reports(folder, shards)
    first = next(reports, None)
    if first is None:
        return ""

    def texts() -> Iterator[tuple[str, str]]:
        yield first
        yield from reports

    tokenizer = train_tokenizer(texts(), settings.vocab_size, subjects=settings.subjects)
    write_atomically(folder / TOKENIZER_FILE, lambda f: f.write(tokenizer.serialised.encode("utf-8")))
    return TOKENIZER_FILE


def _write_sums(folder: Path, metadata: DatasetMetadata, dataset_json: bytes, tables: Sequence[str]) -> None:
    """`sha256sum -c SHA256SUMS` checks the folder."""
    sums = {shard.file: shard.sha256 for shards in metadata.shards.values() for shard in shards}
    sums[METADATA_FILE] = hashlib.sha256(dataset_json).hexdigest()
    others = [REJECTED_FILE, *tables, "LICENSE", "dataset_info.json", "features.json", metadata.tokenizer,
              *(f"index_{split}.npz" for split in metadata.splits),
              *(offsets_file(folder, split).name for split in metadata.splits if metadata.volume)]
    for name in filter(None, others):
        with open(folder / name, "rb") as file:
            sums[name] = hashlib.file_digest(file, "sha256").hexdigest()
    text = "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items()))
    write_atomically(folder / SUMS_FILE, lambda f: f.write(text.encode("utf-8")))
