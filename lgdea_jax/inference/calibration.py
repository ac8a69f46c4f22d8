"""From scores to probabilities: a logistic curve per finding (Platt, 1999), its file, and its errors.

The curve is fitted by SciPy, which the core install has. scikit-learn would not be simpler: its public
`LogisticRegression` takes Platt's targets only as doubled, weighted rows. A test compares both.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from lgdea_jax.errors import UserError
from lgdea_jax.metrics import classification
from lgdea_jax.records import NEGATIVE, POSITIVE

KIND = "lgdea_jax calibration@1"
LEAST = 10  # Positives and negatives of a finding.
FOLDS = 5


@dataclasses.dataclass(frozen=True)
class Calibration:
    """A calibration file.

    Attributes:
      findings: {finding: {"slope", "intercept", "n", "positives", "ece", "brier"}}.
      together: the findings that were scored together, in order.
      source: of the scores that it was fitted to: benchmark, data, split, command.
      step, config_hash: of the checkpoint.
    """

    findings: Mapping[str, Mapping[str, float]]
    together: tuple[str, ...]
    source: Mapping[str, Any]
    step: int
    config_hash: str

    def probability(self, finding: str, score: float) -> float:
        """The probability of a finding with a score."""
        curve = self.findings[finding]
        return float(expit(curve["slope"] * score + curve["intercept"]))

    def check(self, config_hash: str, step: int) -> None:
        """Refuses another checkpoint than the one that it was made for.

        Args:
          config_hash: of the checkpoint's config; step: of the checkpoint.

        Raises:
          UserError: names what differs.
        """
        if (self.config_hash, self.step) != (config_hash, step):
            raise UserError(f"the calibration is for step {self.step} of another run or step (this is step "
                            f"{step}): make one with python -m lgdea_jax.calibrate")


def read(path: Path) -> Calibration:
    """Reads a calibration file.

    Raises:
      UserError: there is none, or it is not one.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["kind"] != KIND:
            raise ValueError
        return Calibration(content["findings"], tuple(content["together"]), content["source"],
                           int(content["checkpoint"]["step"]), content["checkpoint"]["config_hash"])
    except OSError as error:
        raise UserError(f"cannot read {path} ({type(error).__name__})") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is not a calibration file of lgdea_jax.calibrate") from None


def fit(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """(slope, intercept) of the logistic regression of labels {0, 1} [N] on scores [N].

    Targets are Platt's (n+ + 1) / (n+ + 2) and 1 / (n- + 2): finite curves where a score separates the classes.
    """
    positives, negatives = int(labels.sum()), int((1 - labels).sum())
    target = np.where(labels == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    centre, scale = float(scores.mean()), float(scores.std()) or 1.0
    x = (scores - centre) / scale

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        value = theta[0] * x + theta[1]
        error = expit(value) - target
        return (np.logaddexp(0, value) - target * value).sum(), np.array([(error * x).sum(), error.sum()])

    theta = minimize(loss, [0.0, np.log((positives + 1) / (negatives + 1))], jac=True, options={"gtol": 1e-8}).x
    return float(theta[0] / scale), float(theta[1] - theta[0] * centre / scale)


def calibrate(scores: np.ndarray, labels: np.ndarray, subjects: np.ndarray) -> dict[str, float] | str:
    """The curve of one finding with its errors on subjects that it was not fitted to, or why there is none.

    Args:
      scores: float [N]; labels: int8 [N] (only POSITIVE and NEGATIVE count); subjects: [N] keys.
    """
    known = (labels == POSITIVE) | (labels == NEGATIVE)
    scores, subjects = scores[known].astype(np.float64), subjects[known]
    labels = (labels[known] == POSITIVE).astype(int)
    positives = int(labels.sum())
    if min(positives, len(labels) - positives) < LEAST:
        return f"{positives} positives and {len(labels) - positives} negatives: at least {LEAST} of each are needed"
    slope, intercept = fit(scores, labels)
    if slope <= 0:
        return "its score is no better than chance here"
    fold = np.unique(subjects, return_inverse=True)[1] % FOLDS
    held_out = np.zeros(len(scores))
    for number in range(FOLDS):
        train, test = fold != number, fold == number
        if test.any():
            a, b = fit(scores[train], labels[train]) if train.any() else (slope, intercept)
            held_out[test] = expit(a * scores[test] + b)
    return {"slope": slope, "intercept": intercept, "n": len(labels), "positives": positives,
            "ece": float(classification.expected_calibration_error(held_out, labels)),
            "brier": float(np.mean((held_out - labels) ** 2))}
