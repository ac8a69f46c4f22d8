"""Data sets on disk, for reading: records by index, the data set's metadata and the compact index of every split.

A data set is a folder written by `python -m data_prep.build`. `open_records` reads its ArrayRecord shards directly;
the same folder opens with `tfds.builder_from_directory(folder).as_data_source(split)`. Nothing here imports TFDS,
TensorFlow or JAX.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import json
import logging
import threading
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lgdea_jax.data.codec import ImageFields, decode_image_fields, decode_record
from lgdea_jax.data.shard_file import RowFile, ShardFile, StoredImage, without_image
from lgdea_jax.errors import UserError, choose
from lgdea_jax.records import (
    MODALITIES,
    READABLE_VERSIONS,
    SCHEMA_VERSION,
    Record,
)

log = logging.getLogger("lgdea_jax")

# Shards that a source holds open: systems allow a process about a thousand files, for three streams and all else.
MOST_OPEN = 256
METADATA_FILE = "dataset.json"
BUILD_FOLDER = ".build"
TOKENIZER_FILE = "tokenizer.json"
SPLIT_ORDER = {"train": 0, "validation": 1, "test": 2}

# Columns of `index_SPLIT.npz`: name -> (dtype, trailing shape). One row per record, in record order.
INDEX_COLUMNS: dict[str, tuple[str, tuple[int, ...]]] = {
    "subject": ("<u8", ()),  # 64-bit hash of the subject id; likewise the study.
    "study": ("<u8", ()),
    "image_hash": ("<u8", (4,)),  # `preprocess.image.difference_hash`; zeros without an image.
    "report_hash": ("<u8", ()),  # Of the words in lower case; 0 without a report.
    "report_words": ("<u2", ()),
    "has_image": ("|b1", ()),
    "has_report": ("|b1", ()),
    "n_present": ("|u1", ()),  # Evidence items that are stated as present.
    "normal": ("|b1", ()),
}


@dataclasses.dataclass(frozen=True)
class Shard:
    """One ArrayRecord file of a data set: its name, number of records, size and SHA-256 (hex)."""

    file: str
    records: int
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class SourceTerms:
    """Where studies of a data set come from, and on what terms (`terms` is one of `records.TERMS`)."""

    source: str
    licence: str
    terms: str


@dataclasses.dataclass(frozen=True)
class DatasetMetadata:
    """What `dataset.json` says.

    Attributes:
      schema_version: of the record.
      name, modalities, languages: of the data set.
      label_names: the order of `Record.labels`.
      transform: of the stored images ("grey8@1"); `image_size` is the longest side, `image_encoding` their format.
      sources: origins, with licence and terms of use.
      extractor: what made the evidence ("rules@2"), "" for none.
      tokenizer: file name inside the folder, "" where no training report was there to train it on.
      shards: split -> its shards in order.
      counts: split -> {"rows", "read", "rejected", "studies", "records", "images", "reports", "normal", "evidence"}.
      converted: conversion -> number of images ("16 bit", "alpha", ...).
      config, command, seed: how it was built; `input` is split -> [number of studies, fingerprint of the files].
      modality: "xray" (2D images) or "ct" (volumes); `volume` is the name of the volumes' geometry
        (`preprocess.volume.GEOMETRIES`), "" in 2D.
    """

    schema_version: int
    name: str
    modalities: tuple[str, ...]
    languages: tuple[str, ...]
    label_names: tuple[str, ...]
    transform: str
    image_size: int
    image_encoding: str
    sources: tuple[SourceTerms, ...]
    extractor: str
    tokenizer: str
    shards: dict[str, tuple[Shard, ...]]
    counts: dict[str, dict[str, int]]
    converted: dict[str, int]
    config: dict[str, Any]
    input: dict[str, list[Any]]
    command: str
    seed: int
    modality: str = "xray"
    volume: str = ""

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits that hold records."""
        return tuple(split for split, shards in self.shards.items() if shards)

    @property
    def rejected(self) -> int:
        """Input rows that were refused, over all splits."""
        return sum(counts["rejected"] for counts in self.counts.values())

    def to_json(self) -> str:
        """The text of `dataset.json`; equal metadata gives equal text."""
        values = dataclasses.asdict(self)
        if self.modality == "xray":  # Data sets of 2D images are what they were before there were volumes.
            del values["modality"], values["volume"]
        return json.dumps(values, indent=1, sort_keys=True, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str) -> DatasetMetadata:
        """Parses `to_json`'s text; `where` names it in errors.

        Raises:
          UserError: damaged text, or another schema version.
        """
        try:
            values = json.loads(text)
            version = values["schema_version"]
            if version not in READABLE_VERSIONS:
                raise UserError(f"{where} has schema version {version}, this code reads version {SCHEMA_VERSION}: "
                                "build it again with data_prep.build, or use the version of lgdea-jax that wrote it")
            for key in ("modalities", "languages", "label_names"):
                values[key] = tuple(values[key])
            values["sources"] = tuple(SourceTerms(**source) for source in values["sources"])
            # JSON has them by the alphabet.
            splits = sorted(values["shards"], key=lambda name: (SPLIT_ORDER.get(name, len(SPLIT_ORDER)), name))
            values["shards"] = {k: tuple(Shard(**shard) for shard in values["shards"][k]) for k in splits}
            values["counts"] = {k: values["counts"][k] for k in splits}
            if values.get("modality", "xray") not in MODALITIES:
                raise UserError(f"{where} is of the unknown modality {values['modality']!r}")
            return cls(**values)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{where} is damaged ({type(error).__name__}): build the data set again") from None


