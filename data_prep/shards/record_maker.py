"""Studies -> records: images decoded and converted, evidence extracted, labels in order."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from typing import Any

import numpy as np

from data_prep.extract.extractors import LLM_EXTRACTORS, Extractor, open_extractor, unread
from data_prep.extract.llm.jobs import Quarantined, Replies
from data_prep.extract.rules import keywords
from data_prep.shards.plan import ShardSpec
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
from lgdea_jax.records import MISSING, NEGATIVE, POSITIVE, Box, Evidence, Record


class NoEvidence(Exception):
    """A report whose evidence cannot be had; `reason` holds no words of it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


Made = tuple[Record, np.ndarray]


class RecordMaker:
    """Turns studies into records by one `ShardSpec`."""

    def __init__(self, spec: ShardSpec) -> None:
        self._spec = spec
        self._extractor: Extractor | Replies | None = None
        if spec.extractor in LLM_EXTRACTORS:
            self._extractor = Replies(spec.job)
        elif spec.extractor != "none":
            self._extractor = open_extractor(spec.extractor)

    def records(self, study: Study, index: int) -> tuple[list[Made], list[Rejection], Counter[str], int]:
        """The records of a study, each with its image's `difference_hash` (zeros without an image).

        Args:
          study: what the source yielded; index: its number in the source, the row number where there is no other.

        Returns:
          (records, rejections, conversions, input rows). An image that cannot be used is a rejection of its row; the
          study's report stays with its other rows, and goes with the last of them.
        """
        unknown = set(study.labels) - set(self._spec.label_names)
        if unknown:
            raise ValueError(f"the source yields labels that are not among its label_names: {sorted(unknown)}")
        row = study.row if study.row >= 0 else index
        rejections = list(study.rejections)
        rows = study.rows or max(1, len(study.images)) + len(rejections)
        report = study.report.strip()
        try:
            extracted = self._extract(report, study.language)
        except NoEvidence as error:
            # Without its evidence a report would look like one that finds nothing: the whole study is refused.
            refused = [(ref.image_id, ref.row if ref.row >= 0 else row) for ref in study.images]
            refused += [("", row)] * (rows - len(rejections) - len(refused))
            rejections += [Rejection(study.study_id, image_id, number, error.reason) for image_id, number in refused]
            return [], rejections, Counter(), rows
        converted: Counter[str] = Counter()
        if not study.images:
            if not report:
                if not rejections:
                    rejections.append(Rejection(study.study_id, "", row, "neither an image nor a report"))
                return [], rejections, converted, rows
            return [self._record(study, report, *extracted, None)], rejections, converted, rows
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
            records = [self._record(study, report, *extracted, None)] if alone else []
            return records, rejections, converted, rows
        return [self._record(study, report, *extracted, image) for image in images], rejections, converted, rows

    def _extract(self, report: str, language: str) -> tuple[tuple[Evidence, ...], bool]:
        if not report or self._extractor is None:
            return (), False
        reason = unread(self._spec.extractor, language, report)
        if reason:
            raise NoEvidence(reason)
        try:
            extraction = self._extractor.extract(report)
        except Quarantined as error:
            raise NoEvidence(error.reason) from None
        return tuple(extraction.evidence), bool(extraction.normal)

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

    def _derived(self, report: str, evidence: tuple[Evidence, ...], normal: bool) -> dict[str, int]:
        """Labels of the sets that are made from the report: what it does not mention is negative there.

        The label sets of CT-RATE and their imitations have no third value for what a report passes over.
        """
        labels: dict[str, int] = {}
        if not report:
            return labels
        for kind in self._spec.derived:
            names = [name.partition(":")[2] for name in self._spec.label_names if name.startswith(f"{kind}:")]
            if kind == "silver":
                values = labels_from_evidence(evidence, normal, names, unmentioned=NEGATIVE).tolist()
            else:
                found = keywords.findings(report)
                values = [POSITIVE if name in found else NEGATIVE for name in names]
            labels |= {f"{kind}:{name}": value for name, value in zip(names, values, strict=True)}
        return labels

    def _record(self, study: Study, report: str, evidence: tuple[Evidence, ...], normal: bool,
                image: tuple[Any, ...] | None) -> Made:
        given = study.labels | self._derived(report, evidence, normal)
        labels = np.array([given.get(name, MISSING) for name in self._spec.label_names], np.int8)
        common = {
            "study_id": study.study_id, "subject_id": study.subject_id, "report": report, "evidence": evidence,
            "normal": normal, "labels": labels, "has_report": bool(report), "sex": study.sex, "age": study.age,
            "source": study.source, "licence": study.licence, "terms": study.terms, "language": study.language,
            "label_source": study.label_source,
            "extractor": self._extractor.name if report and self._extractor else "",
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
