"""ViT image tower (Dosovitskiy et al., 2021, arXiv 2010.11929), with local variants for small data.

A global-attention ViT needs many images before its patch features stay local. Three switches make it local:
`stem` ("hybrid": 3 x 3 neighbourhoods while downsampling), `attention_window` (a patch attends to patches within that
distance only) and `depth=0` (no attention at all, so that the receptive field is that of the stem).

`family` gives the blocks the details of a published model, so that its weights fit (see `pretrained`).
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from lgdea_jax.models import half, layers

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
    "g": {"width": 1536, "depth": 40, "heads": 24, "mlp_dim": 4096},  # DINOv2's giant, with mlp="swiglu".
}
STEMS = ("linear", "patch_mlp", "hybrid")
POOLS = ("gap", "cls", "map", "pooler")
MLPS = (*layers.ACTIVATIONS, "swiglu")


@dataclasses.dataclass(frozen=True)
class Family:
    """What distinguishes the published ViTs from each other, sizes apart.

    Attributes:
      class_token: a learned token before the patches; pool="cls" and "pooler" bring one anyway.
      registers: learned tokens between class token and patches (Darcet et al., 2024); DeiT's distillation token is one.
      layer_scale: a learned factor a channel on every residual branch (Touvron et al., 2021).
      input_norm: a norm between the embedding and the first block.
      patch_bias: of the patch embedding.
      mlp: "gelu", "quick_gelu" or "swiglu".
      eps: of the layer norms.
    """

    class_token: bool = True
    registers: int = 0
    layer_scale: bool = False
    input_norm: bool = False
    patch_bias: bool = True
    mlp: str = "gelu"
    eps: float = 1e-6


FAMILIES: dict[str, Family] = {
    "plain": Family(class_token=False),
    "vit": Family(eps=1e-12),  # Hugging Face's; timm's has eps=1e-6.
    "deit": Family(registers=1, eps=1e-12),
    "dinov2": Family(layer_scale=True),  # RAD-DINO is one.
    "dinov2_registers": Family(layer_scale=True, registers=4),
    "openclip": Family(input_norm=True, patch_bias=False, eps=1e-5),
    "openclip_quickgelu": Family(input_norm=True, patch_bias=False, eps=1e-5, mlp="quick_gelu"),  # OpenAI's weights.
}


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


def window_mask(grid: tuple[int, int], window: int, *, prefix: int = 0) -> np.ndarray:
    """bool [prefix + L, prefix + L], True where two patches are at most `window` rows and columns apart.

    The `prefix` positions before the patches (class token, registers) attend to everything, and no patch attends to
    them: a patch would then depend on the whole image.
    """
    rows, columns = (axis.ravel() for axis in np.mgrid[: grid[0], : grid[1]])
    near = (np.abs(rows[:, None] - rows) <= window) & (np.abs(columns[:, None] - columns) <= window)
    mask = np.zeros((prefix + len(near),) * 2, bool)
    mask[:prefix], mask[prefix:, prefix:] = True, near
    return mask


class Block(nnx.Module):
    """Pre-norm transformer block; `mlp`, `eps`, `layer_scale` as in `Family`."""

    def __init__(self, width: int, heads: int, mlp_dim: int, *, dropout_rate: float, dtype: DTypeLike, rngs: nnx.Rngs,
                 mlp: str = "gelu", eps: float = 1e-6, layer_scale: bool = False):
        self.rate = dropout_rate
        self.attention_norm = layers.LayerNorm(width, eps=eps)
        self.attention = layers.Attention(width, heads, dropout_rate=dropout_rate, dtype=dtype, rngs=rngs)
        self.mlp_norm = layers.LayerNorm(width, eps=eps)
        if mlp == "swiglu":
            self.mlp = layers.SwiGlu(width, mlp_dim, dtype=dtype, rngs=rngs)
        else:
            self.mlp = layers.Mlp(width, mlp_dim, activation=mlp, dtype=dtype, rngs=rngs)
        self.attention_scale = nnx.Param(jnp.ones((width,), jnp.float32)) if layer_scale else None
        self.mlp_scale = nnx.Param(jnp.ones((width,), jnp.float32)) if layer_scale else None

    def __call__(self, x: jax.Array, mask: jax.Array | None, rng: jax.Array | None, tokens: int = 0) -> jax.Array:
        """x [B, T, width], of which the first `tokens` are attended to (0: all)."""
        keys = layers.split_key(rng, 3)

        def scaled(y: jax.Array, scale: nnx.Param | None) -> jax.Array:
            return y if scale is None else y * scale[...].astype(y.dtype)

        y = self.attention(self.attention_norm(x), mask=mask, rng=keys[0], keys=tokens)
        x = x + layers.dropout(scaled(y, self.attention_scale), self.rate, keys[1])
        return x + layers.dropout(scaled(self.mlp(self.mlp_norm(x)), self.mlp_scale), self.rate, keys[2])


class Stem(nnx.Module):
    """Pixels to patch features: [B, H, W, C] -> [B, gh, gw, width], gh = H / patch_size.

    - "linear": the patch as one vector, one matmul (the ViT paper; a reshape and a matmul are much faster than the
      equal convolution on XLA's CPU backend).
    - "patch_mlp": halves the resolution step by step (2 x 2 pixels to channels, dense, norm, GELU); a patch feature
      still depends on the pixels of its patch only.
    - "hybrid": the same with a 3 x 3 convolution at every step: small-data locality with some context, up to two
      patches to every side. The width doubles at every step up to `width`.
    """

    def __init__(self, kind: str, channels: int, patch_size: int, width: int, *, dtype: DTypeLike, rngs: nnx.Rngs,
                 bias: bool = True):
        if kind not in STEMS:
            raise ValueError(f"unknown stem {kind!r}; known: {', '.join(STEMS)}")
        if kind != "linear" and (patch_size < 2 or patch_size & (patch_size - 1)):
            raise ValueError(f"stem {kind!r} needs a patch size that is a power of two, not {patch_size}")
        self.kind, self.patch_size, self.dtype = kind, patch_size, dtype
        steps, norms, channels_in = [], [], channels
        count = patch_size.bit_length() - 1 if kind != "linear" else 0
        for step in range(count):
            channels_out = max(width >> (count - 1 - step), min(width, 16))
            steps.append(layers.conv(4 * channels_in, channels_out, 3 if kind == "hybrid" else 1, dtype=dtype,
                                     init=jax.nn.initializers.he_normal(), rngs=rngs))
            norms.append(layers.LayerNorm(channels_out))
            channels_in = channels_out
        self.steps, self.norms = nnx.List(steps), nnx.List(norms)
        self.out = layers.dense(channels_in if steps else patch_size**2 * channels, width, bias=bias, dtype=dtype,
                                rngs=rngs)

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
        y = self.attention(probe, x)
        return (y + self.mlp(self.norm(y)))[:, 0]


class ViT(nnx.Module):
    """`(pooled, out) = ViT(**sizes("S/16"), image_size=224, rngs=rngs)(images)`.

    Attributes:
      width: channels of `pooled` and of the patches.
      features: channels of the blocks; `width` unless there is a `projection`.
      prefix: tokens before the patches.
      offset: pixels by which the patches lie right of and below the middle of their cells; always 0.
    """

    def __init__(self, *, image_size: int | tuple[int, int], width: int, depth: int, heads: int, mlp_dim: int,
                 patch_size: int, rngs: nnx.Rngs, channels: int = 1, pool: str = "gap", stem: str = "linear",
                 attention_window: int = 0, position: bool = True, dropout_rate: float = 0.0,
                 family: str = "plain", mlp: str = "", eps: float = 0.0, projection: int = 0,
                 dtype: DTypeLike = jnp.float32, remat: bool | str = False, scan: bool = False):
        """Args:
          image_size: side, or (height, width), in pixels; multiples of `patch_size`.
          width, depth, heads, mlp_dim, patch_size: see `sizes`; `depth=0` has no attention.
          channels: 1 grey, 3 RGB.
          pool: "gap" mean of the patches, "cls" a class token, "map" one learned query over the patches, "pooler"
            tanh(dense(class token)).
          stem: see `Stem`.
          attention_window: > 0: patches attend within that many rows and columns only; 0: everywhere.
          position: False leaves the learned position embedding out.
          dropout_rate: of attention weights and residual branches; needs `deterministic=False` and `rngs` in the call.
          family: one of FAMILIES; `mlp` and `eps`, where given, replace the family's.
          projection: > 0: a last linear layer without bias of that width on `pooled` and on the patches (the shared
            space of a CLIP model).
          remat: recompute the blocks in the backward pass, or all but what a name of `layers.REMAT` keeps.
          scan: compile one block for all, see `layers.call_in_turn`.

        Raises:
          ValueError: sizes that do not fit each other, unknown `pool`, `stem`, `family` or `mlp`.
        """
        height, breadth = (image_size, image_size) if isinstance(image_size, int) else image_size
        if height % patch_size or breadth % patch_size:
            raise ValueError(f"image size {height} x {breadth} is not a multiple of the patch size {patch_size}")
        if pool not in POOLS:
            raise ValueError(f"unknown pool {pool!r}; known: {', '.join(POOLS)}")
        for name, value, known in (("family", family, FAMILIES), ("mlp", mlp or "gelu", MLPS)):
            if value not in known:
                raise ValueError(f"unknown {name} {value!r}; known: {', '.join(known)}")
        if pool in ("cls", "pooler") and depth == 0:
            raise ValueError(f"pool={pool!r} needs depth > 0: without attention the class token does not depend on the "
                             "image")
        kind = FAMILIES[family]
        eps, mlp = eps or kind.eps, mlp or kind.mlp
        class_token = kind.class_token or pool in ("cls", "pooler")
        self.image_size, self.channels, self.features = (height, breadth), channels, width
        self.width, self.projection_width = projection or width, projection
        self.family, self.mlp, self.eps, self.heads, self.mlp_dim = family, mlp, eps, heads, mlp_dim
        self.patch_size, self.stem_kind, self.offset = patch_size, stem, 0.0
        self.grid = (height // patch_size, breadth // patch_size)
        self.pool, self.attention_window, self.dtype, self.remat = pool, attention_window, dtype, remat
        self.rate, self.scan = dropout_rate, scan
        self.stem = Stem(stem, channels, patch_size, width, bias=kind.patch_bias, dtype=dtype, rngs=rngs)
        shape = (1, self.grid[0] * self.grid[1], width)
        self.position = nnx.Param(layers.normal(0.02)(rngs.params(), shape, jnp.float32)) if position else None
        self.cls = nnx.Param(jnp.zeros((1, 1, width), jnp.float32)) if class_token else None
        shape = (1, kind.registers, width)
        self.registers = nnx.Param(layers.normal(0.02)(rngs.params(), shape, jnp.float32)) if kind.registers else None
        self.prefix = int(class_token) + kind.registers
        self.input_norm = layers.LayerNorm(width, eps=eps) if kind.input_norm else None
        self.blocks = nnx.List([Block(width, heads, mlp_dim, dropout_rate=dropout_rate, mlp=mlp, eps=eps,
                                      layer_scale=kind.layer_scale, dtype=dtype, rngs=rngs) for _ in range(depth)])
        self.norm = layers.LayerNorm(width, eps=eps)
        self.head = AttentionPool(width, heads, mlp_dim, dtype=dtype, rngs=rngs) if pool == "map" else None
        self.pooler = layers.dense(width, width, dtype=dtype, rngs=rngs) if pool == "pooler" else None
        self.projection = layers.dense(width, projection, bias=False, dtype=dtype, rngs=rngs) if projection else None

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
        tokens = [token[...].astype(x.dtype) for token in (self.cls, self.registers) if token is not None]
        tokens = [jnp.broadcast_to(token, (x.shape[0], *token.shape[1:])) for token in tokens]
        count = sum(part.shape[1] for part in (*tokens, x))
        spare = -count % half.TILE if half.is_half(x.dtype) and len(self.blocks) else 0  # For fused attention.
        tokens = [*tokens, x, *([jnp.zeros((x.shape[0], spare, x.shape[-1]), x.dtype)] if spare else [])]
        x = jnp.concatenate(tokens, axis=1) if len(tokens) > 1 else x
        x = x if self.input_norm is None else self.input_norm(x)
        mask = None
        if self.attention_window > 0:
            mask = window_mask(self.grid, self.attention_window, prefix=self.prefix)
            mask = jnp.asarray(np.pad(mask, (0, spare))[None, None])
        x = layers.call_in_turn(self.blocks, x, mask, keys=keys, remat=self.remat, scan=self.scan, tokens=count)
        x = self.norm(x)
        first, x = x[:, 0], x[:, self.prefix:count]
        if self.pool == "cls":
            pooled = first
        elif self.pool == "pooler":
            pooled = jnp.tanh(self.pooler(first))
        elif self.pool == "map":
            pooled = self.head(x)
        else:
            pooled = jnp.mean(x, axis=1, dtype=jnp.float32)
        if self.projection is not None:
            pooled, x = self.projection(pooled), self.projection(x)
        return pooled.astype(jnp.float32), {"patches": x, "grid": self.grid}
