"""Intervals and tests over seeds and subjects against plain loops, textbook answers and made-up worlds."""

import numpy as np
import pytest
from scipy import stats

from lgdea_jax.metrics import bootstrap
from lgdea_jax.metrics import hierarchical as h

RNG = np.random.default_rng


def means(values, subjects, *names):
    """(metric function, subjects): the means of the columns of `values`."""
    values = np.asarray(values, float).reshape(len(subjects), -1)

    def metrics(weights):
        found = values.mean(0) if weights is None else (weights @ values / weights.sum(1, keepdims=True)).T
        return dict(zip(names, found))

    return metrics, np.asarray(subjects)


def runs(values, replicates=None, *, seeds=None, resamples=20):
    values = np.asarray(values, float)
    seeds = tuple(range(len(values))) if seeds is None else seeds
    return h.Runs(seeds, values, np.tile(values[:, None], resamples) if replicates is None else replicates)


# --- Replicates -------------------------------------------------------------------------------------------------------


def test_replicates_are_those_of_rows_laid_out_again_and_again():
    """Independent of weights: a resample is written out row by row. The tasks share the draw of the subjects."""
    rng = RNG(0)
    subjects = np.array([f"p{i // 2}" for i in range(30)])
    every, some = rng.normal(size=30), rng.normal(size=11)
    tasks = [means(every, subjects, "one"), means(some, subjects[4:15], "two")]
    found, digest = h.subject_replicates(tasks, ("two", "one"), resamples=7, seed=3)
    assert list(found) == ["two", "one"] and len(digest) == 12
    names = np.unique(subjects)
    for r, counts in enumerate(bootstrap.subject_counts(len(names), 7, 3)):
        drawn = [name for name, count in zip(names, counts) for _ in range(count)]
        for key, values, of in (("one", every, subjects), ("two", some, subjects[4:15])):
            rows = [value for name in drawn for value, subject in zip(values, of) if subject == name]
            assert found[key][r] == pytest.approx(np.mean(rows), abs=1e-12)


def test_the_digest_tells_what_can_be_paired():
    one = means(np.arange(4.0), list("abcd"), "m")
    again = means(np.arange(4.0)[::-1], list("dcba"), "m")
    digest = h.subject_replicates([one], ["m"], resamples=5)[1]
    assert h.subject_replicates([again], ["m"], resamples=5)[1] == digest
    others = [h.subject_replicates([means(np.arange(4.0), list("abce"), "m")], ["m"], resamples=5)[1],
              h.subject_replicates([one], ["m"], resamples=6)[1],
              h.subject_replicates([one], ["m"], resamples=5, seed=1)[1]]
    assert len({digest, *others}) == 4
    with pytest.raises(ValueError, match="no task gives the metric n"):
        h.subject_replicates([one], ["n"])


# --- Draws ------------------------------------------------------------------------------------------------------------


def variance_components(table):
    """Of y[s, i] by the textbook's two-way analysis of variance: the variance of the mean over seeds and subjects."""
    count, n = table.shape
    rows, columns = table.mean(1), table.mean(0)
    error = ((table - rows[:, None] - columns + table.mean()) ** 2).sum() / ((count - 1) * (n - 1))
    seed = (n * rows.var(ddof=1) - error) / n
    subject = (count * columns.var(ddof=1) - error) / count
    return seed / count + subject / n + error / (count * n), rows.var(ddof=1) / count


@pytest.mark.parametrize("seed_spread, subject_spread, interaction",
                         [(0.3, 1.0, 1.0), (0.05, 1.0, 2.0), (0.1, 0.5, 4.0)])
