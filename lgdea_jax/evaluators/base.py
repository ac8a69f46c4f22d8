"""What evaluators share: evaluation data in memory, a batched and cached model, and per-sample results.

An evaluator's `run(predict)` returns `Samples`: per-sample arrays with a subject key each, and `metrics(weights)`.
Intervals (`metrics/bootstrap.py`) and paired tests (`metrics/hierarchical.py`) are made from them, live or loaded.

`predict` is any object with
  images(uint8 [B, S, S], or float32 [B, D, H, W, 1] of volumes)
                          -> {"embedding": float32 [B, E], "patches": float32 [B, L, Q], "features": [B, W]}
  texts(texts, phrases)   -> {"embedding": float32 [B, E], "query": float32 [B, Q]}
  grid: (rows, columns), or (depth, rows, columns); their product is L.
  patch_offset: by how much the patches lie off the middle of their cells, in cells (of each axis, in volumes); 0 where
    it is not given.
"patches" and "query" are missing in a model that cannot ground, "features" (for a linear probe) may be; `reads_text` is
False in a model without a text tower. The score of an image and a text is the dot product of their embeddings, whose
norms are the model's business.
"""

from __future__ import annotations

import abc
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np

from lgdea_jax.data.source import label_columns
from lgdea_jax.errors import UserError, choose
from lgdea_jax.evaluators.volumes import VolumeGeometry, Volumes
from lgdea_jax.io import decode_image
from lgdea_jax.io.encoded_volume import volume_shape
from lgdea_jax.preprocess import centre_crop
from lgdea_jax.preprocess.centre_crop import CentreCrop
from lgdea_jax.preprocess.image import MODEL_TRANSFORM, Letterbox, letterbox
from lgdea_jax.preprocess.image_spec import Frame
from lgdea_jax.records import MISSING, NEGATIVE, POSITIVE, UNCERTAIN, Box, Record


class Predict(Protocol):
    """The model as evaluators see it; see the module's docstring."""

    grid: tuple[int, ...]

    def images(self, images: np.ndarray) -> Mapping[str, np.ndarray]: ...

    def texts(self, texts: Sequence[str], phrases: Sequence[tuple[str, ...]]) -> Mapping[str, np.ndarray]: ...


# Name -> (uint8 [h, w], size -> uint8 [size, size]; original shape, size, stored shape -> geometry). Models are trained
# with the first; the others are protocols of benchmarks.
TRANSFORMS: Mapping[str, tuple[Callable[..., np.ndarray], Callable[..., Any]]] = {
    MODEL_TRANSFORM: (letterbox, Letterbox.of), **centre_crop.TRANSFORMS}

Progress = Callable[[str, int, int], None]


def silent(what: str, done: int, total: int) -> None:
    """A `Progress` that shows nothing."""


