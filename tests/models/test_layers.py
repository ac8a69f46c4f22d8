"""Layers against torch: dense, convolutions, norms, attention."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from lgdea_jax.models import layers
from tests.models.build import random_model

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 4, 5)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_dense_is_torchs_linear_with_its_gradients(shape, bias):
    ours = random_model(lambda: layers.dense(5, 7, bias=bias, rngs=nnx.Rngs(0)))
    x = RNG.normal(size=shape).astype(np.float32)
    weights = RNG.normal(size=(*shape[:-1], 7)).astype(np.float32)
    graphdef, state = nnx.split(ours)
    value = nnx.to_pure_dict(state)
    (gradients, x_gradient) = jax.grad(
        lambda params, x: jnp.sum(jnp.tanh(nnx.merge(graphdef, params)(x)) * weights), argnums=(0, 1))(value, x)

    theirs = torch.nn.Linear(5, 7, bias=bias)
    theirs.weight.data = torch.from_numpy(np.asarray(value["kernel"]).T.copy())
    if bias:
        theirs.bias.data = torch.from_numpy(np.asarray(value["bias"]).copy())
    their_x = torch.from_numpy(x).requires_grad_()
    out = theirs(their_x)
    np.testing.assert_allclose(ours(x), out.detach().numpy(), rtol=1e-5, atol=1e-6)
    (torch.tanh(out) * torch.from_numpy(weights)).sum().backward()
    np.testing.assert_allclose(x_gradient, their_x.grad.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradients["kernel"], theirs.weight.grad.numpy().T, rtol=1e-5, atol=1e-6)
    if bias:
        np.testing.assert_allclose(gradients["bias"], theirs.bias.grad.numpy(), rtol=1e-5, atol=1e-6)


def test_the_gradient_of_a_bias_is_summed_beyond_bfloat16():
    # 4,096 ones: `nnx.Linear` gives 1,024.
    layer = layers.dense(2, 2, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    graphdef, state = nnx.split(layer)
    x = jnp.ones((64, 64, 2))
    gradients = jax.grad(lambda params: jnp.sum(nnx.merge(graphdef, params)(x).astype(jnp.float32)))(
        nnx.to_pure_dict(state))
    assert gradients["bias"].dtype == jnp.float32
    np.testing.assert_array_equal(gradients["bias"], 4096.0)


@pytest.mark.parametrize("size, stride, height", [(1, 2, 5), (3, 1, 5), (3, 2, 8), (7, 2, 5)])
def test_convolutions_are_those_of_torch(size, stride, height):
    conv = random_model(lambda: layers.conv(2, 3, size, stride=stride, rngs=nnx.Rngs(0)))
    x = np.random.default_rng(size).normal(size=(1, height, 6, 2)).astype(np.float32)
    expected = torch.nn.functional.conv2d(
        torch.tensor(x).permute(0, 3, 1, 2), torch.tensor(np.array(conv.kernel[...])).permute(3, 2, 0, 1),
        stride=stride, padding=size // 2)
    np.testing.assert_allclose(conv(jnp.asarray(x)), expected.permute(0, 2, 3, 1).numpy(), rtol=1e-4, atol=1e-5)


def run(model, x):
    """The model on x, compiled once instead of once an operation."""
    graphdef, state = nnx.split(model)
    return np.asarray(jax.jit(lambda state, x: nnx.merge(graphdef, state)(x).astype(jnp.float32))(state, x))


@pytest.mark.parametrize("norm", ["layer", "layer of small numbers", "group", "instance"])
def test_norms_are_those_of_torch(norm):
    x = np.random.default_rng(1).normal(size=(2, 3, 5, 12)).astype(np.float32) * 4 + 2
    if norm == "layer of small numbers":  # Of the size of eps: another one would show.
        x *= 1e-3
    size = {"group": 4, "instance": 1}.get(norm)
    ours = random_model(lambda: layers.GroupNorm(12, group_size=size) if size else layers.LayerNorm(12))
    scale, bias = (torch.tensor(np.array(parameter[...])) for parameter in (ours.scale, ours.bias))
    if size:
        expected = torch.nn.functional.group_norm(torch.tensor(x).permute(0, 3, 1, 2), 12 // size, scale, bias,
                                                  eps=1e-5).permute(0, 2, 3, 1)
    else:
        expected = torch.nn.functional.layer_norm(torch.tensor(x), (12,), scale, bias, eps=1e-6)
    np.testing.assert_allclose(run(ours, x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [lambda: layers.LayerNorm(64), lambda: layers.GroupNorm(64, group_size=64)])
def test_moments_of_bfloat16_are_float32(make):
    """Far from zero, where bfloat16 keeps two or three digits: its own mean would be off by a deviation."""
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 64, 64)) + 50, jnp.bfloat16)
    layer = random_model(make)
    assert jax.eval_shape(layer, x).dtype == jnp.bfloat16
    np.testing.assert_allclose(run(layer, x), run(layer, x.astype(jnp.float32)), rtol=0.01, atol=0.01)


def test_batch_norm_is_that_of_torch_in_training_and_after():
    x = np.random.default_rng(1).normal(size=(4, 3, 5, 6)).astype(np.float32) * 4 + 2
    ours, theirs = random_model(lambda: layers.BatchNorm(6)), torch.nn.BatchNorm2d(6, eps=1e-5, momentum=0.1)
    ours.mean[...], ours.var[...] = jnp.linspace(-1, 1, 6), jnp.linspace(0.5, 2, 6)
    with torch.no_grad():
        for parameter, value in ((theirs.weight, ours.scale), (theirs.bias, ours.bias),
                                 (theirs.running_mean, ours.mean), (theirs.running_var, ours.var)):
            parameter.copy_(torch.tensor(np.array(value[...])))
        trained = theirs(torch.tensor(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    graphdef, state = nnx.split(ours)

    @jax.jit
    def train(state, x):
        model = nnx.merge(graphdef, state)
        return model(x, train=True), nnx.state(model)

    out, state = train(state, x)
    np.testing.assert_allclose(out, trained, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(state["mean"][...], theirs.running_mean, rtol=1e-5)
    # torch's moving variance is that of a sample (n - 1), flax's that of the batch.
    count = x.size // 6
    start = 0.9 * np.linspace(0.5, 2, 6)
    np.testing.assert_allclose((state["var"][...] - start) * count / (count - 1), theirs.running_var.numpy() - start,
                               rtol=1e-4)
    with torch.no_grad():
        theirs.running_var.copy_(torch.tensor(np.array(state["var"][...])))
        expected = theirs.eval()(torch.tensor(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    np.testing.assert_allclose(jax.jit(lambda s, x: nnx.merge(graphdef, s)(x, train=False))(state, x), expected,
                               rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dropping", [False, True], ids=["library", "with dropout"])
def test_attention_is_that_of_torch(dropping):
    """Cross attention with a mask by query and key; a key that drops (next to) nothing takes the other path."""
    rng = np.random.default_rng(0)
    x, source = rng.normal(size=(2, 5, 8)).astype(np.float32), rng.normal(size=(2, 7, 12)).astype(np.float32)
    mask = rng.random((2, 1, 5, 7)) < 0.6
    mask[0, 0, 1] = False  # Uniform, not NaN.
    model = random_model(lambda: layers.Attention(8, 2, source_width=12, dropout_rate=1e-7, rngs=nnx.Rngs(0)))
    graphdef, state = nnx.split(model)
    ours = jax.jit(lambda *args: nnx.merge(graphdef, state)(*args))(
        x, source, mask, jax.random.key(0) if dropping else None)

    def heads(layer, y):
        y = y.astype(np.float64) @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...])
        return torch.tensor(y).unflatten(-1, (2, 4)).transpose(1, 2)

    scores = heads(model.query, x) @ heads(model.key, source).transpose(2, 3) / 2.0  # sqrt of 4 channels a head
    scores = torch.where(torch.tensor(mask), scores, -1e9)
    mixed = (torch.softmax(scores, -1) @ heads(model.value, source)).transpose(1, 2).flatten(2).numpy()
    expected = mixed @ np.asarray(model.out.kernel[...]) + np.asarray(model.out.bias[...])
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)
