"""Towers that go through the batch in parts: the gradients of the whole batch, less memory, clear refusals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lgdea_jax import cli, experiment
from lgdea_jax.cli import UserError
from lgdea_jax.training import dry_run, optim
from lgdea_jax.training import state as train_state
from lgdea_jax.training import step as train_step

VOCABULARY, LABELS = 50, 3


def small(method, *flags):
    """(config, its graphdef, parameters, a random batch with pairs, images and reports)."""
    config = cli.read_config(f"tests/training/tiny.py:{method}")
    for flag in flags:
        cli.set_override(config, *flag.split("=", 1))
    made = {"vocab_size": VOCABULARY, "num_labels": LABELS}
    graphdef, _ = experiment.abstract_model(config, **made)
    params = experiment.initial_params(config, seed=0, **made)
    sizes = {"pairs": 8, "images": 4, "reports": 4}
    rng = np.random.default_rng(0)

    def fill(name, leaf):
        if leaf.dtype == jnp.float32:
            return rng.uniform(0.5, 1, leaf.shape).astype(np.float32)
        if leaf.dtype == jnp.bool_:
            return np.zeros(leaf.shape, bool)
        high = {"image": 256, "tokens": VOCABULARY, "finding": 3, "labels": 1}.get(name, 4)
        return rng.integers(0, high, leaf.shape).astype(leaf.dtype)

    shapes = dry_run.batch_shapes(config, sizes, method=experiment.load_method(config), num_labels=LABELS)
    batch = {stream: {name: fill(name, leaf) for name, leaf in arrays.items()} for stream, arrays in shapes.items()}
    aux = dry_run.aux_shapes(config)
    return config, graphdef, params, batch, aux


def first_step(method, *flags):
    """(loss, gradients over their norm, temporaries of the compiled step in bytes): plain gradient descent, rate 1."""
    config, graphdef, params, batch, aux = small(method, *flags)
    chosen = experiment.load_method(config)
    tx = optax.sgd(1.0)
    step = functools.partial(
        train_step.train_step, graphdef=graphdef, tx=tx, rates=optim.rates_by_path(params, ()), losses=chosen.losses,
        diagnostics=chosen.diagnostics, weights=chosen.weights, schedule=lambda _: 1.0, ema_decay=0.0, pad_id=0,
        mean=0.5, std=0.25, per_image=False, seed=0, dropout=False, micro=config.batch.micro)
    state = train_step.new_state(params, tx, ema=False, aux=aux)
    compiled = jax.jit(step).lower(state, batch).compile()
    new, metrics = compiled(state, batch)
    norm = float(metrics["grad_norm"])
    gradients = jax.tree.map(lambda a, b: np.asarray(a - b) / norm, params, new["params"])
    return float(metrics["loss"]), gradients, compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("method", ["clip", "lgdea_pairs"])
def test_gradients_are_those_of_the_whole_batch(method):
    loss, whole, _ = first_step(method)
    cut_loss, cut, _ = first_step(method, "batch.micro=4", "loss_chunk=3")
    assert cut_loss == pytest.approx(loss, rel=1e-5)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(whole)) > 0.01
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5), cut, whole)


def test_fewer_activations_are_held():
    deep = ("model.image.vit.sizes.depth=4", "image.size=64")
    assert first_step("clip", *deep, "batch.micro=4")[2] < 0.6 * first_step("clip", *deep)[2]


def test_refusals():
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))
    for flags, message in ((("batch.micro=0",), "at least 1"), (("batch.micro=5",), "12 images a batch do not divide"),
                           (("batch.micro=2", "model.image.name=resnet"), "norm=group")):
        config, *_, batch, _ = small("clip", *(flag for flag in flags if "resnet" not in flag))
        for flag in flags:
            cli.set_override(config, *flag.split("=", 1))
        with pytest.raises(UserError, match=message):
            train_state.check_micro(config, batch, mesh)
    with pytest.raises(UserError, match="loss_chunk"):
        small("clip", "loss_chunk=-1")
    with pytest.raises(UserError, match=r"remat_keep.*did you mean 'products'"):
        small("clip", "model.remat_keep=product")
