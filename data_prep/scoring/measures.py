"""The numbers of `data_prep.score`: arrays in, estimates with bootstrap intervals out.

An extractor places a finding on one of five levels (present, likely, possible, not mentioned, absent), so every measure
is a function of two small histograms: the numbers of reference positives and negatives on each level. Resampling the
reports is then one matrix product for all findings and resamples at once.
"""

from __future__ import annotations

import dataclasses

import numpy as np

# A report's statement about a finding, as a score. "Not mentioned" is above "absent": silence is weaker than denial.
LEVELS = (0.0, 0.1, 0.3, 0.7, 1.0)
LEVEL_NAMES = ("absent", "unmentioned", "possible", "likely", "present")
ABSENT, UNMENTIONED, POSSIBLE, LIKELY, PRESENT = range(5)
# Which levels are called positive, and which are left out, for each way to read the uncertain ones.
CALLED = {"likely": (LIKELY, PRESENT), "positive": (POSSIBLE, LIKELY, PRESENT), "negative": (PRESENT,),
          "drop": (PRESENT,)}
DROPPED = {"drop": (POSSIBLE, LIKELY)}
METRICS = ("auc", "f1", "precision", "sensitivity", "specificity", "kappa")


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A value with its 95% interval; NaN where it is undefined (no positives, nothing predicted)."""

    value: float
    low: float
    high: float

    def as_json(self) -> dict[str, float | None]:
        """`{"value", "low", "high"}` with null for NaN."""
        return {key: None if np.isnan(number) else round(float(number), 5)
                for key, number in dataclasses.asdict(self).items()}


def resample_weights(n: int, resamples: int, seed: int) -> np.ndarray:
    """Bootstrap counts, float32 [1 + resamples, n]; the first row is all ones, the sample itself."""
    rng = np.random.default_rng(seed)
    weights = np.empty((resamples + 1, n), np.float32)
    weights[0] = 1
    for row in weights[1:]:  # Row by row: a [resamples, n] matrix of int64 draws would be twice the memory again.
        row[:] = np.bincount(rng.integers(0, n, n), minlength=n)
    return weights


def histograms(truth: np.ndarray, levels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted counts of reference values by level.

    Args:
      truth: int8 [n, findings], 1 positive, 0 negative, anything else left out.
      levels: int8 [n, findings], indices of `LEVELS`.
      weights: float32 [b, n].

    Returns:
      float64 [b, findings, 2, levels]; axis 2 is (negative, positive).
    """
    n, findings = truth.shape
    cells = np.stack([(truth == value) & (levels == level) for value in (0, 1) for level in range(len(LEVELS))], -1)
    counts = weights @ cells.reshape(n, -1).astype(np.float32)
    return counts.reshape(len(weights), findings, 2, len(LEVELS)).astype(np.float64)


