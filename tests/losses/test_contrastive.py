"""Contrastive losses, whole and in chunks, against dense float64 formulas, torch, finite differences and masks."""

import functools
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from lgdea_jax.losses import contrastive
from lgdea_jax.losses.chunks import Chunks
from tests.losses import dense
from tests.losses.gradients import check_gradients
from tests.training import runs

TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}
WHOLE_AND_CHUNKS = pytest.mark.parametrize("chunks", [None, Chunks(4)], ids=["whole", "chunks of 4"])


def as_jax(*arrays):
    return [jnp.asarray(array, jnp.float32) for array in arrays]


def product(a, b):
    """A similarity that is not symmetric."""
    return a["left"] @ b["right"].T


def features(seed, count):
    """Features of `count` rows: few of them match, some match nothing."""
    rng = np.random.default_rng(seed)
    return {side: rng.random((count, 3)) * (rng.random((count, 3)) < 0.4) for side in ("left", "right")}


def assert_close(actual, expected, **tolerance):
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, e, **(tolerance or TOLERANCE))


@functools.partial(jax.jit, static_argnames=("chunks", "own_share"))
def soft(x, y, scale, own, other, image_mask, text_mask, chunks, own_share):
    """Value and gradients of the loss of the similarity `product`."""
    return jax.value_and_grad(lambda x, y, s: contrastive.soft_contrastive(
        x, y, s, similarity=product, image_features=own, text_features=other, own_share=own_share,
        image_mask=image_mask, text_mask=text_mask, chunks=chunks), argnums=(0, 1, 2))(x, y, scale)


def masks(case, count):
    """Masks of rows: random ones, all of one value, a single row."""
    random = np.random.default_rng(case).random(count) < 0.6
    return {0: np.ones(count, bool), 1: np.zeros(count, bool), 2: np.arange(count) == 4}.get(case, random)


@WHOLE_AND_CHUNKS
def test_softmax_is_torch_cross_entropy(chunks):
    x, y = dense.unit_rows(0, 11), dense.unit_rows(1, 11)
    tensors = [torch.tensor(value, requires_grad=True) for value in (x, y, 14.0)]
    logits = tensors[2] * tensors[0] @ tensors[1].T
    cross_entropy, labels = torch.nn.functional.cross_entropy, torch.arange(11)
    loss = (cross_entropy(logits, labels) + cross_entropy(logits.T, labels)) / 2
    loss.backward()
    expected = (loss.item(), tuple(tensor.grad.numpy() for tensor in tensors))
    ours = jax.jit(jax.value_and_grad(functools.partial(contrastive.softmax_contrastive, chunks=chunks), (0, 1, 2)))
    assert_close(ours(*as_jax(x, y, 14.0)), expected)


@WHOLE_AND_CHUNKS
@pytest.mark.parametrize("case", range(6))
def test_soft_contrastive_is_the_dense_formula(case, chunks):
    """More images than texts; masks on both sides; rows and columns of the similarity without mass."""
    x, y = dense.unit_rows(case, 11), dense.unit_rows(case + 1, 9)
    own, other = features(case, 11), features(case + 1, 9)
    rows, columns = masks(case, 11), masks(case + 3 if case != 1 else 0, 9)
    w = own["left"] @ other["right"].T
    assert case or ((w.sum(1) == 0).any() and (w.sum(0) == 0).any())
    expected = dense.softmax(x, y, 7.0, dense.soft_targets(w, 0, columns), dense.soft_targets(w.T, 0, rows), rows,
                             columns)
    assert_close(soft(*as_jax(x, y, 7.0), own, other, rows, columns, chunks, 0.0), (expected[0], expected[1:]))


@WHOLE_AND_CHUNKS
@pytest.mark.parametrize("case", range(4))
def test_own_share_and_one_mask_for_both_sides(case, chunks):
    x, y, own, rows = dense.unit_rows(case, 11), dense.unit_rows(case + 1, 11), features(case, 11), masks(case, 11)
    w = own["left"] @ own["right"].T
    targets, targets_text = (dense.soft_targets(part, 0.3, rows) for part in (w, w.T))
    expected = dense.softmax(x, y, 9.0, targets, targets_text, rows, rows)
    assert_close(soft(*as_jax(x, y, 9.0), own, None, rows, None, chunks, 0.3), (expected[0], expected[1:]))