@dataclasses.dataclass(frozen=True)
class EvalData:
    """A split in memory: N images, and R reports (one per study).

    Attributes:
      images: uint8 [N, S, S], as the model sees them; of volumes, `Volumes` that are read when they are indexed.
      labels: int8 [N, L] of POSITIVE, NEGATIVE, UNCERTAIN, MISSING, in the order of `label_names`.
      subjects: [N] keys, digests of the subject ids: results may be handed on without patient identifiers.
      report_of: int64 [N], the row of the image's report, or -1.
      boxes: [N] tuples of boxes in original pixels.
      original_shapes, stored_shapes: int32 [N, 3], (depth, height, width) before and after the record transform.
      spacings: float32 [N, 3], mm per original voxel; zeros in 2D.
      record_rows: int64 [N], which record of the split the image came from.
      reports, phrases: [R] texts, and the phrases that state present or uncertain findings.
      report_labels: int8 [R, L]; report_subjects: [R] keys.
      style: of the prompts, "cxr" or "ct".
      rejected: (record row, reason) of images that could not be used.
      sexes: [N] "M", "F" or ""; ages: float [N] in years, NaN where unknown; views: [N] as the source states them.
      transform: how the images were brought to the model's square; see TRANSFORMS. Of volumes, the view's name.
      scans: [N] keys of the examinations: reconstructions of one scan share it.
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

    @property
    def lacks(self) -> dict[str, str]:
        """{task that cannot be measured on these images: why}; its metrics are undefined."""
        known = np.isin(self.labels, (POSITIVE, NEGATIVE)).any() if self.labels.size else False
        tasks = {"zero_shot": (known, "no image has a label, by which zero-shot classification is measured"),
                 "retrieval": ((self.report_of >= 0).any(), "no image has a report, by which retrieval is measured"),
                 "grounding": (any(self.boxes), "no image has a box, by which grounding is measured")}
        return {task: why for task, (there, why) in tasks.items() if not there}

    @classmethod
    def from_records(cls, records: Iterable[Record], metadata: Any, frame: Frame, *,
                     transform: str = MODEL_TRANSFORM, progress: Progress = silent) -> EvalData:
        """Decodes the images of `records` and collects their reports; volumes are decoded later, when they are seen.

        Labels are the data set's own; sets that were derived from reports are left out.

        Args:
          records: of one split.
          metadata: `data.source.DatasetMetadata`, or anything with `label_names`.
          frame: side of the model's square, or its view of volumes.
          transform: the model's transform.
          progress: called with ("reading", done, total).

        Raises:
          UserError: unknown transform, or labels that do not fit `label_names`.
        """
        columns = label_columns(metadata.label_names)
        label_names, places = tuple(columns), np.array(list(columns.values()), np.int64)
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
                phrases = tuple(dict.fromkeys(e.phrase for e in record.evidence if e.certainty != "absent"))
                reports.append((record.report, phrases, record.labels[places], subject_key(record.subject_id)))
            if record.has_image:
                try:
                    if flat:
                        images.append(prepare(decode_image(record.image, record.image_format), frame))
                    else:
                        volume_shape(record.image)
                except ValueError as error:
                    rejected.append((row, str(error)))
                else:
                    rows.append((row, record.study_id, subject_key(record.subject_id), record.labels[places],
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
            scans=np.array([subject_key(r[1]) for r in rows], "U16"))

    def geometry(self, image: int) -> Letterbox | CentreCrop | VolumeGeometry:
        """Maps between the original pixels (voxels) of image row `image` and what the model sees."""
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


class Encoder:
    """Embeddings of an `EvalData`, computed once: in batches of one size (one compilation), equal texts once.

    Patches are kept for images with boxes only; they are the large part.
    """

    def __init__(self, predict: Predict, data: EvalData, *, batch_size: int | None = None,
                 progress: Progress = silent) -> None:
        batch_size = getattr(predict, "batch_size", 64) if batch_size is None else batch_size
        if batch_size < 1:
            raise ValueError("batch_size must be at least 1")
        self.predict, self.data, self.batch_size, self.progress = predict, data, batch_size, progress
        self._images: np.ndarray | None = None
        self._features: np.ndarray | None = None
        self._patches: dict[int, np.ndarray] = {}
        self._grounds = False
        self._texts: dict[tuple[str, tuple[str, ...]], tuple[np.ndarray, np.ndarray]] = {}

    @classmethod
    def of(cls, predict: Predict | Encoder, data: EvalData) -> Encoder:
        """`predict` itself when it already is an encoder of `data`."""
        if not isinstance(predict, Encoder):
            return cls(predict, data)
        if predict.data is not data:
            raise ValueError("the encoder belongs to other data")
        return predict

    @property
    def grid(self) -> tuple[int, ...]:
        """Shape of the heatmaps before they are mapped to pixels."""
        return tuple(self.predict.grid)

    @property
    def patch_offset(self) -> float | tuple[float, ...]:
        """By how many cells what the patches look at lies after the middle of their cells: of all axes, or of each.

        An attribute of `predict`; 0 where it has none.
        """
        return getattr(self.predict, "patch_offset", 0.0)

    def images(self) -> np.ndarray:
        """Image embeddings, float32 [N, E]; the first call also keeps the patches of images with boxes."""
        if self._images is None:
            parts, features, total = [], [], len(self.data.images)
            for start in range(0, total, self.batch_size):
                batch = self.data.images[start:start + self.batch_size]
                n = len(batch)
                out = self.predict.images(self._padded(batch))
                self._grounds = "patches" in out
                parts.append(_finite(out["embedding"][:n], "image embeddings"))
                features.append(_finite(out.get("features", out["embedding"])[:n], "image features"))
                for row in range(n):
                    if self.data.boxes[start + row] and "patches" in out:
                        self._patches[start + row] = np.array(out["patches"][row], np.float32)
                self.progress("images", start + n, total)
            self._images = np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)
            self._features = np.concatenate(features) if parts else np.zeros((0, 1), np.float32)
        return self._images

    def features(self) -> np.ndarray:
        """What a linear probe sees, float32 [N, W]: the image tower's pooled output, or else the embeddings."""
        self.images()
        return self._features

    @property
    def grounds(self) -> bool:
        """Whether the model gives patches to ground with; False also where there are no images."""
        self.images()
        return self._grounds

    def patches(self, image: int) -> np.ndarray:
        """Patches of one image, float32 [L, Q]; kept for images with boxes, computed for others."""
        self.images()
        if image not in self._patches:
            return np.array(self.predict.images(self._padded(self.data.images[[image]]))["patches"][0], np.float32)
        return self._patches[image]

    def _padded(self, batch: np.ndarray) -> np.ndarray:
        """The batch at full size; the caller cuts the padding off again, so zeros are as good as any image."""
        missing = self.batch_size - len(batch)
        return np.concatenate([batch, np.zeros((missing, *batch.shape[1:]), batch.dtype)]) if missing else batch

    def texts(self, texts: Sequence[str], phrases: Sequence[tuple[str, ...]]) -> tuple[np.ndarray, np.ndarray]:
        """(embeddings float32 [M, E], queries float32 [M, Q]) of texts with their phrases; equal inputs, equal rows."""
        keys = [(text, tuple(parts)) for text, parts in zip(texts, phrases, strict=True)]
        missing = [key for key in dict.fromkeys(keys) if key not in self._texts]
        for start in range(0, len(missing), self.batch_size):
            batch = missing[start:start + self.batch_size]
            padded = batch + [batch[-1]] * (self.batch_size - len(batch))
            out = self.predict.texts([key[0] for key in padded], [key[1] for key in padded])
            embedding = _finite(out["embedding"], "text embeddings")
            query = _finite(out.get("query", np.zeros((len(padded), 1))), "text queries")
            self._texts.update({key: (embedding[i], query[i]) for i, key in enumerate(batch)})
            self.progress("texts", start + len(batch), len(missing))
        if not keys:
            return np.zeros((0, 1), np.float32), np.zeros((0, 1), np.float32)
        rows = [self._texts[key] for key in keys]
        return np.stack([row[0] for row in rows]), np.stack([row[1] for row in rows])

    def prompts(self, prompts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """`texts` of prompts: each is a text whose only phrase is itself."""
        return self.texts(prompts, [(prompt,) for prompt in prompts])


def _finite(values: Any, what: str) -> np.ndarray:
    values = np.asarray(values, np.float32)
    if not np.isfinite(values).all():
        raise ValueError(f"the model gives {what} that are not finite")
    return values


@dataclasses.dataclass(frozen=True)
class Samples(abc.ABC):
    """Per-sample results of one task.

    Attributes:
      subjects: [N] keys.
      arrays: name -> array whose first axis is N.
      names: what columns of the arrays stand for (findings, metrics, categories).
      info: what a reader needs beside the numbers: gallery, chance levels, choices. JSON values.
    """

    task: ClassVar[str]
    subjects: np.ndarray
    arrays: Mapping[str, np.ndarray]
    names: Mapping[str, tuple[str, ...]]
    info: Mapping[str, Any]

    @property
    def key(self) -> str:
        """What its metrics' names and its entries on disk start with."""
        return self.task

    @abc.abstractmethod
    def metrics(self, weights: np.ndarray | None = None) -> dict[str, Any]:
        """{metric: float}, or {metric: float64 [B]} for weights [B, N]; NaN where undefined."""

    @abc.abstractmethod
    def sizes(self) -> dict[str, int]:
        """{metric: number of samples that it rests on}."""

    def image_rows(self) -> np.ndarray:
        """int64 [N], the row of the image that each sample belongs to, -1 for samples that are reports."""
        return np.arange(len(self.subjects))

    def only(self, rows: np.ndarray) -> Samples:
        """The samples in `rows`."""
        return dataclasses.replace(self, subjects=self.subjects[rows],
                                   arrays={name: array[rows] for name, array in self.arrays.items()})

    def dump(self, prefix: str) -> dict[str, np.ndarray]:
        """Entries for `numpy.savez`, all below `prefix`; `load_samples` reads them."""
        meta = json.dumps({"names": self.names, "info": self.info})
        return {f"{prefix}{self.key}/meta": np.array(meta), f"{prefix}{self.key}/subjects": self.subjects,
                **{f"{prefix}{self.key}/array/{name}": array for name, array in self.arrays.items()}}


def weighted_mean(values: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """Means of the columns of [N, M] over their defined (not NaN) rows: [M], or [B, M] with weights [B, N]."""
    known = ~np.isnan(values)
    rows = np.ones((1, len(values))) if weights is None else weights.astype(np.float64)
    size, summed = rows @ known, rows @ np.where(known, values, 0.0)
    means = np.divide(summed, size, out=np.full(summed.shape, np.nan), where=size > 0)
    return means[0] if weights is None else means


class Evaluator(abc.ABC):
    """A task on an `EvalData`."""

    @abc.abstractmethod
    def run(self, predict: Predict | Encoder) -> Samples:
        """Scores the data with the model."""


def labelled(labels: np.ndarray) -> np.ndarray:
    """Rows of int8 [N, L] that have any label, bool [N]."""
    return (labels != MISSING).any(1)
