"""Retrieval metrics against brute force: the mean over all orders of tied candidates."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from lgdea_jax.metrics import retrieval as r


def precision(scores, relevant, k):
    return r.mean_gain_at_k(r.rank_profile(scores, relevant, k), k)


def average_precision(scores, relevant, k):
    return r.average_precision_at_k(r.rank_profile(scores, relevant, k), k)


def _orders(scores):
    """All rankings of one query that the scores allow."""
    groups = [list(np.flatnonzero(scores == value)) for value in sorted(set(scores), reverse=True)]
    for parts in itertools.product(*(itertools.permutations(group) for group in groups)):
        yield [index for part in parts for index in part]


def _average_precision(ranked, k, total):
    hits, value = 0, 0.0
    for position in range(k):
        if ranked[position]:
            hits += 1
            value += hits / (position + 1)
    return value / min(k, total) if total else float("nan")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=6), st.data())
def test_metrics_are_the_mean_over_all_orders_of_ties(items, data):
    k = data.draw(st.integers(1, len(items)))
    scores = np.array([[float(score) for score, _ in items]])
    relevant = np.array([[flag for _, flag in items]])
    ranked = [relevant[0][order] for order in _orders(scores[0])]
    assert precision(scores, relevant, k)[0] == pytest.approx(np.mean([x[:k].mean() for x in ranked]))
    expected = np.mean([_average_precision(x, k, relevant.sum()) for x in ranked])
    assert average_precision(scores, relevant, k)[0] == pytest.approx(expected, nan_ok=True)


def test_many_ranks_use_the_same_definition():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 40, (6, 300)).astype(float)
    gains = rng.random((6, 300))
    wide = r.rank_profile(scores, gains, 200)  # Counted row by row.
    narrow = r.rank_profile(scores, gains, 100)  # Counted at once.
    for k in (1, 7, 99):
        assert np.allclose(r.mean_gain_at_k(wide, k), r.mean_gain_at_k(narrow, k))
    # Whole gallery: the mean gain is the mean of the gains, whatever the scores.
    assert np.allclose(r.mean_gain_at_k(r.rank_profile(scores, gains, 300), 300), gains.mean(1))


def test_map_over_the_whole_gallery_is_average_precision():
    rng = np.random.default_rng(1)
    scores, relevant = rng.normal(size=(5, 50)), rng.random((5, 50)) < 0.2
    ours = average_precision(scores, relevant, 50)
    assert ours == pytest.approx([average_precision_score(y, s) for y, s in zip(relevant, scores)], abs=1e-12)


def test_order_of_the_gallery_does_not_matter():
    rng = np.random.default_rng(2)
    scores, relevant = rng.integers(0, 5, (20, 60)).astype(float), rng.random((20, 60)) < 0.3
    shuffle = rng.permutation(60)
    for metric, k in itertools.product((precision, average_precision), (1, 5, 10)):
        assert np.allclose(metric(scores, relevant, k), metric(scores[:, shuffle], relevant[:, shuffle], k))


def test_constant_scores_get_chance():
    relevant = np.zeros((1, 100), bool)
    relevant[0, 0] = True  # An argsort would put it first.
    assert precision(np.zeros((1, 100)), relevant, 5)[0] == pytest.approx(0.01)


def test_excluded_candidates_are_no_neighbours():
    scores = np.array([[-np.inf, 1.0, 0.0]])
    relevant = np.array([[True, False, True]])
    assert [precision(scores, relevant, k)[0] for k in (1, 2)] == pytest.approx([0, 0.5])
    assert average_precision(scores, relevant, 2)[0] == pytest.approx(0.5)  # One relevant candidate is left.
    with pytest.raises(ValueError, match="2 candidates"):
        precision(scores, relevant, 3)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        precision(np.array([[np.nan, 0]]), np.zeros((1, 2)), 1)
    with pytest.raises(ValueError, match="must be"):
        r.rank_profile(np.zeros((2, 3)), np.zeros((3, 2)), 1)


def test_jaccard_by_hand():
    a = np.array([[1, 1, 0], [0, 0, 0]])
    b = np.array([[1, 0, 0], [1, 1, 1], [0, 0, 0]])
    assert r.jaccard(a, b) == pytest.approx(np.array([[1 / 2, 2 / 3, 0], [0, 0, 0]]))
