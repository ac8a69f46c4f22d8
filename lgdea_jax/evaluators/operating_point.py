"""Zero-shot classification at one threshold a finding, as the public scripts of chest CT print it.

The threshold is chosen on the evaluated images, official only. F1 is scikit-learn's `average="weighted"`, the mean of
both classes' F1 weighted by their size: for a rare finding it is mostly the F1 of its absence, and high for a model
that never finds it. Rules:

- "corner", of CT-CLIP: the probability is softmax(cosines x exp(temperature)) over the pair, the threshold that of
  `metrics/volume_retrieval.py: corner_threshold`, and a finding is called above it. F1, accuracy, precision.
- "youden", of RadFinder: softmax of the cosines; the highest threshold with the greatest sensitivity + specificity,
  and a finding is called from it on. F1, balanced accuracy, precision, sensitivity, specificity.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from lgdea_jax.errors import choose
from lgdea_jax.evaluators.classified import probabilities
from lgdea_jax.evaluators.encoder import Encoder, Model
from lgdea_jax.evaluators.samples import Evaluator, Samples
from lgdea_jax.evaluators.zero_shot import ZeroShot
from lgdea_jax.metrics import classification
from lgdea_jax.metrics.volume_retrieval import corner_threshold
from lgdea_jax.records import NEGATIVE, POSITIVE

# Rule -> what it measures.
RULES: Mapping[str, tuple[str, ...]] = {
    "corner": ("f1_weighted", "accuracy", "precision"),
    "youden": ("f1_weighted", "balanced_accuracy", "precision", "sensitivity", "specificity")}


@dataclasses.dataclass(frozen=True)
class OperatingPointSamples(Samples):
    """`arrays`: called int8 [N, F], 1 where a finding is called, and labels int8 [N, F] of `names["findings"]`.

    `names["@G"]` lists the findings of a group; `info` has the rule, the scale of the scores, and the thresholds by
    finding.
    """

    task: ClassVar[str] = "operating_point"

    def metrics(self, weights: np.ndarray | None = None) -> dict[str, Any]:
        """Per finding, and means over the findings and over each group; with the thresholds held fixed."""
        findings = self.names["findings"]
        columns = RULES[self.info["rule"]]
        table = {name: [] for name in columns}
        for f in range(len(findings)):
            called, labels = self.arrays["called"][:, f], self.arrays["labels"][:, f]
            matrix = classification.at_threshold(called, labels, 0.5, np.ones((1, len(labels)), np.int64)
                                                 if weights is None else weights)
            values = operating_point(matrix)
            for name in columns:
                table[name].append(values[name])
        out = {}
        for name, rows in table.items():
            values = np.array(rows, np.float64).reshape(len(findings), -1)
            out[f"{self.key}/{name}"] = _mean(values)
            for group, members in self._groups().items():
                out[f"{self.key}/{name}@{group}"] = _mean(values[[findings.index(f) for f in members]])
            out |= {f"{self.key}/{name}/{finding}": row for finding, row in zip(findings, values)}
        return {name: float(value[0]) for name, value in out.items()} if weights is None else out

    def sizes(self) -> dict[str, int]:
        """Labelled volumes."""
        known = np.isin(self.arrays["labels"], (POSITIVE, NEGATIVE))
        findings, out = self.names["findings"], {}
        for name in RULES[self.info["rule"]]:
            out[f"{self.key}/{name}"] = int(known.any(1).sum())
            for group, members in self._groups().items():
                out[f"{self.key}/{name}@{group}"] = int(known[:, [findings.index(f) for f in members]].any(1).sum())
            out |= {f"{self.key}/{name}/{finding}": int(n) for finding, n in zip(findings, known.sum(0))}
        return out

    def _groups(self) -> dict[str, tuple[str, ...]]:
        return {name[1:]: findings for name, findings in self.names.items() if name.startswith("@")}


@dataclasses.dataclass(frozen=True)
class OperatingPoint(Evaluator):
    """Chooses the thresholds of a zero-shot evaluator's probabilities on the evaluated images, and applies them.

    Attributes:
      zero_shot: gives the scores.
      rule: of RULES.
    """

    zero_shot: ZeroShot
    rule: str = "corner"

    def __post_init__(self) -> None:
        choose("rule", self.rule, RULES)

    def run(self, model: Model | Encoder) -> OperatingPointSamples:
        """Scores every image for every finding of which the data hold both classes."""
        encoder = Encoder.of(model, self.zero_shot.data)
        found = self.zero_shot.run(encoder)
        scale = float(getattr(encoder.model, "logit_scale", 1.0)) if self.rule == "corner" else 1.0
        chance, labels = probabilities(scale * found.arrays["scores"].astype(np.float64)), found.arrays["labels"]
        called, thresholds = np.zeros(labels.shape, np.int8), {}
        for f, name in enumerate(found.names["findings"]):
            known = np.isin(labels[:, f], (POSITIVE, NEGATIVE))
            if self.rule == "corner":
                thresholds[name] = corner_threshold(chance[known, f], labels[known, f] == POSITIVE)
                called[:, f] = chance[:, f] > thresholds[name]
            else:
                thresholds[name] = youden_threshold(chance[:, f], labels[:, f])
                called[:, f] = chance[:, f] >= thresholds[name]
        names = {"findings": found.names["findings"],
                 **{name: members for name, members in found.names.items() if name.startswith("@")}}
        return OperatingPointSamples(found.subjects, {"called": called, "labels": labels}, names,
                                     {"rule": self.rule, "scale": scale, "thresholds": thresholds})


def youden_threshold(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The highest score with the greatest (true - false positive rate) when it and all above it are called positive.

    0.5 where no score is better than chance, as RadFinder's script has it; NaN where one class is absent. Arguments as
    of `metrics.classification.auroc`.
    """
    false, hit, threshold = classification.roc_curve(probabilities, labels)
    if not len(threshold):
        return float("nan")
    best = float(threshold[int(np.argmax(hit - false))])
    return best if np.isfinite(best) else 0.5


def operating_point(matrix: np.ndarray) -> dict[str, np.ndarray]:
    """The columns of RULES from confusion matrices [..., 2, 2]; undefined parts count 0."""
    matrix = np.asarray(matrix, np.float64)
    total, hit = matrix.sum((-2, -1)), np.diagonal(matrix, axis1=-2, axis2=-1)
    actual, called = matrix.sum(-1), matrix.sum(-2)
    f1 = np.divide(2 * hit, actual + called, out=np.zeros_like(hit), where=actual + called > 0)
    precision = np.divide(hit[..., 1], called[..., 1], out=np.zeros_like(total), where=called[..., 1] > 0)
    weighted = np.divide((f1 * actual).sum(-1), total, out=np.full_like(total, np.nan), where=total > 0)
    found = np.divide(hit, actual, out=np.full_like(hit, np.nan), where=actual > 0)
    return {"f1_weighted": weighted, "accuracy": classification.accuracy(matrix), "precision": precision,
            "balanced_accuracy": found.mean(-1), "sensitivity": found[..., 1], "specificity": found[..., 0]}


def _mean(table: np.ndarray) -> np.ndarray:
    defined = ~np.isnan(table)
    return np.divide(np.where(defined, table, 0).sum(0), defined.sum(0), out=np.full(table.shape[1], np.nan),
                     where=defined.any(0))
