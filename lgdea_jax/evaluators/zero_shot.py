"""Zero-shot classification: images against prompt ensembles of each finding.

A finding's prompts are report-like phrases (`findings/prompts.py`); the class vector is the plain mean of their
embeddings, because a model's embeddings need not have unit norm and their lengths may carry meaning. For cosine models
`ensemble="normalised"` does what their papers do: normalise each, average, normalise again.

`scoring="pair"` scores an image by similarity(positive ensemble) - similarity(negative ensemble). It ranks images as
the two-way softmax does (monotone in the difference) and takes out what makes an image similar to any sentence.
`scoring="positive"` leaves the negative prompts out: for models that cannot tell "no effusion" from "effusion", the
difference is noise.
`scoring="contrast"` subtracts half of the negative ensemble and half of the mean of all findings' positive ensembles:
what is common to every statement of a finding goes too. For models trained on whole reports, to which a denial says
nearly what a statement says. Scores of a finding then depend on which findings are asked for with it.

A model of whole reports has hardly seen a bare phrase: `context` puts each prompt into a short report around it.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np

from lgdea_jax.cli import choose
from lgdea_jax.evaluators.base import Encoder, EvalData, Evaluator, Predict, Samples
from lgdea_jax.findings import prompts
from lgdea_jax.findings.vocabulary import BY_NAME, NO_FINDING
from lgdea_jax.metrics import classification
from lgdea_jax.records import NEGATIVE, POSITIVE, UNCERTAIN

SCORINGS = ("pair", "positive", "contrast")
ENSEMBLES = ("mean", "normalised")


@dataclasses.dataclass(frozen=True)
class ZeroShotSamples(Samples):
    """`arrays`: scores float32 [N, F] and labels int8 [N, F] of `names["findings"]`; truth and predicted int64 [N].

    Truth and prediction index `names["classes"]` for images with exactly one positive finding, and are -1 elsewhere.
    """

    task: ClassVar[str] = "zero_shot"

    def metrics(self, weights: np.ndarray | None = None) -> dict[str, Any]:
        """AUROC per finding and their mean, accuracy and kappa.

        The macro AUROC is the mean over findings with both classes; in a resample that lost a rare finding's
        positives, over the others. Accuracy and kappa concern images with exactly one positive finding only: an easy
        subset, whose classes are as frequent as they happen to be.
        """
        rows = 1 if weights is None else len(weights)
        scores, labels = self.arrays["scores"], self.arrays["labels"]
        columns = [classification.auroc(scores[:, f], labels[:, f], weights) for f in range(scores.shape[1])]
        table = np.array(columns, np.float64).reshape(len(columns), rows)
        defined = ~np.isnan(table)
        macro = np.divide(np.where(defined, table, 0).sum(0), defined.sum(0), out=np.full(rows, np.nan),
                          where=defined.any(0))
        single = np.flatnonzero(self.arrays["truth"] >= 0)
        matrix = classification.confusion(
            self.arrays["truth"][single], self.arrays["predicted"][single], max(1, len(self.names["classes"])),
            np.ones((1, len(single))) if weights is None else np.take(weights, single, axis=1))
        out = {"zero_shot/auroc": macro, "zero_shot/accuracy": classification.accuracy(matrix),
               "zero_shot/kappa": classification.cohen_kappa(matrix)}
        out |= {f"zero_shot/auroc/{name}": row for name, row in zip(self.names["findings"], table)}
        return {name: float(value[0]) for name, value in out.items()} if weights is None else out

    def sizes(self) -> dict[str, int]:
        """Labelled images per finding; images of the subset for accuracy and kappa."""
        known = np.isin(self.arrays["labels"], (POSITIVE, NEGATIVE))
        single = int((self.arrays["truth"] >= 0).sum())
        return {"zero_shot/auroc": int(known.any(1).sum()), "zero_shot/accuracy": single, "zero_shot/kappa": single,
                **{f"zero_shot/auroc/{name}": int(n) for name, n in zip(self.names["findings"], known.sum(0))}}


@dataclasses.dataclass(frozen=True)
class ZeroShot(Evaluator):
    """Zero-shot classification of the data set's labels.

    Attributes:
      data: the images.
      scoring: one of SCORINGS; ensemble: one of ENSEMBLES. See the module's docstring.
      context: a text with one "{}", where the prompt goes.
    """

    data: EvalData
    scoring: str = "pair"
    ensemble: str = "mean"
    context: str = prompts.BARE

    def __post_init__(self) -> None:
        choose("scoring", self.scoring, SCORINGS)
        choose("ensemble", self.ensemble, ENSEMBLES)

    def run(self, predict: Predict | Encoder) -> ZeroShotSamples:
        """Scores every image for every finding of which the data hold both classes."""
        encoder, data = Encoder.of(predict, self.data), self.data
        both = (data.labels == POSITIVE).any(0) & (data.labels == NEGATIVE).any(0)
        known = np.array([name in BY_NAME for name in data.label_names], bool)
        columns = np.flatnonzero(both & known)
        findings = tuple(data.label_names[c] for c in columns)
        # Column by column: one matrix product over another number of findings may round differently.
        vectors = self._vectors(encoder, findings)
        scores = (np.stack([encoder.images() @ vector for vector in vectors], axis=1) if vectors
                  else np.zeros((len(data.images), 0), np.float32))
        labels = data.labels[:, columns]
        truth, predicted, classes = _single(data, columns, scores)
        info = {"scoring": self.scoring, "ensemble": self.ensemble, "context": self.context, "images": len(data.images),
                "one_class_only": [data.label_names[c] for c in np.flatnonzero(~both)],
                "no_prompts": [data.label_names[c] for c in np.flatnonzero(both & ~known)]}
        return ZeroShotSamples(data.subjects, {"scores": scores, "labels": labels, "truth": truth,
                                               "predicted": predicted},
                               {"findings": findings, "classes": classes}, info)

    def _vectors(self, encoder: Encoder, findings: tuple[str, ...]) -> list[np.ndarray]:
        style = self.data.style
        positive = [self._average(encoder, prompts.positive_prompts(name, style=style)) for name in findings]
        if self.scoring == "positive" or not findings:
            return positive
        negative = [self._average(encoder, prompts.negative_prompts(name, style=style)) for name in findings]
        if self.scoring == "contrast":
            common = np.mean(positive, axis=0)
            negative = [(vector + common) / 2 for vector in negative]
        return [p - n for p, n in zip(positive, negative, strict=True)]

    def _average(self, encoder: Encoder, texts: tuple[str, ...]) -> np.ndarray:
        embeddings, _ = encoder.prompts([prompts.in_context(text, self.context) for text in texts])
        if self.ensemble == "mean":
            return embeddings.mean(0)
        mean = _unit(embeddings).mean(0)
        return _unit(mean)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def _single(data: EvalData, columns: np.ndarray, scores: np.ndarray,
            ) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """(truth, predicted, classes): images with exactly one positive label and no uncertain one, over those findings
    that are some such image's; "No Finding" is not a class."""
    real = np.array([name != NO_FINDING for name in data.label_names], bool)
    positive, uncertain = (data.labels == POSITIVE) & real, (data.labels == UNCERTAIN) & real
    truth = np.full(len(data.labels), -1, np.int64)
    predicted = truth.copy()
    scored = np.array([c for c in columns if real[c]], np.int64)
    alone = np.flatnonzero((positive.sum(1) == 1) & ~uncertain.any(1) & positive[:, scored].any(1))
    classes = np.array([c for c in scored if positive[alone, c].any()], np.int64)
    if len(classes):
        truth[alone] = positive[alone][:, classes].argmax(1)
        predicted[alone] = scores[alone][:, np.searchsorted(columns, classes)].argmax(1)
    return truth, predicted, tuple(data.label_names[c] for c in classes)
