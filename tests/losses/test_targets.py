"""Targets against dense float64 formulas: overlaps, sharpening, alignment to a prior."""

import jax
import jax.numpy as jnp
import numpy as np
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


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), power=st.sampled_from([0.5, 1.0]))
def test_alignment_by_the_means(seed, power):
    rng = np.random.default_rng(seed)
    targets, prior = rng.dirichlet(np.full(K, 0.7), size=200), rng.dirichlet(np.full(K, 3.0))
    mean = targets.mean(0)
    found = np.asarray(loss_targets.align(*f32(targets, mean, prior), power))
    expected = targets * (prior / mean) ** power
    np.testing.assert_allclose(found, expected / expected.sum(1, keepdims=True), atol=5e-3)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    # The mean comes closer to the prior.
    assert np.abs(found.mean(0) - prior).sum() < np.abs(mean - prior).sum()


def test_alignment_with_nothing_to_align_to():
    targets, none = np.random.default_rng(0).dirichlet(np.ones(K), size=4), np.zeros(K)
    prior = np.full(K, 1 / K)
    for mean, goal, power in ((none, prior, 1.0), (prior, none, 1.0), (prior, prior[::-1] * 0.5 + 0.1, 0.0)):
        np.testing.assert_allclose(loss_targets.align(*f32(targets, mean, goal), power), targets, atol=1e-6)
    # A prototype that no report has keeps next to nothing; one that no image had before is not blown up without bound.
    turned = f32(np.array([[0.5, 0.5]]), np.array([1.0, 0.0]), np.array([0.0, 1.0]))
    found = np.asarray(loss_targets.align(*turned, 1.0))
    assert np.isfinite(found).all() and found[0, 0] < 1e-6


def test_certainty_is_the_square_of_the_share_of_the_median():
    targets = np.array([[0.8, 0.2, 0.0], [0.4, 0.3, 0.3], [0.5, 0.25, 0.25]])
    np.testing.assert_allclose(loss_targets.certainty(*f32(targets)), [1, (0.4 / 0.5) ** 2, 1], rtol=1e-5)
    assert not np.any(loss_targets.certainty(jnp.zeros((3, 4))))


def test_total_variation():
    p, q = np.random.default_rng(0).dirichlet(np.ones(K), size=(2, R))
    np.testing.assert_allclose(loss_targets.total_variation(*f32(p, q)), np.maximum(p - q, 0).sum(1), atol=1e-6)
    np.testing.assert_allclose(loss_targets.total_variation(*f32(np.eye(2), np.eye(2)[::-1])), [1, 1])
