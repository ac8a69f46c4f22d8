"""Evidence prototypes: the shared space in which reports and images are compared (LGDEA, arXiv 2602.07540, eqs. 4, 6).

The vectors mu; assignments to them are in `losses.assignments`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx


class Prototypes(nnx.Module):
    """K prototype vectors of width D: `mu` [K, D], float32."""

    def __init__(self, num: int, width: int, *, rngs: nnx.Rngs):
        """Random directions of unit norm. To name them after findings, set `mu[...]` to text embeddings."""
        if num < 2:
            raise ValueError(f"at least 2 prototypes are needed, not {num}")
        mu = jax.random.normal(rngs.params(), (num, width), jnp.float32)
        self.mu = nnx.Param(mu / jnp.linalg.norm(mu, axis=-1, keepdims=True))
