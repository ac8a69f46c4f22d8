"""Targets of losses: overlaps of evidence as similarities, sharpening, alignment to a prior.

Soft contrastive targets from the overlap of evidence are ours: the paper (LGDEA, arXiv 2602.07540) gives no formula for
its evidence-alignment loss. Nothing here is meant to be differentiated.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lgdea_jax.arrays import as_float

_RARE = 1e-4  # Shares below this are not told from none.


def distribution_overlap(evidence: jax.Array, other: jax.Array | None = None) -> jax.Array:
    """Bhattacharyya coefficients sum_k sqrt(p_ik q_jk) of distributions: [A, K], [B, K] -> [A, B], in [0, 1].

    1 for equal distributions, 0 for disjoint ones. `other` defaults to `evidence`. Not for gradients (infinite at 0).
    """
    other = evidence if other is None else other
    roots = jnp.sqrt(as_float(evidence)), jnp.sqrt(as_float(other))
    return jnp.clip(jnp.matmul(roots[0], roots[1].T, precision=jax.lax.Precision.HIGHEST), 0.0, 1.0)


def finding_overlap(findings: jax.Array, other: jax.Array | None = None) -> jax.Array:
    """Jaccard index |a & b| / |a | b| of multi-hot finding sets: [A, F], [B, F] -> [A, B], in [0, 1].

    0 between empty sets: two reports without findings do not match. Stated normality needs a column of its own.
    """
    a = (findings > 0).astype(jnp.float32)
    b = a if other is None else (other > 0).astype(jnp.float32)
    both = jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST)
    either = jnp.sum(a, axis=1)[:, None] + jnp.sum(b, axis=1)[None, :] - both
    return both / jnp.maximum(either, 1.0)


def _normalize_rows(rows: jax.Array) -> jax.Array:
    """Rows of non-negative entries scaled to sum 1; rows without mass stay zero."""
    total = jnp.sum(rows, axis=-1, keepdims=True)
    return jnp.where(total > 0, rows / jnp.where(total > 0, total, 1.0), 0.0)


def sharpen(targets: jax.Array, temperature: jax.Array | float) -> jax.Array:
    """p_k^(1/temperature) / sum_k: below 1 sharper, 1 only scales rows to sum 1, above 1 flatter.

    Args:
      targets: [..., K], >= 0, of any scale: distributions, or rows of relations; temperature: > 0.

    Returns:
      [..., K] float32, rows sum to 1, or to 0 where there was no mass. Zeros stay zeros.
    """
    targets = as_float(targets)
    # Relative to the largest, so that small relations do not underflow.
    top = jnp.max(targets, axis=-1, keepdims=True)
    return _normalize_rows((targets / jnp.where(top > 0, top, 1.0)) ** (1.0 / temperature))


def align(targets: jax.Array, mean: jax.Array, prior: jax.Array, power: float) -> jax.Array:
    """Distribution alignment (ReMixMatch, Berthelot et al., 2020, arXiv 1911.09785): t_k (prior_k / mean_k)^power.

    Args:
      targets: [N, K], rows sum to 1; mean: [K], what targets are like on average; prior: [K], what they should be like.
      power: 1 moves them all the way, 0 not at all.

    Returns:
      [N, K] float32, rows sum to 1. Unchanged where nothing is known of the mean or of the prior (a row of zeros).
    """
    targets, mean, prior = as_float(targets), as_float(mean), as_float(prior)
    if power == 0:
        return targets
    # A prototype that neither side uses keeps its share; one that the reports never use keeps almost none.
    ratio = ((prior + _RARE) / (mean + _RARE)) ** power
    known = (jnp.sum(mean) > 0) & (jnp.sum(prior) > 0)
    return jnp.where(known, _normalize_rows(targets * ratio), targets)


def certainty(targets: jax.Array) -> jax.Array:
    """(largest entry of a row over the median of the rows' largest, at most 1)^2: [N, K] -> [N], in [0, 1]."""
    top = jnp.max(as_float(targets), axis=-1)
    median = jnp.median(top)
    return jnp.square(jnp.minimum(top / jnp.where(median > 0, median, 1.0), 1.0))


def total_variation(p: jax.Array, q: jax.Array) -> jax.Array:
    """Total variation 1/2 sum_k |p_k - q_k| of distributions [..., K] (shapes that broadcast) -> [...], in [0, 1]."""
    return 0.5 * jnp.sum(jnp.abs(as_float(p) - as_float(q)), axis=-1)
