"""Bootstrap intervals and paired tests over subjects, for any metric that takes weights.

A subject with five images is one draw, not five: images of a patient are alike, and resampling images would make the
intervals too narrow. Resampling is done by counting: a resample is the number of times each subject was drawn, and a
metric function gets those numbers as weights of its samples, many resamples at once (`metrics/classification.py`).

What is held fixed: the model, the prompts, and in retrieval the gallery (queries are resampled, candidates are not,
since a doubled candidate would tie with itself). The spread between training seeds is not in an interval of one model:
for that use `paired_test` with several seeds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

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


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A minus B: the difference, its interval, and p-values (`greater`: that A is not better than B)."""

    difference: float
    low: float
    high: float
    p_two_sided: float
    p_greater: float


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
        sets of samples must see the same draws.
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


def paired_test(a: Sequence[MetricFn], b: Sequence[MetricFn], subject_ids: Sequence[tuple[np.ndarray, np.ndarray]], *,
                resamples: int = 1000, seed: int = 0, level: float = 0.95) -> dict[str, Comparison]:
    """Paired bootstrap of "A beats B" over subjects, and over training seeds if there are several.

    Run i of A is compared with run i of B (same seed, same data). A resample draws subjects, the same for every run
    of both, and then runs with replacement; the statistic is the mean difference over the drawn runs. With one run
    this is the plain paired bootstrap over subjects, and then it speaks of these two checkpoints, not of the methods.
    With few runs (below about 8) resampling underestimates their spread: the p-values are too small.

    Args:
      a, b: metric functions of the runs of A and of B, equally many.
      subject_ids: per run, the subjects of A's and of B's samples.
      resamples, seed, level: as of `intervals`.

    Returns:
      {name: Comparison} for the metrics that all runs share. The least p-value is 1 / (resamples + 1) one-sided. NaN
      where a run leaves the metric undefined.
    """
    if not a or len(a) != len(b) or len(a) != len(subject_ids):
        raise ValueError("A and B need the same number of runs, at least one")
    universe = np.unique(np.concatenate([np.asarray(ids) for pair in subject_ids for ids in pair]))
    options = {"resamples": resamples, "seed": seed, "universe": universe}
    points, draws = [], []
    for fn_a, fn_b, (ids_a, ids_b) in zip(a, b, subject_ids):
        point_a, point_b = fn_a(None), fn_b(None)
        names = [name for name in point_a if name in point_b]
        points.append({name: float(point_a[name]) - float(point_b[name]) for name in names})
        drawn_a = distribution(fn_a, np.asarray(ids_a), **options)
        drawn_b = distribution(fn_b, np.asarray(ids_b), **options)
        draws.append({name: drawn_a[name] - drawn_b[name] for name in names})
    # Another stream than the subjects': the two draws must be independent.
    runs = np.random.default_rng([seed, 1]).integers(0, len(a), (resamples, len(a)))
    out = {}
    for name in [name for name in points[0] if all(name in point for point in points)]:
        difference = np.mean([point[name] for point in points])
        table = np.stack([draw[name] for draw in draws], axis=1)
        deltas = np.take_along_axis(table, runs, 1).mean(1)
        out[name] = comparison(float(difference), deltas, level)
    return out


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down adjusted p-values: compare them with the level itself (family-wise error, no independence).

    NaN stays NaN and does not count as a test.
    """
    known = sorted((p, name) for name, p in p_values.items() if not np.isnan(p))
    out, greatest = dict(p_values), 0.0
    for rank, (p, name) in enumerate(known):
        greatest = max(greatest, min(1.0, (len(known) - rank) * p))
        out[name] = greatest
    return out


def comparison(difference: float, deltas: np.ndarray, level: float = 0.95) -> Comparison:
    """Percentile interval and p-values from a difference and its resamples `deltas` [B]; NaN among them is left out.

    The p-value is what the interval says (it is the level whose interval ends at 0), and is right where the resamples
    spread around the difference as the difference does around the truth.
    """
    deltas = deltas[~np.isnan(deltas)]
    if np.isnan(difference) or not len(deltas):
        return Comparison(difference, np.nan, np.nan, np.nan, np.nan)
    # The observed data count as one resample, so that no p-value is 0.
    not_above = (1 + np.count_nonzero(deltas <= 0)) / (len(deltas) + 1)
    not_below = (1 + np.count_nonzero(deltas >= 0)) / (len(deltas) + 1)
    return Comparison(difference, *percentiles(deltas, level), min(1.0, 2 * min(not_above, not_below)), not_above)


def percentiles(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The ends of the central `level` of `values` [B], NaN left out; NaN where nothing is left."""
    values = values[~np.isnan(values)]
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.percentile(values, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)
