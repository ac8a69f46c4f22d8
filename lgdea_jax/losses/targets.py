"""Targets of losses: overlaps of evidence as similarities, sharpening, alignment to a prior.

Soft contrastive targets from the overlap of evidence are ours: the paper (LGDEA, arXiv 2602.07540) gives no formula for
its evidence-alignment loss. Nothing here is meant to be differentiated.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from lgdea_jax.arrays import as_float


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


@functools.partial(jax.jit, static_argnames="iterations")
def align_to_prior(targets: jax.Array, prior: jax.Array, *, iterations: int = 1,
                   weights: jax.Array | None = None) -> jax.Array:
    """Distribution alignment to a prior by alternate scaling (Sinkhorn & Knopp, 1967).

    One iteration is the step of ReMixMatch (Berthelot et al., ICLR 2020), t_k prior_k / mean_k with scaled rows, and
    only approaches the prior; with many, the mean is the prior's, where the zeros of the targets allow it. The order of
    a prototype's targets over the rows may change.

    Args:
      targets: [N, K], rows sum to 1, or to 0 (no target; stays 0 and does not count).
      prior: [K], >= 0, sums to 1; iterations: >= 1.
      weights: [N], >= 0, for example confidences: the *weighted* mean becomes the prior; default 1.

    Returns:
      [N, K] float32; rows sum to 1, or to 0.

    Raises:
      ValueError: iterations < 1.
    """
    if iterations < 1:
        raise ValueError(f"iterations must be >= 1, not {iterations}")
    targets, prior = as_float(targets), as_float(prior)
    positive = targets > 0
    counts = jnp.any(positive, axis=1).astype(targets.dtype) * (1.0 if weights is None else as_float(weights))
    total = jnp.sum(counts)
    # In logarithms: where the targets' zeros do not allow the prior, the scales diverge with every step.
    logs = jnp.where(positive, jnp.log(jnp.where(positive, targets, 1.0)), -jnp.inf)
    wanted = jnp.where(prior > 0, jnp.log(jnp.where(prior > 0, prior, 1.0)), -jnp.inf)

    def rescaled(scale: jax.Array) -> jax.Array:
        scores = logs + scale
        top = jnp.max(scores, axis=1, keepdims=True)
        return _normalize_rows(jnp.exp(scores - jnp.where(jnp.isfinite(top), top, 0.0)))

    def step(_: jax.Array, scale: jax.Array) -> jax.Array:
        marginal = jnp.sum(counts[:, None] * rescaled(scale), axis=0) / jnp.where(total > 0, total, 1.0)
        return scale + jnp.where(marginal > 0, wanted - jnp.log(jnp.where(marginal > 0, marginal, 1.0)), 0.0)

    return rescaled(jax.lax.fori_loop(0, iterations, step, jnp.zeros(targets.shape[1], targets.dtype)))


def total_variation(p: jax.Array, q: jax.Array) -> jax.Array:
    """Total variation 1/2 sum_k |p_k - q_k| of distributions [..., K] (shapes that broadcast) -> [...], in [0, 1]."""
    return 0.5 * jnp.sum(jnp.abs(as_float(p) - as_float(q)), axis=-1)
