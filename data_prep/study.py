"""The study: what every source yields and `data_prep.build` turns into records. NumPy only.

A study is one examination of a subject: its images with their views, its report and what is known about it. Sources
(`data_prep/sources`) read official layouts into studies; nothing here touches the disk.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from lgdea_jax.io.raw_volume import NO_HEADER, VolumeHeader
from lgdea_jax.records import LABEL_SOURCES, TERMS, Box

SPLITS = ("train", "validation", "test")
SEXES = ("", "M", "F")


class Reject(Exception):
    """A source item that cannot be used; the message is the reason, without report text or patient identifiers.

    Attributes:
      reason: one short line, as it is written to `rejected.csv`.
      study_id, image_id: of the refused item, "" where unknown; `image_id` is empty when the whole study is refused.
    """

    def __init__(self, reason: str, *, study_id: str = "", image_id: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.study_id = study_id
        self.image_id = image_id

    def __reduce__(self) -> tuple:
        # Exceptions pickle by their positional arguments only, and worker processes send this one back.
        return _rebuild_reject, (self.reason, self.study_id, self.image_id)


def _rebuild_reject(reason: str, study_id: str, image_id: str) -> Reject:
    return Reject(reason, study_id=study_id, image_id=image_id)


@dataclasses.dataclass(frozen=True)
class Rejection:
    """One line of `rejected.csv`: `row` is the item's index in its source (a row number where there is a table)."""

    study_id: str
    image_id: str
    row: int
    reason: str


@dataclasses.dataclass(frozen=True, eq=False)
class ImageRef:
    """One image of a study: a file to decode, or pixels that are already there. Exactly one of the two is given.

    Attributes:
      image_id: unique within the study.
      view: "PA", "AP", "LATERAL", ... as the source states it, "" where unknown.
      path: file with the image (PNG, JPEG, DICOM, NIfTI, .npz; a folder for a DICOM series).
      pixels: uint8 [h, w] (or [h, w, 3], or uint16) decoded image; int16 [z, y, x] in HU and in the canonical frame of
        `lgdea_jax.io.volumes` for a volume.
      boxes: where findings are, in pixels of this (original) image.
      row: the image's row number in its source, -1 to use the study's.
      size: (height, width) that the boxes are for; an image of another size is refused. (0, 0): not stated.
      header: of a volume, what is known of it besides its file; with `pixels`, its spacing.
    """

    image_id: str
    view: str = ""
    path: str | None = None
    pixels: np.ndarray | None = None
    boxes: tuple[Box, ...] = ()
    row: int = -1
    size: tuple[int, int] = (0, 0)
    header: VolumeHeader = NO_HEADER

    def __post_init__(self) -> None:
        if (self.path is None) == (self.pixels is None):
            raise ValueError("an ImageRef has either a path or pixels")


@dataclasses.dataclass(frozen=True, eq=False)
class Study:
    """One examination.

    Attributes:
      study_id: unique in the data set; subject_id: the patient; a subject lies in one split only.
      split: one of SPLITS.
      images: may be empty (an unpaired report).
      report: whole text, sections with their headers ("FINDINGS: ..."); empty for unpaired images.
      labels: label name -> POSITIVE, NEGATIVE, UNCERTAIN or MISSING of `lgdea_jax.records`; a name that is not in the
        source's `label_names` is an error, one that is absent here is MISSING.
      label_source: who gave the labels, one of `records.LABEL_SOURCES`.
      source, licence: free text; terms: one of `records.TERMS`; language: ISO 639-1.
      sex: "M", "F" or ""; age: years, NaN where unknown (then a DICOM file's own are taken);
      modality: "CR", "DX", "CT", ...
      row: the study's row number in its source, -1 to use its index there.
      rows: input rows that the study stands for, refused ones included; 0 where the source has no rows of its own: then
        one per image, or one for a report alone.
      rejections: rows that the source refused while it could still use others of the study.
    """

    study_id: str
    subject_id: str
    split: str
    images: tuple[ImageRef, ...] = ()
    report: str = ""
    labels: dict[str, int] = dataclasses.field(default_factory=dict)
    source: str = ""
    licence: str = ""
    terms: str = "unstated"
    language: str = "en"
    sex: str = ""
    age: float = float("nan")
    modality: str = "CR"
    row: int = -1
    rows: int = 0
    rejections: tuple[Rejection, ...] = ()
    label_source: str = ""

    def __post_init__(self) -> None:
        if self.label_source not in LABEL_SOURCES:
            raise ValueError(f"label_source {self.label_source!r} is none of {LABEL_SOURCES}")
        if self.split not in SPLITS:
            raise ValueError(f"split {self.split!r} is none of {SPLITS}")
        if self.terms not in TERMS:
            raise ValueError(f"terms {self.terms!r} is none of {TERMS}")
        if self.sex not in SEXES:
            raise ValueError(f"sex {self.sex!r} is none of {SEXES}")


@dataclasses.dataclass(frozen=True)
class Attribute:
    """Where a finding of a report is.

    Attributes:
      uid: of the report; finding: canonical name.
      side: "left", "right", "bilateral", "midline" or "".
      sites: lower-case anatomy as the reference names it.
    """

    uid: str
    finding: str
    side: str
    sites: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Reference:
    """A report and the findings that it is known to state, to score extractors against; no images are needed for it.

    Attributes:
      uid: the report's number or name in its collection.
      report: whole text, sections with their headers; empty where there is none.
      labels: as `Study.labels`, but of what the report states.
      attributes: sides and sites, empty where the source knows none.
      terms: as `Study.terms`.
    """

    uid: str
    report: str
    labels: dict[str, int]
    attributes: tuple[Attribute, ...] = ()
    terms: str = "unstated"
