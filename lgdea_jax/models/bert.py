"""BERT text tower (Devlin et al., 2019, arXiv 1810.04805), layer for layer the one of Hugging Face's `BertModel`.

Post-norm blocks, exact GELU, layer-norm epsilon 1e-12. Parameters are named after Hugging Face's, so that an importer
is a table: `embeddings.word` <- `embeddings.word_embeddings.weight`, `blocks.0.attention.query.kernel` <- the transpose
of `encoder.layer.0.attention.self.query.weight`, `attention.out` <- `attention.output.dense`, `attention_norm` <-
`attention.output.LayerNorm`, `mlp.up` <- `intermediate.dense`, `mlp.down` <- `output.dense`, `mlp_norm` <-
`output.LayerNorm`, `pooler` <- `pooler.dense`. `family="roberta"` counts positions as RoBERTa does (Liu et al., 2019);
pool="projection" is the head of CXR-BERT (Boecking et al., 2022).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from lgdea_jax.models import layers

VARIANTS: dict[str, dict[str, int]] = {
    "XXS": {"width": 32, "depth": 1, "heads": 2, "mlp_dim": 64},
    "XS": {"width": 64, "depth": 2, "heads": 4, "mlp_dim": 256},
    # The released small BERTs of Turc et al., 2019.
    "tiny": {"width": 128, "depth": 2, "heads": 2, "mlp_dim": 512},
    "mini": {"width": 256, "depth": 4, "heads": 4, "mlp_dim": 1024},
    "small": {"width": 512, "depth": 4, "heads": 8, "mlp_dim": 2048},
    "medium": {"width": 512, "depth": 8, "heads": 8, "mlp_dim": 2048},
    "base": {"width": 768, "depth": 12, "heads": 12, "mlp_dim": 3072},
    "large": {"width": 1024, "depth": 24, "heads": 16, "mlp_dim": 4096},
}
POOLS = ("cls", "mean", "pooler", "projection")
EPS = 1e-12
# RoBERTa's padding token is 1: the first word has position 2, padding itself position 1.
FAMILIES: dict[str, dict[str, Any]] = {
    "bert": {"eps": EPS, "first_position": 0, "type_vocab_size": 2},
    "roberta": {"eps": 1e-5, "first_position": 2, "type_vocab_size": 1},
}
INIT = layers.normal(0.02)


def sizes(variant: str, **overrides: int) -> dict[str, int]:
    """Sizes of a variant: "base" -> {width, depth, heads, mlp_dim}; keyword arguments replace them.

    Raises:
      ValueError: unknown variant or unknown override.
    """
    if variant not in VARIANTS:
        raise ValueError(f"unknown BERT variant {variant!r}; known: {', '.join(VARIANTS)}")
    if unknown := sorted(set(overrides) - set(VARIANTS[variant])):
        raise ValueError(f"unknown BERT sizes {unknown}; known: {', '.join(VARIANTS[variant])}")
    return {**VARIANTS[variant], **overrides}


def masked_mean(tokens: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean of `tokens` [B, T, W] over the positions where `mask` [B, T] holds, float32; zeros where none does."""
    weights = mask.astype(jnp.float32)[..., None]
    return jnp.sum(tokens.astype(jnp.float32) * weights, axis=1) / jnp.maximum(jnp.sum(weights, axis=1), 1.0)


class Embeddings(nnx.Module):
    """Word, position and token-type embeddings, summed and normalised."""

    def __init__(self, vocab_size: int, width: int, max_length: int, type_vocab_size: int, *, dtype: DTypeLike,
                 rngs: nnx.Rngs, first_position: int = 0, eps: float = EPS):
        def table(rows: int) -> nnx.Param:
            return nnx.Param(INIT(rngs.params(), (rows, width), jnp.float32))

        self.dtype, self.first_position = dtype, first_position
        self.word, self.token_type = table(vocab_size), table(type_vocab_size)
        self.position = table(max_length + first_position)
        self.norm = layers.LayerNorm(width, eps=eps)

    def __call__(self, ids: jax.Array, mask: jax.Array | None, token_types: jax.Array | None) -> jax.Array:
        if self.first_position and mask is not None:
            # Words are counted, padding is not: this matters where padding is on the left.
            counted = (mask != 0).astype(jnp.int32)
            position = self.position[...][jnp.cumsum(counted, axis=1) * counted + self.first_position - 1]
        else:
            position = self.position[...][self.first_position: self.first_position + ids.shape[1]]
        x = self.word[...][ids] + position
        types = self.token_type[...]
        x = x + (types[0] if token_types is None else types[token_types])
        return self.norm(x).astype(self.dtype)


class Block(nnx.Module):
    """Post-norm transformer block."""

    def __init__(self, width: int, heads: int, mlp_dim: int, *, dropout_rate: float, dtype: DTypeLike, rngs: nnx.Rngs,
                 eps: float = EPS):
        self.rate = dropout_rate
        self.attention = layers.Attention(width, heads, dropout_rate=dropout_rate, dtype=dtype, init=INIT, rngs=rngs)
        self.attention_norm = layers.LayerNorm(width, eps=eps)
        self.mlp = layers.Mlp(width, mlp_dim, dtype=dtype, init=INIT, rngs=rngs)
        self.mlp_norm = layers.LayerNorm(width, eps=eps)

    def __call__(self, x: jax.Array, mask: jax.Array | None, rng: jax.Array | None) -> jax.Array:
        keys = layers.split_key(rng, 3)
        y = self.attention(x, mask=mask, rng=keys[0])
        x = self.attention_norm(x + layers.dropout(y, self.rate, keys[1]))
        return self.mlp_norm(x + layers.dropout(self.mlp(x), self.rate, keys[2]))


