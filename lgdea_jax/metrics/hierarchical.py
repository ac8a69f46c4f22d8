"""Intervals and tests over training seeds and test subjects: a two-way random-effects bootstrap, fit for few seeds.

Model. The metric of run s is like the mean over the test subjects i of y[s, i] = mean + seed[s] + subject[i] + e[s, i],
with independent effects, those of the seeds normal. With S seeds and n subjects the mean over runs has the variance

    var_seed / S + var_subject / n + var_e / (S n),

and so has the mean of run-by-run differences, with the components of the difference.

Estimates. The variance s^2 of the S values estimates var_seed + var_e / n: s^2 / S covers the first and the last term,
with S - 1 degrees of freedom. The resamples of the subjects, the same for every run, give the second: under them the
mean over runs has the variance var_subject / n + var_e / (S n); the spread of the runs around it, var_e / n, gives what
is to be subtracted. Resampling seeds and subjects together without this counts the interaction e three times (Owen,
"The pigeonhole bootstrap", Annals of Applied Statistics 1, 2007; no resampling scheme is exact: McCullagh, "Resampling
and exchangeable arrays", Bernoulli 6, 2000). Resampling S seeds as they are gives a spread that is too small by
sqrt((S - 1) / S), without the tails of the t distribution.

Draws. A draw is the observed mean, plus the deviation of a resample of the subjects (scaled to the corrected variance),
plus s / sqrt(S) times a t variate with S - 1 degrees of freedom. The interval's ends and the p-value are quantiles of
the draws (a generalised confidence interval: Weerahandi, JASA 88, 1993). With one term this is the t interval over
seeds, or the percentile bootstrap over subjects; with both it is somewhat conservative. False positives at a nominal 5%
are measured in tests/metrics/test_false_positives.py.

Two methods whose runs are paired by seed (the same data and initialisation) are compared run by run. Otherwise a seed
means nothing in common: each side has its own t term, and only the subjects are shared (Behrens-Fisher). The effects of
seeds should be roughly normal, and the subjects at least about 30.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from lgdea_jax.metrics.bootstrap import Interval, MetricFn, distribution, percentiles

RESAMPLES = 400  # Resamples of the subjects that are kept of each run.
DRAWS_EACH = 25  # Draws of the seeds' effect for each resample of the subjects: 10,000 draws in all.


@dataclasses.dataclass(frozen=True)
class Runs:
    """One metric of several training runs of one method.

    Attributes:
      seeds: S training seeds, ascending.
      values: float64 [S], the metric of each run.
      replicates: float64 [S, R], its values under R resamples of the subjects, the same resamples for every run.
    """

    seeds: tuple[int, ...]
    values: np.ndarray
    replicates: np.ndarray

    def __post_init__(self) -> None:
        if list(self.seeds) != sorted(set(self.seeds)):
            raise ValueError("the seeds of runs must be ascending and distinct")
        if self.values.shape != (len(self.seeds),) or self.replicates.shape[:1] != self.values.shape:
            raise ValueError("runs need a value and a row of replicates for each seed")

    def only(self, seeds: Sequence[int]) -> Runs:
        """The runs of those seeds."""
        rows = [self.seeds.index(seed) for seed in sorted(seeds)]
        return Runs(tuple(sorted(seeds)), self.values[rows], self.replicates[rows])

    def minus(self, other: Runs) -> Runs:
        """Run by run; ValueError where the seeds are not the same."""
        if self.seeds != other.seeds:
            raise ValueError("runs can only be paired seed by seed")
        return Runs(self.seeds, self.values - other.values, self.replicates - other.replicates)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A minus B: the difference of means, its interval, the two-sided p-value, and the numbers of seeds of A and B."""

    difference: float
    low: float
    high: float
    p: float
    seeds: tuple[int, int]


def subject_replicates(tasks: Sequence[tuple[MetricFn, np.ndarray]], names: Sequence[str], *,
                       resamples: int = RESAMPLES, seed: int = 0) -> tuple[dict[str, np.ndarray], str]:
    """Each metric's values under resamples of all subjects of an evaluation.

    Args:
      tasks: (metric function, subjects of its samples [N]) of each task.
      names: of the metrics.
      resamples, seed: equal ones, and equal subjects, give equal resamples.

    Returns:
      ({name: float64 [resamples]}, digest of the subjects, the number of resamples and the seed): replicates of two
      runs are paired if their digests are equal. NaN where a resample leaves a metric undefined.

    Raises:
      ValueError: no task gives one of the metrics.
    """
    # One draw for all tasks, also those that use some of the subjects only, such as those with boxes.
    universe = np.unique(np.concatenate([np.asarray(subjects) for _, subjects in tasks]))
    found: dict[str, np.ndarray] = {}
    for metrics, subjects in tasks:
        wanted = set(names) & set(metrics(None))
        if wanted:
            drawn = distribution(metrics, np.asarray(subjects), resamples=resamples, seed=seed, universe=universe)
            found |= {name: drawn[name] for name in wanted}
    if missing := [name for name in names if name not in found]:
        raise ValueError(f"no task gives the metric {missing[0]}")
    text = "\n".join([str(resamples), str(seed), *map(str, universe)])
    return {name: found[name] for name in names}, hashlib.sha256(text.encode()).hexdigest()[:12]


