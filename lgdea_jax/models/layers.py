"""Layers that the towers share: dense, norms, attention, convolution, dropout, rematerialisation.

Parameters are always float32; `dtype` is the dtype of the matmuls and of the activations between them (float32 or
bfloat16). Norms, softmax and pooling are computed in float32. What half precision changes beside its rounding is in
`half`. Random numbers are arguments, and batch norm's moving moments are the only state that a call changes: under
`nnx.split` / `nnx.merge` a model is a pure function.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from lgdea_jax.models import half

XAVIER = jax.nn.initializers.xavier_uniform()
HE_FAN_OUT = jax.nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def normal(stddev: float) -> Callable[..., jax.Array]:
    """The initialiser N(0, stddev^2)."""
    return jax.nn.initializers.normal(stddev)


class Dense(nnx.Linear):
    """`nnx.Linear` with the gradient of the bias in float32.

    It is a sum over all tokens. With flax's layer it is a sum in the dtype of the activations: on a CPU the bfloat16
    sum of 64 x 64 ones is 1,024.
    """

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.product(x)
        if self.bias is None:
            return y
        return half.add_bias(y, self.bias[...]) if half.is_half(y.dtype) else y + self.bias[...]

    def product(self, x: jax.Array) -> jax.Array:
        """x [..., din] times the kernel, without the bias."""
        x, kernel = self.promote_dtype((x, self.kernel[...]), dtype=self.dtype)
        return jnp.dot(x, kernel)


def dense(din: int, dout: int, *, rngs: nnx.Rngs, dtype: DTypeLike = jnp.float32, bias: bool = True,
          init: Callable[..., jax.Array] = XAVIER) -> Dense:
    """A dense layer `x [..., din] -> [..., dout]` with float32 `kernel` [din, dout] and `bias` [dout] (zeros)."""
    return Dense(din, dout, use_bias=bias, dtype=dtype, param_dtype=jnp.float32, kernel_init=init, rngs=rngs)


# The norms are those of flax, with the result in the dtype of the input. Their parameters start as constants, so they
# draw no key from the model's random numbers.


def _scale_init(zero: bool) -> Callable[..., jax.Array]:
    return jax.nn.initializers.zeros if zero else jax.nn.initializers.ones


class LayerNorm(nnx.LayerNorm):
    """Layer norm over the last axis (Ba et al., 2016): float32 inside, the result in the dtype of the input."""

    def __init__(self, width: int, *, eps: float = 1e-6):
        super().__init__(width, epsilon=eps, use_fast_variance=False, rngs=nnx.Rngs(0))

    def __call__(self, x: jax.Array) -> jax.Array:
        if half.is_half(x.dtype):
            return half.layer_norm(x, self.scale[...], self.bias[...], self.epsilon)
        return super().__call__(x).astype(x.dtype)


class GroupNorm(nnx.GroupNorm):
    """Group norm (Wu & He, 2018) of `[B, ..., C]` over the positions and the channels of a group; float32 inside."""

    def __init__(self, channels: int, *, group_size: int = 16, eps: float = 1e-5, zero_scale: bool = False):
        """Args: group_size: channels of a group, lowered to the greatest common divisor with `channels`."""
        super().__init__(channels, num_groups=channels // math.gcd(channels, group_size), epsilon=eps,
                         scale_init=_scale_init(zero_scale), rngs=nnx.Rngs(0))

    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`train` is accepted so that norms are called alike; it changes nothing."""
        del train
        return super().__call__(x).astype(x.dtype)


class BatchNorm(nnx.BatchNorm):
    """Batch norm (Ioffe & Szegedy, 2015) of `[B, ..., C]` over the batch and the positions; float32 inside.

    In training the moments are those of the whole (global) batch and the moving ones (`mean`, `var`) are updated in
    place: `training.step` takes them out of the model again. Elsewhere the moving moments are used, and in training
    where `frozen` is set: a tower that does not learn gives what it gave.
    """

    def __init__(self, channels: int, *, momentum: float = 0.9, eps: float = 1e-5, zero_scale: bool = False):
        """Args: momentum: share of the old moving moments that a training step keeps."""
        super().__init__(channels, momentum=momentum, epsilon=eps, scale_init=_scale_init(zero_scale),
                         rngs=nnx.Rngs(0))
        self.frozen = False

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        return super().__call__(x, use_running_average=not train or self.frozen).astype(x.dtype)


