"""The BERT tower: padding, one compilation, sizes; `test_pretrained` compares it with `transformers`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lgdea_jax.models import bert
from tests.models.build import apply, random_model

VOCAB, LENGTH = 40, 20


def tiny(**options):
    sizes = {"vocab_size": VOCAB, "width": 16, "depth": 1, "heads": 2, "mlp_dim": 16, "max_length": LENGTH}
    return random_model(lambda: bert.Bert(**{**sizes, **options}, rngs=nnx.Rngs(0)))


@pytest.mark.parametrize("pool", ["cls", "mean", "projection"])
def test_padding_does_not_matter_and_a_row_of_padding_is_finite(pool):
    model = tiny(pool=pool, type_vocab_size=1)
    ids = jnp.asarray(np.random.default_rng(0).integers(1, VOCAB, (3, 6))).at[2].set(0)
    longer = jnp.pad(ids, ((0, 0), (0, 5)))
    swapped = longer.at[:2, 8].set(7)
    pooled, _ = apply(model, jnp.concatenate([longer, swapped, swapped]),
                      jnp.concatenate([longer != 0, longer != 0, swapped != 0]))
    long, ignored, counted = pooled[:3], pooled[3:6], pooled[6:]
    short, out = apply(model, ids, ids != 0)
    np.testing.assert_allclose(short[:2], long[:2], atol=1e-5)
    assert np.all(np.isfinite(long))
    if pool == "mean":
        assert np.all(np.asarray(long[2]) == 0)
        np.testing.assert_allclose(short[:2], np.mean(out["tokens"], axis=1)[:2], atol=1e-5)
    # Masked tokens change nothing; without the mask they do.
    np.testing.assert_allclose(ignored[:2], long[:2], atol=1e-5)
    assert np.abs(counted[:2] - long[:2]).max() > 1e-4
    if pool == "mean":
        graphdef, state = nnx.split(model)
        gradient = jax.jit(jax.grad(lambda s: jnp.sum(nnx.merge(graphdef, s)(longer, longer != 0)[0])))(state)
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))


def test_one_compilation_remat_and_bfloat16():
    ids = jnp.asarray(np.random.default_rng(1).integers(1, VOCAB, (2, 5)))
    results = {}
    for remat in (False, True):
        graphdef, state = nnx.split(tiny(remat=remat))
        traced = []

        @jax.jit
        def step(state, ids, graphdef=graphdef, traced=traced):
            traced.append(1)
            loss, gradient = jax.value_and_grad(
                lambda s: jnp.mean(jnp.square(nnx.merge(graphdef, s)(ids, ids != 0)[0] - 1.0)))(state)
            return loss, jax.tree.map(lambda p, g: p - 0.1 * g, state, gradient)

        losses = []
        for _ in range(3):
            loss, state = step(state, ids)
            losses.append(float(loss))
        assert len(traced) == 1 and step._cache_size() == 1 and losses[2] < losses[0]
        results[remat] = losses
    np.testing.assert_allclose(results[False], results[True], rtol=1e-5)
    full, half = (apply(tiny(dtype=dtype), ids)[0] for dtype in (jnp.float32, jnp.bfloat16))
    assert half.dtype == jnp.float32
    assert 0 < float(jnp.linalg.norm(full - half) / jnp.linalg.norm(full)) < 0.05


def test_sizes_and_errors():
    assert bert.sizes("base") == {"width": 768, "depth": 12, "heads": 12, "mlp_dim": 3072}
    assert bert.sizes("XS", depth=1)["depth"] == 1
    with pytest.raises(ValueError, match="unknown BERT variant"):
        bert.sizes("huge")
    with pytest.raises(ValueError, match="unknown BERT sizes"):
        bert.sizes("base", layers=2)
    with pytest.raises(ValueError, match="unknown pool"):
        tiny(pool="max")
    with pytest.raises(ValueError, match="do not fit"):
        tiny()(jnp.zeros((1, LENGTH + 1), jnp.int32))
    base = nnx.eval_shape(lambda: bert.Bert(**bert.sizes("base"), vocab_size=30522, pool="pooler", rngs=nnx.Rngs(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(base))) == 109_482_240
