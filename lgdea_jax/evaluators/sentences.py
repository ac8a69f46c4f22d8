"""Similarity of sentences: paraphrases against contradictions (MS-CXR-T, Bannur et al., CVPR 2023).

A sample is a pair of sentences, the two lines of a report, with one label "Paraphrase (SUBSET)". Its score is the
cosine of the two sentences' embeddings. Only the text tower is measured, and of it only whether a change of meaning in
few words moves the embedding more than a change of words.

- AUROC: paraphrases against contradictions.
- Accuracy: a pair is a paraphrase where its score is at least the threshold that is best on the other FOLDS - 1 folds,
  as BioViL-T does it; folds are drawn within each subset.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np

from lgdea_jax.evaluators.data import EvalData
from lgdea_jax.evaluators.encoder import Encoder, Model
from lgdea_jax.evaluators.samples import Evaluator, Samples, weighted_mean
from lgdea_jax.metrics import classification
from lgdea_jax.records import NEGATIVE, POSITIVE

FOLDS = 10
START, END = "Paraphrase (", ")"  # Of the labels.


@dataclasses.dataclass(frozen=True)
class SentenceSamples(Samples):
    """`arrays`: score float64 [N], truth and predicted int8 [N] of POSITIVE and NEGATIVE, subset int64 [N] into
    `names["subsets"]`.

    `info`: pairs, folds.
    """

    task: ClassVar[str] = "sentences"

    def metrics(self, weights: np.ndarray | None = None) -> dict[str, Any]:
        """`sentences/auroc` and `sentences/accuracy` over all pairs, and `.../SUBSET` of each subset."""
        out: dict[str, Any] = {}
        for ending, rows in self._parts():
            own = None if weights is None else weights[:, rows]
            truth = self.arrays["truth"][rows]
            right = (truth == self.arrays["predicted"][rows]).astype(np.float64)[:, None]
            out[f"sentences/auroc{ending}"] = classification.auroc(self.arrays["score"][rows], truth, own)
            out[f"sentences/accuracy{ending}"] = weighted_mean(right, own)[..., 0]
        return {name: float(value) for name, value in out.items()} if weights is None else out

    def sizes(self) -> dict[str, int]:
        """Pairs of sentences."""
        return {f"sentences/{name}{ending}": len(rows) for ending, rows in self._parts()
                for name in ("auroc", "accuracy")}

    def image_rows(self) -> np.ndarray:
        """As in `Samples`: none is an image."""
        return np.full(len(self.subjects), -1)

    def _parts(self) -> list[tuple[str, np.ndarray]]:
        parts = [("", np.arange(len(self.subjects)))]
        return parts + [(f"/{name}", np.flatnonzero(self.arrays["subset"] == s))
                        for s, name in enumerate(self.names["subsets"])]


@dataclasses.dataclass(frozen=True)
class SentenceSimilarity(Evaluator):
    """Similarity of the pairs of sentences of a data set.

    Attributes:
      data: reports of two lines with one known label "Paraphrase (SUBSET)"; others are left out.
      seed: of the draw of the folds.
    """

    data: EvalData
    seed: int = 0

    def run(self, model: Model | Encoder) -> SentenceSamples:
        """Scores every pair and judges it by the others."""
        encoder, data = Encoder.of(model, self.data), self.data
        columns = [c for c, name in enumerate(data.label_names) if name.startswith(START) and name.endswith(END)]
        known = np.isin(data.report_labels[:, columns], (POSITIVE, NEGATIVE))
        rows = np.array([row for row, report in enumerate(data.reports)
                         if known[row].sum() == 1 and len(report.split("\n")) == 2], np.int64)
        subset = known[rows].argmax(1) if len(rows) else np.zeros(0, np.int64)
        truth = data.report_labels[rows][:, columns][np.arange(len(rows)), subset].astype(np.int8)
        sides = [encoder.prompts([data.reports[row].split("\n")[side] for row in rows])[0] for side in (0, 1)]
        score = cosines(*sides) if len(rows) else np.zeros(0)
        predicted = np.full(len(rows), NEGATIVE, np.int8)
        for one in np.unique(subset):
            part = np.flatnonzero(subset == one)
            predicted[part] = cross_validated(score[part], truth[part], self.seed)
        subsets = tuple(data.label_names[c].removeprefix(START).removesuffix(END) for c in columns)
        return SentenceSamples(data.report_subjects[rows], {
            "score": score, "truth": truth, "predicted": predicted, "subset": subset}, {"subsets": subsets}, {
                "pairs": len(rows), "folds": FOLDS})


def cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """float64 [N], the cosines of the rows of two [N, E]."""
    first, second = first.astype(np.float64), second.astype(np.float64)
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return (first * second).sum(1) / np.maximum(norms, 1e-12)


def cross_validated(score: np.ndarray, truth: np.ndarray, seed: int) -> np.ndarray:
    """int8 [N] of POSITIVE and NEGATIVE, each pair by the threshold of the best accuracy on the other folds."""
    fold = np.random.default_rng(seed).permutation(len(score)) % max(2, FOLDS)
    out = np.full(len(score), NEGATIVE, np.int8)
    for one in np.unique(fold):
        others = fold != one
        out[~others] = np.where(score[~others] >= best_threshold(score[others], truth[others]), POSITIVE, NEGATIVE)
    return out


def best_threshold(score: np.ndarray, truth: np.ndarray) -> float:
    """The threshold with the most right answers: in the middle between two scores; of equally good ones, the lowest."""
    known = np.unique(score)
    candidates = np.concatenate([[-np.inf], (known[1:] + known[:-1]) / 2, [np.inf]])
    right = [int(((score >= candidate) == (truth == POSITIVE)).sum()) for candidate in candidates]
    return float(candidates[int(np.argmax(right))])
