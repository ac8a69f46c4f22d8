"""Zero-shot classification at one threshold a finding, as CT-CLIP's script prints it: F1, accuracy, precision.

The threshold is the script's (`metrics/volume_retrieval.py: corner_threshold`), chosen on the evaluated images:
official only. F1 is scikit-learn's `average="weighted"`, the mean of both classes' F1 weighted by their size: for a
rare finding it is mostly the F1 of its absence, and high for a model that never finds it.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np

from lgdea_jax.evaluators.classified import probabilities
from lgdea_jax.evaluators.encoder import Encoder, Model
from lgdea_jax.evaluators.samples import Evaluator, Samples
from lgdea_jax.evaluators.zero_shot import ZeroShot
from lgdea_jax.metrics import classification
from lgdea_jax.metrics.volume_retrieval import corner_threshold
from lgdea_jax.records import NEGATIVE, POSITIVE

COLUMNS = ("f1_weighted", "accuracy", "precision")


@dataclasses.dataclass(frozen=True)
class OperatingPointSamples(Samples):
    """`arrays`: called int8 [N, F], 1 where a finding is called, and labels int8 [N, F] of `names["findings"]`.

    `names["@G"]` lists the findings of a group; `info["thresholds"]` the thresholds by finding.
    """

    task: ClassVar[str] = "operating_point"

    def metrics(self, weights: np.ndarray | None = None) -> dict[str, Any]:
        """Per finding, and means over the findings and over each group; with the thresholds held fixed."""
        findings = self.names["findings"]
        table = {name: [] for name in COLUMNS}
        for f in range(len(findings)):
            called, labels = self.arrays["called"][:, f], self.arrays["labels"][:, f]
            matrix = classification.at_threshold(called, labels, 0.5, np.ones((1, len(labels)), np.int64)
                                                 if weights is None else weights)
            for name, value in zip(COLUMNS, operating_point(matrix), strict=True):
                table[name].append(value)
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
        for name in COLUMNS:
            out[f"{self.key}/{name}"] = int(known.any(1).sum())
            for group, members in self._groups().items():
                out[f"{self.key}/{name}@{group}"] = int(known[:, [findings.index(f) for f in members]].any(1).sum())
            out |= {f"{self.key}/{name}/{finding}": int(n) for finding, n in zip(findings, known.sum(0))}
        return out

    def _groups(self) -> dict[str, tuple[str, ...]]:
        return {name[1:]: findings for name, findings in self.names.items() if name.startswith("@")}


@dataclasses.dataclass(frozen=True)
class OperatingPoint(Evaluator):
    """Chooses the thresholds of a zero-shot evaluator's probabilities on the evaluated images, and applies them."""

    zero_shot: ZeroShot

    def run(self, model: Model | Encoder) -> OperatingPointSamples:
        """Scores every image for every finding of which the data hold both classes."""
        found = self.zero_shot.run(model)
        chance, labels = probabilities(found.arrays["scores"]), found.arrays["labels"]
        called, thresholds = np.zeros(labels.shape, np.int8), {}
        for f, name in enumerate(found.names["findings"]):
            known = np.isin(labels[:, f], (POSITIVE, NEGATIVE))
            thresholds[name] = corner_threshold(chance[known, f], labels[known, f] == POSITIVE)
            called[:, f] = chance[:, f] > thresholds[name]
        names = {"findings": found.names["findings"],
                 **{name: members for name, members in found.names.items() if name.startswith("@")}}
        return OperatingPointSamples(found.subjects, {"called": called, "labels": labels}, names,
                                     {"thresholds": thresholds})


def operating_point(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(weighted F1, accuracy, precision) of confusion matrices [..., 2, 2]; undefined parts count 0."""
    matrix = np.asarray(matrix, np.float64)
    total, hit = matrix.sum((-2, -1)), np.diagonal(matrix, axis1=-2, axis2=-1)
    actual, called = matrix.sum(-1), matrix.sum(-2)
    f1 = np.divide(2 * hit, actual + called, out=np.zeros_like(hit), where=actual + called > 0)
    precision = np.divide(hit[..., 1], called[..., 1], out=np.zeros_like(total), where=called[..., 1] > 0)
    weighted = np.divide((f1 * actual).sum(-1), total, out=np.full_like(total, np.nan), where=total > 0)
    return weighted, classification.accuracy(matrix), precision


def _mean(table: np.ndarray) -> np.ndarray:
    defined = ~np.isnan(table)
    return np.divide(np.where(defined, table, 0).sum(0), defined.sum(0), out=np.full(table.shape[1], np.nan),
                     where=defined.any(0))
