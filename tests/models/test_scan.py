"""Blocks that are compiled once for all: the same numbers, parameters and gradients, a smaller program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lgdea_jax import cli
from lgdea_jax.errors import UserError
from lgdea_jax.experiment import Experiment
from lgdea_jax.models import bert, vit
from tests.models.build import random_model

RNG = np.random.default_rng(0)
IMAGES = jnp.asarray(RNG.normal(size=(2, 16, 16, 1)), jnp.float32)
IDS = jnp.asarray(RNG.integers(1, 40, (2, 7))).at[0, 4:].set(0)
SIZES = {"width": 16, "heads": 2, "mlp_dim": 16}


def tower(kind, depth=2, **options):
    if kind == "vit":
        return random_model(lambda: vit.ViT(**SIZES, depth=depth, patch_size=4, image_size=16, rngs=nnx.Rngs(0),
                                            **options))
    return random_model(lambda: bert.Bert(**SIZES, depth=depth, vocab_size=40, max_length=10, rngs=nnx.Rngs(0),
                                          **options))


def inputs(kind):
    return (IMAGES,) if kind == "vit" else (IDS, IDS != 0)


def loss(graphdef, state, kind, key=None):
    rngs = {} if key is None else {"deterministic": False, "rngs": nnx.Rngs(dropout=key)}
    return jnp.mean(jnp.square(nnx.merge(graphdef, state)(*inputs(kind), **rngs)[0] - 1.0))


@pytest.mark.parametrize("kind", ["vit", "bert"])
@pytest.mark.parametrize("options", [{}, {"remat": "products", "dropout_rate": 0.5}])
def test_loss_and_gradients_are_those_of_the_blocks_one_by_one(kind, options):
    key = jax.random.key(1) if "dropout_rate" in options else None
    found = {}
    for scan in (False, True):
        graphdef, state = nnx.split(tower(kind, scan=scan, **options))
        found[scan] = jax.jit(jax.value_and_grad(lambda state, graphdef=graphdef: loss(graphdef, state, kind, key)))(
            state)
    assert jax.tree.structure(found[False][1]) == jax.tree.structure(found[True][1])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6), *found.values())


@pytest.mark.parametrize("kind", ["vit", "bert"])
def test_the_program_does_not_grow_with_the_depth(kind):
    def products(depth, scan):
        graphdef, state = nnx.split(tower(kind, depth=depth, scan=scan))
        step = jax.jit(jax.grad(lambda state: loss(graphdef, state, kind)))
        return step.lower(state).as_text().count("stablehlo.dot_general")

    assert products(6, True) == products(3, True) < products(3, False) < products(6, False)


def test_without_a_transformer_the_key_is_refused():
    config = cli.read_config("tests/training/tiny.py:supervised")
    config.model.image.name = "resnet"
    assert Experiment.of(config).model.image.name == "resnet"
    config.model.scan = True
    with pytest.raises(UserError, match="no effect"):
        Experiment.of(config)


def test_the_key_reaches_every_transformer_of_a_config():
    config = cli.read_config("configs/lgdea_mimic.py")
    config.model.text.weights = config.text.tokenizer = ""
    for scan in (False, True):
        config.model.scan = scan
        model = Experiment.of(config).model
        assert [part.options.get("scan", False) for part in (model.image, model.text)] == [scan, scan]
