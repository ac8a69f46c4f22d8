"""Bootstrap intervals over subjects, for any metric that takes weights.

A subject with five images is one draw, not five: images of a patient are alike, and resampling images would make the
intervals too narrow. Resampling is done by counting: a resample is the number of times each subject was drawn, and a
metric function gets those numbers as weights of its samples, many resamples at once (`metrics/classification.py`).

What is held fixed: the model, the prompts, and in retrieval the gallery (queries are resampled, candidates are not,
since a doubled candidate would tie with itself). The spread between training seeds is not in an interval of one model:
two methods are compared over several seeds, with `metrics/hierarchical.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping

import numpy as np

# `metrics(weights)` with weights [B, N] gives each metric's B values; with None, floats.
MetricFn = Callable[[np.ndarray | None], Mapping[str, np.ndarray | float]]

# Weights of one block of resamples; metric functions may hold a few float64 arrays of this size.
_BLOCK = 16_000_000


@dataclasses.dataclass(frozen=True)
class Interval:
    """A value with its percentile interval; NaN where undefined. `undefined`: share of resamples without a value."""

    value: float
    low: float
    high: float
    undefined: float = 0.0


def subject_counts(n_subjects: int, resamples: int, seed: int) -> np.ndarray:
    """How often each subject is drawn, uint8 or int32 [resamples, n_subjects]; every row sums to n_subjects."""
    rng = np.random.default_rng(seed)
    small = np.uint8 if n_subjects < 100_000_000 else np.int32  # A count above 255 has a chance below 1e-500.
    out = np.empty((resamples, n_subjects), small)
    for row in range(resamples):
        out[row] = np.bincount(rng.integers(0, n_subjects, n_subjects), minlength=n_subjects)
    return out


def weight_blocks(subject_ids: np.ndarray, resamples: int, seed: int, *, universe: np.ndarray | None = None,
                  ) -> Iterator[np.ndarray]:
    """Weights of the samples in each resample, in blocks [b, N] whose order and content depend on the seed only.

    Args:
      subject_ids: [N], the subject of each sample.
      resamples: number of resamples.
      seed: the resamples are a function of it and of the sorted distinct subjects.
      universe: all subjects that can be drawn (default: the distinct `subject_ids`). Give the union when several
        sets of samples must have the same draws.
    """
    names = np.unique(subject_ids if universe is None else universe)
    index = np.searchsorted(names, subject_ids)
    if len(subject_ids) and (names[np.minimum(index, len(names) - 1)] != subject_ids).any():
        raise ValueError("a subject is missing from the universe")
    if not len(names):
        return
    counts = subject_counts(len(names), resamples, seed)
    step = max(1, _BLOCK // max(1, len(subject_ids)))
    for start in range(0, resamples, step):
        yield np.take(counts[start:start + step], index, axis=1)


def distribution(metrics: MetricFn, subject_ids: np.ndarray, *, resamples: int, seed: int,
                 universe: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Every metric's value in every resample: {name: float64 [resamples]}."""
    blocks = [metrics(weights) for weights in weight_blocks(subject_ids, resamples, seed, universe=universe)]
    return {name: np.concatenate([block[name] for block in blocks]) for name in (blocks[0] if blocks else ())}


def intervals(metrics: MetricFn, subject_ids: np.ndarray, *, resamples: int = 1000, seed: int = 0,
              level: float = 0.95) -> dict[str, Interval]:
    """Percentile bootstrap intervals of all metrics, resampling subjects.

    They misread small or extreme samples: with fewer than about 20 subjects, or a value at its bound (an AUROC of 1
    has the interval [1, 1]), they are too narrow. Resamples in which a metric is undefined are left out and counted.

    Args:
      metrics: gives {name: values} for weights [B, N], and {name: float} for None.
      subject_ids: [N].
      resamples: 1,000 by convention; the ends of a 95% interval then wobble by a few percent of its width.
      seed: equal seeds give equal intervals.
      level: coverage.
    """
    point = metrics(None)
    if resamples < 1 or not len(subject_ids):
        return {name: Interval(float(value), np.nan, np.nan) for name, value in point.items()}
    drawn = distribution(metrics, np.asarray(subject_ids), resamples=resamples, seed=seed)
    return {name: Interval(float(value), *percentiles(drawn[name], level), float(np.isnan(drawn[name]).mean()))
            for name, value in point.items()}


def percentiles(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The ends of the central `level` of `values` [B], NaN left out; NaN where nothing is left."""
    values = values[~np.isnan(values)]
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.percentile(values, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)
