"""The record: what `data_prep` writes and everything else reads. NumPy only; one spec for every data set.

A record is one image (or volume) of a study with the study's report, or a report alone, keyed by (study_id, image_id).
A study with two views gives two records that share the report.
"""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np

# Of the record's fields and of the files beside the shards; a data set of another version has to be built again.
SCHEMA_VERSION = 4

CERTAINTIES = ("present", "uncertain", "absent")
LATERALITIES = ("", "left", "right", "bilateral", "midline")
SEVERITIES = ("", "trace", "mild", "moderate", "severe")
TEMPORALITIES = ("", "new", "unchanged", "improved", "worsened", "historical")
TERMS = ("open", "credentialed", "own", "unstated")

# Who gave the labels of a record: people who looked at the image, people who read the report, a program that read the
# report, or (an empty string) unknown.
LABEL_SOURCES = ("", "radiologist", "report_human", "report_program")

# Label values, everywhere: in records, in `label:NAME` columns (missing is the empty cell) and in metrics.
POSITIVE, NEGATIVE, UNCERTAIN, MISSING = 1, 0, -1, -2

# Values of `config.image.modality`: 2D images, volumes. (A record's `modality` is DICOM's code.)
MODALITIES = ("xray", "ct")

# Sets of labels that a data set may have beside its own: those that the extractor reads from the report ("silver"),
# those of bare keywords ("weak"), and those that a published evaluation protocol scores where it names or merges them
# otherwise than the release does ("protocol"). Their names in `label_names` have the set before a colon
# ("silver:Nodule"); the plain names ("Nodule") are the reference.
LABEL_SETS_OF_RECORDS = ("reference", "silver", "weak", "protocol")


# Views as sources state them; everything else (PA, AP, FRONTAL, unknown) counts as frontal.
_LATERAL = frozenset({"LATERAL", "LL", "L", "LAT", "SWIMMERS", "XTABLE LATERAL", "LEFT LATERAL", "RIGHT LATERAL"})


def is_frontal(view: str) -> bool:
    """Whether a view (`Record.view`) is not stated to be lateral."""
    return view.strip().upper() not in _LATERAL


@dataclasses.dataclass(frozen=True)
class Evidence:
    """One diagnostic statement of a report.

    Attributes:
      finding: canonical name of `lgdea_jax.findings.vocabulary`.
      anatomy: the region in the report's words, normalised ("lower lobe", "apex", ...) or "".
      laterality, severity, certainty, temporality: one of the tuples above.
      phrase: the verbatim words of the report that state it.
      start, end: `report[start:end] == phrase`.
    """

    finding: str
    anatomy: str
    laterality: str
    severity: str
    certainty: str
    temporality: str
    phrase: str
    start: int
    end: int


@dataclasses.dataclass(frozen=True)
class Box:
    """Where a finding is, in pixels (voxels) of the original image; x to the right, y down, z and d for volumes.

    In volumes x runs to the patient's left, y to the back, z to the head: see `lgdea_jax.io.volumes`.
    """

    finding: str
    phrase: str
    x: float
    y: float
    w: float
    h: float
    z: float = 0.0
    d: float = 1.0


@dataclasses.dataclass(frozen=True)
class Record:
    """One record, decoded from storage; the image stays encoded until `io.decode_image`.

    Attributes:
      image: encoded bytes, empty without an image; `image_format` is "png", "jpeg", "raw" or "blosc2".
      image_shape: int32 [3], (depth, height, width) as stored; depth 1 in 2D; zeros without an image.
      original_shape: int32 [3], the same before the build's resizing: boxes are given in its pixels. Of a volume, in
        the canonical frame of `lgdea_jax.io.volumes`.
      spacing: float32 [3], mm per original voxel (depth, height, width); 0 where unknown.
      report: the text that evidence spans refer to; empty without a report.
      normal: True where the report states that the study is normal.
      labels: int8 [number of labels] in the order of the data set's `label_names`; POSITIVE, NEGATIVE, ...
      label_source: who gave the labels: one of LABEL_SOURCES.
      age: years, NaN where unknown; sex: "M", "F" or "".
      terms: one of TERMS; language: ISO 639-1.
    """

    study_id: str
    image_id: str
    subject_id: str
    modality: str
    view: str
    image: bytes
    image_format: str
    image_shape: np.ndarray
    original_shape: np.ndarray
    spacing: np.ndarray
    report: str
    evidence: tuple[Evidence, ...]
    normal: bool
    labels: np.ndarray
    boxes: tuple[Box, ...]
    has_image: bool
    has_report: bool
    sex: str
    age: float
    source: str
    licence: str
    terms: str
    language: str
    extractor: str
    transform: str
    label_source: str = ""


def hash64(text: str) -> int:
    """A stable 64-bit hash of an id or another text, never 0."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "little") or 1
