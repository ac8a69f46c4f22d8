"""Targets against dense float64 formulas: overlaps, sharpening, alignment to a prior."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lgdea_jax.losses import targets as loss_targets

R, N, K = 4, 3, 5
sharpen = jax.jit(loss_targets.sharpen)


def f32(*arrays):
    return [jnp.asarray(array, jnp.float32) for array in arrays]


def test_overlaps():
    p = np.array([[1, 0, 0], [0.5, 0.5, 0], [0, 0, 1], [0, 0, 0]])
    expected = [[sum(np.sqrt(a * b)) for b in p] for a in p]
    np.testing.assert_allclose(loss_targets.distribution_overlap(*f32(p)), expected, rtol=1e-6)
    sets = np.array([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]])
    jaccard = [[1, 1 / 3, 0, 0], [1 / 3, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(loss_targets.finding_overlap(jnp.asarray(sets)), jaccard, rtol=1e-6)
    np.testing.assert_allclose(loss_targets.finding_overlap(jnp.asarray(sets[:2]), jnp.asarray(sets[1:])),
                               np.array(jaccard)[:2, 1:], rtol=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), temperature=st.floats(0.1, 3.0), scale=st.sampled_from([1.0, 1e-12]))
def test_sharpening(seed, temperature, scale):
    targets = np.random.default_rng(seed).dirichlet(np.full(K, 0.5), size=(R, N))
    targets[0, 0], targets[1, 1] = 0, np.eye(K)[2]
    powers = targets ** (1 / temperature)
    total = powers.sum(-1, keepdims=True)
    actual = sharpen(*f32(targets * scale), temperature)
    np.testing.assert_allclose(actual, powers / np.where(total > 0, total, 1), rtol=1e-3, atol=1e-6)
    assert not np.any(actual[0, 0]) and actual[1, 1, 2] == 1


def prior_example(seed, rows=200):
    rng = np.random.default_rng(seed)
    targets = rng.dirichlet(np.full(K, 0.7), size=rows)
    targets[:3] = 0
    return targets, rng.dirichlet(np.full(K, 3.0)), rng.random(rows)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), weighted=st.booleans())
def test_alignment_to_a_prior(seed, weighted):
    targets, prior, weights = prior_example(seed)
    weights = weights if weighted else np.ones(len(targets))
    given_weights = f32(weights)[0] if weighted else None
    mean = np.average(targets[3:], axis=0, weights=weights[3:])
    step = targets * prior / mean
    step[3:] /= step[3:].sum(1, keepdims=True)
    once = loss_targets.align_to_prior(*f32(targets, prior), weights=given_weights)
    np.testing.assert_allclose(once, step, rtol=1e-3, atol=1e-6)
    often = np.asarray(loss_targets.align_to_prior(*f32(targets, prior), weights=given_weights, iterations=100))
    np.testing.assert_allclose(np.average(often[3:], axis=0, weights=weights[3:]), prior, atol=1e-4)
    np.testing.assert_allclose(often[3:].sum(1), 1, atol=1e-5)
    assert not often[:3].any()
    # Scaling by row and by column keeps the odds ratios: the targets are moved, not replaced.
    odds = np.log(often[3:] / targets[3:])
    doubly_centred = odds - odds.mean(0) - odds.mean(1, keepdims=True) + odds.mean()
    assert np.abs(doubly_centred).max() < 1e-2


def test_alignment_to_a_prior_that_the_targets_do_not_allow_stays_finite():
    targets = np.array([[1.0, 0, 0], [0.5, 0.5, 0], [0, 1, 0], [0, 0, 1]])
    for prior in ([0.9, 0.1, 0.0], [0.0, 0.0, 1.0], [1 / 3] * 3):
        aligned = np.asarray(loss_targets.align_to_prior(*f32(targets, np.array(prior)), iterations=500))
        assert np.isfinite(aligned).all()
        total = aligned.sum(1)
        np.testing.assert_allclose(total, np.where(targets @ (np.array(prior) > 0) > 0, 1, 0), atol=1e-5)
        assert not aligned[targets == 0].any()
    unweighted = loss_targets.align_to_prior(*f32(targets, np.array([0.9, 0.1, 0])), weights=jnp.zeros(4), iterations=3)
    np.testing.assert_allclose(unweighted, targets, atol=1e-6)
    with pytest.raises(ValueError, match="iterations must be >= 1"):
        loss_targets.align_to_prior(*f32(targets, np.array([0.9, 0.1, 0])), iterations=0)


def test_total_variation():
    p, q = np.random.default_rng(0).dirichlet(np.ones(K), size=(2, R))
    np.testing.assert_allclose(loss_targets.total_variation(*f32(p, q)), np.maximum(p - q, 0).sum(1), atol=1e-6)
    np.testing.assert_allclose(loss_targets.total_variation(*f32(np.eye(2), np.eye(2)[::-1])), [1, 1])
