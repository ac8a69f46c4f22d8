"""Change of findings between two images: improving, stable or worsening (MS-CXR-T, Bannur et al., CVPR 2023).

A sample is a pair of images with a finding that experts judged. The data hold a pair as two images of one examination,
the current one first, with the labels "FINDING improving", "FINDING stable" and "FINDING worsening". Two measures, both
for models that see one image at a time:

- AUROC without training: by how much the score of the finding (positive against negative prompts) rises from the
  previous image to the current one, worsening against improving; stable pairs do not count.
- Accuracy by classification: multinomial logistic regression on both images' features, one for each finding, fitted and
  tested in FOLDS folds of whole subjects. Macro accuracy: the mean over the classes of the share that is right, as
  BioViL-T reports it, so that three classes of any frequency have a chance level of 1/3. Public scripts differ: some
  draw folds that share subjects, which raises the number.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np

from lgdea_jax.errors import require
from lgdea_jax.evaluators.data import EvalData
from lgdea_jax.evaluators.encoder import Encoder, Model
from lgdea_jax.evaluators.samples import Evaluator, Samples, weighted_mean
from lgdea_jax.evaluators.zero_shot import default_prompts, ensemble_similarity
from lgdea_jax.metrics import classification
from lgdea_jax.records import MISSING, NEGATIVE, POSITIVE

CHANGES = ("improving", "stable", "worsening")
FOLDS = 10
NOT_FITTED = -1


@dataclasses.dataclass(frozen=True)
class ProgressionSamples(Samples):
    """`arrays`: finding int64 [N] into `names["findings"]`; truth and predicted int64 [N] into CHANGES, predicted
    NOT_FITTED where the other folds had one class; rise float64 [N] of the finding's score; image int64 [N], the
    current image's row.

    `info`: pairs (of images), folds, width (of the features of a pair).
    """

    task: ClassVar[str] = "progression"

    def metrics(self, weights: np.ndarray | None = None) -> dict[str, Any]:
        """`progression/auroc` and `progression/accuracy`, means over findings, and both by finding."""
        out: dict[str, Any] = {}
        for name, measure in (("auroc", self._auroc), ("accuracy", self._accuracy)):
            values = [np.atleast_1d(measure(f, weights)) for f in range(len(self.names["findings"]))]
            table = np.stack(values, 1) if values else np.full((1, 0), np.nan)
            known = ~np.isnan(table)
            mean = np.divide(np.where(known, table, 0).sum(1), known.sum(1), out=np.full(len(table), np.nan),
                             where=known.any(1))
            out[f"progression/{name}"] = mean
            out |= {f"progression/{name}/{finding}": table[:, f] for f, finding in enumerate(self.names["findings"])}
        return {name: float(value[0]) for name, value in out.items()} if weights is None else out

    def sizes(self) -> dict[str, int]:
        """Pairs that changed; pairs that were classified."""
        out = {}
        counted = {"auroc": self.arrays["truth"] != CHANGES.index("stable"),
                   "accuracy": self.arrays["predicted"] != NOT_FITTED}
        for name, rows in counted.items():
            out[f"progression/{name}"] = int(rows.sum())
            out |= {f"progression/{name}/{finding}": int((rows & (self.arrays["finding"] == f)).sum())
                    for f, finding in enumerate(self.names["findings"])}
        return out

    def image_rows(self) -> np.ndarray:
        """As in `Samples`."""
        return self.arrays["image"]

    def _auroc(self, finding: int, weights: np.ndarray | None) -> Any:
        rows = np.flatnonzero(self.arrays["finding"] == finding)
        labels = np.array([NEGATIVE, MISSING, POSITIVE], np.int8)[self.arrays["truth"][rows]]
        return classification.auroc(self.arrays["rise"][rows], labels, None if weights is None else weights[:, rows])

    def _accuracy(self, finding: int, weights: np.ndarray | None) -> Any:
        """The mean over classes of the share that is right."""
        rows = np.flatnonzero((self.arrays["finding"] == finding) & (self.arrays["predicted"] != NOT_FITTED))
        truth, right = self.arrays["truth"][rows], self.arrays["truth"][rows] == self.arrays["predicted"][rows]
        shares = np.where(truth[:, None] == np.arange(len(CHANGES)), right[:, None].astype(np.float64), np.nan)
        means = np.atleast_2d(weighted_mean(shares, None if weights is None else weights[:, rows]))
        known = ~np.isnan(means)
        return np.divide(np.where(known, means, 0).sum(1), known.sum(1), out=np.full(len(means), np.nan),
                         where=known.any(1))


@dataclasses.dataclass(frozen=True)
class Progression(Evaluator):
    """Progression on the pairs of images of a data set.

    Attributes:
      data: pairs, as the module's docstring says; examinations of another number of images are left out.
      seed: of the draw of the folds.
    """

    data: EvalData
    seed: int = 0

    def run(self, model: Model | Encoder) -> ProgressionSamples:
        """Scores and classifies every judged pair.

        Raises:
          UserError: scikit-learn is not installed.
        """
        encoder, data = Encoder.of(model, self.data), self.data
        pairs = image_pairs(data)
        findings = judged_findings(data)
        features = encoder.features().astype(np.float64)
        both = np.concatenate([features[pairs[:, 0]], features[pairs[:, 1]]], 1)
        parts: list[tuple[np.ndarray, ...]] = []
        for f, finding in enumerate(findings):
            columns = [data.label_names.index(f"{finding} {change}") for change in CHANGES]
            positive = data.labels[pairs[:, 0]][:, columns] == POSITIVE
            rows = np.flatnonzero(positive.sum(1) == 1)
            truth = positive[rows].argmax(1)
            score = _score(encoder, finding)
            predicted = cross_validated(both[rows], truth, data.subjects[pairs[rows, 0]], self.seed)
            parts.append((np.full(len(rows), f), truth, predicted, score[pairs[rows, 0]] - score[pairs[rows, 1]],
                          pairs[rows, 0]))
        names = ("finding", "truth", "predicted", "rise", "image")
        arrays = {name: np.concatenate([part[i] for part in parts]) if parts else np.zeros(0, np.int64)
                  for i, name in enumerate(names)}
        return ProgressionSamples(data.subjects[arrays["image"]], arrays, {"findings": findings}, {
            "pairs": len(pairs), "folds": FOLDS, "width": both.shape[1]})


def image_pairs(data: EvalData) -> np.ndarray:
    """int64 [P, 2], the rows of the current and of the previous image of every examination of two images."""
    rows: dict[str, list[int]] = {}
    for row, scan in enumerate(data.scans.tolist()):
        rows.setdefault(scan, []).append(row)
    return np.array([pair for pair in rows.values() if len(pair) == 2], np.int64).reshape(-1, 2)


def judged_findings(data: EvalData) -> tuple[str, ...]:
    """The findings that have a label for each of CHANGES."""
    ending = f" {CHANGES[0]}"
    names = [name.removesuffix(ending) for name in data.label_names if name.endswith(ending)]
    return tuple(name for name in names if all(f"{name} {change}" in data.label_names for change in CHANGES))


def cross_validated(x: np.ndarray, truth: np.ndarray, subjects: np.ndarray, seed: int) -> np.ndarray:
    """Classes of [N, W] by logistic regression on the other folds: int64 [N], NOT_FITTED where these have one class.

    Folds are of whole subjects, drawn by the seed; at most FOLDS.
    """
    names = np.unique(subjects)
    order = np.random.default_rng(seed).permutation(len(names))
    fold = np.empty(len(names), np.int64)
    fold[order] = np.arange(len(names)) % max(1, min(FOLDS, len(names)))
    fold = fold[np.searchsorted(names, subjects)]
    out = np.full(len(x), NOT_FITTED, np.int64)
    for one in np.unique(fold):
        test, train = np.flatnonzero(fold == one), np.flatnonzero(fold != one)
        if len(np.unique(truth[train])) > 1:
            scaler = require("sklearn.preprocessing", "probe", "progression").StandardScaler().fit(x[train])
            fit = require("sklearn.linear_model", "probe", "progression").LogisticRegression(max_iter=5000)
            out[test] = fit.fit(scaler.transform(x[train]), truth[train]).predict(scaler.transform(x[test]))
    return out


def _score(encoder: Encoder, finding: str) -> np.ndarray:
    """float [N], positive against negative prompts."""
    positive, negative = (ensemble_similarity(encoder.images(), encoder.prompts(list(sentences))[0])
                          for sentences in default_prompts(finding, style=encoder.data.style))
    return np.asarray(positive - negative, np.float64)