class ProjectionHead(nnx.Module):
    """CXR-BERT's head over the first token: dense, GELU, norm, dense: `[..., width] -> [..., dout]`."""

    def __init__(self, width: int, dout: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.up = layers.dense(width, dout, dtype=dtype, init=INIT, rngs=rngs)
        self.norm = layers.LayerNorm(dout, eps=EPS)
        self.out = layers.dense(dout, dout, dtype=dtype, init=INIT, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.out(self.norm(layers.gelu(self.up(x))))


class Bert(nnx.Module):
    """`(pooled, out) = Bert(**sizes("base"), vocab_size=30522, rngs=rngs)(ids, mask)`.

    Attributes:
      width: channels of `pooled` and of the tokens.
      features: channels of the blocks; `width` unless the pool is a projection.
    """

    def __init__(self, *, vocab_size: int, width: int, depth: int, heads: int, mlp_dim: int, rngs: nnx.Rngs,
                 max_length: int = 512, type_vocab_size: int = 0, pool: str = "cls", dropout_rate: float = 0.0,
                 family: str = "bert", eps: float = 0.0, projection: int = 128,
                 dtype: DTypeLike = jnp.float32, remat: bool | str = False, scan: bool = False):
        """Args:
          vocab_size: rows of the word table; max_length: of the longest text, in tokens.
          width, depth, heads, mlp_dim: see `sizes`.
          pool: "cls" the first token, "mean" over the unmasked tokens, "pooler" tanh(dense(first token)), "projection"
            CXR-BERT's head on the first token, and on every token, so that both stay in one space.
          family: one of FAMILIES; `eps` of the norms and `type_vocab_size`, where given, replace the family's.
          projection: width of pool="projection".
          dropout_rate: of embeddings, attention weights and residual branches; needs `deterministic=False` and `rngs`.
          remat: recompute the blocks in the backward pass, or all but what a name of `layers.REMAT` keeps.
          scan: compile one block for all, see `layers.call_in_turn`.

        Raises:
          ValueError: heads that do not divide the width, unknown `pool` or `family`.
        """
        for name, value, known in (("pool", pool, POOLS), ("family", family, FAMILIES)):
            if value not in known:
                raise ValueError(f"unknown {name} {value!r}; known: {', '.join(known)}")
        kind = FAMILIES[family]
        eps, type_vocab_size = eps or kind["eps"], type_vocab_size or kind["type_vocab_size"]
        self.pool, self.features, self.max_length, self.rate, self.remat = pool, width, max_length, dropout_rate, remat
        self.scan = scan
        self.width = projection if pool == "projection" else width
        self.vocab_size, self.heads, self.mlp_dim, self.family, self.eps = vocab_size, heads, mlp_dim, family, eps
        self.embeddings = Embeddings(vocab_size, width, max_length, type_vocab_size, eps=eps,
                                     first_position=kind["first_position"], dtype=dtype, rngs=rngs)
        self.blocks = nnx.List([Block(width, heads, mlp_dim, dropout_rate=dropout_rate, eps=eps, dtype=dtype, rngs=rngs)
                                for _ in range(depth)])
        self.projection = ProjectionHead(width, projection, dtype=dtype, rngs=rngs) if pool == "projection" else None
        self.pooler = layers.dense(width, width, dtype=dtype, init=INIT, rngs=rngs) if pool == "pooler" else None

    def __call__(self, ids: jax.Array, mask: jax.Array | None = None, token_types: jax.Array | None = None, *,
                 deterministic: bool = True, rngs: nnx.Rngs | None = None) -> tuple[jax.Array, dict[str, Any]]:
        """Args:
          ids: int [B, T], 0 <= id < vocab_size (not checked: the values are not known under jit), T <= max_length.
          mask: bool or int [B, T], nonzero at the tokens to attend to (`ids != 0` for our tokenizer); None: all.
          token_types: int [B, T], 0 everywhere by default.

        Returns:
          (pooled [B, W] float32, {"tokens": [B, T, W] in the compute dtype, "hidden": the same before a projection}).
          A row that is masked everywhere is finite: zeros with pool "mean".

        Raises:
          ValueError: T > max_length.
        """
        if ids.shape[1] > self.max_length:
            raise ValueError(f"{ids.shape[1]} tokens do not fit a tower made for {self.max_length}")
        keys = layers.dropout_keys(len(self.blocks) + 1, self.rate, deterministic, rngs)
        allowed = None if mask is None else (mask != 0)[:, None, None, :]
        x = layers.dropout(self.embeddings(ids, mask, token_types), self.rate, keys[0])
        x = layers.call_in_turn(self.blocks, x, allowed, keys=keys[1:], remat=self.remat, scan=self.scan)
        if self.pool == "mean":
            pooled = masked_mean(x, jnp.ones(ids.shape, bool) if mask is None else mask != 0)
        else:
            pooled = x[:, 0]
            pooled = jnp.tanh(self.pooler(pooled)) if self.pooler is not None else pooled
        hidden = x
        if self.projection is not None:
            pooled, x = self.projection(pooled), self.projection(x)
        return pooled.astype(jnp.float32), {"tokens": x, "hidden": hidden}
