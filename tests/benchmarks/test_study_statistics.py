"""The study's statistics against plain loops, textbook answers and made-up worlds in which the truth is known."""

import dataclasses

import numpy as np
import pytest

from benchmarks.experiments import statistics as s
from lgdea_jax.evaluators.samples import Samples, weighted_mean
from lgdea_jax.metrics import bootstrap

RNG = np.random.default_rng


class Means(Samples):
    """A task whose metrics are the means of its columns."""

    task = "zero_shot"

    def metrics(self, weights=None):
        """Named by `names`."""
        found = weighted_mean(self.arrays["values"], weights)
        return dict(zip(self.names["metrics"], found.tolist() if weights is None else found.T))

    def sizes(self):
        """Not used."""
        return {}


def means(values, subjects, *names):
    values = np.asarray(values, float)
    return Means(np.asarray(subjects), {"values": values.reshape(len(values), -1)}, {"metrics": names}, {})


def cell(values, replicates=None, *, seeds=None, resamples=20):
    values = np.asarray(values, float)
    seeds = tuple(range(len(values))) if seeds is None else seeds
    return s.Cell(seeds, values, np.tile(values[:, None], resamples) if replicates is None else replicates)


# --- Replicates -------------------------------------------------------------------------------------------------------


def test_replicates_are_those_of_rows_laid_out_again_and_again():
    """Independent of weights: a resample is written out row by row. The tasks share the draw of the subjects."""
    rng = RNG(0)
    subjects = np.array([f"p{i // 2}" for i in range(30)])
    every, some = rng.normal(size=30), rng.normal(size=11)
    tasks = {"a": means(every, subjects, "one"), "b": means(some, subjects[4:15], "two")}
    found, digest = s.subject_replicates(tasks, ("two", "one"), resamples=7, seed=3)
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
    digest = s.subject_replicates({"t": one}, ["m"], resamples=5)[1]
    assert s.subject_replicates({"t": again}, ["m"], resamples=5)[1] == digest
    others = [s.subject_replicates({"t": means(np.arange(4.0), list("abce"), "m")}, ["m"], resamples=5)[1],
              s.subject_replicates({"t": one}, ["m"], resamples=6)[1],
              s.subject_replicates({"t": one}, ["m"], resamples=5, seed=1)[1]]
    assert len({digest, *others}) == 4
    with pytest.raises(ValueError, match="no task gives the metric n"):
        s.subject_replicates({"t": one}, ["n"])


# --- Draws ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("few_seeds", [True, False])
def test_draws_are_those_of_a_loop(few_seeds):
    replicates = RNG(0).normal(size=(4, 6))
    ours = s.draws(cell(np.zeros(4), replicates), seed=5, stream=9, few_seeds=few_seeds)
    assert ours.shape == (6 * s.DRAWS_EACH,)
    rng = RNG([5, 9])
    picks, chi2 = rng.integers(0, 4, (len(ours), 4)), rng.chisquare(3, len(ours))
    for b, value in enumerate(ours):
        column = [row[b % 6] for row in replicates]
        centre = sum(column) / 4
        drawn = sum(column[pick] for pick in picks[b]) / 4
        stretch = (4 / chi2[b]) ** 0.5 if few_seeds else 1.0
        assert value == pytest.approx(centre + stretch * (drawn - centre), abs=1e-12)


def test_without_spread_between_seeds_the_draws_are_the_replicates():
    replicates = np.tile(RNG(1).normal(size=50), (3, 1))
    drawn = s.draws(cell(np.zeros(3), replicates)).reshape(s.DRAWS_EACH, 50)
    assert drawn == pytest.approx(np.tile(replicates[0], (s.DRAWS_EACH, 1)), abs=1e-12)


def test_seeds_alone_give_the_t_interval():
    values = RNG(2).normal(0.8, 0.02, 8)
    found = s.mean_interval(cell(values, resamples=400))
    half = 2.365 * values.std(ddof=1) / np.sqrt(8)  # t with 7 degrees of freedom.
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)
    plain = s.mean_interval(cell(values, resamples=400), few_seeds=False)
    assert plain.high - plain.low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(8), rel=0.06)


