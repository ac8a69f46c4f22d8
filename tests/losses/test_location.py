"""Regions of patches against a loop over their middles; the loss against SciPy's softmax; what does not count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from lgdea_jax.losses import location
from lgdea_jax.preprocess import regions as places
from tests.losses.gradients import check_gradients

EYE = np.eye(2, 3)[None]


def region(*named):
    return jnp.asarray([[places.region(*name) for name in named]], jnp.float32)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), side=st.integers(1, 5))
def test_inside_is_that_of_a_loop(seed, side):
    rng = np.random.default_rng(seed)
    regions, frame = rng.uniform(-0.2, 1.2, (2, 3, 4)), np.eye(2, 3) + rng.uniform(-0.3, 0.3, (2, 2, 3))
    found = location.inside_regions(jnp.asarray(regions), jnp.asarray(frame), side * side)
    assert found.shape == (2, 3, side * side) and found.dtype == jnp.float32
    for image in range(2):
        for row in range(side):
            for column in range(side):
                x, y = frame[image] @ [(column + 0.5) / side, (row + 0.5) / side, 1]
                for phrase, (x0, y0, x1, y1) in enumerate(regions[image]):
                    expected = 1.0
                    for past in (max(x0 - x, x - x1), max(y0 - y, y - y1)):
                        expected *= min(max(1 - (past - location.MARGIN) / location.RAMP, 0), 1)
                    assert found[image, phrase, row * side + column] == pytest.approx(expected, abs=1e-4)


def test_sides_and_heights_on_a_grid():
    right, left, upper, everywhere = np.asarray(location.inside_regions(
        region(("right", ""), ("left", ""), ("", "upper lobe"), ("", "")), EYE, 64)).reshape(4, 8, 8)
    assert right[:, :4].min() == 1 and right[:, 6:].max() == 0  # The patient's right: the image's left half.
    np.testing.assert_array_equal(left, right[:, ::-1])
    np.testing.assert_array_equal(upper, right.T)
    assert everywhere.min() == 1
    # A crop of the image's left half shows the patient's right only.
    half = np.array([[[0.5, 0, 0], [0, 1, 0]]])
    assert location.inside_regions(region(("right", "")), half, 64).min() == 1
    assert location.inside_regions(region(("left", "")), half - np.array([[0, 0, 0.2], [0, 0, 0]]), 64).max() == 0


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_loss_is_the_share_of_attention_outside(seed):
    rng = np.random.default_rng(seed)
    scores, inside = 3 * rng.normal(size=(3, 2, 9)), rng.integers(0, 2, (3, 2, 9)).astype(float)
    weight = rng.choice([0.0, 0.5, 1.0], (3, 2))
    inside[0, 0], inside[0, 1] = 1.0, 0.0  # Everything is inside; nothing is: neither says anything.
    total = count = 0.0
    for b in range(3):
        for p in range(2):
            if 0 < inside[b, p].sum() < 9:
                total -= weight[b, p] * np.log(softmax(scores[b, p]) @ np.maximum(inside[b, p], location.FLOOR))
                count += weight[b, p]
    expected = total / count if count else 0.0
    found = location.place_loss(jnp.asarray(scores), jnp.asarray(inside), jnp.asarray(weight))
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_gradient_and_its_limits():
    rng = np.random.default_rng(0)
    inside = np.asarray(location.inside_regions(region(("right", ""), ("left", "base")), EYE, 16))
    weight = jnp.ones((1, 2))
    check_gradients(lambda scores: location.place_loss(scores, jnp.asarray(inside), weight),
                    rng.normal(size=(1, 2, 16)))
    # All attention outside, by far: finite, and it pulls.
    far = jnp.asarray(np.where(inside > 0.5, -200.0, 200.0), jnp.float32)
    value, gradient = jax.value_and_grad(lambda s: location.place_loss(s, jnp.asarray(inside), weight))(far)
    assert value <= -np.log(location.FLOOR) + 1e-3 and np.isfinite(gradient).all()
    none = jax.value_and_grad(lambda s: location.place_loss(s, jnp.ones((1, 2, 16)), weight))(far)
    assert none[0] == 0 and (none[1] == 0).all()


def test_patches_of_no_square_are_refused():
    with pytest.raises(ValueError, match="6 patches are not those of a square image"):
        location.inside_regions(region(("right", "")), EYE, 6)
