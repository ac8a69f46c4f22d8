"""ViT image tower (Dosovitskiy et al., 2021, arXiv 2010.11929), with local variants for small data.

A global-attention ViT needs many images before its patch features stay at their place. Three switches make it local:
`stem` ("hybrid": 3 x 3 neighbourhoods while downsampling), `attention_window` (a patch attends to patches within that
distance only) and `depth=0` (no attention at all, so that the receptive field is that of the stem).
"""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from lgdea_jax.models import layers

VARIANTS: dict[str, dict[str, int]] = {
    "XXS": {"width": 32, "depth": 2, "heads": 2, "mlp_dim": 64},
    "XS": {"width": 64, "depth": 4, "heads": 4, "mlp_dim": 256},
    "Mu": {"width": 128, "depth": 6, "heads": 4, "mlp_dim": 512},
    "Ti": {"width": 192, "depth": 12, "heads": 3, "mlp_dim": 768},
    "S": {"width": 384, "depth": 12, "heads": 6, "mlp_dim": 1536},
    "M": {"width": 512, "depth": 12, "heads": 8, "mlp_dim": 2048},
    "B": {"width": 768, "depth": 12, "heads": 12, "mlp_dim": 3072},
    "L": {"width": 1024, "depth": 24, "heads": 16, "mlp_dim": 4096},
    "H": {"width": 1280, "depth": 32, "heads": 16, "mlp_dim": 5120},
}
STEMS = ("linear", "patch_mlp", "hybrid")
POOLS = ("gap", "cls", "map")


def sizes(variant: str, **overrides: int) -> dict[str, int]:
    """Sizes of a variant: "S/16" -> {width, depth, heads, mlp_dim, patch_size}; keyword arguments replace them.

    Raises:
      ValueError: unknown variant, malformed string or unknown override.
    """
    match = re.fullmatch(r"([A-Za-z]+)/(\d+)", variant)
    if not match or match[1] not in VARIANTS or int(match[2]) == 0:
        raise ValueError(f"unknown ViT variant {variant!r}; known: {', '.join(f'{name}/PATCH' for name in VARIANTS)}")
    result = {**VARIANTS[match[1]], "patch_size": int(match[2])}
    if unknown := sorted(set(overrides) - set(result)):
        raise ValueError(f"unknown ViT sizes {unknown}; known: {', '.join(result)}")
    return {**result, **overrides}


def resize_position_embedding(embedding: jax.Array, grid: tuple[int, int], new_grid: tuple[int, int]) -> jax.Array:
    """Bicubic interpolation of a position embedding [1, gh*gw, W] to [1, new_gh*new_gw, W] (another image size)."""
    _, length, width = embedding.shape
    if length != grid[0] * grid[1]:
        raise ValueError(f"a position embedding of {length} positions does not fit the grid {grid}")
    image = embedding.reshape(1, *grid, width)
    return jax.image.resize(image, (1, *new_grid, width), "bicubic").reshape(1, new_grid[0] * new_grid[1], width)


def window_mask(grid: tuple[int, int], window: int, *, cls_token: bool = False) -> np.ndarray:
    """bool [L, L], True where two patches are at most `window` rows and columns apart.

    With `cls_token` a first position is added: it attends to everything, and no patch attends to it, because that
    would let a patch see the whole image.
    """
    rows, columns = (axis.ravel() for axis in np.mgrid[: grid[0], : grid[1]])
    near = (np.abs(rows[:, None] - rows) <= window) & (np.abs(columns[:, None] - columns) <= window)
    if not cls_token:
        return near
    mask = np.zeros((len(near) + 1,) * 2, bool)
    mask[0], mask[1:, 1:] = True, near
    return mask


