"""Losses in chunks against dense float64 formulas and the materialised losses: values and gradients, odd sizes."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, log_softmax

from lgdea_jax.losses import chunked, contrastive, evidence
from tests.losses.gradients import check_gradients

TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}


def rows(seed, count, width=6):
    x = np.random.default_rng(seed).normal(size=(count, width))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def same(a, b):
    """Rows with equal numbers match."""
    return (a[:, None] == b[None, :]).astype(jnp.float32)


def overlap(a, b):
    """Jaccard index with a temperature; a row is its own match."""
    mine = a["row"][:, None] == b["row"][None, :]
    return jnp.where(mine, 1.0, evidence.finding_overlap(a["sets"], b["sets"]) ** 2.0)


def dense(x, y, scale, forward, backward, image_mask, text_mask):
    """The loss and its gradients in float64, written out: forward [I, R] and backward [R, I] sum to one a row."""
    x, y, t, u = x[image_mask], y[text_mask], forward[image_mask][:, text_mask], backward[text_mask][:, image_mask]
    scores, loss, slope = scale * x @ y.T, 0.0, np.zeros((len(x), len(y)))
    for s, target, turn in ((scores, t, lambda z: z), (scores.T, u, np.transpose)):
        kept = target.sum(1) > 0
        target = target[kept] / target[kept].sum(1, keepdims=True)
        logs = log_softmax(s, axis=1)[kept]
        loss += -0.5 * (target * logs).sum() / kept.sum()
        part = np.zeros(s.shape)
        part[kept] = 0.5 * (np.exp(logs) - target) / kept.sum()
        slope += turn(part)
    gx, gy = np.zeros((len(image_mask), x.shape[1])), np.zeros((len(text_mask), x.shape[1]))
    gx[image_mask], gy[text_mask] = scale * slope @ y, scale * slope.T @ x
    return loss, gx, gy, (slope * scores).sum() / scale


def check(loss, x, y, scale, expected):
    """Value and gradients of `loss(x, y, scale)`."""
    value, gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))(
        jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32), jnp.float32(scale))
    for actual, wanted in zip((value, *gradients), expected, strict=True):
        np.testing.assert_allclose(actual, wanted, **TOLERANCE)


@pytest.mark.parametrize(("count", "chunk"), [(13, 4), (8, 8), (5, 64), (7, 1), (1, 1)])
def test_softmax(count, chunk):
    x, y, mask = rows(0, count), rows(1, count), np.arange(count) % 5 != 3
    eye = np.eye(count)
    check(lambda x, y, s: chunked.softmax_contrastive(x, y, s, mask=jnp.asarray(mask), chunks=chunked.Chunks(chunk)),
          x, y, 20.0, dense(x, y, 20.0, eye, eye, mask, mask))


@pytest.mark.parametrize("chunk", [3, 32])
def test_soft_targets_with_masks_and_other_sizes(chunk):
    x, y = rows(0, 11), rows(1, 9)
    a, b = np.arange(11) % 4, np.arange(9) % 6  # Texts 4 and 5 match nothing: rows without mass.
    image_mask, text_mask = np.arange(11) != 2, np.arange(9) != 1
    w = (a[:, None] == b[None, :]).astype(float)
    assert (w[:, text_mask][image_mask].sum(0) == 0).any()
    expected = dense(x, y, 7.0, w, w.T, image_mask, text_mask)

    def loss(x, y, s):
        return chunked.soft_contrastive(
            x, y, s, similarity=same, image_features=jnp.asarray(a), text_features=jnp.asarray(b),
            image_mask=jnp.asarray(image_mask), text_mask=jnp.asarray(text_mask), chunks=chunked.Chunks(chunk))

    check(loss, x, y, 7.0, expected)


def test_soft_targets_are_those_of_the_materialised_loss():
    x, y, rng = rows(0, 13), rows(1, 13), np.random.default_rng(2)
    sets, valid = jnp.asarray(rng.integers(0, 2, (13, 5)), jnp.float32), jnp.asarray(np.arange(13) != 4)
    targets = evidence.soft_targets(evidence.finding_overlap(sets), valid, temperature=0.5, own_share=0.2)
    whole = jax.value_and_grad(lambda x, y, s: contrastive.soft_contrastive(x, y, s, targets, image_mask=valid),
                               argnums=(0, 1, 2))
    value, gradients = whole(jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32), jnp.float32(9.0))
    features = {"sets": sets, "row": jnp.arange(13)}
    check(lambda x, y, s: chunked.soft_contrastive(
        x, y, s, similarity=overlap, image_features=features, own_share=0.2, image_mask=valid,
        chunks=chunked.Chunks(4)), x, y, 9.0, (value, *gradients))


@pytest.mark.parametrize("targets", [False, True])
def test_sigmoid(targets):
    x, y, mask = rows(0, 11), rows(1, 11), np.arange(11) != 6
    ids = np.arange(11) // 2
    t = ((ids[:, None] == ids[None, :]) if targets else np.eye(11)).astype(float)[mask][:, mask]
    logits = 10.0 * x[mask] @ y[mask].T - 4.0
    slope = (expit(logits) - t) / len(t)
    loss = (-t * np.log(expit(logits)) - (1 - t) * np.log(expit(-logits))).sum() / len(t)
    gx, gy = np.zeros(x.shape), np.zeros(y.shape)
    gx[mask], gy[mask] = 10.0 * slope @ y[mask], 10.0 * slope.T @ x[mask]
    similarity = {"similarity": same, "image_features": jnp.asarray(ids)} if targets else {}

    def ours(x, y, s, b):
        return chunked.sigmoid_contrastive(x, y, s, b, image_mask=jnp.asarray(mask), chunks=chunked.Chunks(4),
                                           **similarity)

    arguments = [jnp.asarray(v, jnp.float32) for v in (x, y, 10.0, -4.0)]
    value, gradients = jax.value_and_grad(ours, argnums=(0, 1, 2, 3))(*arguments)
    for actual, wanted in zip((value, *gradients), (loss, gx, gy, (slope * (logits + 4)).sum() / 10, slope.sum()),
                              strict=True):
        np.testing.assert_allclose(actual, wanted, **TOLERANCE)
    np.testing.assert_allclose(ours(*arguments), loss, **TOLERANCE)  # The pass without gradients.


def test_gradients_in_float64_and_of_a_product():
    x, y = rows(0, 7), rows(1, 7)
    check_gradients(lambda x, y, s: 3.0 * chunked.softmax_contrastive(x, y, s, chunks=chunked.Chunks(3)) ** 2,
                    x, y, np.asarray(5.0))
    check_gradients(lambda x, y, s, b: chunked.sigmoid_contrastive(x, y, s, b, chunks=chunked.Chunks(3)) ** 2,
                    x, y, np.asarray(5.0), np.asarray(-1.0))


def test_extreme_scores_and_nothing_valid():
    x = rows(0, 6)
    loss = jax.value_and_grad(lambda x, mask, scale: chunked.softmax_contrastive(
        x, -x, scale, mask=mask, chunks=chunked.Chunks(4)))
    value, gradient = loss(jnp.asarray(x, jnp.float32), jnp.zeros(6, bool), 100.0)
    assert value == 0 and not np.any(gradient)
    eye, everything = np.eye(6), np.ones(6, bool)
    value, gradient = loss(jnp.asarray(x, jnp.float32), jnp.asarray(everything), 1000.0)
    expected, gx, gy, _ = dense(x, -x, 1000.0, eye, eye, everything, everything)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, gx - gy, rtol=1e-4, atol=1e-3)


def test_best_text_is_the_argmax():
    x, y = rows(0, 13), rows(1, 9)
    np.testing.assert_array_equal(
        chunked.best_text(jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32), chunked.Chunks(4)),
        (x @ y.T).argmax(1))


def test_refuses_what_does_not_fit():
    x, y = jnp.ones((3, 2)), jnp.ones((4, 2))
    for call in (lambda: chunked.Chunks(0), lambda: chunked.softmax_contrastive(x, y, 1.0, chunks=chunked.Chunks(2)),
                 lambda: chunked.sigmoid_contrastive(x, y, 1.0, 0.0, chunks=chunked.Chunks(2)),
                 lambda: chunked.soft_contrastive(x, x, 1.0, similarity=None, chunks=chunked.Chunks(2))):
        with pytest.raises(ValueError, match=r"."):
            call()


def test_no_square_array_is_made():
    """The largest array of the compiled loss with its gradient is [chunk, rows]."""
    def loss(x, y):
        return chunked.softmax_contrastive(x, y, 5.0, chunks=chunked.Chunks(16))

    shape = jax.ShapeDtypeStruct((1024, 8), jnp.float32)
    memory = [jax.jit(jax.grad(f, argnums=(0, 1))).lower(shape, shape).compile().memory_analysis().temp_size_in_bytes
              for f in (loss, lambda x, y: contrastive.softmax_contrastive(x, y, 5.0))]
    assert memory[1] > 4 * 1024**2
    assert memory[0] < 0.1 * memory[1]


def test_eight_devices():
    """Values and gradients of every loss on meshes of eight fake devices, in a process of its own."""
    from tests.training import runs

    done = subprocess.run([sys.executable, str(Path(__file__).with_name("chunked_mesh.py"))], cwd=runs.ROOT,
                          env=runs.environment(devices=8), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("equal") == 8
