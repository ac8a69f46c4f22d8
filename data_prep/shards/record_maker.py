"""Studies -> records: images decoded and converted, evidence extracted, labels in order."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

import numpy as np

from data_prep.extract import evidence_table
from data_prep.extract.evidence_table import CORRECTED, EvidenceTable, Faulty, Line
from data_prep.extract.extractors import LLM_EXTRACTORS, Extractor, open_extractor, unread
from data_prep.extract.llm.jobs import Quarantined, Replies, Store
from data_prep.extract.rules import keywords
from data_prep.extract.schema import Extraction
from data_prep.shards.plan import ShardSpec
from data_prep.shards.silver_file import read_labels
from data_prep.study import ImageRef, Rejection, Study
from lgdea_jax.findings.label_sets import labels_from_evidence
from lgdea_jax.io import (
    ImageInfo,
    UnreadableImage,
    VolumeInfo,
    encode_image,
    encode_volume,
    read_image_file,
    read_volume,
)
from lgdea_jax.io.encoded_volume import FORMAT as VOLUME_FORMAT
from lgdea_jax.preprocess.image import RECORD_TRANSFORM, difference_hash, grey8
from lgdea_jax.preprocess.volume import find_geometry, projection, to_record
from lgdea_jax.records import MISSING, NEGATIVE, POSITIVE, Box, Record


class NoEvidence(Exception):
    """A report whose evidence cannot be had; `reason` holds no words of it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


