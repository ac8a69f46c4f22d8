"""Prototypes: assignments, pooling and effective numbers against SciPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp, softmax
from scipy.stats import entropy

from lgdea_jax import arrays
from lgdea_jax.losses import assignments
from lgdea_jax.models import prototypes

# Compiled once a shape instead of once an operation.
pool_patches, entropies, effective_number = (
    jax.jit(function) for function in (assignments.pool_patches, assignments.entropy, assignments.effective_number))


def test_assignments():
    model = prototypes.Prototypes(5, 4, rngs=nnx.Rngs(0))
    mu = np.asarray(model.mu[...], np.float64)
    np.testing.assert_allclose(np.linalg.norm(mu, axis=1), 1, rtol=1e-5)
    z = np.random.default_rng(0).normal(size=(2, 3, 4))
    actual = assignments.assign(jnp.asarray(z, jnp.float32), model.mu[...], 0.3)
    np.testing.assert_allclose(np.exp(actual), softmax(z @ mu.T / 0.3, -1), rtol=1e-4, atol=1e-7)
    # Finite logarithms where the probabilities themselves underflow.
    cold = assignments.assign(jnp.asarray(z, jnp.float32), model.mu[...], 1e-3)
    assert np.all(np.isfinite(cold)) and np.min(cold) < -200
    with pytest.raises(ValueError, match="at least 2"):
        prototypes.Prototypes(1, 4, rngs=nnx.Rngs(0))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), sharpness=st.floats(0.05, 20.0))
def test_pool_patches_is_between_mean_and_maximum(seed, sharpness):
    rng = np.random.default_rng(seed)
    logits, mask = 3 * rng.normal(size=(3, 6, 4)), rng.random((3, 6)) < 0.5
    mask[0] = False
    actual = pool_patches(jnp.asarray(logits, jnp.float32), sharpness, jnp.asarray(mask))
    np.testing.assert_array_equal(actual[0], 0)
    for row in np.flatnonzero(mask.any(1)):
        kept = logits[row, mask[row]]
        expected = (logsumexp(sharpness * kept, axis=0) - np.log(len(kept))) / sharpness
        np.testing.assert_allclose(actual[row], expected, rtol=1e-3, atol=1e-4)
        assert np.all(actual[row] >= kept.mean(0) - 1e-4) and np.all(actual[row] <= kept.max(0) + 1e-4)
    unmasked = pool_patches(jnp.asarray(logits, jnp.float32), sharpness)
    np.testing.assert_allclose(unmasked, (logsumexp(sharpness * logits, axis=1) - np.log(6)) / sharpness,
                               rtol=1e-3, atol=1e-4)


def test_pool_patches_limits_and_gradients():
    logits = jnp.asarray(np.random.default_rng(1).normal(size=(2, 6, 4)), jnp.float32)
    np.testing.assert_allclose(pool_patches(logits, 1e3), jnp.max(logits, 1), atol=5e-3)
    np.testing.assert_allclose(pool_patches(logits, 1e-2), jnp.mean(logits, 1), atol=2e-2)
    mask = jnp.asarray([[0] * 6, [1, 1, 0, 0, 1, 1]])
    gradient, slope = jax.jit(jax.grad(lambda x, r: jnp.sum(pool_patches(x, r, mask)), argnums=(0, 1)))(logits, 2.0)
    gradient = np.asarray(gradient)
    # The pooled value grows from the mean to the maximum, and a row without patches does not make the slope NaN.
    assert slope > 1e-3
    assert np.all(gradient[0] == 0) and np.all(gradient[1, 2:4] == 0)
    np.testing.assert_allclose(gradient[1].sum(0), 1, rtol=1e-5)


def test_entropy_and_effective_number():
    p = np.random.default_rng(2).dirichlet(np.ones(6), size=(3, 4))
    mask = np.random.default_rng(2).random((3, 4)) < 0.5
    log_p = jnp.log(jnp.asarray(p, jnp.float32))
    np.testing.assert_allclose(entropies(log_p), entropy(p, axis=-1), rtol=1e-4)
    np.testing.assert_allclose(effective_number(log_p, jnp.asarray(mask)),
                               np.exp(entropy(p[mask].mean(0))), rtol=1e-4)
    one_hot = jnp.log(jnp.eye(6))
    np.testing.assert_allclose(entropies(one_hot), 0, atol=1e-6)
    np.testing.assert_allclose(effective_number(one_hot), 6, rtol=1e-5)
    np.testing.assert_allclose(effective_number(one_hot[:2]), 2, rtol=1e-5)
    assert np.isfinite(effective_number(one_hot, jnp.zeros(6)))


def test_normalize_is_safe_at_zero():
    x = jnp.asarray([[3.0, 4.0], [0.0, 0.0]])
    np.testing.assert_allclose(arrays.normalize(x), [[0.6, 0.8], [0, 0]], rtol=1e-6)
    assert np.all(np.isfinite(jax.grad(lambda x: jnp.sum(arrays.normalize(x)))(x)))
