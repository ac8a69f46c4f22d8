"""Zero-shot classification: images against prompt ensembles of each finding.

A finding's prompts are report-like phrases (`findings/prompts.py`), or a benchmark's own. The class vector is the plain
mean of their embeddings, because a model's embeddings need not have unit norm and their lengths may carry meaning.
The others normalise the image: `ensemble="normalised"` each prompt and their mean too, as most papers on cosine models
do; `"raw"` their mean only (hi-ml); `"mean_cosine"` each prompt only, which gives the mean of its cosines (MedCLIP);
`"max"` takes the cosine to the nearest prompt (GLoRIA).

`scoring="pair"` scores an image by similarity(positive ensemble) - similarity(negative ensemble). Its sigmoid is the
softmax over the pair, exp(s+) / (exp(s+) + exp(s-)): the published probability, which for cosines (no temperature) lies
between 0.12 and 0.88 and is no calibrated one. `scoring="positive"` leaves the negative prompts out: for models that
cannot tell "no effusion" from "effusion", the difference is noise; and where classes exclude each other, the highest
similarity decides.
`scoring="contrast"` subtracts half of the similarity to the negative ensemble and half of the mean similarity to all
findings' positive ensembles: what is common to every statement of a finding goes too. For models trained on whole
reports, for which a denial is nearly the same as a statement. The scores of a finding then depend on which findings are
scored with it; its sigmoid is the softmax over the statement and that mean.

`standardised` gives each finding's scores a mean of 0 and a standard deviation of 1 over the images, as GLoRIA does
before the highest class wins: an image's class then depends on the other images, and an offset of a class is lost.

Bare phrases are rare in the training texts of a model of whole reports: `context` puts each prompt into a short report.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import numpy as np

from lgdea_jax.errors import choose
from lgdea_jax.evaluators import classified
from lgdea_jax.evaluators.classified import ClassifierSamples
from lgdea_jax.evaluators.data import EvalData
from lgdea_jax.evaluators.encoder import Encoder, Model
from lgdea_jax.evaluators.samples import Evaluator
from lgdea_jax.findings import prompts
from lgdea_jax.findings.prompts import BARE
from lgdea_jax.findings.vocabulary import LABELLED
from lgdea_jax.records import NEGATIVE, POSITIVE

SCORINGS = ("pair", "positive", "contrast")
ENSEMBLES = ("mean", "normalised", "raw", "mean_cosine", "max")
ON_ITSELF = "the evaluated images"

# Positive and negative sentences of a finding.
Prompts = tuple[tuple[str, ...], tuple[str, ...]]


@dataclasses.dataclass(frozen=True)
class ZeroShotSamples(ClassifierSamples):
    """Scores by prompts; see `ClassifierSamples`.

    `info`: scoring, ensemble, standardised, context, images, own_prompts (findings with a benchmark's prompts),
    one_class_only and no_prompts (labels that are left out, and why), thresholds and thresholds_from where there are
    any.
    """

    task: ClassVar[str] = "zero_shot"


@dataclasses.dataclass(frozen=True)
class ZeroShot(Evaluator):
    """Zero-shot classification of the data set's labels.

    Attributes:
      data: the images.
      scoring: one of SCORINGS; ensemble: one of ENSEMBLES. See the module's docstring.
      standardised: over the images; see the module's docstring.
      prompts: of findings that do not use those of `findings/prompts.py`.
      merged: {label: findings}: a label that stands for several findings has the highest of their scores.
      exclusive: the labels are classes of which an image has one.
      groups: {name: findings} to be averaged besides, for example a competition's five.
      thresholds: {criterion: {finding: threshold}} of F1 and MCC, chosen on other data; ON_ITSELF chooses them on these
        images; None leaves F1 and MCC out.
      thresholds_from: what the thresholds were chosen on, for `info`.
      context: a text with one "{}", where the prompt goes.
    """

    data: EvalData
    scoring: str = "pair"
    ensemble: str = "mean"
    standardised: bool = False
    prompts: Mapping[str, Prompts] = dataclasses.field(default_factory=dict)
    merged: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    exclusive: bool = False
    groups: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    thresholds: Mapping[str, Mapping[str, float]] | str | None = None
    thresholds_from: str = ""
    context: str = BARE

    def __post_init__(self) -> None:
        choose("scoring", self.scoring, SCORINGS)
        choose("ensemble", self.ensemble, ENSEMBLES)

    def run(self, model: Model | Encoder) -> ZeroShotSamples:
        """Scores every image for every finding of which the data hold both classes."""
        encoder, data = Encoder.of(model, self.data), self.data
        both = (data.labels == POSITIVE).any(0) & (data.labels == NEGATIVE).any(0)
        known = np.array([all(part in LABELLED or part in self.prompts for part in self.merged.get(name, (name,)))
                          for name in data.label_names], bool)
        columns = np.flatnonzero(both & known)
        findings = tuple(data.label_names[c] for c in columns)
        images = encoder.images() if self.ensemble == "mean" else _unit(encoder.images())
        # Column by column: one matrix product over another number of findings may round differently.
        parts = {name: self.merged.get(name, (name,)) for name in findings}
        wanted = tuple(dict.fromkeys(part for group in parts.values() for part in group))
        scores = self._scores(encoder, images, wanted)
        if wanted != findings:
            scores = np.stack([scores[:, [wanted.index(part) for part in group]].max(1) for group in parts.values()], 1)
        if self.standardised:
            scores = standardised(scores)
        truth, predicted, classes = classified.single_class(data, columns, scores, exclusive=self.exclusive)
        info = {"scoring": self.scoring, "ensemble": self.ensemble, "standardised": self.standardised,
                "context": self.context, "images": len(data.images),
                "probabilities": self.scoring != "positive" and not self.standardised,
                "own_prompts": [f for f in findings if f in self.prompts],
                "one_class_only": [data.label_names[c] for c in np.flatnonzero(~both)],
                "no_prompts": [data.label_names[c] for c in np.flatnonzero(both & ~known)]}
        samples = ZeroShotSamples(
            data.subjects, {"scores": scores, "labels": data.labels[:, columns], "truth": truth,
                            "predicted": predicted},
            {"findings": findings, "classes": classes, **classified.grouped(self.groups, findings)}, info)
        if self.thresholds is None:
            return samples
        chosen = classified.thresholds(samples) if self.thresholds == ON_ITSELF else self.thresholds
        chosen_on = ON_ITSELF if self.thresholds == ON_ITSELF else self.thresholds_from
        return dataclasses.replace(samples, info={**info, "thresholds": chosen, "thresholds_from": chosen_on})

    def _scores(self, encoder: Encoder, images: np.ndarray, findings: tuple[str, ...]) -> np.ndarray:
        """float32 [N, F]."""
        if not findings:
            return np.zeros((len(images), 0), np.float32)
        style = self.data.style

        def similarity(finding: str, which: int) -> np.ndarray:
            own = self.prompts.get(finding)
            sentences = own[which] if own else default_prompts(finding, style=style)[which]
            return ensemble_similarity(images, encoder.prompts(
                [prompts.in_context(text, self.context) for text in sentences])[0], self.ensemble)

        return finding_scores(similarity, findings, self.scoring)


def default_prompts(finding: str, *, style: str = "cxr") -> Prompts:
    """Positive and negative sentences of `findings/prompts.py`.

    Raises:
      UserError: unknown finding or style.
    """
    return prompts.positive_prompts(finding, style=style), prompts.negative_prompts(finding, style=style)


def finding_scores(similarity: Callable[[str, int], np.ndarray], findings: Sequence[str], scoring: str) -> np.ndarray:
    """Scores of images for findings that are scored together; see the module's docstring.

    Args:
      similarity: (finding, 0 for its positive and 1 for its negative prompts) -> float32 [N].
      findings: names.
      scoring: one of SCORINGS.

    Returns:
      float32 [N, F].
    """
    positive = np.stack([similarity(finding, 0) for finding in findings], axis=1)
    if scoring == "positive":
        return positive
    negative = np.stack([similarity(finding, 1) for finding in findings], axis=1)
    if scoring == "contrast":
        negative = (negative + positive.mean(axis=1, keepdims=True)) / 2
    return positive - negative


def ensemble_similarity(images: np.ndarray, embeddings: np.ndarray, ensemble: str = "mean") -> np.ndarray:
    """float32 [N], similarity of image embeddings [N, E] to an ensemble of text embeddings [P, E].

    Args:
      ensemble: one of ENSEMBLES; the images are normalised already unless it is "mean".
    """
    if ensemble == "max":
        return (images @ _unit(embeddings).T).max(1)
    mean = (embeddings if ensemble in ("mean", "raw") else _unit(embeddings)).mean(0)
    return images @ (mean if ensemble in ("mean", "mean_cosine") else _unit(mean))


def standardised(scores: np.ndarray) -> np.ndarray:
    """Columns of [N, F] with mean 0 and (population) standard deviation 1; a constant column, or of one row, is 0."""
    spread = scores.std(0)
    return np.divide(scores - scores.mean(0), spread, out=np.zeros_like(scores), where=spread > 0)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