def test_the_variance_of_the_draws_is_that_of_a_two_way_analysis_of_variance(seed_spread, subject_spread, interaction):
    """With t's 6 degrees of freedom for the seeds: its variance is 6 / 4 of the normal's."""
    rng, n, count = RNG(0), 200, 7
    table = (rng.normal(0, seed_spread, (count, 1)) + rng.normal(0, subject_spread, n)
             + rng.normal(0, interaction, (count, n)))
    subjects = np.arange(n)
    replicates = [h.subject_replicates([means(row, subjects, "m")], ["m"], resamples=2000)[0]["m"] for row in table]
    drawn = h.draws(runs(table.mean(1), np.stack(replicates)))
    assert drawn.shape == (2000 * h.DRAWS_EACH,) and drawn.mean() == pytest.approx(table.mean(), abs=0.01)
    whole, seeds = variance_components(table)
    expected = 6 / 4 * seeds + max(0.0, whole - seeds)
    assert drawn.var() == pytest.approx(expected, rel=0.15)


def test_seeds_alone_give_the_t_interval():
    values = RNG(2).normal(0.8, 0.02, 8)
    found = h.mean_interval(runs(values, resamples=400))
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.05 * (high - low))


def test_subjects_alone_give_the_bootstrap_interval():
    values, ids = RNG(1).normal(size=60), np.arange(60)
    one = h.subject_replicates([means(values, ids, "m")], ["m"])[0]["m"]
    found = h.mean_interval(runs(np.full(3, values.mean()), np.tile(one, (3, 1))))
    plain = bootstrap.intervals(means(values, ids, "m")[0], ids, resamples=h.RESAMPLES)["m"]
    shift = values.mean() - one.mean()
    assert (found.low, found.high) == pytest.approx((plain.low + shift, plain.high + shift), abs=1e-3)


def test_a_pure_interaction_is_counted_once():
    """Every run has its own hard subjects: what the seeds scatter is all there is, and the t interval is right."""
    rng, count = RNG(5), 4
    replicates = rng.normal(0, 0.02, (count, 4000))
    values = np.array([0.5, 0.52, 0.48, 0.51])
    found = h.mean_interval(runs(values, values[:, None] + replicates))
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.1 * (high - low))


# --- Comparisons ------------------------------------------------------------------------------------------------------


def test_p_is_that_of_the_t_tests():
    """Without spread over subjects: paired by seed, and Welch's where a seed means nothing in common."""
    a, b = RNG(7).normal(0.80, 0.02, 6), RNG(8).normal(0.77, 0.03, 6)
    paired = h.compare(runs(a, resamples=400), runs(b, resamples=400), pair_seeds=True)
    assert paired.difference == pytest.approx((a - b).mean()) and paired.seeds == (6, 6)
    assert paired.p == pytest.approx(stats.ttest_rel(a, b).pvalue, abs=0.012)
    apart = h.compare(runs(a, resamples=400), runs(b[:4], seeds=(0, 1, 2, 3), resamples=400), pair_seeds=False)
    assert apart.p == pytest.approx(stats.ttest_ind(a, b[:4], equal_var=False).pvalue, abs=0.03)
    for found in (paired, apart):  # The p-value is what the interval says.
        assert (found.p < 0.05) == (found.low > 0 or found.high < 0)


def test_the_least_p_value():
    found = h.compare(runs([0.8, 0.8 + 1e-9]), runs([0.5, 0.5]), pair_seeds=True)
    assert found.p == pytest.approx(2 / (20 * h.DRAWS_EACH + 1), rel=1e-6)


def test_shared_subjects_cancel_across_shares():
    """Easy and hard subjects are so for both sides: they are no part of the difference."""
    shared = RNG(9).normal(0, 0.2, 400)
    a, b = np.array([0.80, 0.81, 0.79]), np.array([0.70, 0.71, 0.69])
    with_subjects = h.compare(runs(a, a[:, None] + shared), runs(b, b[:, None] + shared), pair_seeds=False)
    without = h.compare(runs(a, resamples=400), runs(b, resamples=400), pair_seeds=False)
    assert (with_subjects.low, with_subjects.high) == pytest.approx((without.low, without.high), abs=1e-9)
    assert without.p < 0.01