def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Inverted dropout; the identity when `rate` is 0 or `key` is None."""
    return nnx.Dropout(rate)(x, deterministic=key is None, rngs=key)


def dropout_keys(count: int, rate: float, deterministic: bool, rngs: nnx.Rngs | None) -> Sequence[jax.Array | None]:
    """`count` keys for `dropout` from the stream `rngs.dropout`, or Nones when nothing is dropped.

    Raises:
      ValueError: dropout is asked for without `rngs`.
    """
    if deterministic or rate == 0.0:
        return [None] * count
    if rngs is None:
        raise ValueError("dropout with deterministic=False needs rngs=nnx.Rngs(dropout=key)")
    return list(jax.random.split(rngs.dropout(), count)) if count else []


def split_key(key: jax.Array | None, count: int) -> Sequence[jax.Array | None]:
    """`count` keys from one, or Nones from None."""
    return [None] * count if key is None else list(jax.random.split(key, count))


class Attention(nnx.Module):
    """Multi-head attention from `x [B, Tq, width]` to `source [B, Tk, source_width]` (`x` itself by default)."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs, source_width: int | None = None,
                 dtype: DTypeLike = jnp.float32, dropout_rate: float = 0.0, init: Callable[..., jax.Array] = XAVIER):
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of {heads} heads")
        source_width = source_width or width
        self.heads = heads
        self.rate = dropout_rate
        self.query = dense(width, width, dtype=dtype, init=init, rngs=rngs)
        self.key = dense(source_width, width, dtype=dtype, init=init, rngs=rngs)
        self.value = dense(source_width, width, dtype=dtype, init=init, rngs=rngs)
        self.out = dense(width, width, dtype=dtype, init=init, rngs=rngs)

    def __call__(self, x: jax.Array, source: jax.Array | None = None, mask: jax.Array | None = None,
                 rng: jax.Array | None = None, *, keys: int = 0) -> jax.Array:
        """[B, Tq, width] -> [B, Tq, width], the softmax in float32.

        Args:
          x, source: see above.
          mask: bool, broadcastable to [B, heads, Tq, Tk], True where attention is allowed. A query with nothing allowed
            gets uniform weights, never NaN.
          rng: key of the dropout of the weights; None drops nothing.
          keys: the first so many rows of `source` are attended to, the rest is padding; 0: all.
        """
        source = x if source is None else source
        keys = keys or source.shape[1]

        def split(y: jax.Array) -> jax.Array:
            return y.reshape(*y.shape[:-1], self.heads, y.shape[-1] // self.heads)

        query, key, value = split(self.query(x)), split(self.key(source)), split(self.value(source))
        if rng is None and half.is_half(query.dtype):
            mixed = half.attend(query, key, value, mask, keys)
            return self.out(mixed.reshape(*x.shape[:-1], -1))
        if keys < source.shape[1]:
            real = jnp.arange(source.shape[1]) < keys
            mask = real[None, None, None] if mask is None else mask & real
        if rng is None:
            mixed = jax.nn.dot_product_attention(query, key, value, mask=mask)
        else:  # Neither JAX's nor flax's attention drops weights that were made in float32.
            weights = dropout(_attention_weights(query, key, mask), self.rate, rng)
            mixed = jnp.einsum("bhqk,bkhd->bqhd", weights.astype(value.dtype), value)
        return self.out(mixed.reshape(*x.shape[:-1], -1))


def _attention_weights(query: jax.Array, key: jax.Array, mask: jax.Array | None) -> jax.Array:
    """[B, Tq, H, D], [B, Tk, H, D] -> float32 [B, H, Tq, Tk], rows sum to 1; `mask` as in `Attention`."""
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
    scores = scores * (query.shape[-1] ** -0.5)
    return jax.nn.softmax(scores if mask is None else jnp.where(mask, scores, half.MASKED), axis=-1)


def quick_gelu(x: jax.Array) -> jax.Array:
    """The approximation x sigmoid(1.702 x) that the first CLIP models were trained with; not interchangeable."""
    return x * jax.nn.sigmoid(1.702 * x)


gelu = functools.partial(jax.nn.gelu, approximate=False)  # x (1 + erf(x / sqrt 2)) / 2
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {"gelu": gelu, "quick_gelu": quick_gelu}


class Mlp(nnx.Module):
    """Dense, exact GELU (or another of `ACTIVATIONS`), dense: `[..., width] -> [..., dout]`."""

    def __init__(self, width: int, hidden: int, *, rngs: nnx.Rngs, dout: int | None = None, activation: str = "gelu",
                 dtype: DTypeLike = jnp.float32, init: Callable[..., jax.Array] = XAVIER):
        self.activation = activation
        self.up = dense(width, hidden, dtype=dtype, init=init, rngs=rngs)
        self.down = dense(hidden, dout or width, dtype=dtype, init=init, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        function, hidden = ACTIVATIONS[self.activation], self.up.product(x)
        if half.is_half(hidden.dtype):
            return self.down(half.activate(function, hidden, self.up.bias[...]))
        return self.down(function(hidden + self.up.bias[...]))


class SwiGlu(nnx.Module):
    """Gated feed-forward, down(silu(gate(x)) * up(x)) (Shazeer, 2020): `[..., width] -> [..., width]`."""

    def __init__(self, width: int, hidden: int, *, rngs: nnx.Rngs, dtype: DTypeLike = jnp.float32):
        self.gate = dense(width, hidden, dtype=dtype, rngs=rngs)
        self.up = dense(width, hidden, dtype=dtype, rngs=rngs)
        self.down = dense(hidden, width, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.down(jax.nn.silu(self.gate(x)) * self.up(x))


def space_to_depth(x: jax.Array, size: int) -> jax.Array:
    """[B, H, W, C] -> [B, H/size, W/size, size*size*C]: the pixels of a patch, row by row, as channels.

    Raises:
      ValueError: a side is not a multiple of `size`.
    """
    batch, height, width, channels = x.shape
    if height % size or width % size:
        raise ValueError(f"image of {height} x {width} does not divide into patches of {size} x {size}")
    x = x.reshape(batch, height // size, size, width // size, size, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // size, width // size, size * size * channels)


def conv(cin: int, cout: int, kernel_size: int, *, rngs: nnx.Rngs, stride: int = 1, dtype: DTypeLike = jnp.float32,
         init: Callable[..., jax.Array] = HE_FAN_OUT) -> nnx.Conv:
    """A square 2D convolution [B, H, W, cin] -> [B, ceil(H / stride), ceil(W / stride), cout] without bias.

    Zero padding of `kernel_size // 2` as in torch, `kernel` [k, k, cin, cout] float32; `kernel_size` is odd.
    """
    return nnx.Conv(cin, cout, (kernel_size, kernel_size), strides=stride, padding=kernel_size // 2, use_bias=False,
                    dtype=dtype, param_dtype=jnp.float32, kernel_init=init, rngs=rngs)


# What rematerialisation keeps of a block: nothing but its input; its products of activations with parameters (the most
# expensive part, some widths a token, without the attention's products, which grow with the square of the tokens); all.
REMAT: dict[str, Callable[..., bool]] = {
    "nothing": jax.checkpoint_policies.nothing_saveable,
    "products": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "all_products": jax.checkpoint_policies.dots_saveable,
}


def call(block: nnx.Module, *args: jax.Array | None, remat: bool | str, **static: int) -> jax.Array:
    """`block(*args, **static)`; with `remat`, a name of REMAT, its activations are recomputed in the backward pass but
    for those that the policy keeps; True is "nothing"; False stores them all."""
    if not remat:
        return block(*args, **static)
    graphdef, state = nnx.split(block)
    policy = REMAT["nothing" if remat is True else remat]
    return jax.checkpoint(lambda state, *args: nnx.merge(graphdef, state)(*args, **static), policy=policy)(state, *args)


def call_in_turn(blocks: Sequence[nnx.Module], x: jax.Array, *args: jax.Array | None,
                 keys: Sequence[jax.Array | None], remat: bool | str, scan: bool, **static: int) -> jax.Array:
    """`x` through `blocks` in turn: each is called with (x, *args, key, **static); `remat` as in `call`.

    With `scan`, one block is compiled and run with the parameters of each: the program is smaller by the number of
    blocks, and so is the time that compilation takes. The parameters are copied, a small part of what a step moves.

    Args:
      blocks: of equal structure, if `scan`; keys: one each, all of them None or none.
    """
    if not scan or len(blocks) < 2:
        for block, key in zip(blocks, keys, strict=True):
            x = call(block, x, *args, key, remat=remat, **static)
        return x
    graphdefs, states = zip(*map(nnx.split, blocks), strict=True)
    each = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states), None if keys[0] is None else jnp.stack(keys)

    def body(x: jax.Array, part: tuple[Any, jax.Array | None]) -> tuple[jax.Array, None]:
        return call(nnx.merge(graphdefs[0], part[0]), x, *args, part[1], remat=remat, **static), None

    return jax.lax.scan(body, x, each)[0]
