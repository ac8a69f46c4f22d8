"""Lesion queries: shapes, masks, order of the patches, gradients to every query."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lgdea_jax.models.lesion_queries import LesionQueries
from tests.models.build import apply, random_model


def example(**options):
    sizes = {"width": 16, "patch_width": 8, "heads": 2, "depth": 2}
    model = random_model(lambda: LesionQueries(3, **{**sizes, **options}, rngs=nnx.Rngs(0)))
    return model, jnp.asarray(np.random.default_rng(0).normal(size=(2, 7, 8)), jnp.float32)


def test_shapes_and_attention_that_sums_to_one():
    model, patches = example()
    lesions, attention = apply(model, patches)
    assert lesions.shape == (2, 3, 16) and attention.shape == (2, 3, 7)
    np.testing.assert_allclose(np.sum(attention, -1), 1, rtol=1e-5)
    assert np.abs(lesions[:, 0] - lesions[:, 1]).max() > 0.1, "queries that give the same"
    half_lesions, half_attention = apply(example(dtype=jnp.bfloat16)[0], patches)
    assert half_lesions.dtype == jnp.bfloat16 and half_attention.dtype == jnp.float32
    np.testing.assert_allclose(half_attention, attention, atol=0.02)


def test_masked_patches_are_not_looked_at():
    model, patches = example()
    mask = jnp.asarray([[1, 1, 1, 1, 0, 0, 0], [0] * 7])
    lesions, attention = apply(model, patches, mask)
    np.testing.assert_array_equal(attention[0, :, 4:], 0)
    np.testing.assert_allclose(lesions[0], apply(model, patches[:1, :4])[0][0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(attention[1], 1 / 7, rtol=1e-5)
    assert np.all(np.isfinite(lesions))


def test_order_of_the_patches_moves_the_attention_only():
    model, patches = example()
    order = np.random.default_rng(1).permutation(7)
    (lesions, attention), (moved, moved_attention) = apply(model, patches), apply(model, patches[:, order])
    np.testing.assert_allclose(moved, lesions, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(moved_attention, attention[..., order], rtol=1e-4, atol=1e-6)
    assert np.abs(moved_attention - attention).max() > 1e-3


def test_every_parameter_gets_a_gradient():
    model, patches = example(depth=1)
    graphdef, state = nnx.split(model)
    weights = jnp.asarray(np.random.default_rng(2).normal(size=(2, 3, 16)), jnp.float32)
    gradient = jax.jit(jax.grad(lambda s: jnp.sum(weights * nnx.merge(graphdef, s)(patches)[0])))(state)
    gradients = {jax.tree_util.keystr(path): np.abs(leaf).max() for path, leaf in
                 jax.tree_util.tree_leaves_with_path(gradient)}
    # A bias on the keys moves all scores of a query alike: the softmax does not see it.
    assert all(size > 1e-6 for name, size in gradients.items() if not ("key" in name and "bias" in name)), gradients


def test_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match="num >= 1"):
        LesionQueries(0, width=8, patch_width=8, heads=2, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="multiple of 3"):
        LesionQueries(2, width=8, patch_width=8, heads=3, rngs=nnx.Rngs(0))
