"""Contrastive losses against dense float64 formulas, torch, finite differences and masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, log_softmax, logsumexp

from lgdea_jax.losses import contrastive
from tests.losses.gradients import check_gradients

softmax_contrastive = jax.jit(contrastive.softmax_contrastive)
soft_contrastive = jax.jit(contrastive.soft_contrastive)
sigmoid_contrastive = jax.jit(contrastive.sigmoid_contrastive)
phrase_image = jax.jit(jax.value_and_grad(contrastive.phrase_image), static_argnames="both_directions")


def embeddings(seed, rows, columns=None, width=6):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(rows, width)), rng.normal(size=(columns or rows, width))
    return x / np.linalg.norm(x, axis=1, keepdims=True), y / np.linalg.norm(y, axis=1, keepdims=True)


def as_jax(*arrays):
    return [jnp.asarray(array, jnp.float32) if np.asarray(array).dtype.kind == "f" else jnp.asarray(array)
            for array in arrays]


def random_targets(seed, rows, columns):
    targets = np.random.default_rng(seed).random((rows, columns)) ** 3
    return targets / targets.sum(1, keepdims=True)


# Two sizes only: every new shape is a new compilation.
masks = st.sampled_from([1, 5]).flatmap(lambda size: st.lists(st.booleans(), min_size=size, max_size=size))
wide_masks = st.lists(st.booleans(), min_size=4, max_size=4)


def test_softmax_equals_torch_cross_entropy():
    x, y = embeddings(0, 7)
    logits = torch.tensor(14.0 * x @ y.T)
    labels = torch.arange(7)
    expected = (torch.nn.functional.cross_entropy(logits, labels)
                + torch.nn.functional.cross_entropy(logits.T, labels)) / 2
    np.testing.assert_allclose(contrastive.softmax_contrastive(*as_jax(x, y), 14.0), float(expected), rtol=1e-5)


@settings(max_examples=15, deadline=None)
@given(mask=masks, seed=st.integers(0, 1000), scale=st.floats(0.5, 60.0))
def test_masked_softmax_is_softmax_of_the_valid_rows(mask, seed, scale):
    mask = np.array(mask)
    x, y = embeddings(seed, len(mask))
    kept_x, kept_y = x[mask], y[mask]
    scores = scale * kept_x @ kept_y.T
    expected = 0.0
    if mask.any():
        expected = -(np.diag(log_softmax(scores, 1)).mean() + np.diag(log_softmax(scores, 0)).mean()) / 2
    actual = softmax_contrastive(*as_jax(x, y), scale, mask=jnp.asarray(mask))
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(rows=masks, columns=wide_masks, seed=st.integers(0, 1000))
def test_soft_contrastive_is_the_dense_formula(rows, columns, seed):
    rows, columns = np.array(rows), np.array(columns)
    x, y = embeddings(seed, len(rows), len(columns))
    forward, backward = random_targets(seed, len(rows), len(columns)), random_targets(seed + 1, len(columns), len(rows))

    def direction(scores, targets):
        targets = targets / targets.sum(1, keepdims=True)
        return -(targets * log_softmax(scores, 1)).sum(1).mean()

    expected = 0.0
    if rows.any() and columns.any():
        scores = 5.0 * x[rows] @ y[columns].T
        expected = (direction(scores, forward[rows][:, columns]) + direction(scores.T, backward[columns][:, rows])) / 2
    actual = soft_contrastive(*as_jax(x, y), 5.0, jnp.asarray(forward, jnp.float32),
                                          targets_text=jnp.asarray(backward, jnp.float32),
                                          image_mask=jnp.asarray(rows), text_mask=jnp.asarray(columns))
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_soft_contrastive_with_the_identity_is_softmax():
    x, y = as_jax(*embeddings(3, 5))
    mask = jnp.asarray([True, True, False, True, True])
    np.testing.assert_allclose(contrastive.soft_contrastive(x, y, 9.0, jnp.eye(5), image_mask=mask),
                               contrastive.softmax_contrastive(x, y, 9.0, mask=mask), rtol=1e-6)


def test_soft_contrastive_leaves_out_rows_without_target_mass():
    x, y = as_jax(*embeddings(4, 3, 4))
    targets = jnp.asarray(random_targets(4, 3, 4), jnp.float32)
    both = {"targets_text": jnp.zeros((4, 3)), "text_mask": jnp.ones(4)}
    full = soft_contrastive(x, y, 4.0, targets.at[1].set(0.0), **both)
    # Texts are negatives for every image; images are not, with no target in that direction.
    expected = soft_contrastive(x[jnp.array([0, 2])], y, 4.0, targets[jnp.array([0, 2])],
                                            targets_text=jnp.zeros((4, 2)), text_mask=jnp.ones(4))
    assert float(full) > 0
    np.testing.assert_allclose(full, expected, rtol=1e-6)


@settings(max_examples=15, deadline=None)
@given(rows=masks, columns=wide_masks, seed=st.integers(0, 1000))
def test_sigmoid_is_the_dense_formula(rows, columns, seed):
    rows, columns = np.array(rows), np.array(columns)
    x, y = embeddings(seed, len(rows), len(columns))
    targets = np.random.default_rng(seed).random((len(rows), len(columns))).round(1)
    p = expit(8.0 * x @ y.T - 3.0)
    losses = -(targets * np.log(p) + (1 - targets) * np.log1p(-p))
    expected = losses[rows][:, columns].sum(1).mean() if rows.any() else 0.0
    actual = sigmoid_contrastive(*as_jax(x, y), 8.0, -3.0, targets=jnp.asarray(targets, jnp.float32),
                                             image_mask=jnp.asarray(rows), text_mask=jnp.asarray(columns))
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_sigmoid_default_targets_are_the_paper_pseudocode():
    x, y = embeddings(6, 5)
    signs = 2 * np.eye(5) - 1
    expected = -np.log(expit(signs * (10 * x @ y.T - 10))).sum() / 5
    np.testing.assert_allclose(contrastive.sigmoid_contrastive(*as_jax(x, y), 10.0, -10.0), expected, rtol=1e-5)


@settings(max_examples=20, deadline=None)
@given(rows=masks, columns=wide_masks, seed=st.integers(0, 1000), both=st.booleans())
def test_phrase_image_is_the_dense_formula(rows, columns, seed, both):
    rows, columns = np.array(rows), np.array(columns)
    rng = np.random.default_rng(seed)
    scores, positives = 4 * rng.normal(size=(len(rows), len(columns))), rng.random((len(rows), len(columns))) < 0.4

    def direction(scores, positives):
        losses = [logsumexp(s) - logsumexp(s[p]) for s, p in zip(scores, positives, strict=True) if p.any()]
        return np.mean(losses) if losses else 0.0

    kept, kept_positives = scores[rows][:, columns], positives[rows][:, columns]
    expected = direction(kept, kept_positives)
    if both:
        expected = (expected + direction(kept.T, kept_positives.T)) / 2
    arguments = [jnp.asarray(scores, jnp.float32), jnp.asarray(positives)]
    options = {"phrase_mask": jnp.asarray(rows), "image_mask": jnp.asarray(columns), "both_directions": both}
    actual, gradient = phrase_image(*arguments, **options)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
    assert np.all(np.isfinite(gradient))
    assert np.all(np.asarray(gradient)[~rows] == 0) and np.all(np.asarray(gradient)[:, ~columns] == 0)


def test_gradients():
    x, y = embeddings(7, 4)
    mask = jnp.asarray([True, True, True, False])
    targets = random_targets(7, 4, 4)
    positives = np.random.default_rng(7).random((4, 4)) < 0.5
    scale, bias = np.array(3.0), np.array(-1.0)
    check_gradients(lambda x, y, s: contrastive.softmax_contrastive(x, y, s, mask=mask), x, y, scale)
    check_gradients(lambda x, y, s: contrastive.soft_contrastive(x, y, s, jnp.asarray(targets), image_mask=mask),
                    x, y, scale)
    check_gradients(lambda x, y, s, b: contrastive.sigmoid_contrastive(x, y, s, b, image_mask=mask), x, y, scale, bias)
    check_gradients(lambda s: contrastive.phrase_image(s, positives, image_mask=mask), 4 * x @ y.T)


def test_masked_rows_do_not_matter():
    x, y = as_jax(*embeddings(8, 4))
    mask = jnp.asarray([True, True, True, False])
    targets = jnp.asarray(random_targets(8, 4, 4), jnp.float32)
    positives = jnp.eye(4, dtype=bool)
    large = x.at[3].set(1e6)
    for loss in (lambda x: contrastive.softmax_contrastive(x, y, 2.0, mask=mask),
                 lambda x: contrastive.soft_contrastive(x, y, 2.0, targets, image_mask=mask),
                 lambda x: contrastive.sigmoid_contrastive(x, y, 2.0, -1.0, image_mask=mask),
                 lambda x: contrastive.phrase_image(x @ y.T, positives, phrase_mask=mask)):
        evaluate = jax.jit(jax.value_and_grad(loss))
        (value, gradient), (same, _) = evaluate(x), evaluate(large)
        np.testing.assert_array_equal(value, same)
        assert np.all(np.asarray(gradient)[3] == 0) and np.any(np.asarray(gradient)[0] != 0)


def test_permutation_of_the_pairs_changes_nothing():
    x, y = as_jax(*embeddings(9, 6))
    order = np.random.default_rng(9).permutation(6)
    targets = jnp.asarray(random_targets(9, 6, 6), jnp.float32)
    np.testing.assert_allclose(softmax_contrastive(x[order], y[order], 7.0), softmax_contrastive(x, y, 7.0), rtol=1e-6)
    np.testing.assert_allclose(soft_contrastive(x[order], y[order], 7.0, targets[order][:, order]),
                               soft_contrastive(x, y, 7.0, targets), rtol=1e-6)
    # The pairing does matter: the test above is not about a constant.
    assert abs(softmax_contrastive(x[order], y, 7.0) - softmax_contrastive(x, y, 7.0)) > 1e-2


def test_bfloat16_embeddings_give_a_float32_loss():
    x, y = as_jax(*embeddings(10, 6))
    loss = contrastive.softmax_contrastive(x.astype(jnp.bfloat16), y.astype(jnp.bfloat16), 10.0)
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, contrastive.softmax_contrastive(x, y, 10.0), rtol=0.03)


def test_shapes_that_do_not_fit_are_refused():
    x, y = as_jax(*embeddings(11, 3, 4))
    with pytest.raises(ValueError, match="targets must be"):
        contrastive.soft_contrastive(x, y, 1.0, jnp.ones((4, 3)))
    with pytest.raises(ValueError, match="targets_text"):
        contrastive.soft_contrastive(x, y, 1.0, jnp.ones((3, 4)))
    with pytest.raises(ValueError, match="targets are needed"):
        contrastive.sigmoid_contrastive(x, y, 1.0, 0.0)
