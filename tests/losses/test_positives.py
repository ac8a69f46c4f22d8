"""Losses with several positives, whole and in tiles, against NumPy, finite differences, masks and memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

from lgdea_jax.losses.chunks import Chunks
from lgdea_jax.losses.positives import positives_contrastive
from lgdea_jax.methods.lgdea_pairs import anchor_loss, phrase_loss
from tests.losses.gradients import check_gradients

WHOLE_AND_TILES = pytest.mark.parametrize("chunks", [None, Chunks(2)], ids=["whole", "tiles"])


def dense(scores, positives, rows, columns, both):
    """The loss of a matrix of scores, anchor by anchor."""
    def direction(scores, positives):
        losses = [logsumexp(s) - logsumexp(s[p]) for s, p in zip(scores, positives, strict=True) if p.any()]
        return np.mean(losses) if losses else 0.0

    scores, positives = scores[rows][:, columns], positives[rows][:, columns]
    loss = direction(scores, positives)
    return (loss + direction(scores.T, positives.T)) / 2 if both else loss


def of_matrix(scores, positives, rows, columns, both=True, chunks=None):
    """`positives_contrastive` of a matrix; three columns a tile."""
    def tile(some, others):
        return some["scores"][:, others], some["positives"][:, others]

    return positives_contrastive(
        {"scores": scores, "positives": jnp.asarray(positives)}, jnp.arange(scores.shape[1]), tile,
        row_mask=jnp.asarray(rows), column_mask=jnp.asarray(columns), both_directions=both, chunks=chunks,
        column_chunk=3)


value_and_grad = jax.jit(jax.value_and_grad(of_matrix), static_argnames=("both", "chunks"))


@settings(max_examples=20, deadline=None)
@given(rows=st.lists(st.booleans(), min_size=5, max_size=5), columns=st.lists(st.booleans(), min_size=4, max_size=4),
       seed=st.integers(0, 1000), both=st.booleans(), chunks=st.sampled_from([None, Chunks(2)]))
def test_the_dense_formula(rows, columns, seed, both, chunks):
    rows, columns = np.array(rows), np.array(columns)
    rng = np.random.default_rng(seed)
    scores, positives = 4 * rng.normal(size=(5, 4)), rng.random((5, 4)) < 0.4
    expected = dense(scores, positives, rows, columns, both)
    actual, gradient = value_and_grad(jnp.asarray(scores, jnp.float32), positives, rows, columns, both=both,
                                      chunks=chunks)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
    assert np.all(np.isfinite(gradient))
    assert np.all(np.asarray(gradient)[~rows] == 0) and np.all(np.asarray(gradient)[:, ~columns] == 0)


@WHOLE_AND_TILES
def test_gradients_in_float64(chunks):
    rng = np.random.default_rng(7)
    scores, positives = 4 * rng.normal(size=(7, 8)), rng.random((7, 8)) < 0.3
    check_gradients(lambda s: of_matrix(s, positives, np.ones(7, bool), np.arange(8) != 3, chunks=chunks), scores)


def phrases(seed=0, reports=5, count=3, width=4, patches=6):
    """(z, patches, finding, exists, normal) with unknown findings, missing phrases and a normal study."""
    rng = np.random.default_rng(seed)
    z, v = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (
        rng.normal(size=(reports, count, width)), rng.normal(size=(reports, patches, width))))
    exists = rng.random((reports, count)) < 0.7
    exists[0] = [True] + [False] * (count - 1)
    normal = np.arange(reports) == 0
    return z, v, np.where(exists & ~normal[:, None], rng.integers(-1, 2, exists.shape), -1), exists, normal


def kinds(finding, normal):
    """What each phrase [R, P] states: a finding, "normal", or None where nobody knows."""
    return [["normal" if normal[r] else (None if f < 0 else f) for f in row] for r, row in enumerate(finding)]


@WHOLE_AND_TILES
def test_anchor_by_loops(chunks):
    z, _, finding, exists, normal = phrases()
    there = list(zip(*np.nonzero(exists), strict=True))
    stated, losses = kinds(finding, normal), []
    for r, p in there:
        others = [(s, q) for s, q in there if (s, q) != (r, p)]
        scores = np.array([z[r, p] @ z[s, q] / 0.2 for s, q in others])
        same = np.array([stated[r][p] is not None and stated[s][q] == stated[r][p] for s, q in others])
        if same.any():
            losses.append(logsumexp(scores) - logsumexp(scores[same]))
    assert 2 < len(losses) < len(there)
    loss = anchor_loss(*map(jnp.asarray, (z, finding, exists, normal)), temperature=0.2, chunks=chunks)
    assert float(loss) == pytest.approx(np.mean(losses), rel=1e-5)


@WHOLE_AND_TILES
def test_phrase_by_loops(chunks):
    z, v, finding, exists, normal = phrases()
    stated = kinds(finding, normal)
    images = np.flatnonzero(exists.any(axis=1))
    there = list(zip(*np.nonzero(exists), strict=True))
    scores = np.array([[(logsumexp(2.0 * v[b] @ z[r, p] / 0.2) - np.log(v.shape[1])) / 2.0 for b in images]
                       for r, p in there])
    positives = np.array([[b == r or (stated[r][p] is not None and any(
        exists[b, q] and stated[b][q] == stated[r][p] for q in range(z.shape[1]))) for b in images] for r, p in there])
    expected = dense(scores, positives, np.ones(len(there), bool), np.ones(len(images), bool), True)
    loss = phrase_loss(*map(jnp.asarray, (z, v, finding, exists, normal)), temperature=0.2, sharpness=2.0,
                       chunks=chunks)
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_tiles_are_all_that_is_held():
    """Gradients equal to 1e-5, in little memory: the scores of all phrases and patches are never there."""
    z, v, finding, exists, normal = map(jnp.asarray, phrases(1, reports=48, count=4, width=8, patches=49))
    z, v = z.astype(jnp.float32), v.astype(jnp.float32)

    def loss(z, v, chunks):
        return (phrase_loss(z, v, finding, exists, normal, temperature=0.1, sharpness=1.0, chunks=chunks)
                + anchor_loss(z, finding, exists, normal, temperature=0.1, chunks=chunks))

    results, memory = [], []
    for chunks in (None, Chunks(6)):
        compiled = jax.jit(jax.value_and_grad(functools.partial(loss, chunks=chunks), (0, 1))).lower(z, v).compile()
        results.append(compiled(z, v))
        memory.append(compiled.memory_analysis().temp_size_in_bytes)
    (whole, gradients), (cut, cut_gradients) = results
    assert float(cut) == pytest.approx(float(whole), rel=1e-5)
    for a, b in zip(cut_gradients, gradients, strict=True):
        assert np.abs(b).max() > 1e-3
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * float(np.abs(b).max()))
    assert memory[0] > 4 * 48 * 49 * 192 and memory[1] < 0.3 * memory[0], memory
