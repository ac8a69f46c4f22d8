"""Evidence losses of LGDEA (arXiv 2602.07540): reconstruction (5), evidence of images (7) and reports (8), pairs (9).

The assignments (4) and (6) are `models.prototypes.assign`. Distributions travel as logarithms where they come from a
softmax; report evidence is a plain probability, because an absent prototype may have exactly 0.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lgdea_jax.arrays import as_float, masked_mean
from lgdea_jax.losses.assignments import assign, effective_number, entropy, pool_patches, similarities

__all__ = ["assign", "diagnostics", "image_evidence", "pair_loss", "pool_patches", "reconstruction_loss",
           "report_evidence", "similarities"]


def reconstruction_loss(z: jax.Array, log_p: jax.Array, mu: jax.Array, mask: jax.Array, *,
                        decay: float = 0.0) -> jax.Array:
    """L_rec (5): mean_n |z_n - sum_k p(k|z_n) mu_k|^2 + decay sum_k |mu_k|^2.

    Args:
      z: [..., D] phrase embeddings; log_p: [..., K] their assignments; mu: [K, D].
      mask: bool [...], phrases that exist.
      decay: lambda, >= 0.

    Returns:
      A scalar >= 0; the first term is 0 where there is no phrase.
    """
    z, mu = as_float(z), as_float(mu)
    rebuilt = jnp.matmul(jnp.exp(log_p), mu, precision=jax.lax.Precision.HIGHEST)
    return masked_mean(jnp.sum(jnp.square(z - rebuilt), axis=-1), mask != 0) + decay * jnp.sum(jnp.square(mu))


def report_evidence(log_p: jax.Array, mask: jax.Array,
                    weights: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
    """Qbar_R (8): the mean of the assignments of a report's phrases, weighted.

    Args:
      log_p: [R, N, K] log assignments; mask: bool [R, N], phrases that count. Absent findings must not be in it.
      weights: [R, N], >= 0: 1 for a finding that is present, the configured weight for an uncertain one; default 1.

    Returns:
      (Qbar_R [R, K] float32, rows sum to 1, or to 0 without evidence; valid bool [R], True with any evidence).
    """
    weight = (mask != 0).astype(log_p.dtype)
    weight = weight if weights is None else weight * as_float(weights)
    total = jnp.sum(weight, axis=1)
    valid = total > 0
    summed = jnp.sum(jnp.where(weight[..., None] > 0, weight[..., None] * jnp.exp(log_p), 0.0), axis=1)
    return summed / jnp.where(valid, total, 1.0)[:, None], valid


def image_evidence(logits: jax.Array, mask: jax.Array | None = None, *, pooling: str = "mean",
                   sharpness: jax.Array | float = 1.0) -> jax.Array:
    """log Qbar_I (7) from patch (or lesion) logits phi(v_l) . mu_k / tau_p.

    - "mean", the paper's: mean_l softmax_k(logits_lk). With many normal patches, small lesions drown in it.
    - "lse": softmax_k of the log-sum-exp pooled logits (multiple-instance): one patch with a high logit is enough.

    Args:
      logits: [B, L, K]; mask: bool [B, L], positions that count; sharpness: r of the log-sum-exp (see `pool_patches`).

    Returns:
      [B, K] float32 log probabilities; uniform in a row without positions.

    Raises:
      ValueError: unknown pooling.
    """
    if pooling == "lse":
        return jax.nn.log_softmax(pool_patches(logits, sharpness, mask), axis=-1)
    if pooling != "mean":
        raise ValueError(f"unknown pooling {pooling!r}; known: mean, lse")
    log_q = jax.nn.log_softmax(as_float(logits), axis=-1)
    # The log of the mean probability is the log-sum-exp pool of the log probabilities at sharpness 1.
    pooled = pool_patches(log_q, 1.0, mask)
    return pooled if mask is None else jax.nn.log_softmax(pooled, axis=-1)


def pair_loss(report: jax.Array, log_image: jax.Array, mask: jax.Array, *, stop_report: bool = True) -> jax.Array:
    """L_evid_p (9): mean over pairs of KL(Qbar_R || Qbar_I) = sum_k Qbar_R log(Qbar_R / Qbar_I).

    Args:
      report: Qbar_R [P, K], rows sum to 1; log_image: log Qbar_I [P, K]; mask: bool [P], pairs that exist and whose
        report has evidence.
      stop_report: no gradient into Qbar_R. Without it text tower and prototypes make reports easy to predict, and
        everything collapses (evidence AUC .906 -> .407 on the phantom world).

    Returns:
      A scalar >= 0.
    """
    report = as_float(report)
    if stop_report:
        report = jax.lax.stop_gradient(report)
    present = report > 0
    log_report = jnp.log(jnp.where(present, report, 1.0))
    return masked_mean(jnp.sum(jnp.where(present, report * (log_report - log_image), 0.0), axis=-1), mask != 0)


def diagnostics(log_phrases: jax.Array, phrase_mask: jax.Array, log_images: jax.Array,
                image_mask: jax.Array | None = None) -> dict[str, jax.Array]:
    """The collapse alarms, to be logged: entropies in nats and effective numbers of prototypes.

    Args:
      log_phrases: [..., K] assignments of phrases, phrase_mask [...]; log_images: log Qbar_I [B, K], image_mask [B].

    Returns:
      Scalars `report_entropy`, `image_entropy` (mean over rows, in [0, log K]; log K everywhere tells nothing apart),
      `report_prototypes`, `image_prototypes` (in [1, K]; near 1 is collapse).
    """
    phrases = phrase_mask != 0
    images = jnp.ones(log_images.shape[:-1], bool) if image_mask is None else image_mask != 0
    return {
        "report_entropy": masked_mean(entropy(log_phrases), phrases),
        "image_entropy": masked_mean(entropy(log_images), images),
        "report_prototypes": effective_number(log_phrases, phrases),
        "image_prototypes": effective_number(log_images, images),
    }
