"""Recall@K by counting, against brute force over all orders of tied candidates and against plain ranking."""

import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lgdea_jax.metrics import recall as r


def _orders(scores):
    """All rankings of one query that the scores allow."""
    groups = [list(np.flatnonzero(scores == value)) for value in sorted(set(scores), reverse=True)]
    for parts in itertools.product(*(itertools.permutations(group) for group in groups)):
        yield [index for part in parts for index in part]


def _expected(scores, relevant, k):
    """Share of the orders of ties in which a right candidate is among the first k."""
    return np.mean([relevant[order][:k].any() for order in _orders(scores)])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=6), st.data())
def test_recall_is_the_mean_over_all_orders_of_ties(items, data):
    k = data.draw(st.integers(1, len(items)))
    scores, relevant = np.array([float(s) for s, _ in items]), np.array([flag for _, flag in items])
    assert r.recall_at_k(scores[None], relevant[None], [k])[0, 0] == pytest.approx(_expected(scores, relevant, k))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 240]))
def test_both_ways_equal_brute_force(n_images, n_texts, seed, rows):
    """Small whole numbers: products are exact, ties and equal rows are everywhere."""
    rng = np.random.default_rng(seed)
    images, texts = (rng.integers(-1, 2, (n, 2)).astype(np.float32) for n in (n_images, n_texts))
    groups = [rng.integers(0, 4, n) for n in (n_images, n_texts)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(r, "_ROWS", rows)
        to_text, to_image = r.recall_both_ways(images, texts, *groups, [1, 2, 6])
    scores, relevant = images @ texts.T, groups[0][:, None] == groups[1][None, :]
    for c, k in enumerate((1, 2, 6)):
        assert to_text[:, c] == pytest.approx([_expected(s, y, k) for s, y in zip(scores, relevant)])
        assert to_image[:, c] == pytest.approx([_expected(s, y, k) for s, y in zip(scores.T, relevant.T)])


def test_index_match_equals_the_rank_of_the_own_pair():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(700, 24)).astype(np.float32)
    texts = images + rng.normal(size=images.shape).astype(np.float32) * 2
    found = r.recall_both_ways(images, texts, np.arange(700), np.arange(700), [1, 5, 10])
    scores = images.astype(np.float64) @ texts.T.astype(np.float64)
    for hits, table in zip(found, (scores, scores.T), strict=True):
        rank = np.argmax(np.argsort(-table, axis=1) == np.arange(700)[:, None], axis=1)
        assert np.array_equal(hits, rank[:, None] < [1, 5, 10])
    assert 0.1 < found[0][:, 0].mean() < 0.9


def test_official_and_clean_hits_by_hand():
    """Texts 0 and 1 are the same words: by index only the own one counts, and the two tie; by words either does."""
    texts = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    images = np.array([[1, 0], [1, 0], [0.9, 1]], np.float32)
    by_index = r.recall_both_ways(images, texts, [0, 1, 2], [0, 1, 2], [1, 2])
    assert by_index[0].tolist() == [[0.5, 1], [0.5, 1], [1, 1]] and by_index[1].tolist() == [[0.5, 1], [0.5, 1], [1, 1]]
    by_words = r.recall_both_ways(images, texts, [0, 0, 2], [0, 0, 2], [1])
    assert by_words[0].tolist() == by_words[1].tolist() == [[1], [1], [1]]


def test_a_constant_model_gets_chance_without_a_large_array():
    n = 3000
    same = np.ones((n, 4), np.float32)
    tracemalloc.start()
    to_text, to_image = r.recall_both_ways(same, same, np.arange(n), np.arange(n), [1, 10])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert to_text[:, 1] == pytest.approx(10 / n) and to_image[:, 0] == pytest.approx(1 / n)
    assert peak < n * n / 2


def test_equal_rows_tie_wherever_they_stand():
    """Products of wide random rows round differently in different places of a matrix; counts must not notice."""
    rng = np.random.default_rng(3)
    row = rng.normal(size=(1, 511)).astype(np.float32)
    images = rng.normal(size=(499, 511)).astype(np.float32)
    texts = np.repeat(row, 253, axis=0)
    to_text, to_image = r.recall_both_ways(images, texts, np.arange(499), np.arange(253), [1])
    assert to_text[:253, 0] == pytest.approx(1 / 253) and (to_text[253:] == 0).all()
    order = np.argsort(-(images.astype(np.float64) @ row[0].astype(np.float64)))
    assert np.flatnonzero(to_image[:, 0]).tolist() == ([order[0]] if order[0] < 253 else [])


def test_what_cannot_be_asked():
    assert r.recall_both_ways(np.zeros((2, 3)), np.zeros((0, 3)), [0, 1], [], [1])[0].tolist() == [[0], [0]]
    assert r.recall_at_k(np.array([[1.0, 2.0]]), np.array([[False, False]]), [2])[0, 0] == 0
    assert r.recall_at_k(np.array([[-np.inf, 2.0]]), np.array([[True, False]]), [2])[0, 0] == 0
    with pytest.raises(ValueError, match="finite"):
        r.recall_both_ways(np.array([[np.nan]]), np.array([[1.0]]), [0], [0], [1])
    with pytest.raises(ValueError, match="one width"):
        r.recall_both_ways(np.zeros((2, 3)), np.zeros((2, 4)), [0, 1], [0, 1], [1])
    with pytest.raises(ValueError, match="NaN"):
        r.recall_at_k(np.array([[np.nan, 0]]), np.zeros((1, 2), bool), [1])
    with pytest.raises(ValueError, match="must be"):
        r.recall_at_k(np.zeros((2, 3)), np.zeros((3, 2), bool), [1])
