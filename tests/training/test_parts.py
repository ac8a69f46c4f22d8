"""Towers that go through the batch in parts: the gradients of the whole batch, less memory, clear refusals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lgdea_jax import cli
from lgdea_jax.data.batch import empty
from lgdea_jax.errors import UserError
from lgdea_jax.experiment import Experiment
from lgdea_jax.training import optim
from lgdea_jax.training import state as train_state
from lgdea_jax.training import step as train_step

VOCABULARY, LABELS = 50, 3


def small(method, *flags):
    """(experiment, its graphdef, parameters, a random batch of all streams, its memory or None)."""
    config = cli.read_config(f"tests/training/tiny.py:{method}")
    for flag in flags:
        cli.set_override(config, *flag.split("=", 1))
    made = {"vocab_size": VOCABULARY, "num_labels": LABELS}
    experiment = Experiment.of(config)
    graphdef, _ = experiment.model.abstract(**made)
    params = experiment.model.initial_params(seed=0, **made)
    sizes = {"pairs": 8, "images": 4, "reports": 4}
    rng = np.random.default_rng(0)

    def fill(name, leaf):
        if leaf.dtype == jnp.float32:
            return rng.uniform(0.5, 1, leaf.shape).astype(np.float32)
        if leaf.dtype == jnp.bool_:
            return np.zeros(leaf.shape, bool)
        high = {"image": 256, "tokens": VOCABULARY, "finding": 3, "labels": 1}.get(name, 4)
        return rng.integers(0, high, leaf.shape).astype(leaf.dtype)

    schema = experiment.batch_schema(LABELS)
    batch = {stream: {name: fill(name, array) for name, array in empty(schema.batch_fields(stream), rows).items()}
             for stream, rows in sizes.items()}
    counts = {"pairs": 8, "images": 4, "reports": 4}
    memory = train_state.make_memory(experiment, sizes, counts, jax.sharding.Mesh(np.array(jax.devices()[:1]), "data"))
    return experiment, graphdef, params, batch, memory


def first_step(method, *flags):
    """(loss, gradients over their norm, temporaries of the compiled step in bytes): plain gradient descent, rate 1."""
    experiment, graphdef, params, batch, memory = small(method, *flags)
    optimizer = optim.Optimizer(optax.sgd(1.0), lambda _: 1.0, optim.rates_by_path(params, ()), ema=0.0)
    options = train_step.StepOptions(forward=experiment.forward_options(0), seed=0, dropout=False,
                                     view=experiment.strong_view, micro=experiment.config.batch.micro)
    step = functools.partial(train_step.train_step, graphdef=graphdef, method=experiment.method, optimizer=optimizer,
                             options=options, memory=memory)
    state = train_step.new_state(params, optimizer, aux=memory.blank() if memory else None)
    state["step"] += 10  # Past the ramp of the unpaired items' targets.
    compiled = jax.jit(step).lower(state, batch).compile()
    new, metrics = compiled(state, batch)
    norm = float(metrics["grad_norm"])
    gradients = jax.tree.map(lambda a, b: np.asarray(a - b) / norm, params, new["params"])
    return float(metrics["loss"]), gradients, compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("method", ["clip", "lgdea_pairs", "lgdea"])
def test_gradients_are_those_of_the_whole_batch(method):
    loss, whole, _ = first_step(method)
    cut_loss, cut, _ = first_step(method, "batch.micro=4", "loss_chunk=3", "text.distinct=0.4")
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
        experiment, *_, batch, _ = small("clip", *flags)
        with pytest.raises(UserError, match=message):
            train_state.check_micro(experiment, batch, mesh)
    with pytest.raises(UserError, match=r"'text.distinct' is 0"):
        small("clip", "text.distinct=0.0")
    with pytest.raises(UserError, match="loss_chunk"):
        small("clip", "loss_chunk=-1")
    with pytest.raises(UserError, match=r"remat_keep.*did you mean 'products'"):
        small("clip", "model.remat_keep=product")
