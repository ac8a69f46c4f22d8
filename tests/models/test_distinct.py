"""Equal texts are encoded once: outputs and gradients are those of every row by itself; streams joined in blocks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lgdea_jax.models import distinct
from lgdea_jax.models.bert import Bert
from lgdea_jax.models.forward import ForwardOptions, forward, join_rows, pairs_of, unpaired_of
from lgdea_jax.models.lgdea import TwoTowers


def texts(seed, rows, kinds, length=5):
    """int32 [rows, length]: rows drawn from so many, which begin alike."""
    rng = np.random.default_rng(seed)
    some = np.concatenate([np.ones((kinds, 2), int), rng.integers(1, 9, (kinds, length - 2))], axis=1)
    some[0] = 0
    return some[rng.integers(0, kinds, rows)].astype(np.int32)


@pytest.mark.parametrize("multiplier", [distinct._MULTIPLIER, 0], ids=["hashed", "all keys equal"])
@pytest.mark.parametrize("kinds", [1, 4, 1000])
def test_distinct_rows_are_those_of_numpy(monkeypatch, kinds, multiplier):
    monkeypatch.setattr(distinct, "_MULTIPLIER", multiplier)
    tokens = texts(0, 24, kinds)
    chosen, slot, count = map(np.asarray, distinct.distinct_rows(jnp.asarray(tokens), size=30))
    np.testing.assert_array_equal(chosen[slot], tokens)
    expected = len(np.unique(tokens, axis=0))
    assert count == expected if multiplier else expected <= count <= 24
    assert slot.max() == count - 1 and np.all(chosen[count:] == tokens[0])


@pytest.mark.parametrize(("kinds", "passes"), [(3, [0]), (7, [0, 1]), (1000, [0, 1, 2, 3])])
def test_as_many_passes_as_needed(kinds, passes):
    """Two devices with 12 rows each, 3 a pass: the outputs are those of the rows, and rare passes run when needed."""
    tokens, run = jnp.asarray(texts(1, 24, kinds)), []
    table = jnp.asarray(np.random.default_rng(2).normal(size=(9, 4)), jnp.float32)

    def rows_of(table, tokens, number):
        jax.debug.callback(lambda number: run.append(int(number)), number)
        return {"sum": table[tokens].sum(axis=1), "all": table[tokens]}

    def loss(table, once):
        if once:
            out, share = distinct.encode(functools.partial(rows_of, table), tokens, share=0.25, devices=2)
        else:
            out, share = rows_of(table, tokens, 0), 0.0
        return jnp.sum(jnp.sin(out["sum"])) + jnp.sum(jnp.arange(24.0)[:, None, None] * out["all"] ** 2), (out, share)

    grad = jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnums=1)
    (value, (out, share)), gradient = grad(table, True)
    jax.effects_barrier()
    assert sorted(set(run)) == passes
    most = [len(np.unique(half, axis=0)) for half in np.split(np.asarray(tokens), 2)]
    assert -(-max(most) // 3) == len(passes) and float(share) == pytest.approx(np.mean(most) / 12)
    (expected, (rows, _)), expected_gradient = grad(table, False)
    assert float(value) == pytest.approx(float(expected), rel=1e-5)
    jax.tree.map(np.testing.assert_array_equal, out, rows)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-5)


@pytest.mark.parametrize("share", [0.4, 0.7])
def test_a_tower_gives_the_same(share):
    text = Bert(vocab_size=9, width=16, depth=1, heads=2, mlp_dim=32, max_length=5, pool="mean", rngs=nnx.Rngs(0))
    model = TwoTowers(image_tower=None, text_tower=text, width=8, prototypes=0, lesion_queries=0, labels=0,
                      logit_scale=10.0, logit_bias=0.0, rngs=nnx.Rngs(1))
    graphdef, state = nnx.split(model)
    tokens = jnp.asarray(texts(3, 24, 14).reshape(8, 3, 5))
    weight = jnp.asarray(np.random.default_rng(4).normal(size=(8, 3, 8)), jnp.float32)
    weight *= tokens.any(axis=-1, keepdims=True)  # The mean of no token is 0, and has no direction.

    def loss(state, **options):
        out = forward(nnx.merge(graphdef, state), {"tokens": tokens}, train=True,
                      options=ForwardOptions(pad_id=0, mean=0.5, std=0.5, per_image=False, **options))
        return jnp.sum(weight * out["text"]["pooled"]) + jnp.mean(out["text"]["tokens"] ** 3), out

    grad = jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnames=("distinct", "devices"))
    (_, expected), expected_gradient = grad(state)
    (_, out), gradient = grad(state, distinct=share, devices=2)
    distinct_halves = [len(np.unique(half, axis=0)) for half in np.split(np.asarray(tokens).reshape(24, 5), 2)]
    assert float(out.pop("distinct_texts")) == pytest.approx(np.mean(distinct_halves) / 12)
    assert max(distinct_halves) > 0.4 * 12
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), out, expected)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected_gradient))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6 * largest), gradient,
                 expected_gradient)


@pytest.mark.parametrize(("pairs", "others"), [(4, 2), (2, 4), (4, 3), (6, 6)])
def test_streams_are_joined_in_equal_blocks(pairs, others):
    """Each of the devices that divide both streams has its own rows of both, whatever their number."""
    first, second = np.arange(pairs), 100 + np.arange(others)
    joined = np.asarray(join_rows(first, second))
    np.testing.assert_array_equal(pairs_of(joined, pairs), first)
    np.testing.assert_array_equal(unpaired_of(joined, pairs), second)
    for devices in (n for n in (1, 2, 3, 6) if pairs % n == others % n == 0):
        for rows, a, b in zip(*(np.split(x, devices) for x in (joined, first, second)), strict=True):
            assert sorted(rows) == [*a, *b]
