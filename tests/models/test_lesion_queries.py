"""Lesion queries: shapes, masks, order of the patches, gradients to every query."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import softmax
from scipy.stats import norm as normal

from lgdea_jax.models.lesion_queries import LesionQueries
from tests.models.build import apply, random_model

PATCHES = np.random.default_rng(0).normal(size=(3, 7, 8)).astype(np.float32)


def tiny(**options):
    sizes = {"width": 16, "patch_width": 8, "heads": 2, "depth": 2}
    return random_model(lambda: LesionQueries(3, **{**sizes, **options}, rngs=nnx.Rngs(0)))


def test_masked_patches_and_the_order_of_patches_change_nothing():
    changed = PATCHES.copy()
    changed[:, 4:] *= -1.0
    order = np.array([2, 0, 3, 1, 6, 4, 5])
    mask = np.array([[1, 1, 1, 1, 0, 0, 0]] * 2 + [[0] * 7])
    inputs = np.concatenate([PATCHES, changed, PATCHES[:, order]])
    model = tiny()
    lesions = apply(model, inputs, np.concatenate([mask, mask, mask[:, order]]))
    assert lesions.shape == (9, 3, 16) and np.all(np.isfinite(lesions))
    plain, other, moved = lesions[:3], lesions[3:6], lesions[6:]
    np.testing.assert_allclose(other[:2], plain[:2], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(moved, plain, rtol=1e-4, atol=1e-5)
    # Without a patch to attend to, a query gets the mean of all: of changed patches another one.
    assert np.abs(other[2] - plain[2]).max() > 1e-3
    # Patches that count change every query, and no two queries give the same.
    full = apply(model, inputs, np.ones((9, 7), bool))
    assert np.abs(full[:3] - full[3:6]).max((0, 2)).min() > 1e-3
    assert np.abs(full[:3] - plain).max((1, 2)).min() > 1e-3
    assert min(np.abs(plain[:, a] - plain[:, b]).max() for a, b in ((0, 1), (0, 2), (1, 2))) > 0.1


def test_a_layer_is_pre_norm_cross_attention_and_mlp_with_residuals():
    """Against NumPy in float64."""
    model = tiny(depth=1)
    block = model.blocks[0]

    def norm(layer, x):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return x * np.asarray(layer.scale[...], np.float64) + np.asarray(layer.bias[...])

    def dense(layer, x):
        return x @ np.asarray(layer.kernel[...], np.float64) + np.asarray(layer.bias[...])

    x, patches = np.asarray(model.queries[...], np.float64), norm(block.patch_norm, PATCHES.astype(np.float64))
    query, key, value = (dense(layer, y).reshape(*y.shape[:-1], 2, 8) for layer, y in (
        (block.attention.query, norm(block.query_norm, x)), (block.attention.key, patches),
        (block.attention.value, patches)))
    weights = softmax(np.einsum("qhd,bkhd->bhqk", query, key) / np.sqrt(8), -1)
    x = x + dense(block.attention.out, np.einsum("bhqk,bkhd->bqhd", weights, value).reshape(3, 3, 16))
    hidden = dense(block.mlp.up, norm(block.mlp_norm, x))
    x = x + dense(block.mlp.down, hidden * normal.cdf(hidden))  # GELU
    np.testing.assert_allclose(apply(model, PATCHES), norm(model.norm, x), rtol=1e-4, atol=1e-5)


def test_bfloat16_is_close():
    full, half = apply(tiny(depth=1), PATCHES), apply(tiny(depth=1, dtype=jnp.bfloat16), PATCHES)
    assert half.dtype == jnp.bfloat16
    assert 0 < np.linalg.norm(full - half.astype(jnp.float32)) / np.linalg.norm(full) < 0.05


def test_every_parameter_gets_a_gradient():
    graphdef, state = nnx.split(tiny(depth=1))
    weights = jnp.asarray(np.random.default_rng(2).normal(size=(3, 3, 16)), jnp.float32)
    gradient = jax.jit(jax.grad(lambda s: jnp.sum(weights * nnx.merge(graphdef, s)(PATCHES))))(state)
    gradients = {jax.tree_util.keystr(path): np.abs(leaf).max() for path, leaf in
                 jax.tree_util.tree_leaves_with_path(gradient)}
    # A bias on the keys moves all scores of a query alike: the softmax cancels it.
    assert all(size > 1e-6 for name, size in gradients.items() if not ("key" in name and "bias" in name)), gradients


def test_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match="num >= 1"):
        LesionQueries(0, width=8, patch_width=8, heads=2, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="multiple of 3"):
        LesionQueries(2, width=8, patch_width=8, heads=3, rngs=nnx.Rngs(0))
