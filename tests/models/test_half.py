"""Parts of half precision: torch's values and gradients, what is kept for the backward pass, the kernel of GPUs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from lgdea_jax.models import forward, half
from lgdea_jax.models.layers import gelu, quick_gelu

RNG = np.random.default_rng(0)


def draw(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def agree(function, arrays, theirs, weights, *, atol=1e-5):
    """Values and gradients (of the sum by `weights`) of two functions; `theirs` takes and gives float64 tensors."""
    ours, gradients = jax.jit(jax.value_and_grad(
        lambda arrays: jnp.sum(function(*arrays) * weights)))(arrays)
    tensors = [torch.tensor(array.astype(np.float64), requires_grad=True) for array in arrays]
    total = (theirs(*tensors) * torch.tensor(weights)).sum()
    total.backward()
    np.testing.assert_allclose(ours, total.item(), rtol=1e-5, atol=1e-4)
    for mine, tensor in zip(gradients, tensors, strict=True):
        np.testing.assert_allclose(mine, tensor.grad.numpy(), rtol=1e-4, atol=atol)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_is_that_of_torch(masked):
    arrays = (draw(2, 5, 3, 8), draw(2, 7, 3, 8), draw(2, 7, 3, 8))
    mask = np.random.default_rng(1).random((2, 1, 5, 7)) < 0.6
    mask[0, 0, 1] = False  # Uniform, not NaN.

    def theirs(query, key, value):
        query, key, value = (x.transpose(1, 2) for x in (query, key, value))
        scores = query @ key.transpose(2, 3) / 8**0.5
        scores = torch.where(torch.tensor(mask), scores, torch.full_like(scores, -1e9)) if masked else scores
        return (torch.softmax(scores, -1) @ value).transpose(1, 2)

    agree(lambda *arrays: half.plain(*arrays, jnp.asarray(mask) if masked else None), arrays, theirs, draw(2, 5, 3, 8))


def test_padding_is_not_attended_to():
    query, key, value = (jnp.asarray(draw(2, 8, 2, 8), jnp.bfloat16) for _ in range(3))
    some = half.attend(query, key[:, :5], value[:, :5], None, 5)
    np.testing.assert_array_equal(half.attend(query, key, value, None, 5), some)
    mask = jnp.ones((1, 1, 8, 8), bool).at[..., 0].set(False)
    np.testing.assert_array_equal(half.attend(query, key, value, mask, 5),
                                  half.attend(query, key[:, :5], value[:, :5], mask[..., :5], 5))


def test_layer_norm_is_that_of_torch():
    theirs = lambda x, scale, bias: torch.nn.functional.layer_norm(x, (12,), scale, bias, eps=1e-3)  # noqa: E731
    agree(lambda *arrays: half.layer_norm(*arrays, 1e-3), (draw(3, 4, 12) * 3 + 2, draw(12), draw(12)), theirs,
          draw(3, 4, 12))


@pytest.mark.parametrize("ours, theirs", [(gelu, torch.nn.functional.gelu),
                                          (quick_gelu, lambda x: x * torch.sigmoid(1.702 * x))], ids=["gelu", "quick"])
def test_activations_are_those_of_torch(ours, theirs):
    agree(lambda x, bias: half.activate(ours, x, bias), (draw(3, 4, 12), draw(12)), lambda x, bias: theirs(x + bias),
          draw(3, 4, 12))


@pytest.mark.parametrize("name", ["attention", "norm", "activation"])
def test_what_is_kept_is_no_more_than_the_inputs_and_a_number_a_row(name):
    """Attention keeps no [B, H, T, T], norms and activations nothing wide in float32."""
    x, bias = jax.ShapeDtypeStruct((2, 64, 4, 16), jnp.bfloat16), jax.ShapeDtypeStruct((16,), jnp.float32)
    function, inputs, rows = {
        "attention": (lambda *a: half.plain(*a, None), (x, x, x), 3),
        "norm": (lambda *a: half.layer_norm(*a, 1e-6), (x, bias, bias), 2),
        "activation": (lambda *a: half.activate(gelu, *a), (x, bias), 0)}[name]
    kept = jax.tree.leaves(jax.eval_shape(lambda *a: jax.vjp(function, *a)[1], *inputs))
    wide = [leaf for leaf in kept if leaf.size >= 2 * 64 * 4 * 16]
    assert all(leaf.dtype == jnp.bfloat16 and leaf.size == 2 * 64 * 4 * 16 for leaf in wide)
    assert sum(leaf.size for leaf in kept if leaf.dtype == jnp.float32) <= rows * 2 * 64 * 4 + 3 * 16


def test_gpus_get_cudnn_where_the_shapes_fit(monkeypatch):
    """Lowered for CUDA without a GPU: lengths beside the keys, masks as they are, other shapes without it."""
    asked = []

    def library(query, key, value, *, mask, key_value_seq_lengths, implementation):
        asked.append((implementation, None if mask is None else mask.shape, key_value_seq_lengths is not None))
        return query * 2

    monkeypatch.setattr(jax.nn, "dot_product_attention", library)
    monkeypatch.setattr(half, "_has_cudnn", lambda: True)

    def texts(length, mask=None, keys=0):
        x = jnp.zeros((2, length, 4, 16), jnp.bfloat16)
        traced = jax.jit(lambda x: half.attend(x, x, x, mask, keys or length)).trace(x)
        return [traced.lower(lowering_platforms=(platform,)).as_text() for platform in ("cuda", "cpu")]

    cuda, cpu = texts(200, keys=197)
    assert asked.pop() == ("cudnn", None, True) and "dot_general" not in cuda and "dot_general" in cpu
    assert texts(200)[0] and asked.pop() == ("cudnn", None, False)
    assert texts(24, jnp.ones((2, 1, 1, 24), bool))[0] and asked.pop() == ("cudnn", (2, 1, 24, 24), False)
    assert "dot_general" in texts(197)[0] and not asked


def test_volumes_are_windowed_on_the_device():
    """CT-CLIP's window and GreenRFM's, by hand."""
    values = jnp.asarray([-1024, -1000, -400, 0, 200, 500, 3000], jnp.int16)
    for window, expected in (((-1000, 1000, -1, 1), [-1, -1, -0.4, 0, 0.2, 0.5, 1]),
                             ((-1000, 200, -1, 1), [-1, -1, 0, 2 / 3, 1, 1, 1]),
                             ((-1150, 350, 0, 1), [126 / 1500, 0.1, 0.5, 1150 / 1500, 0.9, 1, 1])):
        options = forward.ForwardOptions(pad_id=0, mean=0.5, std=0.5, per_image=False, window=forward.Window(*window))
        seen = forward.normalise_images(values.reshape(1, 7, 1, 1, 1), options)
        assert seen.dtype == jnp.float32
        np.testing.assert_allclose(seen.ravel(), expected, atol=1e-6)