# Of the ArrayRecord writer. One record a group, because records are read in random order; not compressed, so that they
# stand in the file as they are (`data.shard_file`): images are compressed already, and of a record they are the most.
WRITER_OPTIONS = "group_size:1,uncompressed"


def load_metadata(data_dir: str | Path) -> DatasetMetadata:
    """The metadata of the data set at `data_dir`.

    Raises:
      UserError: no data set, an unfinished one, or one of another schema version.
    """
    folder = Path(data_dir)
    file = folder / METADATA_FILE
    try:
        text = file.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        if (folder / BUILD_FOLDER).is_dir():
            raise UserError(f"the data set at {folder} is not finished: run the same data_prep.build command again to "
                            "go on where it stopped") from None
        raise UserError(f"no data set at {folder}: build one with python -m data_prep.build "
                        f"--config=configs/data/NAME.py --out={folder}") from None
    except UnicodeDecodeError:
        raise UserError(f"{file} is damaged: build the data set again") from None
    return DatasetMetadata.from_json(text, str(file))


def open_records(data_dir: str | Path, split: str) -> RecordSource:
    """Random access to the records of one split.

    Raises:
      UserError: no such data set or split, or a shard is missing or has another size than when it was written.
    """
    metadata = load_metadata(data_dir)
    choose(f"split of {data_dir}", split, metadata.splits)
    folder = Path(data_dir)
    for shard in metadata.shards[split]:
        file = folder / shard.file
        if not file.is_file():
            raise UserError(f"the shard {file} is missing: copy the data set again, or build it again")
        if file.stat().st_size != shard.bytes:
            raise UserError(f"the shard {file} has {file.stat().st_size} bytes instead of {shard.bytes}: copy the data "
                            "set again, or build it again")
    rows = rows_file(folder, split)
    if not rows.is_file():
        log.info("%s is missing: records are read more slowly without it; data_prep.build writes it", rows)
        rows = None
    return RecordSource(folder, metadata.shards[split], rows)


def rows_file(folder: Path, split: str) -> Path:
    """The file that says where the records of a split stand (`data.shard_file`)."""
    return folder / f"rows_{split}.npy"


def load_index(data_dir: str | Path, split: str) -> dict[str, np.ndarray]:
    """The compact columns of one split, a row per record in record order (see INDEX_COLUMNS for names and dtypes).

    Raises:
      UserError: no such data set or split, or its index is missing or damaged.
    """
    metadata = load_metadata(data_dir)
    choose(f"split of {data_dir}", split, metadata.splits)
    file = Path(data_dir) / f"index_{split}.npz"
    rows = sum(shard.records for shard in metadata.shards[split])
    try:
        with np.load(file) as archive:
            index = {name: archive[name] for name in INDEX_COLUMNS}
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"the index {file} is missing or damaged ({type(error).__name__}): build the data set again"
                        ) from None
    if any(len(column) != rows for column in index.values()):
        raise UserError(f"the index {file} does not belong to its shards: build the data set again")
    return index


