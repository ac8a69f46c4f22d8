"""From scores to probabilities: a logistic curve for each finding (Platt, 1999), fitted to an evaluation's results.

    python -m lgdea_jax.eval.records --checkpoint=RUN --data_dir=DATA --split=validation --tasks=zero_shot --out=OUT
    python -m lgdea_jax.calibrate --results=OUT --out=calibration.json
    python -m lgdea_jax.predict --checkpoint=RUN IMAGE... --calibration=calibration.json --out=PREDICTED

The probability of a finding with score s is 1 / (1 + exp(-(slope s + intercept))). It holds for images like those of
the evaluation, with the same share of positives: at another prevalence it is off. The file says how well the curve does
on subjects that it was not fitted to (five folds): `ece` (expected calibration error) and `brier`. Fit it to a
validation split, never to the test set that is reported on. It belongs to one checkpoint and step, and is refused by
others.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lgdea_jax import cli
from lgdea_jax.cli import UserError
from lgdea_jax.eval.harness.output import RESULTS, SAMPLES, config_hash, write_json
from lgdea_jax.evaluators import tasks
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
      asked_with: the findings that were asked for together, in order.
      source: what it was fitted to: benchmark, data, split, command.
      step, config_hash: of the checkpoint.
    """

    findings: Mapping[str, Mapping[str, float]]
    asked_with: tuple[str, ...]
    source: Mapping[str, Any]
    step: int
    config_hash: str

    def probability(self, finding: str, score: float) -> float:
        """That of a finding with a score."""
        curve = self.findings[finding]
        return float(_logistic(np.array(curve["slope"] * score + curve["intercept"])))

    def check(self, spec: Mapping[str, Any]) -> None:
        """Refuses another checkpoint than the one that it was made for.

        Raises:
          UserError: names what differs.
        """
        if self.config_hash != config_hash(spec.get("config", {})) or self.step != int(spec["step"]):
            raise UserError(f"the calibration is for step {self.step} of another run or step (this is step "
                            f"{spec['step']}): make one with python -m lgdea_jax.calibrate")


def read(path: Path) -> Calibration:
    """Reads a calibration file.

    Raises:
      UserError: there is none, or it is not one.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["kind"] != KIND:
            raise ValueError
        return Calibration(content["findings"], tuple(content["asked_with"]), content["source"],
                           int(content["checkpoint"]["step"]), content["checkpoint"]["config_hash"])
    except OSError as error:
        raise UserError(f"cannot read {path} ({type(error).__name__})") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is not a calibration file of lgdea_jax.calibrate") from None


def fit(scores: np.ndarray, labels: np.ndarray, *, steps: int = 100) -> tuple[float, float]:
    """(slope, intercept) of the logistic regression of labels {0, 1} [N] on scores [N], by Newton's method.

    Targets are Platt's (n+ + 1) / (n+ + 2) and 1 / (n- + 2): finite curves where a score separates the classes.
    """
    positives, negatives = int(labels.sum()), int((1 - labels).sum())
    target = np.where(labels == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    centre, scale = float(scores.mean()), float(scores.std()) or 1.0
    features = np.stack([(scores - centre) / scale, np.ones(len(scores))], axis=1).astype(np.float64)

    def loss(theta: np.ndarray) -> float:
        value = features @ theta
        return float((np.logaddexp(0, value) - target * value).sum())

    theta = np.array([0.0, math.log((positives + 1) / (negatives + 1))])
    for _ in range(steps):
        probability = _logistic(features @ theta)
        gradient = features.T @ (probability - target)
        hessian = (features * (probability * (1 - probability))[:, None]).T @ features + 1e-9 * np.eye(2)
        move, size, before = np.linalg.solve(hessian, gradient), 1.0, loss(theta)
        while loss(theta - size * move) > before and size > 1e-6:  # A full step may overshoot on steep curves.
            size /= 2
        theta = theta - size * move
        if np.abs(move).max() < 1e-10:
            break
    return float(theta[0] / scale), float(theta[1] - theta[0] * centre / scale)


def _logistic(value: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0, -value))


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
            held_out[test] = _logistic(a * scores[test] + b)
    return {"slope": slope, "intercept": intercept, "n": len(labels), "positives": positives,
            "ece": float(classification.expected_calibration_error(held_out, labels)),
            "brier": float(np.mean((held_out - labels) ** 2))}


def main(argv: list[str]) -> int:
    """Parses the flags, writes the file; returns the exit status."""
    parser = cli.Parser(prog="python -m lgdea_jax.calibrate", description=__doc__.split("\n\n")[0],
                        epilog="\n\n".join(__doc__.split("\n\n")[1:]))
    parser.add_argument("--results", required=True, metavar="OUT", help="folder that an eval binary wrote")
    parser.add_argument("--out", required=True, metavar="FILE", help="the calibration file (JSON)")
    args = parser.parse_args(argv)
    folder = Path(args.results)
    try:
        head = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"no {RESULTS} in {folder}: run an eval binary with --out={folder} first") from None
    found = tasks.load_samples(folder / SAMPLES, "clean").get("zero_shot")
    if found is None:
        raise UserError(f"{folder} has no zero-shot scores: evaluate with --tasks=zero_shot")
    names = found.names["findings"]
    curves = {name: calibrate(found.arrays["scores"][:, f], found.arrays["labels"][:, f], found.subjects)
              for f, name in enumerate(names)}
    kept = {name: curve for name, curve in curves.items() if isinstance(curve, dict)}
    for name, curve in curves.items():
        print(f"{name}: " + (curve if isinstance(curve, str) else
                             f"{curve['positives']} of {curve['n']} positive, calibration error {curve['ece']:.3f}, "
                             f"Brier score {curve['brier']:.3f} (on subjects not fitted to)"))
    if not kept:
        raise UserError("no finding could be calibrated")
    content = {"kind": KIND, "checkpoint": {"step": head["step"], "config_hash": head["config_hash"]},
               "source": {key: head[key] for key in ("benchmark", "data", "split", "command")},
               "asked_with": list(names), "findings": kept,
               "left_out": {name: curve for name, curve in curves.items() if isinstance(curve, str)}}
    try:
        write_json(Path(args.out), content)
    except (IsADirectoryError, FileNotFoundError, NotADirectoryError, PermissionError) as error:
        raise UserError(f"cannot write {args.out} ({type(error).__name__})") from None
    print(f"wrote {args.out}: {len(kept)} of {len(curves)} findings")
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
