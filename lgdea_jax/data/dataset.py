"""A data set on disk: its metadata, the compact index of every split and the columns of its labels.

A data set is a folder written by `python -m data_prep.build`. Its records are read with `data.source`. Nothing here
imports TFDS, TensorFlow or JAX.
"""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from lgdea_jax.data.sums import DamagedData, read_checked
from lgdea_jax.errors import UserError, choose
from lgdea_jax.records import SCHEMA_VERSION

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
    """The content of `dataset.json`.

    Attributes:
      schema_version: of the record.
      name, languages: of the data set; modalities: DICOM's codes ("CR", "DX", "CT").
      label_names: the order of `Record.labels`.
      transform: of the stored images ("grey8@1"); `image_size` is the longest side, `image_encoding` their format.
      sources: origins, with licence and terms of use.
      extractor: what made the evidence ("rules@4"), "" for none.
      tokenizer: file name inside the folder, "" without a training report to train it on.
      shards: split -> its shards in order.
      counts: split -> {"rows", "read", "rejected", "studies", "records", "images", "reports", "normal", "evidence"}.
      converted: conversion -> number of images ("16 bit", "alpha", ...).
      config, command, seed: how it was built; `input` is split -> [number of studies, fingerprint of the files].
      volume: geometry of the volumes (a name of `preprocess.volume.GEOMETRIES`), "" for 2D images.
      extraction: how a language model was asked for the evidence and what its replies are like
        (`data_prep.extract.llm.quality`), empty for other extractors.
      corrections: what became of the lines of a table of corrected evidence (`data_prep.shards.finish`); empty without.
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
    volume: str = ""
    extraction: dict[str, Any] = dataclasses.field(default_factory=dict)
    corrections: dict[str, int] = dataclasses.field(default_factory=dict)

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
        return json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str) -> DatasetMetadata:
        """Parses `to_json`'s text; `where` names it in errors.

        Raises:
          UserError: damaged text, or another schema version.
        """
        try:
            values = json.loads(text)
            version = values["schema_version"]
            if version != SCHEMA_VERSION:
                raise UserError(f"{where} has schema version {version}, this code reads version {SCHEMA_VERSION}: "
                                "build it again with data_prep.build, or use the version of lgdea-jax that wrote it")
            for key in ("modalities", "languages", "label_names"):
                values[key] = tuple(values[key])
            values["sources"] = tuple(SourceTerms(**source) for source in values["sources"])
            # JSON has them by the alphabet.
            splits = sorted(values["shards"], key=lambda name: (SPLIT_ORDER.get(name, len(SPLIT_ORDER)), name))
            values["shards"] = {k: tuple(Shard(**shard) for shard in values["shards"][k]) for k in splits}
            values["counts"] = {k: values["counts"][k] for k in splits}
            return cls(**values)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{where} is damaged ({type(error).__name__}): build the data set again") from None


def load_metadata(data_dir: str | Path) -> DatasetMetadata:
    """The metadata of the data set at `data_dir`.

    Raises:
      UserError: no data set, an unfinished one, or one of another schema version.
      DamagedData: its file is not the one that was written.
    """
    folder = Path(data_dir)
    file = folder / METADATA_FILE
    if not file.is_file():
        if (folder / BUILD_FOLDER).is_dir():
            raise UserError(f"the data set at {folder} is not finished: run the same data_prep.build command again to "
                            "go on where it stopped")
        raise UserError(f"no data set at {folder}: build one with python -m data_prep.build "
                        f"--config=configs/data/NAME.py --out={folder}")
    return DatasetMetadata.from_json(read_checked(folder, METADATA_FILE).decode("utf-8"), str(file))


def load_index(data_dir: str | Path, split: str) -> dict[str, np.ndarray]:
    """The compact columns of one split, a row per record in record order (see INDEX_COLUMNS for names and dtypes).

    Raises:
      UserError: no such data set or split.
      DamagedData: its index is missing or damaged.
    """
    metadata = load_metadata(data_dir)
    choose(f"split of {data_dir}", split, metadata.splits)
    file = Path(data_dir) / f"index_{split}.npz"
    rows = sum(shard.records for shard in metadata.shards[split])
    try:
        with np.load(io.BytesIO(read_checked(data_dir, file.name))) as archive:
            index = {name: archive[name] for name in INDEX_COLUMNS}
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise DamagedData(f"the index {file} is missing or damaged ({type(error).__name__}): build the data set again"
                          ) from None
    if any(len(column) != rows for column in index.values()):
        raise DamagedData(f"the index {file} does not belong to its shards: build the data set again")
    return index