@WHOLE_AND_CHUNKS
@pytest.mark.parametrize("targets", [False, True], ids=["identity", "similarity"])
def test_sigmoid_is_the_dense_formula(targets, chunks):
    x, y, own = dense.unit_rows(0, 11), dense.unit_rows(1, 11), features(2, 11)
    own = jax.tree.map(lambda part: part / 2, own)
    t = own["left"] @ own["right"].T if targets else np.eye(11)
    assert t.min() >= 0 and t.max() <= 1

    @jax.jit
    def ours(x, y, scale, bias, mask):
        similarity = {"similarity": product, "image_features": own} if targets else {}
        loss = functools.partial(contrastive.sigmoid_contrastive, image_mask=mask, chunks=chunks, **similarity)
        return jax.value_and_grad(loss, argnums=(0, 1, 2, 3))(x, y, scale, bias), loss(x, y, scale, bias)

    for case in range(4):
        mask = masks(case, 11)
        expected = dense.sigmoid(x, y, 10.0, -4.0, t, mask, mask)
        both, value = ours(*as_jax(x, y, 10.0, -4.0), mask)
        assert_close(both, (expected[0], expected[1:]))
        assert_close(value, expected[0])  # The pass without gradients.


def test_one_chunk_is_the_dense_loss_to_rounding():
    """Against plain automatic differentiation of whole matrices in float32."""
    x, y = as_jax(dense.unit_rows(0, 64, 32), dense.unit_rows(1, 64, 32))
    study = jnp.arange(64) // 2

    def whole(x, y, scale):
        scores = scale * jnp.matmul(x, y.T, precision="highest")
        t = (study[:, None] == study) / 2
        logs = jax.nn.log_softmax(scores, axis=1), jax.nn.log_softmax(scores.T, axis=1)
        return -0.5 * (jnp.sum(t * logs[0], axis=1).mean() + jnp.sum(t * logs[1], axis=1).mean())

    def one(chunks):
        return lambda x, y, scale: contrastive.soft_contrastive(
            x, y, scale, similarity=lambda a, b: (a[:, None] == b).astype(jnp.float32), image_features=study,
            chunks=chunks)

    (value, *gradients), *others = (
        jax.tree.leaves(jax.jit(jax.value_and_grad(f, argnums=(0, 1, 2)))(x, y, jnp.float32(14.0)))
        for f in (whole, one(None), one(Chunks(64))))
    for other in others:
        np.testing.assert_allclose(other[0], value, rtol=5e-7)
        for a, e in zip(other[1:], gradients, strict=True):
            assert np.abs(a - e).max() <= 5e-7 * max(1.0, np.abs(e).max())


def test_gradients_in_float64_and_of_a_product():
    x, y = dense.unit_rows(0, 7), dense.unit_rows(1, 7)
    chunks = Chunks(3)
    check_gradients(lambda x, y, s: 3.0 * contrastive.softmax_contrastive(x, y, s, chunks=chunks) ** 2,
                    x, y, np.asarray(5.0))
    check_gradients(lambda x, y, s, b: contrastive.sigmoid_contrastive(x, y, s, b, chunks=chunks) ** 2,
                    x, y, np.asarray(5.0), np.asarray(-1.0))


@WHOLE_AND_CHUNKS
def test_extreme_scores_stay_exact(chunks):
    x, eye, rows = dense.unit_rows(0, 11), np.eye(11), np.ones(11, bool)
    expected = dense.softmax(x, -x, 1000.0, eye, eye, rows, rows)
    value, gradients = jax.jit(jax.value_and_grad(functools.partial(
        contrastive.softmax_contrastive, chunks=chunks), (0, 1)))(*as_jax(x, -x, 1000.0))
    np.testing.assert_allclose(value, expected[0], rtol=1e-5)
    assert_close(gradients, expected[1:3], rtol=1e-4, atol=1e-3)