class RecordSource(Sequence[Record]):
    """The records of one split, by index. Picklable; files open on first use, in whichever process uses it.

    Args:
      folder, shards: of the data set.
      rows: `rows_file`; without it ArrayRecord reads all records.

    Raises:
      UserError: the file of rows is damaged.
    """

    def __init__(self, folder: Path, shards: Sequence[Shard], rows: Path | None = None) -> None:
        self._folder = folder
        self._rows_file = rows
        self._files: dict[int, ShardFile] = {}
        self._shards = tuple(shards)
        self._ends = list(itertools.accumulate(shard.records for shard in shards))
        self._readers: dict[int, tuple[Any, threading.Lock]] = {}
        self._rows = None
        if rows is not None:
            try:
                self._rows = RowFile(rows, len(self))
            except ValueError:
                raise UserError(f"{rows} is damaged: build the data set again, or delete the file (reading is slower "
                                "without it)") from None
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple:
        return RecordSource, (self._folder, self._shards, self._rows_file)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> Record:  # type: ignore[override]
        """The record at `index` (negative counts from the end), its image still encoded."""
        return decode_record(self.read_bytes(index))

    def parts(self, index: int) -> tuple[Record, StoredImage | None]:
        """(the record without its image, where the image is stored); (the whole record, None) if that is not known.

        Of a volume only what is needed can be read then: see `io.decode_volume`.
        """
        shard, row = self._locate(index)
        known = self._row(shard, row)
        if known is None or not known["place"][-1]:
            return decode_record(self._read(shard, row)), None
        file, place = self._file(shard), known["place"]
        return without_image(file, place), StoredImage(file, place.tolist())

    def image_fields(self, indices: Sequence[int]) -> Iterator[ImageFields]:
        """The images, still encoded, and what else training reads of records without text: quicker than all of it.

        Args:
          indices: of records, not negative.
        """
        located = [self._locate(index) for index in indices]
        known = None if self._rows is None else self._rows.take(indices)
        if known is None:
            return (decode_image_fields(self._read(*where)) for where in located)
        places, studies = known["place"].tolist(), known["study"].tolist()
        return (decode_image_fields(self._read(shard, row)) if place[0] < 0 else
                ImageFields(study, StoredImage(self._file(shard), place), labels)
                for (shard, row), place, study, labels in zip(located, places, studies, known["labels"], strict=True))

    def __iter__(self) -> Iterator[Record]:
        for index in range(len(self)):
            yield self[index]

    def __repr__(self) -> str:
        return f"RecordSource({str(self._folder)!r}, {len(self)} records in {len(self._shards)} shards)"

    def read_bytes(self, index: int) -> bytes:
        """The serialised record at `index`.

        Raises:
          IndexError: out of range.
        """
        return self._read(*self._locate(index))

    def _locate(self, index: int) -> tuple[int, int]:
        """(shard, row in it) of a record."""
        index = index.__index__()
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        shard = bisect.bisect_right(self._ends, index)
        return shard, index - self._ends[shard] + self._shards[shard].records

    def _row(self, shard: int, row: int) -> np.void | None:
        """The row (`data.shard_file.row_type`) of a shard's record; None if the record's place is not known."""
        if self._rows is None:
            return None
        known = self._rows.take([self._ends[shard] - self._shards[shard].records + row])[0]
        return None if known["place"][0] < 0 else known

    def _file(self, shard: int) -> ShardFile:
        with self._lock:  # grain reads from several threads.
            if shard not in self._files:
                if len(self._files) >= MOST_OPEN:  # The one that was opened first; whoever reads it still holds it.
                    del self._files[next(iter(self._files))]
                self._files[shard] = ShardFile(self._folder / self._shards[shard].file)
            return self._files[shard]

    def _read(self, shard: int, row: int) -> bytes:
        known = self._row(shard, row)
        if known is not None:
            start, length = known["place"][:2].tolist()
            return self._file(shard).read(start, 0, length).tobytes()
        reader, lock = self._reader(shard)
        # Not `read([row])`: that takes time in proportion to the records of the shard.
        with lock:
            reader.seek(row)
            return reader.read()

    def _reader(self, shard: int) -> tuple[Any, threading.Lock]:
        """The reader of a shard, and the lock of its position."""
        with self._lock:
            if shard not in self._readers:
                from array_record.python.array_record_module import ArrayRecordReader

                # Without read-ahead: access is random, and the buffers of many shards would add up.
                reader = ArrayRecordReader(str(self._folder / self._shards[shard].file),
                                           "readahead_buffer_size:0,max_parallelism:0")
                self._readers[shard] = reader, threading.Lock()
            return self._readers[shard]