def test_seeds_are_paired_at_one_share_and_not_across():
    """A gain of 0.01 on seeds that scatter by 0.1: detectable run by run only."""
    base = RNG(4).normal(0.7, 0.1, 8)
    gains = 0.01 + RNG(5).normal(0, 0.001, 8)
    a, b = runs(base + gains), runs(base)
    paired, apart = (h.compare(a, b, pair_seeds=pair) for pair in (True, False))
    assert paired.difference == pytest.approx(apart.difference)
    assert paired.p < 0.01 and apart.p > 0.5
    half = 1.96 * base.std(ddof=1) * np.sqrt(2 / 8)
    assert (apart.high - apart.low) / 2 == pytest.approx(half, rel=0.25)


def test_missing_seeds():
    a, b = runs([0.8, 0.9, 0.7], seeds=(0, 1, 4)), runs([0.5, 0.6], seeds=(1, 4))
    found = h.compare(a, b, pair_seeds=True)
    assert found.seeds == (2, 2) and found.difference == pytest.approx(0.8 - 0.55)
    assert h.compare(a, b, pair_seeds=False).seeds == (3, 2)
    one = h.compare(a, runs([0.5]), pair_seeds=True)  # Seed 0 alone.
    assert one.difference == pytest.approx(0.3) and np.isnan([one.low, one.high, one.p]).all()
    none = h.compare(a, runs([0.5], seeds=(9,)), pair_seeds=True)
    assert none.seeds == (0, 0) and np.isnan(none.difference)
    with pytest.raises(ValueError, match="same resamples"):
        h.compare(a, runs([0.5, 0.5], resamples=7), pair_seeds=False)
    with pytest.raises(ValueError, match="ascending"):
        runs([1.0, 2.0], seeds=(1, 0))


def test_undefined_replicates_are_left_out():
    a = runs([0.8, 0.9, 0.85])
    a.replicates[:, 3] = np.nan
    found = h.compare(a, runs([0.5, 0.5, 0.5]), pair_seeds=True)
    assert found.difference == pytest.approx(0.35) and 0 < found.low < found.high


def test_holm_by_hand():
    # Sorted .01, .02, .03 (of three): 3 x .01, then 2 x .02, then max(.04, .03).
    assert h.holm({"a": 0.02, "b": 0.01, "c": 0.03}) == pytest.approx({"a": 0.04, "b": 0.03, "c": 0.04})
    out = h.holm({"a": 0.9, "b": 0.8, "c": float("nan")})
    assert (out["a"], out["b"]) == (1.0, 1.0) and np.isnan(out["c"])
    # As statsmodels' multipletests(method="holm").
    assert h.holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})


# --- Share of a gap ---------------------------------------------------------------------------------------------------


def test_gap_of_a_known_world():
    rng = RNG(6)
    base = rng.normal(0.7, 0.05, 8)
    shared = rng.normal(0, 0.02, 50)
    room = 0.2 + rng.normal(0, 0.005, 8)

    def of(values):
        return runs(values, values[:, None] + shared)

    found = h.gap_closed(of(base + 0.25 * room), of(base), of(base + room))
    assert (found.value, found.low, found.high) == pytest.approx((0.25, 0.25, 0.25), abs=1e-9)
    noisy = h.gap_closed(of(base + 0.25 * room + rng.normal(0, 0.02, 8)), of(base), of(base + room))
    assert noisy.low < 0.25 < noisy.high and noisy.undefined == 0
    fewer = of(base + room).only([2, 5, 7])
    assert h.gap_closed(of(base + 0.5 * room), of(base), fewer).value == pytest.approx(0.5)


def test_no_gap_no_share():
    base = np.array([0.7, 0.8, 0.75])
    none = h.gap_closed(runs(base + 0.1), runs(base), runs(base - 0.01))
    assert np.isnan([none.value, none.low, none.high]).all() and none.undefined == 1
    unsure = h.gap_closed(runs(base + 0.1), runs(base), runs(base + np.array([0.1, -0.1, 0.1])))
    assert unsure.value == pytest.approx(3.0) and np.isnan(unsure.low) and unsure.undefined > 0.05
    empty = h.gap_closed(runs([]), runs(base), runs(base))
    assert np.isnan(empty.value)