def _divide(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    return np.divide(top, bottom, out=np.full(np.shape(top), np.nan), where=bottom > 0)


def kappa(tp: np.ndarray, fn: np.ndarray, fp: np.ndarray, tn: np.ndarray) -> np.ndarray:
    """Cohen's kappa of two answers from the four counts of their table; NaN where chance alone explains it."""
    return _divide(2 * (tp * tn - fn * fp), (tp + fp) * (fp + tn) + (tp + fn) * (fn + tn))


def measures(counts: np.ndarray, uncertain: str) -> dict[str, np.ndarray]:
    """Every measure of `METRICS`, float64 [b, findings], from `histograms`.

    Args:
      counts: float64 [b, findings, 2, levels].
      uncertain: a key of `CALLED`: uncertain findings count as positive where they are "likely", always ("positive"),
        never ("negative"), or are left out ("drop"). The AUC always uses the levels that are not left out.
    """
    counts = counts.copy()
    counts[..., list(DROPPED.get(uncertain, ()))] = 0
    called = list(CALLED[uncertain])
    negative, positive = counts[..., 0, :], counts[..., 1, :]
    hits, alarms = positive[..., called].sum(-1), negative[..., called].sum(-1)
    positives, negatives = positive.sum(-1), negative.sum(-1)
    below = np.cumsum(negative, -1) - negative  # Negatives graded lower; ties count half (Mann-Whitney).
    concordant = (positive * (below + negative / 2)).sum(-1)
    return {
        "auc": _divide(concordant, positives * negatives),
        "f1": _divide(2 * hits, positives + hits + alarms),
        "precision": _divide(hits, hits + alarms),
        "sensitivity": _divide(hits, positives),
        "specificity": _divide(negatives - alarms, negatives),
        "kappa": kappa(hits, positives - hits, alarms, negatives - alarms),
    }


def confusion(counts: np.ndarray) -> dict[str, dict[str, int]]:
    """Reference value -> level of the extractor -> reports, from one finding's histogram [2, levels]."""
    levels = ("absent", "unmentioned", "possible", "likely", "present")
    return {value: {level: int(counts[i, j]) for j, level in enumerate(levels)}
            for i, value in enumerate(("negative", "positive"))}


def auc_of_scores(truth: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of continuous scores, ties counting half.

    Args:
      truth: int8 [n, findings], 1 positive, 0 negative, anything else left out.
      scores: float64 [n, findings].
      weights: float32 [b, n].

    Returns:
      float64 [b, findings], NaN without a positive or a negative.
    """
    found = np.full((len(weights), truth.shape[1]), np.nan)
    for i in range(truth.shape[1]):
        levels, position = np.unique(scores[:, i], return_inverse=True)
        counts = np.stack([weights @ ((truth[:, i] == value)[:, None] & (position[:, None] == np.arange(len(levels)))
                                      ).astype(np.float32) for value in (0, 1)], 1).astype(np.float64)
        negative, positive = counts[:, 0], counts[:, 1]
        below = np.cumsum(negative, -1) - negative
        found[:, i] = _divide((positive * (below + negative / 2)).sum(-1), positive.sum(-1) * negative.sum(-1))
    return found


def estimate(samples: np.ndarray) -> Estimate:
    """The first sample is the value, the percentiles of the others the 95% interval (undefined resamples left out)."""
    value, rest = float(samples[0]), samples[1:]
    rest = rest[~np.isnan(rest)]
    if np.isnan(value) or not len(rest):
        return Estimate(value, float("nan"), float("nan"))
    low, high = np.percentile(rest, [2.5, 97.5])
    return Estimate(value, float(low), float(high))


def mean_over(samples: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Mean over the chosen findings, undefined ones left out: float64 [b, findings], bool [findings] -> [b]."""
    picked = samples[:, chosen]
    defined = ~np.isnan(picked)
    return _divide(np.where(defined, picked, 0).sum(1), defined.sum(1).astype(float))


def share(hits: int, n: int) -> dict[str, float | int | None]:
    """A proportion with its Wilson 95% interval and n."""
    if not n:
        return {"value": None, "low": None, "high": None, "n": 0}
    z, p = 1.959964, hits / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return {"value": round(p, 5), "low": round(float(max(0.0, centre - half)), 5),
            "high": round(float(min(1.0, centre + half)), 5), "n": n}


def retrieved(true: list[set], found: list[set], *, resamples: int, seed: int) -> dict[str, object]:
    """Recall, precision and F1 of sets (one pair of sets per report), resampled by report.

    Returns:
      `{"n", "recall", "precision", "f1"}`; n is the number of reference elements.
    """
    table = np.array([(len(t & f), len(t), len(f)) for t, f in zip(true, found)], np.float32).reshape(-1, 3)
    if not len(table):
        table = np.zeros((1, 3), np.float32)
    sums = (resample_weights(len(table), resamples, seed) @ table).astype(np.float64)
    both, wanted, given = sums.T
    return {"n": int(table[:, 1].sum()), "recall": estimate(_divide(both, wanted)).as_json(),
            "precision": estimate(_divide(both, given)).as_json(),
            "f1": estimate(_divide(2 * both, wanted + given)).as_json()}
