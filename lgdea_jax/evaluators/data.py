"""A split in memory for evaluators: images, labels, boxes, reports."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lgdea_jax.errors import UserError, choose
from lgdea_jax.evaluators.volumes import VolumeGeometry, Volumes
from lgdea_jax.findings.label_sets import label_columns, own_label_set
from lgdea_jax.io import decode_image
from lgdea_jax.io.encoded_volume import volume_shape
from lgdea_jax.preprocess import centre_crop
from lgdea_jax.preprocess.centre_crop import CentreCrop
from lgdea_jax.preprocess.image import MODEL_TRANSFORM, Letterbox, letterbox
from lgdea_jax.preprocess.image_spec import ImageSpec
from lgdea_jax.records import MISSING, NEGATIVE, POSITIVE, UNCERTAIN, Box, Record

# Name -> (uint8 [h, w], size -> uint8 [size, size]; original shape, size, stored shape -> geometry). Models are trained
# with the first; the others are protocols of benchmarks.
TRANSFORMS: Mapping[str, tuple[Callable[..., np.ndarray], Callable[..., Any]]] = {
    MODEL_TRANSFORM: (letterbox, Letterbox.of), **centre_crop.TRANSFORMS}
ProgressCallback = Callable[[str, int, int], None]


def no_progress(what: str, done: int, total: int) -> None:
    """A `ProgressCallback` that shows nothing."""


@dataclasses.dataclass(frozen=True)
class EvalData:
    """A split in memory: N images, and R reports (one per study).

    Attributes:
      images: uint8 [N, S, S], the model's input; of volumes, `Volumes` that are decoded when they are indexed.
      labels: int8 [N, L] of POSITIVE, NEGATIVE, UNCERTAIN, MISSING, in the order of `label_names`.
      subjects: [N] keys, digests of the subject ids; `eval.harness.output.save_samples` hashes them with a secret.
      report_of: int64 [N], the row of the image's report, or -1.
      boxes: [N] tuples of boxes in original pixels.
      original_shapes, stored_shapes: int32 [N, 3], (depth, height, width) before and after the record transform.
      spacings: float32 [N, 3], mm per original voxel; zeros in 2D.
      record_rows: int64 [N], which record of the split the image came from.
      reports, phrases: [R] texts, and the phrases that state present or uncertain findings.
      report_labels: int8 [R, L]; report_subjects: [R] keys.
      style: of the prompts, "cxr" or "ct".
      rejected: (record row, reason) of images that could not be used.
      sexes: [N] "M", "F" or ""; ages: float [N] in years, NaN where unknown; views: [N] as in the source.
      transform: how the images were brought to the model's square; see TRANSFORMS. Of volumes, the view's name.
      scans: [N] keys of the examinations: reconstructions of one scan share it.
      label_set: which of the data set's sets of labels these are, one of `records.LABEL_SETS_OF_RECORDS`.
    """

    images: np.ndarray | Volumes
    labels: np.ndarray
    label_names: tuple[str, ...]
    subjects: np.ndarray
    report_of: np.ndarray
    boxes: tuple[tuple[Box, ...], ...]
    original_shapes: np.ndarray
    stored_shapes: np.ndarray
    record_rows: np.ndarray
    reports: tuple[str, ...]
    phrases: tuple[tuple[str, ...], ...]
    report_labels: np.ndarray
    report_subjects: np.ndarray
    style: str = "cxr"
    rejected: tuple[tuple[int, str], ...] = ()
    sexes: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, "U1"))
    ages: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
    views: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, "U1"))
    transform: str = MODEL_TRANSFORM
    spacings: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 3), np.float32))
    scans: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, "U1"))
    label_set: str = "reference"

    @property
    def label_note(self) -> str:
        """What to know of labels that are no reference; "" of those that are."""
        origin = {"silver": "silver, which the extractor found in the reports",
                  "weak": "weak, from keywords in the reports"}.get(self.label_set)
        return f"labels: {origin}: the numbers say how far the model agrees with them" if origin else ""

    @property
    def lacks(self) -> dict[str, str]:
        """{task that cannot be measured on these images: why}; its metrics are undefined."""
        known = np.isin(self.labels, (POSITIVE, NEGATIVE)).any() if self.labels.size else False
        reports = (self.report_of >= 0).any()
        remedy = " (data_prep.build makes some of the reports: --config.derived_labels=silver)" if reports else ""
        tasks = {"zero_shot": (known, f"no image has a label, by which zero-shot classification is measured{remedy}"),
                 "retrieval": (reports, "no image has a report, by which retrieval is measured"),
                 "grounding": (any(self.boxes), "no image has a box, by which grounding is measured")}
        return {task: why for task, (measurable, why) in tasks.items() if not measurable}

    @classmethod
    def from_records(cls, records: Iterable[Record], metadata: Any, frame: ImageSpec, *,
                     transform: str = MODEL_TRANSFORM, labels: str = "",
                     progress: ProgressCallback = no_progress) -> EvalData:
        """Decodes the images of `records` and collects their reports; volumes are decoded when they are indexed.

        Args:
          records: of one split.
          metadata: `data.dataset.DatasetMetadata`, or anything with `label_names`.
          frame: side of the model's square, or its view of volumes.
          transform: the model's transform.
          labels: which set of labels; "" takes the data set's own, and those derived from its reports only where it has
            no other (`label_note` says so then).
          progress: called with ("reading", done, total).

        Raises:
          UserError: unknown transform, or labels that do not fit `label_names`.
        """
        label_set = labels or own_label_set(metadata.label_names)
        columns = label_columns(metadata.label_names, label_set)
        label_names, positions = tuple(columns), np.array(list(columns.values()), np.int64)
        flat = isinstance(frame, int)
        prepare, _ = TRANSFORMS[choose("transform", transform, TRANSFORMS)]
        if not flat and not hasattr(records, "__getitem__"):
            records = list(records)
        total = len(records) if hasattr(records, "__len__") else 0
        images, rows, rejected = [], [], []
        studies: dict[str, int] = {}
        reports, modalities = [], set()
        for row, record in enumerate(records):
            if len(record.labels) != len(metadata.label_names):
                raise UserError(f"record {row} has {len(record.labels)} labels, the data set names "
                                f"{len(metadata.label_names)}")
            modalities.add(record.modality)
            if record.has_report and record.study_id not in studies:
                studies[record.study_id] = len(reports)
                reports.append((record.report, phrases_of(record), record.labels[positions],
                                subject_key(record.subject_id)))
            if record.has_image:
                try:
                    if flat:
                        images.append(prepare(decode_image(record.image, record.image_format), frame))
                    else:
                        volume_shape(record.image)
                except ValueError as error:
                    rejected.append((row, str(error)))
                else:
                    rows.append((row, record.study_id, subject_key(record.subject_id), record.labels[positions],
                                 record.boxes, record.original_shape, record.image_shape, record.sex, record.age,
                                 record.view, record.spacing))
            progress("reading", row + 1, total)
        none = np.zeros((0, len(label_names)), np.int8)
        if not flat:
            pictures: Any = Volumes(records, np.array([r[0] for r in rows], np.int64), frame)  # type: ignore[arg-type]
        else:
            pictures = np.stack(images) if images else np.zeros((0, frame, frame), np.uint8)
        return cls(
            images=pictures,
            labels=np.stack([r[3] for r in rows]).astype(np.int8) if rows else none,
            label_names=label_names,
            subjects=np.array([r[2] for r in rows], "U16"),
            report_of=np.array([studies.get(r[1], -1) for r in rows], np.int64),
            boxes=tuple(tuple(r[4]) for r in rows),
            original_shapes=np.array([r[5] for r in rows], np.int32).reshape(-1, 3),
            stored_shapes=np.array([r[6] for r in rows], np.int32).reshape(-1, 3),
            record_rows=np.array([r[0] for r in rows], np.int64),
            reports=tuple(r[0] for r in reports), phrases=tuple(r[1] for r in reports),
            report_labels=np.stack([r[2] for r in reports]).astype(np.int8) if reports else none,
            report_subjects=np.array([r[3] for r in reports], "U16"),
            style="ct" if modalities == {"CT"} else "cxr", rejected=tuple(rejected),
            sexes=np.array([r[7] for r in rows], "U1"), ages=np.array([r[8] for r in rows], np.float64),
            views=np.array([r[9] for r in rows], "U32"), transform=transform if flat else frame.name,
            spacings=np.array([r[10] for r in rows], np.float32).reshape(-1, 3),
            scans=np.array([subject_key(r[1]) for r in rows], "U16"), label_set=label_set)

    def geometry(self, image: int) -> Letterbox | CentreCrop | VolumeGeometry:
        """Maps between the original pixels (voxels) of image row `image` and the model's input."""
        if isinstance(self.images, Volumes):
            return VolumeGeometry(self.images.view.map(self.original_shapes[image], self.spacings[image]))
        _, geometry = TRANSFORMS[self.transform]
        return geometry(tuple(self.original_shapes[image]), self.images.shape[-1], tuple(self.stored_shapes[image]))

    def with_merged(self, name: str, parts: Sequence[str]) -> EvalData:
        """The same data with one more label, last: positive where one of `parts` is, negative where all of them are.

        Otherwise it is uncertain where one of them is, else missing.
        """
        columns = [self.label_names.index(choose("label of the data set", part, self.label_names)) for part in parts]

        def merged(labels: np.ndarray) -> np.ndarray:
            own = labels[:, columns]
            value = np.select([(own == POSITIVE).any(1), (own == NEGATIVE).all(1), (own == UNCERTAIN).any(1)],
                              [POSITIVE, NEGATIVE, UNCERTAIN], MISSING)
            return np.concatenate([labels, value[:, None].astype(np.int8)], axis=1)

        return dataclasses.replace(self, label_names=(*self.label_names, name), labels=merged(self.labels),
                                   report_labels=merged(self.report_labels))

    def with_labels(self, names: Sequence[str]) -> EvalData:
        """The same data with the labels `names` only, in that order.

        Raises:
          UserError: the data set does not label one of them.
        """
        columns = [self.label_names.index(choose("label of the data set", name, self.label_names)) for name in names]
        return dataclasses.replace(self, label_names=tuple(names), labels=self.labels[:, columns],
                                   report_labels=self.report_labels[:, columns])


def subject_key(subject_id: str) -> str:
    """16 hex digits that stand for a subject: equal for equal ids, in every data set and run."""
    return hashlib.blake2b(subject_id.encode(), digest_size=8).hexdigest()


def phrases_of(record: Record) -> tuple[str, ...]:
    """The evidence phrases of a report, each once, without those of findings that it denies."""
    return tuple(dict.fromkeys(item.phrase for item in record.evidence if item.certainty != "absent"))
