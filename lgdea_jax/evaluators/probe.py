"""Linear probe: logistic regression on frozen features, with a share of the training subjects' labels.

One classifier for each finding, fitted to its known labels: sum of the log losses times C, plus half the squared
weights (scikit-learn's `LogisticRegression`), minimised to convergence with SciPy's L-BFGS-B. That is the optimiser
which scikit-learn runs too; SciPy is in the core install, and since the problem is a sum over findings, all are solved
in one run whose cost is a matrix product a step. Features are scaled to zero mean and unit variance on the training
images; C is the one with the best mean AUROC on the validation split, or 1 where there is none.

Shares are of subjects, seeded, and nested: those of 1% are among those of 10%. Few-shot results hang on the draw: with
a handful of positives, other seeds give other numbers, and the interval (over test subjects) does not show it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

from lgdea_jax.errors import UserError
from lgdea_jax.evaluators import classified
from lgdea_jax.evaluators.base import Encoder, EvalData, Evaluator, Predict, Progress, silent, subject_key
from lgdea_jax.evaluators.classified import ClassifierSamples
from lgdea_jax.io import decode_image
from lgdea_jax.metrics import classification
from lgdea_jax.preprocess.image import letterbox
from lgdea_jax.preprocess.image_spec import ImageSpec, input_dtype, input_shape
from lgdea_jax.records import NEGATIVE, POSITIVE, Record

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2)


@dataclasses.dataclass(frozen=True)
class ProbeSamples(ClassifierSamples):
    """Scores (log odds) of a probe; see `ClassifierSamples`. `info["share"]` is that of the training subjects."""

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

    def run(self, predict: Predict | Encoder) -> ProbeSamples:
        """Fits and scores. Findings without both classes among the drawn labels, or the scored ones, are left out."""
        encoder, data = Encoder.of(predict, self.data), self.data
        rows = share_rows(self.train.subjects, self.share, self.seed)
        known = [_both(labels) for labels in (self.train.labels[rows], data.labels)]
        columns = np.flatnonzero(known[0] & known[1])
        penalties = PENALTIES if self.validation is not None else (1.0,)
        scores, penalty = np.zeros((len(data.images), 0), np.float32), None
        if len(columns):
            scale = Scale.of(self.train.x[rows])
            fits = fit(scale(self.train.x[rows]), self.train.labels[rows][:, columns], penalties)
            best = 0 if self.validation is None else int(np.argmax([
                _mean_auroc(model(scale(self.validation.x)), self.validation.labels[:, columns]) for model in fits]))
            scores, penalty = fits[best](scale(encoder.features())).astype(np.float32), penalties[best]
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


@dataclasses.dataclass(frozen=True)
class Linear:
    """float64 weights [W, F] and intercepts [F]; called with [N, W] it gives log odds [N, F]."""

    weights: np.ndarray
    intercept: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return x @ self.weights + self.intercept


@dataclasses.dataclass(frozen=True)
class Scale:
    """Takes out a mean and divides by a deviation, both [W]."""

    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray) -> Scale:
        """That of [N, W]; a constant feature is only centred."""
        deviation = x.std(0, dtype=np.float64)
        return cls(x.mean(0, dtype=np.float64), np.where(deviation > 1e-12, deviation, 1.0))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return (x - self.mean) / self.deviation


def fit(x: np.ndarray, labels: np.ndarray, penalties: Iterable[float]) -> list[Linear]:
    """Logistic regressions of each column of int8 [N, F] on [N, W], one list entry per C; unknown labels are left out.

    Every column needs both classes. The runs start from one another.
    """
    from scipy.optimize import minimize

    x = np.asarray(x, np.float64)
    known = (labels == POSITIVE) | (labels == NEGATIVE)
    sign = np.where(labels == POSITIVE, 1.0, -1.0)
    width, findings = x.shape[1], labels.shape[1]
    state = np.zeros((width + 1, findings))
    out = []
    for penalty in penalties:
        def loss(flat: np.ndarray, penalty: float = penalty) -> tuple[float, np.ndarray]:
            theta = flat.reshape(width + 1, findings)
            margin = sign * (x @ theta[:-1] + theta[-1])
            # log(1 + exp(-m)) and its derivative, without overflow.
            value = penalty * (np.logaddexp(0, -margin) * known).sum() + 0.5 * (theta[:-1] ** 2).sum()
            slope = -penalty * sign * known / (1 + np.exp(np.clip(margin, -500, 500)))
            return value, np.concatenate([x.T @ slope + theta[:-1], slope.sum(0)[None]]).reshape(-1)

        found = minimize(loss, state.reshape(-1), jac=True, method="L-BFGS-B",
                         options={"maxiter": 5000, "maxfun": 10000, "ftol": 1e-14, "gtol": 1e-6 * max(penalty, 1e-3)})
        state = found.x.reshape(width + 1, findings)
        out.append(Linear(state[:-1].copy(), state[-1].copy()))
    return out


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


def read_features(predict: Predict, records: Iterable[Record], frame: ImageSpec, labels: np.ndarray, *,
                  progress: Progress = silent) -> Features:
    """Features of the images of `records`, a batch at a time: no more than a batch of images is in memory.

    Args:
      predict: the model.
      records: of one split; records without an image, or with one that cannot be read, are left out.
      frame: side of the model's square, or its view of volumes.
      labels: int64, which of the records' labels to keep, in order.
      progress: called with ("features", done, total).
    """
    size, rows, batch, parts = getattr(predict, "batch_size", 64), [], [], []

    def flush() -> None:
        padded = np.concatenate([batch, np.zeros((size - len(batch), *input_shape(frame)), input_dtype(frame))])
        out = predict.images(padded)
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
