"""Parts of layers in half precision that move few bytes: attention, layer norm, biases, activations.

On accelerators these parts are bound by memory, and what autodiff keeps for the backward pass is most of what they
move: float32 scores [B, H, T, T] of attention, several arrays as wide as the hidden layer of an MLP. Here the backward
pass is given the inputs and float32 statistics of rows, and computes the rest again. Sums (of softmax, moments,
gradients of parameters) are float32. In float32 the layers leave all of this to autodiff.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

# Where a mask forbids attention: finite, so that a row that is masked everywhere gives a uniform softmax and no NaN.
MASKED = float(jnp.finfo(jnp.float32).min)
# cuDNN wants even lengths, and matrix units work on 8 rows at a time.
TILE = 8
# Flash attention of cuDNN needs tensor cores of bfloat16.
OLDEST_COMPUTE_CAPABILITY = 8.0


def is_half(dtype: jax.typing.DTypeLike) -> bool:
    """Whether layers of this dtype use the parts of this module."""
    return jnp.dtype(dtype).itemsize == 2


def _column_sums(x: jax.Array) -> jax.Array:
    """float32 [C] of [..., C]. Flat: XLA reduces several leading axes by way of a transposed copy."""
    return jnp.sum(x.reshape(-1, x.shape[-1]), axis=0, dtype=jnp.float32)


@jax.custom_vjp
def add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    """x [..., C] + bias [C] in the dtype of x, which a matrix product does on its way out; the gradient of the bias is
    a float32 sum."""
    return x + bias.astype(x.dtype)


add_bias.defvjp(lambda x, bias: (add_bias(x, bias), None), lambda _, grad: (grad, _column_sums(grad)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def activate(function: Callable[[jax.Array], jax.Array], x: jax.Array, bias: jax.Array) -> jax.Array:
    """function(x + bias) of an elementwise function, float32 inside; kept are x and the bias alone."""
    return function(x.astype(jnp.float32) + bias).astype(x.dtype)


def _activate_back(function: Callable[[jax.Array], jax.Array], kept: tuple, grad: jax.Array) -> tuple:
    # Without the barrier XLA finds that parts were computed before, and keeps those.
    x, bias = jax.lax.optimization_barrier(kept)
    inner = x.astype(jnp.float32) + bias
    _, slope = jax.jvp(function, (inner,), (jnp.ones_like(inner),))
    # And without this one it writes the product in float32, for the sum.
    grad = jax.lax.optimization_barrier((grad * slope).astype(x.dtype))
    return grad, _column_sums(grad)


activate.defvjp(lambda function, x, bias: (activate(function, x, bias), (x, bias)), _activate_back)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, eps: float) -> jax.Array:
    """Layer norm of x [..., C] over C, with float32 `scale` and `bias` [C]; the result in the dtype of x."""
    return _layer_norm(x, scale, bias, eps)[0]


def _layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, eps: float) -> tuple[jax.Array, tuple]:
    flat = x.reshape(-1, x.shape[-1]).astype(jnp.float32)
    mean = jnp.mean(flat, axis=1, keepdims=True)
    rate = jax.lax.rsqrt(jnp.mean(jnp.square(flat - mean), axis=1, keepdims=True) + eps)
    out = (flat - mean) * rate * scale + bias
    return out.astype(x.dtype).reshape(x.shape), (x, scale, mean, rate)


def _layer_norm_back(eps: float, kept: tuple, grad: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, scale, mean, rate = kept
    flat, grad = (y.reshape(-1, y.shape[-1]).astype(jnp.float32) for y in (x, grad))
    normal, scaled = (flat - mean) * rate, grad * scale
    out = rate * (scaled - jnp.mean(scaled, axis=1, keepdims=True)
                  - normal * jnp.mean(scaled * normal, axis=1, keepdims=True))
    # Products in the dtype of x: in float32 they would be the largest array of the backward pass.
    return (out.astype(x.dtype).reshape(x.shape), _column_sums((grad * normal).astype(x.dtype)), _column_sums(grad))


layer_norm.defvjp(_layer_norm, _layer_norm_back)


def attend(query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array | None, keys: int) -> jax.Array:
    """Attention of query [B, Tq, H, D] to key and value [B, Tk, H, D].

    On GPUs by cuDNN's flash attention where it is installed and takes the shapes (lengths and D multiples of 8, D at
    most 128); elsewhere by `plain`.

    Args:
      mask: bool, broadcastable to [B, H, Tq, Tk], True where attention is allowed; None allows the first `keys` keys.
      keys: number of keys that are none of the padding behind them.
    """
    if mask is not None and keys < key.shape[1]:
        mask, keys = mask & (jnp.arange(key.shape[1]) < keys), key.shape[1]

    def default(query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array | None) -> jax.Array:
        if mask is None and keys < key.shape[1]:
            mask = (jnp.arange(key.shape[1]) < keys)[None, None, None]
        return plain(query, key, value, mask)

    def cudnn(query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array | None) -> jax.Array:
        lengths = None
        if mask is not None:
            mask = jnp.broadcast_to(mask, (*mask.shape[:2], query.shape[1], key.shape[1]))
        elif keys < key.shape[1]:
            lengths = jnp.full(len(key), keys, jnp.int32)
        return jax.nn.dot_product_attention(query, key, value, mask=mask, key_value_seq_lengths=lengths,
                                            implementation="cudnn")

    sides = (query.shape[1], key.shape[1], query.shape[3])
    if any(side % TILE for side in sides) or query.shape[3] > 128 or not _has_cudnn():
        return default(query, key, value, mask)
    return jax.lax.platform_dependent(query, key, value, mask, cuda=cudnn, default=default)


@functools.cache
def _has_cudnn() -> bool:
    """Whether JAX finds cuDNN, and no GPU at hand is too old for its attention."""
    if any(float(device.compute_capability) < OLDEST_COMPUTE_CAPABILITY for device in jax.local_devices()
           if device.platform == "gpu"):
        return False
    heads = jax.ShapeDtypeStruct((1, TILE, 1, TILE), jnp.bfloat16)
    try:
        jax.eval_shape(functools.partial(jax.nn.dot_product_attention, implementation="cudnn"), heads, heads, heads)
    except RuntimeError:  # JAX says so: cuDNN is not detected, or not found.
        return False
    return True


@jax.custom_vjp
def plain(query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array | None) -> jax.Array:
    """`attend` as matrix products and a softmax.

    Scores and weights [B, H, Tq, Tk] are in the dtype of the query, and made again in the backward pass; maxima and
    sums of a row are float32.
    """
    return _plain(query, key, value, mask)[0]


def _scores(query: jax.Array, key: jax.Array, mask: jax.Array | None) -> jax.Array:
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key).astype(jnp.float32) * query.shape[-1] ** -0.5
    return scores if mask is None else jnp.where(mask, scores, MASKED)


def _plain(query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array | None) -> tuple[jax.Array, tuple]:
    scores = _scores(query, key, mask)
    most = jnp.max(scores, axis=-1, keepdims=True)
    weights = jnp.exp(scores - most)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    out = jnp.einsum("bhqk,bkhd->bqhd", (weights / total).astype(value.dtype), value)
    return out, (query, key, value, mask, most, total, out)


def _plain_back(kept: tuple, grad: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, None]:
    # Without the barrier XLA finds that the scores were computed before, and keeps those.
    query, key, value, mask, most, total, out = jax.lax.optimization_barrier(kept)
    weights = (jnp.exp(_scores(query, key, mask) - most) / total).astype(value.dtype)
    of_weights = jnp.einsum("bqhd,bkhd->bhqk", grad, value).astype(jnp.float32)
    mean = jnp.einsum("bqhd,bqhd->bhq", grad, out, preferred_element_type=jnp.float32)[..., None]
    of_scores = weights.astype(jnp.float32) * (of_weights - mean) * query.shape[-1] ** -0.5
    of_scores = (of_scores if mask is None else jnp.where(mask, of_scores, 0.0)).astype(query.dtype)
    return (jnp.einsum("bhqk,bkhd->bqhd", of_scores, key), jnp.einsum("bhqk,bqhd->bkhd", of_scores, query),
            jnp.einsum("bhqk,bqhd->bkhd", weights, grad), None)


plain.defvjp(_plain, _plain_back)