class Block(nnx.Module):
    """Pre-norm transformer block."""

    def __init__(self, width: int, heads: int, mlp_dim: int, *, dropout_rate: float, dtype: DTypeLike, rngs: nnx.Rngs):
        self.rate = dropout_rate
        self.attention_norm = layers.LayerNorm(width)
        self.attention = layers.Attention(width, heads, dropout_rate=dropout_rate, dtype=dtype, rngs=rngs)
        self.mlp_norm = layers.LayerNorm(width)
        self.mlp = layers.Mlp(width, mlp_dim, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array, mask: jax.Array | None, rng: jax.Array | None) -> jax.Array:
        keys = layers.split_key(rng, 3)
        y, _ = self.attention(self.attention_norm(x), mask=mask, rng=keys[0])
        x = x + layers.dropout(y, self.rate, keys[1])
        return x + layers.dropout(self.mlp(self.mlp_norm(x)), self.rate, keys[2])


class Stem(nnx.Module):
    """Pixels to patch features: [B, H, W, C] -> [B, gh, gw, width], gh = H / patch_size.

    - "linear": the patch as one vector, one matmul (the ViT paper; a reshape and a matmul are much faster than the
      equal convolution on XLA's CPU backend).
    - "patch_mlp": halves the resolution step by step (2 x 2 pixels to channels, dense, norm, GELU); a patch feature
      still depends on the pixels of its patch only.
    - "hybrid": the same with a 3 x 3 convolution at every step: small-data locality with some context, up to two
      patches to every side. The width doubles at every step up to `width`.
    """

    def __init__(self, kind: str, channels: int, patch_size: int, width: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        if kind not in STEMS:
            raise ValueError(f"unknown stem {kind!r}; known: {', '.join(STEMS)}")
        if kind != "linear" and (patch_size < 2 or patch_size & (patch_size - 1)):
            raise ValueError(f"stem {kind!r} needs a patch size that is a power of two, not {patch_size}")
        self.kind, self.patch_size, self.dtype = kind, patch_size, dtype
        steps, norms, channels_in = [], [], channels
        count = patch_size.bit_length() - 1 if kind != "linear" else 0
        for step in range(count):
            channels_out = max(width >> (count - 1 - step), min(width, 16))
            steps.append(layers.Conv(4 * channels_in, channels_out, 3 if kind == "hybrid" else 1, dtype=dtype,
                                     init=jax.nn.initializers.he_normal(), rngs=rngs))
            norms.append(layers.LayerNorm(channels_out))
            channels_in = channels_out
        self.steps, self.norms = nnx.List(steps), nnx.List(norms)
        self.out = layers.dense(channels_in if steps else patch_size**2 * channels, width, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x.astype(self.dtype)
        if self.kind == "linear":
            return self.out(layers.space_to_depth(x, self.patch_size))
        for step, norm in zip(self.steps, self.norms, strict=True):
            x = layers.gelu(norm(step(layers.space_to_depth(x, 2))))
        return self.out(x)


class AttentionPool(nnx.Module):
    """Pooling by one learned query (MAP head of Zhai et al., 2022): [B, L, W] -> [B, W]."""

    def __init__(self, width: int, heads: int, mlp_dim: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.probe = nnx.Param(layers.normal(0.02)(rngs.params(), (1, 1, width), jnp.float32))
        self.attention = layers.Attention(width, heads, dtype=dtype, rngs=rngs)
        self.norm = layers.LayerNorm(width)
        self.mlp = layers.Mlp(width, mlp_dim, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        probe = jnp.broadcast_to(self.probe[...].astype(x.dtype), (x.shape[0], 1, x.shape[-1]))
        y, _ = self.attention(probe, x)
        return (y + self.mlp(self.norm(y)))[:, 0]


class ViT(nnx.Module):
    """`(pooled, out) = ViT(**sizes("S/16"), image_size=224, rngs=rngs)(images)`."""

    def __init__(self, *, image_size: int | tuple[int, int], width: int, depth: int, heads: int, mlp_dim: int,
                 patch_size: int, rngs: nnx.Rngs, channels: int = 1, pool: str = "gap", stem: str = "linear",
                 attention_window: int = 0, position: bool = True, dropout_rate: float = 0.0,
                 dtype: DTypeLike = jnp.float32, remat: bool = False):
        """Args:
          image_size: side, or (height, width), in pixels; multiples of `patch_size`.
          width, depth, heads, mlp_dim, patch_size: see `sizes`; `depth=0` has no attention.
          channels: 1 grey, 3 RGB.
          pool: "gap" mean of the patches, "cls" a class token, "map" one learned query.
          stem: see `Stem`.
          attention_window: > 0: patches attend within that many rows and columns only; 0: everywhere.
          position: False leaves the learned position embedding out.
          dropout_rate: of attention weights and residual branches; needs `deterministic=False` and `rngs` in the call.
          remat: recompute the blocks in the backward pass.

        Raises:
          ValueError: sizes that do not fit each other, unknown `pool` or `stem`.
        """
        height, breadth = (image_size, image_size) if isinstance(image_size, int) else image_size
        if height % patch_size or breadth % patch_size:
            raise ValueError(f"image size {height} x {breadth} is not a multiple of the patch size {patch_size}")
        if pool not in POOLS:
            raise ValueError(f"unknown pool {pool!r}; known: {', '.join(POOLS)}")
        if pool == "cls" and depth == 0:
            raise ValueError("pool='cls' needs depth > 0: without attention the class token never sees the image")
        self.image_size, self.channels, self.width = (height, breadth), channels, width
        self.grid = (height // patch_size, breadth // patch_size)
        self.pool, self.attention_window, self.dtype, self.remat = pool, attention_window, dtype, remat
        self.rate = dropout_rate
        self.stem = Stem(stem, channels, patch_size, width, dtype=dtype, rngs=rngs)
        shape = (1, self.grid[0] * self.grid[1], width)
        self.position = nnx.Param(layers.normal(0.02)(rngs.params(), shape, jnp.float32)) if position else None
        self.cls = nnx.Param(jnp.zeros((1, 1, width), jnp.float32)) if pool == "cls" else None
        self.blocks = nnx.List([Block(width, heads, mlp_dim, dropout_rate=dropout_rate, dtype=dtype, rngs=rngs)
                                for _ in range(depth)])
        self.norm = layers.LayerNorm(width)
        self.head = AttentionPool(width, heads, mlp_dim, dtype=dtype, rngs=rngs) if pool == "map" else None

    def __call__(self, images: jax.Array, *, deterministic: bool = True,
                 rngs: nnx.Rngs | None = None) -> tuple[jax.Array, dict[str, Any]]:
        """Args: images: float [B, height, width, channels], normalised by the caller (about [-1, 1]).

        Returns:
          (pooled [B, W] float32, {"patches": [B, L, W] in the compute dtype, row by row from the top left,
          "grid": (gh, gw) static ints with gh * gw = L}).

        Raises:
          ValueError: images of another shape than the tower was made for.
        """
        if images.shape[1:] != (*self.image_size, self.channels):
            raise ValueError(f"images must be [B, {self.image_size[0]}, {self.image_size[1]}, {self.channels}], "
                             f"not {list(images.shape)}")
        keys = layers.dropout_keys(len(self.blocks), self.rate, deterministic, rngs)
        x = self.stem(images)
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        if self.position is not None:
            x = x + self.position[...].astype(x.dtype)
        if self.cls is not None:
            x = jnp.concatenate([jnp.broadcast_to(self.cls[...].astype(x.dtype), (x.shape[0], 1, self.width)), x], 1)
        mask = None
        if self.attention_window > 0:
            mask = jnp.asarray(window_mask(self.grid, self.attention_window, cls_token=self.cls is not None))
        for block, key in zip(self.blocks, keys, strict=True):
            x = layers.call(block, x, mask, key, remat=self.remat)
        x = self.norm(x)
        if self.pool == "cls":
            pooled, x = x[:, 0], x[:, 1:]
        elif self.pool == "map":
            pooled = self.head(x)
        else:
            pooled = jnp.mean(x, axis=1, dtype=jnp.float32)
        return pooled.astype(jnp.float32), {"patches": x, "grid": self.grid}
