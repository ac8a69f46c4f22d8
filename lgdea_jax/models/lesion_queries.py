"""Lesion queries: learned vectors that gather lesion-level features from the patches of an image.

LGDEA (arXiv 2602.07540) speaks of lesion-level visual features v_l; here they are the outputs of Q learned queries
that cross-attend to the patch tokens, as in a DETR decoder (Carion et al., 2020) without self-attention among them.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from lgdea_jax.models import layers


class Layer(nnx.Module):
    """Cross-attention to the patches and an MLP, pre-norm, residual."""

    def __init__(self, width: int, patch_width: int, heads: int, mlp_dim: int, *, dropout_rate: float,
                 dtype: DTypeLike, rngs: nnx.Rngs):
        self.rate = dropout_rate
        self.query_norm, self.patch_norm = layers.LayerNorm(width), layers.LayerNorm(patch_width)
        self.attention = layers.Attention(width, heads, source_width=patch_width, dropout_rate=dropout_rate,
                                          dtype=dtype, rngs=rngs)
        self.mlp_norm = layers.LayerNorm(width)
        self.mlp = layers.Mlp(width, mlp_dim, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array, patches: jax.Array, mask: jax.Array | None,
                 rng: jax.Array | None) -> jax.Array:
        keys = layers.split_key(rng, 3)
        y = self.attention(self.query_norm(x), self.patch_norm(patches), mask, keys[0])
        x = x + layers.dropout(y, self.rate, keys[1])
        return x + layers.dropout(self.mlp(self.mlp_norm(x)), self.rate, keys[2])


class LesionQueries(nnx.Module):
    """`lesions = LesionQueries(8, width=64, patch_width=64, heads=4, rngs=rngs)(patches)`."""

    def __init__(self, num: int, *, width: int, patch_width: int, heads: int, rngs: nnx.Rngs, depth: int = 1,
                 mlp_dim: int | None = None, dropout_rate: float = 0.0, dtype: DTypeLike = jnp.float32):
        """Args:
          num: the number of queries Q; width: theirs; patch_width: that of the patches; depth: layers, at least 1.
          mlp_dim: 4 x width by default.

        Raises:
          ValueError: fewer than one query or layer, or heads that do not divide the width.
        """
        if num < 1 or depth < 1:
            raise ValueError(f"lesion queries need num >= 1 and depth >= 1, not {num} and {depth}")
        self.rate, self.dtype = dropout_rate, dtype
        # Of unit scale: queries that start alike would attend alike, and get equal gradients.
        self.queries = nnx.Param(layers.normal(1.0)(rngs.params(), (num, width), jnp.float32))
        self.blocks = nnx.List([Layer(width, patch_width, heads, mlp_dim or 4 * width, dropout_rate=dropout_rate,
                                      dtype=dtype, rngs=rngs) for _ in range(depth)])
        self.norm = layers.LayerNorm(width)

    def __call__(self, patches: jax.Array, mask: jax.Array | None = None, *, deterministic: bool = True,
                 rngs: nnx.Rngs | None = None) -> jax.Array:
        """Args:
          patches: [B, L, patch_width]; mask: bool [B, L], True at the patches to attend to (default: all).

        Returns:
          lesions [B, Q, width] in the compute dtype; the mean over all patches where a row is masked everywhere.
        """
        patches = patches.astype(self.dtype)
        keys = layers.dropout_keys(len(self.blocks), self.rate, deterministic, rngs)
        allowed = None if mask is None else (mask != 0)[:, None, None, :]
        x = jnp.broadcast_to(self.queries[...].astype(self.dtype), (patches.shape[0], *self.queries.shape))
        for block, key in zip(self.blocks, keys, strict=True):
            x = block(x, patches, allowed, key)
        return self.norm(x)