# --- Comparisons ------------------------------------------------------------------------------------------------------


def test_plain_comparison_agrees_with_the_paired_test_on_samples():
    """The same question asked of the samples themselves, by the code that keeps them."""
    rng, subjects = RNG(3), np.array([f"p{i:03d}" for i in range(150)])
    hard = rng.normal(size=150)
    tasks = {side: [means(hard + rng.normal(shift + rng.normal(0, 0.1), 0.5, 150), subjects, "m") for _ in range(6)]
             for side, shift in (("a", 0.1), ("b", 0.0))}
    cells = {}
    for side, runs in tasks.items():
        rows = [s.subject_replicates({"t": run}, ["m"])[0]["m"] for run in runs]
        cells[side] = cell([run.metrics()["m"] for run in runs], np.stack(rows))
    ours = s.compare(cells["a"], cells["b"], pair_seeds=True).plain
    theirs = bootstrap.paired_test([run.metrics for run in tasks["a"]], [run.metrics for run in tasks["b"]],
                                   [(subjects, subjects)] * 6, resamples=4000, seed=0)["m"]
    assert ours.difference == pytest.approx(theirs.difference)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.1 * (theirs.high - theirs.low))
    assert ours.p_two_sided == pytest.approx(theirs.p_two_sided, abs=0.02)


def world(rng, *, seeds, gain, seed_spread, subject_spread, resamples=100):
    """Two methods: a gain that differs from seed to seed and from subject to subject."""
    shared = rng.normal(0, 3 * subject_spread, resamples)  # What makes both worse or better alike.
    base = rng.normal(0.7, 0.1, seeds)
    found = gain + rng.normal(0, seed_spread, seeds) + rng.normal(0, subject_spread)
    by_subject = rng.normal(0, subject_spread, resamples)
    return (cell(base + found, (base + found)[:, None] + shared + by_subject),
            cell(base, base[:, None] + np.tile(shared, (seeds, 1))))


@pytest.mark.parametrize("seeds", [3, 8])
@pytest.mark.parametrize("seed_spread, subject_spread", [(0.02, 0.001), (0.02, 0.02), (0.001, 0.02)])
def test_p_values_are_uniform_where_there_is_no_difference(seeds, seed_spread, subject_spread):
    rng = RNG(seeds)
    p = np.array([s.compare(*world(rng, seeds=seeds, gain=0, seed_spread=seed_spread, subject_spread=subject_spread),
                            pair_seeds=True).result.p_two_sided for _ in range(250)])
    assert np.mean(p < 0.05) <= 0.05 + 2.5 * np.sqrt(0.05 * 0.95 / 250)
    assert np.mean(p < 0.5) == pytest.approx(0.5, abs=0.1)


def test_resampling_few_seeds_alone_says_significant_too_often():
    """Why the plain p-value is not the one that is reported first."""
    rng = RNG(0)
    p = [s.compare(*world(rng, seeds=3, gain=0, seed_spread=0.02, subject_spread=0.001), pair_seeds=True)
         for _ in range(200)]
    assert np.mean([found.plain.p_two_sided < 0.05 for found in p]) > 0.15
    assert np.mean([found.result.p_two_sided < 0.05 for found in p]) < 0.09


def test_a_known_difference_is_found_and_covered():
    rng, found = RNG(1), []
    for _ in range(100):
        found.append(s.compare(*world(rng, seeds=8, gain=0.03, seed_spread=0.01, subject_spread=0.005),
                               pair_seeds=True).result)
    assert np.mean([f.difference for f in found]) == pytest.approx(0.03, abs=0.002)
    assert np.mean([f.low <= 0.03 <= f.high for f in found]) >= 0.9
    assert np.mean([f.p_two_sided < 0.05 for f in found]) > 0.95


