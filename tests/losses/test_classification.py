"""Masked multi-label cross-entropy against torch and a written-out sum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lgdea_jax.losses.classification import binary_cross_entropy
from lgdea_jax.records import MISSING, NEGATIVE, POSITIVE, UNCERTAIN
from tests.losses.gradients import check_gradients


def example(seed, shape=(5, 4), values=(POSITIVE, NEGATIVE, UNCERTAIN, MISSING)):
    rng = np.random.default_rng(seed)
    return 3 * rng.normal(size=shape), rng.choice(values, size=shape).astype(np.int8)


def test_without_gaps_it_is_torch():
    logits, labels = example(0, values=(POSITIVE, NEGATIVE))
    weights, positive = np.array([1.0, 2.0, 0.5, 1.0]), np.array([1.0, 3.0, 1.0, 0.2])
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.tensor(logits), torch.tensor(labels, dtype=torch.float64), pos_weight=torch.tensor(positive))
    actual = binary_cross_entropy(jnp.asarray(logits, jnp.float32), jnp.asarray(labels),
                                  positive_weights=jnp.asarray(positive, jnp.float32))
    np.testing.assert_allclose(actual, float(expected), rtol=1e-5)
    summed = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.tensor(logits), torch.tensor(labels, dtype=torch.float64), weight=torch.tensor(weights), reduction="sum")
    actual = binary_cross_entropy(jnp.asarray(logits, jnp.float32), jnp.asarray(labels),
                                  class_weights=jnp.asarray(weights, jnp.float32))
    np.testing.assert_allclose(actual, float(summed) / (5 * weights.sum()), rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), target=st.sampled_from([None, 0.0, 0.3, 1.0]),
       weight=st.sampled_from([0.0, 0.5, 1.0]),
       mask=st.lists(st.booleans(), min_size=5, max_size=5))
def test_it_is_the_written_out_sum(seed, target, weight, mask):
    logits, labels = example(seed)
    classes = np.array([1.0, 2.0, 0.0, 0.5])
    total, count = 0.0, 0.0
    for i in range(5):
        for k in range(4):
            if not mask[i] or labels[i, k] == MISSING or (labels[i, k] == UNCERTAIN and target is None):
                continue
            t = target if labels[i, k] == UNCERTAIN else float(labels[i, k] == POSITIVE)
            w = classes[k] * (weight if labels[i, k] == UNCERTAIN else 1.0)
            p = 1 / (1 + np.exp(-logits[i, k]))
            total, count = total - w * (t * np.log(p) + (1 - t) * np.log(1 - p)), count + w
    actual = binary_cross_entropy(jnp.asarray(logits, jnp.float32), jnp.asarray(labels), uncertain_target=target,
                                  uncertain_weight=weight, class_weights=jnp.asarray(classes, jnp.float32),
                                  mask=jnp.asarray(mask))
    np.testing.assert_allclose(actual, total / count if count else 0.0, rtol=1e-4, atol=1e-6)


def test_gradients_and_none_at_missing_labels():
    logits, labels = example(1)
    check_gradients(lambda x: binary_cross_entropy(x, jnp.asarray(labels), uncertain_target=0.5), logits)
    gradient = np.asarray(jax.grad(binary_cross_entropy)(jnp.asarray(logits, jnp.float32), jnp.asarray(labels)))
    known = (labels == POSITIVE) | (labels == NEGATIVE)
    assert np.all(gradient[~known] == 0) and np.all(gradient[known] != 0)


def test_nothing_known_is_zero_with_zero_gradient():
    labels = jnp.full((2, 3), MISSING, jnp.int8)
    value, gradient = jax.value_and_grad(binary_cross_entropy)(jnp.full((2, 3), 1e4), labels)
    assert value == 0 and np.all(np.asarray(gradient) == 0)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        binary_cross_entropy(jnp.zeros((2, 3)), jnp.zeros((2, 4), jnp.int8))
    with pytest.raises(ValueError, match="uncertain_target"):
        binary_cross_entropy(jnp.zeros((2, 3)), jnp.zeros((2, 3), jnp.int8), uncertain_target=2.0)
