"""Soft assignments of phrases and patches to evidence prototypes (LGDEA, arXiv 2602.07540, equations 4, 6 and 7).

Pure functions of arrays, in float32 and in logarithms, so that the losses on the assignments are stable at low
temperatures.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lgdea_jax.arrays import as_float


def similarities(z: jax.Array, mu: jax.Array, temperature: jax.Array | float) -> jax.Array:
    """The logits z . mu_k / temperature: [..., D], [K, D] -> [..., K] float32, at full matmul precision."""
    logits = jnp.einsum("...d,kd->...k", as_float(z), as_float(mu),
                        precision=jax.lax.Precision.HIGHEST)
    return logits / temperature


def assign(z: jax.Array, mu: jax.Array, temperature: jax.Array | float) -> jax.Array:
    """Log assignments log p(k|z) = log softmax_k(z . mu_k / temperature): eq. 4 for phrases, eq. 6 for patches.

    Args:
      z: [..., D], unit norm in the paper; mu: [K, D]; temperature: > 0.

    Returns:
      [..., K] float32, <= 0; the exponentials sum to 1 over the last axis.
    """
    return jax.nn.log_softmax(similarities(z, mu, temperature), axis=-1)


def entropy(log_p: jax.Array) -> jax.Array:
    """-sum_k p log p in nats of log probabilities [..., K] -> [...], in [0, log K]; -inf counts as p = 0."""
    finite = jnp.isfinite(log_p)
    safe = jnp.where(finite, log_p, 0.0)
    return -jnp.sum(jnp.where(finite, jnp.exp(safe) * safe, 0.0), axis=-1)


def mean_assignment(log_p: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """log of the mean over all leading axes of exp(log_p [..., K]) where `mask` [...] holds -> [K].

    Uniform where the mask holds nowhere.
    """
    count = log_p.shape[-1]
    flat = log_p.reshape(-1, count)
    valid = jnp.ones(flat.shape[0], bool) if mask is None else (mask != 0).reshape(-1)
    total = jnp.sum(valid)
    mean = jnp.sum(jnp.where(valid[:, None], jnp.exp(flat), 0.0), axis=0) / jnp.maximum(total, 1)
    return jnp.log(jnp.where(total > 0, mean, 1.0 / count))


def effective_number(log_p: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """Effective number of prototypes: exp(entropy of the mean assignment), scalar in [1, K].

    The collapse alarm: near 1 when everything is assigned to one prototype. Near K it says little by itself: uniform
    assignments that tell nothing apart have it too, so read it beside the mean entropy of single assignments.
    """
    return jnp.exp(entropy(mean_assignment(log_p, mask)))


def pool_patches(logits: jax.Array, sharpness: jax.Array | float, mask: jax.Array | None = None) -> jax.Array:
    """Multiple-instance pooling by log-sum-exp, (1/r) log mean_l exp(r s_lk): from the mean (r -> 0) to the maximum.

    Args:
      logits: [B, L, K] patch scores s; sharpness: r > 0; mask: bool [B, L], patches that count (default: all).

    Returns:
      [B, K] float32, pooled scores, between the mean and the maximum over the patches; zeros in a row without patches.
    """
    scaled = as_float(logits) * sharpness
    if mask is None:
        return (jax.nn.logsumexp(scaled, axis=1) - jnp.log(float(scaled.shape[1]))) / sharpness
    valid = mask != 0
    count = jnp.sum(valid, axis=1)[:, None]
    # Rows without patches are computed on zeros and then dropped, so that their gradients are zero and not NaN.
    where = valid[:, :, None] | (count == 0)[:, :, None]
    pooled = jax.nn.logsumexp(jnp.where(where, scaled, 0.0), axis=1, where=where)
    return jnp.where(count > 0, (pooled - jnp.log(jnp.maximum(count, 1).astype(scaled.dtype))) / sharpness, 0.0)
