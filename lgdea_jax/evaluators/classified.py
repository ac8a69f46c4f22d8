"""Per-image scores of findings and what is measured on them, however the scores were made (prompts, a linear probe)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from lgdea_jax.evaluators.data import EvalData
from lgdea_jax.evaluators.samples import Samples
from lgdea_jax.findings.vocabulary import NO_FINDING
from lgdea_jax.metrics import classification
from lgdea_jax.records import NEGATIVE, POSITIVE, UNCERTAIN

CRITERIA = ("f1", "mcc")
# What is measured at a threshold: {criterion: (its own value, then others)}. MedKLIP prints F1 at its threshold and the
# accuracy above it; KAD prints MCC, F1 and accuracy at the threshold of the greatest MCC.
AT_THRESHOLD: Mapping[str, tuple[str, ...]] = {
    "f1": ("f1", "accuracy_above_f1"), "mcc": ("mcc", "f1_at_mcc", "accuracy_at_mcc")}
# Of images with exactly one positive finding.
_SINGLE = ("accuracy", "kappa", "macro_precision", "macro_recall", "macro_f1")


@dataclasses.dataclass(frozen=True)
class ClassifierSamples(Samples):
    """`arrays`: scores float32 [N, F] and labels int8 [N, F] of `names["findings"]`; truth and predicted int64 [N].

    Truth and prediction index `names["classes"]` for images of exactly one class, and are -1 elsewhere. `names["@G"]`
    lists the findings of a group G (for example the five that a competition scored).

    `info`: "probabilities", whether sigmoid(score) is a probability; "thresholds", {criterion: {finding: threshold}};
    and the keys of the subclass.
    """

    def metrics(self, weights: np.ndarray | None = None) -> dict[str, Any]:
        """AUROC, average precision, calibration error, F1 and MCC at given thresholds; accuracy and kappa.

        Each per finding and as the mean over findings with a defined value: both classes (in a resample that lost a
        rare finding's positives, the others). Accuracy, kappa and the macro precision, recall and F1 concern images of
        exactly one class only: where labels may be several, an easy subset, whose classes are as frequent as they
        happen to be. F1 and MCC rest on thresholds: where those were chosen on the same images they are optimistic. So
        do `f1_at_mcc` and `accuracy_at_mcc`, at the threshold of MCC ("positive" is a score of at least the threshold,
        as in KAD's script), and `accuracy_above_f1`, above that of F1 (MedKLIP's script, whose F1 takes "at least").
        """
        rows = 1 if weights is None else len(weights)
        out: dict[str, np.ndarray] = {}
        findings = self.names["findings"]
        for name, columns in self._columns(weights).items():
            table = np.array(columns, np.float64).reshape(len(findings), rows)
            out[f"{self.key}/{name}"] = _mean(table)
            for group, members in self._groups().items():
                out[f"{self.key}/{name}@{group}"] = _mean(table[[findings.index(f) for f in members]])
            out |= {f"{self.key}/{name}/{finding}": row for finding, row in zip(findings, table)}
        if not self._chooses():
            return {name: float(value[0]) for name, value in out.items()} if weights is None else out
        single = np.flatnonzero(self.arrays["truth"] >= 0)
        matrix = classification.confusion(
            self.arrays["truth"][single], self.arrays["predicted"][single], max(1, len(self.names["classes"])),
            np.ones((1, len(single))) if weights is None else np.take(weights, single, axis=1))
        values = (classification.accuracy(matrix), classification.cohen_kappa(matrix),
                  *classification.macro_precision_recall_f1(matrix))
        out |= {f"{self.key}/{name}": value for name, value in zip(_SINGLE, values, strict=True)}
        return {name: float(value[0]) for name, value in out.items()} if weights is None else out

    def sizes(self) -> dict[str, int]:
        """Labelled images per finding; images of the subset for accuracy and kappa."""
        known = np.isin(self.arrays["labels"], (POSITIVE, NEGATIVE))
        findings, out = self.names["findings"], {}
        for name in self._measured():
            out[f"{self.key}/{name}"] = int(known.any(1).sum())
            for group, members in self._groups().items():
                out[f"{self.key}/{name}@{group}"] = int(known[:, [findings.index(f) for f in members]].any(1).sum())
            out |= {f"{self.key}/{name}/{finding}": int(n) for finding, n in zip(findings, known.sum(0))}
        single = int((self.arrays["truth"] >= 0).sum())
        return out | ({f"{self.key}/{name}": single for name in _SINGLE} if self._chooses() else {})

    def _chooses(self) -> bool:
        """Whether accuracy and the like are reported: always for prompts, for a classifier where there are classes."""
        return self.task not in ("probe", "classifier") or bool(self.names["classes"])

    def _measured(self) -> tuple[str, ...]:
        calibrated = ("ece",) if self.info.get("probabilities") else ()
        at = (name for criterion in self.info.get("thresholds", {}) for name in AT_THRESHOLD[criterion])
        return ("auroc", "average_precision", *calibrated, *at)

    def _groups(self) -> dict[str, tuple[str, ...]]:
        return {name[1:]: findings for name, findings in self.names.items() if name.startswith("@")}

    def _columns(self, weights: np.ndarray | None) -> dict[str, list[Any]]:
        """{metric: its value(s) for each finding}."""
        columns: dict[str, list[Any]] = {name: [] for name in self._measured()}
        for f, finding in enumerate(self.names["findings"]):
            scores, labels = self.arrays["scores"][:, f], self.arrays["labels"][:, f]
            columns["auroc"].append(classification.auroc(scores, labels, weights))
            columns["average_precision"].append(classification.average_precision(scores, labels, weights))
            if "ece" in columns:
                columns["ece"].append(
                    classification.expected_calibration_error(probabilities(scores), labels, weights))
            for criterion, thresholds in self.info.get("thresholds", {}).items():
                for name in AT_THRESHOLD[criterion]:
                    columns[name].append(self._at(name, thresholds.get(finding), f, weights))
        return columns

    def _at(self, name: str, threshold: float | None, column: int, weights: np.ndarray | None) -> Any:
        if threshold is None:
            return np.full(1 if weights is None else len(weights), np.nan)
        scores = self.arrays["scores"][:, column]
        if name.startswith("accuracy_above"):
            threshold = np.nextafter(scores.dtype.type(threshold), scores.dtype.type(np.inf))
        matrix = classification.at_threshold(scores, self.arrays["labels"][:, column], threshold, weights)
        measure = {"f1": classification.binary_f1, "mcc": classification.mcc, "accuracy": classification.accuracy}
        return np.atleast_1d(measure[name.partition("_")[0]](matrix))


def probabilities(scores: np.ndarray) -> np.ndarray:
    """sigmoid(score), float64: of the difference of two similarities, the softmax over the pair."""
    return 1 / (1 + np.exp(-np.clip(np.asarray(scores, np.float64), -500, 500)))


def thresholds(samples: ClassifierSamples) -> dict[str, dict[str, float]]:
    """{criterion: {finding: the threshold that is best on these samples}}, where one is defined."""
    out: dict[str, dict[str, float]] = {criterion: {} for criterion in CRITERIA}
    for f, finding in enumerate(samples.names["findings"]):
        for criterion in CRITERIA:
            best, _ = classification.best_threshold(samples.arrays["scores"][:, f], samples.arrays["labels"][:, f],
                                                    criterion)
            if np.isfinite(best):
                out[criterion][finding] = best
    return out


def single_class(data: EvalData, columns: np.ndarray, scores: np.ndarray, *, exclusive: bool = False,
                 ) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Images of exactly one class, and the class that scores highest.

    Args:
      data: the images.
      columns: [F], the scored labels; scores: [N, F].
      exclusive: the labels are classes of which an image has one, "No Finding" among them; otherwise "No Finding" is
        no class, and a class is a finding that is some image's only one.

    Returns:
      (truth, predicted, classes): int64 [N] into `classes`, -1 for images that are not of exactly one.
    """
    real = np.array([exclusive or name != NO_FINDING for name in data.label_names], bool)
    positive, uncertain = (data.labels == POSITIVE) & real, (data.labels == UNCERTAIN) & real
    truth = np.full(len(data.labels), -1, np.int64)
    predicted = truth.copy()
    scored = np.array([c for c in columns if real[c]], np.int64)
    alone = np.flatnonzero((positive.sum(1) == 1) & ~uncertain.any(1) & positive[:, scored].any(1))
    classes = np.array([c for c in scored if positive[alone, c].any()], np.int64)
    if len(classes) < 2:  # There would be nothing to choose.
        classes = classes[:0]
    else:
        truth[alone] = positive[alone][:, classes].argmax(1)
        scored_at = [list(columns).index(c) for c in classes]
        predicted[alone] = scores[alone][:, scored_at].argmax(1)
    return truth, predicted, tuple(data.label_names[c] for c in classes)


def grouped(groups: Mapping[str, tuple[str, ...]], findings: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """`names` entries of the groups, restricted to `findings`; empty groups are left out."""
    kept = {name: tuple(f for f in members if f in findings) for name, members in groups.items()}
    return {f"@{name}": members for name, members in kept.items() if members}


def _mean(table: np.ndarray) -> np.ndarray:
    """Means of [F, B] over the defined rows: [B]."""
    defined = ~np.isnan(table)
    return np.divide(np.where(defined, table, 0).sum(0), defined.sum(0), out=np.full(table.shape[1], np.nan),
                     where=defined.any(0))
