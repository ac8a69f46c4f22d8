"""Linear probe: logistic regression on frozen features, with a share of the training subjects' labels.

One classifier for each finding, fitted to its known labels with scikit-learn's `LogisticRegression` (extra `probe`).
Features are scaled to zero mean and unit variance on the training images. C is the one with the best mean AUROC on the
validation split, or 1 where there is none.

Shares are of subjects, seeded, and nested: those of 1% are among those of 10%. Few-shot results hang on the draw: with
a handful of positives, other seeds give other numbers, and the interval (over test subjects) does not show it.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from lgdea_jax.errors import UserError, require
from lgdea_jax.evaluators import classified
from lgdea_jax.evaluators.classified import ClassifierSamples
from lgdea_jax.evaluators.data import EvalData, ProgressCallback, no_progress, subject_key
from lgdea_jax.evaluators.encoder import Encoder, Model
from lgdea_jax.evaluators.samples import Evaluator
from lgdea_jax.io import decode_image
from lgdea_jax.metrics import classification
from lgdea_jax.preprocess.image import letterbox
from lgdea_jax.preprocess.image_spec import ImageSpec, input_dtype, input_shape
from lgdea_jax.records import NEGATIVE, POSITIVE, Record

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2)  # Values of C.
# Of the gradient. At scikit-learn's 1e-4 separable features with a large C are not converged: AUROC is 3e-3 off.
TOLERANCE = 1e-5


@dataclasses.dataclass(frozen=True)
class ProbeSamples(ClassifierSamples):
    """Scores (log odds) of a probe; see `ClassifierSamples`.

    `info`: share (of the training subjects), train_subjects, train_images, penalty (C; None where nothing was fitted),
    penalty_from, width (of the features), left_out (labels without both classes).
    """

    task: ClassVar[str] = "probe"

    @property
    def key(self) -> str:
        """For example "probe@0.01"."""
        return f"probe@{self.info['share']:g}"


@dataclasses.dataclass(frozen=True)
class Features:
    """Frozen features of a split: x float32 [N, W], labels int8 [N, L], subjects [N] keys."""

    x: np.ndarray
    labels: np.ndarray
    subjects: np.ndarray


@dataclasses.dataclass(frozen=True)
class Probe(Evaluator):
    """A probe trained on a share of `train`, scored on `data`.

    Attributes:
      data: the images that are scored; labels in the order of `train.labels`.
      train, validation: features of those splits; None where the data set has no validation split.
      share: of the training subjects, 0 < share <= 1.
      seed: of the draw.
      groups, exclusive: as in `ZeroShot`.
    """

    data: EvalData
    train: Features
    validation: Features | None
    share: float
    seed: int = 0
    groups: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    exclusive: bool = False

    def run(self, model: Model | Encoder) -> ProbeSamples:
        """Fits and scores. Findings without both classes among the drawn labels, or the scored ones, are left out."""
        encoder, data = Encoder.of(model, self.data), self.data
        rows = share_rows(self.train.subjects, self.share, self.seed)
        known = [_both(labels) for labels in (self.train.labels[rows], data.labels)]
        columns = np.flatnonzero(known[0] & known[1])
        penalties = PENALTIES if self.validation is not None else (1.0,)
        scores, penalty = np.zeros((len(data.images), 0), np.float32), None
        if len(columns):
            x = self.train.x[rows].astype(np.float64)
            scaler = require("sklearn.preprocessing", "probe", "a linear probe").StandardScaler().fit(x)
            fits, best = fit(scaler.transform(x), self.train.labels[rows][:, columns], penalties), 0
            if self.validation is not None:
                held_out = scaler.transform(self.validation.x.astype(np.float64))
                best = int(np.argmax([_mean_auroc(log_odds(models, held_out), self.validation.labels[:, columns])
                                      for models in fits]))
            test = scaler.transform(encoder.features().astype(np.float64))
            scores, penalty = log_odds(fits[best], test).astype(np.float32), penalties[best]
        # Where labels are several, the images with one are no benchmark of a probe.
        choice = columns if self.exclusive else columns[:0]
        truth, predicted, classes = classified.single_class(data, choice, scores, exclusive=self.exclusive)
        findings = tuple(data.label_names[c] for c in columns)
        info = {"share": self.share, "train_subjects": len(np.unique(self.train.subjects[rows])),
                "train_images": len(rows), "penalty": penalty, "probabilities": True, "width": self.train.x.shape[1],
                "penalty_from": "validation" if self.validation is not None else "fixed",
                "left_out": [name for c, name in enumerate(data.label_names) if c not in columns]}
        return ProbeSamples(
            data.subjects, {"scores": scores, "labels": data.labels[:, columns], "truth": truth,
                            "predicted": predicted},
            {"findings": findings, "classes": classes, **classified.grouped(self.groups, findings)}, info)


def require_scikit_learn() -> Any:
    """scikit-learn's `linear_model`.

    Raises:
      UserError: scikit-learn is not installed.
    """
    return require("sklearn.linear_model", "probe", "a linear probe")


def fit(x: np.ndarray, labels: np.ndarray, penalties: Sequence[float]) -> list[list[Any]]:
    """A `LogisticRegression` of each column of int8 [N, F] on float64 [N, W], one list for each C.

    Unknown labels are left out; every column needs both classes. The fits of a column start from one another.
    """
    linear_model = require_scikit_learn()
    out: list[list[Any]] = [[] for _ in penalties]
    for column in labels.T:
        known = np.flatnonzero((column == POSITIVE) | (column == NEGATIVE))
        model = linear_model.LogisticRegression(tol=TOLERANCE, max_iter=5000, warm_start=True)
        for models, penalty in zip(out, penalties):
            models.append(copy.deepcopy(model.set_params(C=penalty).fit(x[known], column[known])))
    return out


def log_odds(models: Sequence[Any], x: np.ndarray) -> np.ndarray:
    """float64 [N, F] of F models, for features [N, W]."""
    return np.stack([model.decision_function(x) for model in models], axis=1)


def share_rows(subjects: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Rows of a seeded share of the subjects (at least one), ascending; smaller shares lie inside larger ones.

    Raises:
      UserError: the share is not in (0, 1].
    """
    if not 0 < share <= 1:
        raise UserError(f"--probe={share:g}: a share of the training subjects lies in (0, 1]")
    names = np.unique(subjects)
    order = np.random.default_rng(seed).permutation(len(names))
    drawn = names[order[:max(1, round(share * len(names)))]]
    return np.flatnonzero(np.isin(subjects, drawn))