def test_masked_rows_do_not_matter():
    x, y = as_jax(dense.unit_rows(8, 11), dense.unit_rows(9, 11))
    mask = jnp.arange(11) != 3
    own = features(1, 11)
    for loss in (lambda x: contrastive.soft_contrastive(
                     x, y, 2.0, similarity=product, image_features=own, own_share=0.5, image_mask=mask),
                 lambda x: contrastive.sigmoid_contrastive(x, y, 2.0, -1.0, image_mask=mask)):
        evaluate = jax.jit(jax.value_and_grad(loss))
        (value, gradient), (same, _) = evaluate(x), evaluate(x.at[3].set(1e6))
        np.testing.assert_array_equal(value, same)
        assert np.all(np.asarray(gradient)[3] == 0) and np.any(np.asarray(gradient)[0] != 0)


def test_features_get_no_gradient():
    x, y = as_jax(dense.unit_rows(0, 11), dense.unit_rows(1, 11))
    for loss in (lambda f: contrastive.soft_contrastive(x, y, 2.0, similarity=product, image_features=f),
                 lambda f: contrastive.sigmoid_contrastive(x, y, 2.0, 0.0, similarity=product, image_features=f)):
        own = jax.tree.map(jnp.float32, features(0, 11))
        assert not any(np.any(part) for part in jax.tree.leaves(jax.jit(jax.grad(loss))(own)))


def test_bfloat16_embeddings_give_a_float32_loss():
    x, y = as_jax(dense.unit_rows(10, 11), dense.unit_rows(11, 11))
    loss = contrastive.softmax_contrastive(x.astype(jnp.bfloat16), y.astype(jnp.bfloat16), 10.0)
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, contrastive.softmax_contrastive(x, y, 10.0), rtol=0.03)


@WHOLE_AND_CHUNKS
def test_best_text_is_the_argmax_and_the_first_of_equals(chunks):
    x, y = dense.unit_rows(0, 11), dense.unit_rows(1, 9)
    y[7] = y[2]
    expected = (x @ y.T).argmax(1)
    assert 2 in expected
    np.testing.assert_array_equal(contrastive.best_text(*as_jax(x, y), chunks), expected)


def test_scored_contrastive_is_the_dense_formula():
    rng = np.random.default_rng(0)
    scores, targets = 4 * rng.normal(size=(11, 11)), rng.dirichlet(np.ones(11), 11)
    expected = -(targets * (log_softmax(scores, 1) + log_softmax(scores.T, 1))).sum() / 22
    np.testing.assert_allclose(contrastive.scored_contrastive(*as_jax(scores, targets)), expected, rtol=1e-5)


def test_what_does_not_fit_is_refused():
    x, y = jnp.ones((3, 2)), jnp.ones((4, 2))
    with pytest.raises(ValueError, match="a chunk of 0 rows"):
        Chunks(0)
    with pytest.raises(ValueError, match="as many texts as images, not 3 and 4"):
        contrastive.softmax_contrastive(x, y, 1.0)
    with pytest.raises(ValueError, match="3 images and 4 texts: a similarity is needed"):
        contrastive.sigmoid_contrastive(x, y, 1.0, 0.0)
    with pytest.raises(ValueError, match="a similarity is needed if, and only if"):
        contrastive.soft_contrastive(x, x, 1.0, similarity=None)
    with pytest.raises(ValueError, match="own_share must be in"):
        contrastive.soft_contrastive(x, x, 1.0, similarity=product, own_share=1.5)


def test_chunks_make_no_square_array():
    """The largest array of the compiled loss with its gradient is [chunk, rows]."""
    shape = jax.ShapeDtypeStruct((1024, 8), jnp.float32)

    def memory(chunks):
        loss = jax.grad(lambda x, y: contrastive.softmax_contrastive(x, y, 5.0, chunks=chunks), argnums=(0, 1))
        return jax.jit(loss).lower(shape, shape).compile().memory_analysis().temp_size_in_bytes

    assert memory(None) > 4 * 1024**2
    assert memory(Chunks(16)) < 0.1 * memory(None)


def test_eight_devices():
    """Values and gradients on meshes of eight fake devices, in a process of its own."""

    done = subprocess.run([sys.executable, str(Path(__file__).with_name("contrastive_mesh.py"))], cwd=runs.ROOT,
                          env=runs.environment(devices=8), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["softmax", "sigmoid", "best_text", "anchor_loss", "phrase_loss"] * 2
