"""Lesion queries: shapes, masks, order of the patches, gradients to every query."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

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