def read_features(model: Model, records: Iterable[Record], frame: ImageSpec, labels: np.ndarray, *,
                  progress: ProgressCallback = no_progress) -> Features:
    """Features of the images of `records`, a batch at a time: no more than a batch of images is in memory.

    Args:
      model: the model.
      records: of one split; records without an image, or with one that cannot be read, are left out.
      frame: the side of the model's square in px, or its view of volumes.
      labels: int64, which of the records' labels to keep, in order.
      progress: called with ("features", done, total).
    """
    size, rows, batch, parts = getattr(model, "batch_size", 64), [], [], []

    def flush() -> None:
        padded = np.concatenate([batch, np.zeros((size - len(batch), *input_shape(frame)), input_dtype(frame))])
        out = model.images(padded)
        parts.append(np.asarray(out.get("features", out["embedding"]), np.float32)[:len(batch)])
        batch.clear()

    total = len(records) if hasattr(records, "__len__") else 0
    for done, record in enumerate(records, start=1):
        if record.has_image:
            try:
                batch.append(letterbox(decode_image(record.image, record.image_format), frame)
                             if isinstance(frame, int) else frame.prepare(record.image))
            except ValueError:
                continue
            rows.append((record.labels[labels], subject_key(record.subject_id)))
        if len(batch) == size:
            flush()
        progress("features", done, total)
    if batch:
        flush()
    if not rows:
        raise UserError("no image to train a probe on")
    return Features(np.concatenate(parts), np.stack([row[0] for row in rows]), np.array([row[1] for row in rows]))


def _both(labels: np.ndarray) -> np.ndarray:
    return (labels == POSITIVE).any(0) & (labels == NEGATIVE).any(0)


def _mean_auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    values: list[Any] = [classification.auroc(scores[:, f], labels[:, f]) for f in range(labels.shape[1])]
    values = [value for value in values if not np.isnan(value)]
    return float(np.mean(values)) if values else 0.0