def draws(runs: Runs, minus: Runs | None = None, *, seed: int = 0) -> np.ndarray:
    """Plausible values of the mean over seeds and subjects, float64 [R * DRAWS_EACH]; see the module's docstring.

    Args:
      runs: at least two seeds, or NaN comes back: one run says nothing of the spread between runs.
      minus: runs with other seeds, on the same resamples, whose mean is subtracted.
      seed: equal ones give two `runs` of as many seeds the same effects, so that their draws can be combined.
    """
    sides = [(1.0, runs)] if minus is None else [(1.0, runs), (-1.0, minus)]
    total = runs.replicates.shape[1] * DRAWS_EACH
    if min(len(side.seeds) for _, side in sides) < 2:
        return np.full(total, np.nan)
    centre = sum(sign * side.replicates.mean(axis=0) for sign, side in sides)
    defined = ~np.isnan(centre)
    deviations = centre - (centre[defined].mean() if defined.any() else np.nan)
    interaction = sum(_interaction(side.replicates[:, defined]) / len(side.seeds) for _, side in sides)
    drawn = np.tile(deviations * _shrinkage(deviations[defined], interaction), DRAWS_EACH)
    for stream, (sign, side) in enumerate(sides, 1):
        drawn += sign * (side.values.mean() + _seed_effects(side.values, np.random.default_rng([seed, stream]), total))
    return drawn


def _interaction(replicates: np.ndarray) -> float:
    """var_e / n: the spread of each run's replicates around their mean over the runs."""
    count, resamples = replicates.shape
    if resamples < 2:
        return 0.0
    return float((replicates - replicates.mean(axis=0)).var(axis=1, ddof=1).sum() / (count - 1))


def _shrinkage(deviations: np.ndarray, interaction: float) -> float:
    """What scales the deviations of the mean to the variance that subjects alone cause."""
    variance = deviations.var(ddof=1) if len(deviations) > 1 else 0.0
    return float(np.sqrt(max(0.0, variance - interaction) / variance)) if variance > 0 else 0.0


def _seed_effects(values: np.ndarray, rng: np.random.Generator, total: int) -> np.ndarray:
    """t distributed deviations of the mean of `values`; linear in them, so that equal streams give joint draws."""
    count = len(values)
    normal = rng.normal(size=(total, count)) @ (values - values.mean()) / np.sqrt(count * (count - 1))
    return normal * np.sqrt((count - 1) / rng.chisquare(count - 1, total))


def mean_interval(runs: Runs, *, level: float = 0.95) -> Interval:
    """The mean over seeds with its interval; NaN ends with one seed, NaN without any."""
    if not runs.seeds:
        return Interval(np.nan, np.nan, np.nan)
    return Interval(float(runs.values.mean()), *percentiles(draws(runs), level))


def compare(a: Runs, b: Runs, *, pair_seeds: bool, level: float = 0.95) -> Comparison:
    """A minus B over seeds and subjects.

    Args:
      a, b: with replicates of the same resamples of the same subjects.
      pair_seeds: compare run by run, over the seeds that both have; otherwise the seeds of the sides are independent.
      level: of the interval.

    Returns:
      The difference of means. The p-value is what the interval says: one minus the level whose interval ends at 0, at
      least 2 / (number of draws + 1). NaN for everything but the difference with fewer than two seeds on a side, and
      for all without any.
    """
    if a.replicates.shape[1:] != b.replicates.shape[1:]:
        raise ValueError("the runs do not have the same resamples")
    if pair_seeds:
        common = sorted(set(a.seeds) & set(b.seeds))
        a, b = a.only(common), b.only(common)
    seeds = len(a.seeds), len(b.seeds)
    if not a.seeds or not b.seeds:
        return Comparison(np.nan, np.nan, np.nan, np.nan, seeds)
    difference = float(a.values.mean() - b.values.mean())
    drawn = draws(a.minus(b)) if pair_seeds else draws(a, b)
    drawn = drawn[~np.isnan(drawn)]
    if np.isnan(difference) or not len(drawn):
        return Comparison(difference, np.nan, np.nan, np.nan, seeds)
    # The observed data count as one draw, so that no p-value is 0.
    tail = 1 + min(np.count_nonzero(drawn <= 0), np.count_nonzero(drawn >= 0))
    return Comparison(difference, *percentiles(drawn, level), float(min(1.0, 2 * tail / (len(drawn) + 1))), seeds)


def gap_closed(method: Runs, base: Runs, best: Runs, *, level: float = 0.95) -> Interval:
    """(method - base) / (best - base) over the seeds that all three have: 0 is the base, 1 the best.

    A ratio of two noisy differences: read it with its interval. Draws whose best is not above the base have no ratio
    and are counted in `undefined`; with more than 5% of them the interval is NaN, and so is the value where the best
    itself is not above the base.
    """
    common = sorted(set(method.seeds) & set(base.seeds) & set(best.seeds))
    if not common:
        return Interval(np.nan, np.nan, np.nan)
    base = base.only(common)
    gain, gap = method.only(common).minus(base), best.only(common).minus(base)
    whole = gap.values.mean()
    value = float(gain.values.mean() / whole) if whole > 0 else float("nan")
    above = (drawn := draws(gap)) > 0  # The effects of seeds are the same in both draws.
    ratios = np.divide(draws(gain), drawn, out=np.full(drawn.shape, np.nan), where=above)
    undefined = float(1 - above.mean())
    ends = percentiles(ratios, level) if undefined <= 0.05 and whole > 0 else (np.nan, np.nan)
    return Interval(value, *ends, undefined)


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