def test_seeds_are_paired_at_one_share_and_not_across():
    """A gain of 0.01 on seeds that scatter by 0.1: visible run by run only."""
    base = RNG(4).normal(0.7, 0.1, 8)
    gains = 0.01 + RNG(5).normal(0, 0.001, 8)
    a, b = cell(base + gains), cell(base)
    paired, apart = (s.compare(a, b, pair_seeds=pair).result for pair in (True, False))
    assert paired.difference == pytest.approx(apart.difference)
    assert paired.p_two_sided < 0.01 and apart.p_two_sided > 0.5
    half = 1.96 * base.std(ddof=1) * np.sqrt(2 / 8)
    assert (apart.high - apart.low) / 2 == pytest.approx(half, rel=0.25)


def test_unfinished_cells():
    a, b = cell([0.8, 0.9, 0.7], seeds=(0, 1, 4)), cell([0.5, 0.6], seeds=(1, 4))
    found = s.compare(a, b, pair_seeds=True)
    assert found.seeds == (2, 2) and found.result.difference == pytest.approx(0.8 - 0.55)
    assert s.compare(a, b, pair_seeds=False).seeds == (3, 2)
    one = s.compare(a, cell([0.5]), pair_seeds=True).result  # Seed 0 alone.
    assert one.difference == pytest.approx(0.3) and np.isnan([one.low, one.high, one.p_two_sided]).all()
    none = s.compare(a, cell([0.5], seeds=(9,)), pair_seeds=True)
    assert none.seeds == (0, 0) and np.isnan(none.result.difference)
    with pytest.raises(ValueError, match="same resamples"):
        s.compare(a, cell([0.5, 0.5], resamples=7), pair_seeds=False)
    with pytest.raises(ValueError, match="ascending"):
        cell([1.0, 2.0], seeds=(1, 0))


def test_undefined_replicates_are_left_out():
    a = cell([0.8, 0.9, 0.85])
    a.replicates[:, 3] = np.nan
    found = s.compare(a, cell([0.5, 0.5, 0.5]), pair_seeds=True).result
    assert found.difference == pytest.approx(0.35) and 0 < found.low < found.high


def test_holm_over_three_metrics_by_hand():
    """As statsmodels' multipletests(method="holm") does: .01 x 3, .04 x 2, and .03 x 2 for the one in between."""
    assert bootstrap.holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})


# --- Headroom ---------------------------------------------------------------------------------------------------------


def test_headroom_of_a_known_world():
    rng = RNG(6)
    base = rng.normal(0.7, 0.05, 8)
    shared = rng.normal(0, 0.02, 50)
    room = 0.2 + rng.normal(0, 0.005, 8)

    def of(values):
        return cell(values, values[:, None] + shared)

    found = s.headroom_closed(of(base + 0.25 * room), of(base), of(base + room))
    assert (found.value, found.low, found.high) == pytest.approx((0.25, 0.25, 0.25), abs=1e-9)
    noisy = s.headroom_closed(of(base + 0.25 * room + rng.normal(0, 0.02, 8)), of(base), of(base + room))
    assert noisy.low < 0.25 < noisy.high and noisy.undefined == 0
    fewer = dataclasses.replace(of(base + room).only([0, 1, 2]))
    assert s.headroom_closed(of(base + 0.5 * room), of(base), fewer).value == pytest.approx(0.5)


def test_no_headroom_no_share():
    base = np.array([0.7, 0.8, 0.75])
    none = s.headroom_closed(cell(base + 0.1), cell(base), cell(base - 0.01))
    assert np.isnan([none.value, none.low, none.high]).all() and none.undefined == 1
    unsure = s.headroom_closed(cell(base + 0.1), cell(base), cell(base + np.array([0.1, -0.1, 0.1])))
    assert unsure.value == pytest.approx(3.0) and np.isnan(unsure.low) and unsure.undefined > 0.05
    empty = s.headroom_closed(cell([]), cell(base), cell(base))
    assert np.isnan(empty.value)