Made = tuple[Record, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Found:
    """The evidence of a report.

    Attributes:
      extraction: of it; extractor: its name, CORRECTED where a person has changed it, "" without one.
      own: lines of the extractor's, each with the votes for it; verified: lines that a person has confirmed.
    """

    extraction: Extraction = dataclasses.field(default_factory=lambda: Extraction((), False))
    extractor: str = ""
    own: Mapping[Line, str] = dataclasses.field(default_factory=dict)
    verified: frozenset[Line] = frozenset()


def _votes(extraction: Extraction) -> dict[Line, str]:
    """The lines of an extraction, each with the votes for it, "" without a vote."""
    return {line: vote for line, vote in zip_longest(evidence_table.lines(extraction), extraction.votes, fillvalue="")
            if line}


class RecordMaker:
    """Turns studies into records by one `ShardSpec`; `store` has the replies of its job, None for the job's cache."""

    def __init__(self, spec: ShardSpec, store: Store | None = None) -> None:
        self._spec = spec
        self._table: EvidenceTable | None = spec.evidence
        self._extractor: Extractor | Replies | None = None
        if spec.extractor in LLM_EXTRACTORS:
            self._extractor = Replies(spec.job, store)
        elif spec.extractor != "none":
            self._extractor = open_extractor(spec.extractor)
        self._silver: Mapping[str, dict[str, int]] | None = None
        if spec.silver_from:
            self._silver = read_labels(spec.silver_from, self._names("silver"))

    def records(self, study: Study, index: int
                ) -> tuple[list[Made], list[Rejection], Counter[str], int, list[tuple[str, ...]]]:
        """The records of a study, each with its image's `difference_hash` (zeros without an image).

        Args:
          study: what the source yielded; index: its number in the source, the row number where there is no other.

        Returns:
          (records, rejections, conversions, input rows, lines of evidence.csv). An image that cannot be used is a
          rejection of its row; the study's report stays with its other rows, and goes with the last of them.
        """
        unknown = set(study.labels) - set(self._spec.label_names)
        if unknown:
            raise ValueError(f"the source yields labels that are not among its label_names: {sorted(unknown)}")
        row = study.row if study.row >= 0 else index
        rejections = list(study.rejections)
        rows = study.rows or max(1, len(study.images)) + len(rejections)
        report = study.report.strip()
        try:
            found = self._find(study.study_id, report, study.language)
        except NoEvidence as error:
            # Without its evidence a report would look like one that finds nothing: the whole study is refused.
            refused = [(ref.image_id, ref.row if ref.row >= 0 else row) for ref in study.images]
            refused += [("", row)] * (rows - len(rejections) - len(refused))
            rejections += [Rejection(study.study_id, image_id, number, error.reason) for image_id, number in refused]
            return [], rejections, Counter(), rows, []
        converted: Counter[str] = Counter()
        table = self._lines(study.study_id, found)
        if not study.images:
            if not report:
                if not rejections:
                    rejections.append(Rejection(study.study_id, "", row, "neither an image nor a report"))
                return [], rejections, converted, rows, []
            return [self._record(study, report, found, None)], rejections, converted, rows, table
        images = []
        for ref in study.images:
            try:
                images.append((ref, *self.image(ref, converted)))
            except UnreadableImage as error:
                number = ref.row if ref.row >= 0 else row
                rejections.append(Rejection(study.study_id, ref.image_id, number, error.reason))
        if not images:
            # Rows are left only where one carried the report without an image: an unpaired report then.
            alone = rows > len(rejections) and report
            records = [self._record(study, report, found, None)] if alone else []
            return records, rejections, converted, rows, table if alone else []
        return [self._record(study, report, found, image) for image in images], rejections, converted, rows, table

    def _find(self, study: str, report: str, language: str) -> Found:
        """The evidence of a report: the corrected one, or else the extractor's. Raises NoEvidence."""
        try:
            reading = self._table.read(study, report) if self._table else None
        except Faulty as fault:
            raise NoEvidence(fault.reason) from None
        if reading and not report:
            raise NoEvidence("evidence of a study without a report")
        if self._table and not reading and report and self._extractor is None:
            raise NoEvidence("no line of evidence, and no extractor")
        try:
            own = self._extract(report, language)
        except NoEvidence:
            if reading is None:
                raise
            own = None
        if reading is None:
            return Found(own, self._extractor.name, _votes(own)) if own else Found()
        lines = _votes(own) if own else {}
        if lines.keys() == frozenset(evidence_table.lines(reading.extraction)):
            return Found(own, self._extractor.name, lines, reading.verified)
        return Found(reading.extraction, CORRECTED, lines, reading.verified)

    def _extract(self, report: str, language: str) -> Extraction | None:
        """What the extractor finds; None without one or without a report. Raises NoEvidence."""
        if not report or self._extractor is None:
            return None
        reason = unread(self._spec.extractor, language, report)
        if reason:
            raise NoEvidence(reason)
        try:
            if isinstance(self._extractor, Replies):
                return self._extractor.extract(report, language)
            return self._extractor.extract(report)
        except Quarantined as error:
            raise NoEvidence(error.reason) from None

    def _lines(self, study: str, found: Found) -> list[tuple[str, ...]]:
        """The study's lines of evidence.csv; a line that is not the extractor's has been corrected."""
        return [(study, *line, self._extractor.name if line in found.own else CORRECTED,
                 evidence_table.VERIFIED if line in found.verified else "", found.own.get(line, ""))
                for line in evidence_table.lines(found.extraction)] if found.extractor else []

    def image(self, ref: ImageRef, converted: Counter[str]) -> tuple[Any, ...]:
        """Reads one image or volume.

        Args:
          ref: of a study; converted: counts what had to be converted.

        Returns:
          (uint64 [4] `difference_hash`, original shape, what is stored (uint8 [h, w], or int16 [z, y, x] in HU), an
          ImageInfo or VolumeInfo, boxes).

        Raises:
          UnreadableImage: it cannot be used; the reason goes to rejected.csv.
        """
        if self._spec.volume:
            return self._volume(ref, converted)
        if ref.pixels is not None:
            pixels, info = ref.pixels, ImageInfo("", "")
        else:
            pixels, info = read_image_file(ref.path)
        if pixels.size == 0:
            raise UnreadableImage("the image has no pixels")
        if any(ref.size) and pixels.shape[:2] != ref.size:
            raise UnreadableImage(f"the image is {pixels.shape[0]} x {pixels.shape[1]} pixels, its boxes are for "
                                  f"{ref.size[0]} x {ref.size[1]}")
        if ref.boxes and "turned" in info.conversions:
            raise UnreadableImage("boxes on an image that its header turns: whether they are turned is unknown")
        boxes = tuple(self._clip(box, pixels.shape) for box in ref.boxes)
        image, conversions = grey8(pixels, self._spec.image_size)
        converted.update([*info.conversions, *conversions])
        return difference_hash(image), pixels.shape[:2], image, info, boxes

    def _volume(self, ref: ImageRef, converted: Counter[str]) -> tuple[Any, ...]:
        """As `image`, for a volume; what is compared for duplicates is its projection from the front."""
        if ref.pixels is not None:
            volume, info = ref.pixels, VolumeInfo("", ref.header.spacing, np.eye(4))
            if volume.dtype != np.int16 or volume.ndim != 3 or not volume.size:
                raise ValueError(f"a volume is int16 [z, y, x], not {volume.dtype} {list(volume.shape)}")
        else:
            volume, info = read_volume(ref.path, ref.header)
        if any(ref.size):
            raise UnreadableImage("boxes with the size of a 2D image at a volume")
        boxes = tuple(self._clip(box, volume.shape) for box in ref.boxes)
        stored = to_record(volume, info.spacing, find_geometry(self._spec.volume))
        converted.update(info.conversions)
        return difference_hash(projection(stored)), volume.shape, stored, info, boxes

    @staticmethod
    def _clip(box: Box, shape: tuple[int, ...]) -> Box:
        """The task of the box on the image; boxes drawn a little over the edge are common."""
        left, top = max(0.0, box.x), max(0.0, box.y)
        width, height = min(shape[1], box.x + box.w) - left, min(shape[0], box.y + box.h) - top
        low, depth = box.z, box.d
        if len(shape) == 3 and shape[-1] > 4:
            left, top, low = max(0.0, box.x), max(0.0, box.y), max(0.0, box.z)
            depth, height, width = (min(size, start + extent) - max(0.0, start) for size, start, extent in zip(
                shape, (box.z, box.y, box.x), (box.d, box.h, box.w), strict=True))
        if width <= 0 or height <= 0 or depth <= 0:
            raise UnreadableImage("a box lies outside the image")
        return dataclasses.replace(box, x=left, y=top, z=low, w=width, h=height, d=depth)

    def _names(self, kind: str) -> list[str]:
        """The findings of a derived set of labels."""
        return [name.partition(":")[2] for name in self._spec.label_names if name.startswith(f"{kind}:")]

    def _derived(self, study_id: str, report: str, extraction: Extraction) -> dict[str, int]:
        """Labels of the sets that are made from the report: what it does not mention is negative there.

        The label sets of CT-RATE and their imitations have no third value for what a report passes over.
        """
        labels: dict[str, int] = {}
        if not report:
            return labels
        for kind in self._spec.derived:
            names = self._names(kind)
            if kind == "silver" and self._silver is not None:
                found = self._silver.get(study_id, {})  # Without a usable reply a study has no labels.
                values = [found.get(name, MISSING) for name in names]
            elif kind == "silver":
                values = labels_from_evidence(extraction.evidence, extraction.normal, names,
                                              unmentioned=NEGATIVE).tolist()
            else:
                words = keywords.findings(report)
                values = [POSITIVE if name in words else NEGATIVE for name in names]
            labels |= {f"{kind}:{name}": value for name, value in zip(names, values, strict=True)}
        return labels

    def _record(self, study: Study, report: str, found: Found, image: tuple[Any, ...] | None) -> Made:
        given = study.labels | self._derived(study.study_id, report, found.extraction)
        labels = np.array([given.get(name, MISSING) for name in self._spec.label_names], np.int8)
        common = {
            "study_id": study.study_id, "subject_id": study.subject_id, "report": report,
            "evidence": found.extraction.evidence, "normal": found.extraction.normal, "labels": labels,
            "has_report": bool(report), "sex": study.sex, "age": study.age,
            "source": study.source, "licence": study.licence, "terms": study.terms, "language": study.language,
            "label_source": study.label_source,
            "extractor": found.extractor,
        }
        if image is None:
            zeros = np.zeros(3, np.int32)
            record = Record(
                image_id="", modality=study.modality, view="", image=b"", image_format="", image_shape=zeros,
                original_shape=zeros, spacing=np.zeros(3, np.float32), boxes=(), has_image=False, transform="",
                **common)
            return record, np.zeros(4, np.uint64)
        ref, image_hash, original, pixels, info, boxes = image
        common["sex"] = study.sex or info.sex
        common["age"] = info.age if math.isnan(study.age) else study.age
        if self._spec.volume:
            record = Record(
                image_id=ref.image_id, modality=info.modality, view=ref.view, image=encode_volume(pixels),
                image_format=VOLUME_FORMAT, image_shape=np.array(pixels.shape, np.int32),
                original_shape=np.array(original, np.int32), spacing=np.array(info.spacing, np.float32), boxes=boxes,
                has_image=True, transform=self._spec.transform, **common)
            return record, image_hash
        record = Record(
            image_id=ref.image_id, modality=info.modality or study.modality, view=ref.view or info.view,
            image=encode_image(pixels, self._spec.image_encoding), image_format=self._spec.image_encoding,
            image_shape=np.array([1, *pixels.shape], np.int32), original_shape=np.array([1, *original], np.int32),
            spacing=np.array([0.0, *info.spacing], np.float32), boxes=boxes, has_image=True, transform=RECORD_TRANSFORM,
            **common)
        return record, image_hash
