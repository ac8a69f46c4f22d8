"""Evidence losses of LGDEA (arXiv 2602.07540): reconstruction (5), evidence of images (7) and reports (8), pairs (9).

The assignments (4) and (6) are `models.prototypes.assign`. Distributions travel as logarithms where they come from a
softmax; report evidence is a plain probability, because absent prototypes may have exactly none. Soft contrastive
targets from the overlap of evidence are ours (the paper gives no formula for its evidence-alignment loss).
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from lgdea_jax.arrays import as_float, masked_mean
from lgdea_jax.models.prototypes import assign, effective_number, entropy, pool_patches, similarities

__all__ = ["align_to_prior", "assign", "diagnostics", "distribution_overlap", "finding_overlap", "image_evidence",
           "pair_loss", "reconstruction_loss", "report_evidence", "rescale_to_prior", "sharpen", "similarities",
           "soft_targets", "state_normal", "total_variation"]


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


def state_normal(evidence: jax.Array, valid: jax.Array, normal: jax.Array,
                 prototype: int) -> tuple[jax.Array, jax.Array]:
    """Gives reports that state normality and carry no evidence the "no finding" prototype.

    A report that is merely silent stays without evidence; one with evidence keeps it whatever it states.

    Args:
      evidence: [R, K]; valid: bool [R] (of `report_evidence`); normal: bool [R]; prototype: index of "no finding".

    Returns:
      (evidence [R, K], valid bool [R]).
    """
    added = (normal != 0) & ~valid
    one_hot = jax.nn.one_hot(prototype, evidence.shape[-1], dtype=evidence.dtype)
    return jnp.where(added[:, None], one_hot, evidence), valid | added


def image_evidence(logits: jax.Array, mask: jax.Array | None = None, *, pooling: str = "mean",
                   sharpness: jax.Array | float = 1.0) -> jax.Array:
    """log Qbar_I (7) from patch (or lesion) logits phi(v_l) . mu_k / tau_p.

    - "mean", the paper's: mean_l softmax_k(logits_lk). With many normal patches, small lesions drown in it.
    - "lse": softmax_k of the log-sum-exp pooled logits (multiple-instance): one convinced patch is enough.

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


def distribution_overlap(evidence: jax.Array, other: jax.Array | None = None) -> jax.Array:
    """Bhattacharyya coefficients sum_k sqrt(p_ik q_jk) of distributions: [A, K], [B, K] -> [A, B], in [0, 1].

    1 for equal distributions, 0 for disjoint ones. `other` defaults to `evidence`. Not for gradients (infinite at 0).
    """
    other = evidence if other is None else other
    roots = jnp.sqrt(as_float(evidence)), jnp.sqrt(as_float(other))
    return jnp.clip(jnp.matmul(roots[0], roots[1].T, precision=jax.lax.Precision.HIGHEST), 0.0, 1.0)


def finding_overlap(findings: jax.Array, other: jax.Array | None = None) -> jax.Array:
    """Jaccard index |a & b| / |a | b| of multi-hot finding sets: [A, F], [B, F] -> [A, B], in [0, 1].

    0 between empty sets: silence is not agreement. Give stated normality a column of its own.
    """
    a = (findings > 0).astype(jnp.float32)
    b = a if other is None else (other > 0).astype(jnp.float32)
    both = jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST)
    either = jnp.sum(a, axis=1)[:, None] + jnp.sum(b, axis=1)[None, :] - both
    return both / jnp.maximum(either, 1.0)


def soft_targets(overlap: jax.Array, mask: jax.Array | None = None, *, temperature: float = 1.0,
                 own_share: float = 0.0) -> jax.Array:
    """Targets of `soft_contrastive` from a square overlap: o_ij^(1/temperature) / sum_j, without gradient.

    Args:
      overlap: [B, B], symmetric, in [0, 1]; the diagonal is taken as 1, whatever it holds (a study is its own match).
      mask: bool [B], rows that exist; masked columns get no mass, masked rows are one-hot on themselves.
      temperature: > 0: towards 0 only exact matches keep mass, 1 is the overlap itself, larger values level it.
      own_share: in [0, 1], mass moved to the row's own partner: 1 is the identity matrix (plain CLIP).

    Returns:
      [B, B] float32, rows sum to 1.

    Raises:
      ValueError: an overlap that is not square, temperature <= 0, own_share outside [0, 1].
    """
    size = overlap.shape[0]
    if overlap.shape != (size, size):
        raise ValueError(f"overlap must be square, not {list(overlap.shape)}")
    if temperature <= 0 or not 0.0 <= own_share <= 1.0:
        raise ValueError(f"temperature must be > 0 and own_share in [0, 1], not {temperature} and {own_share}")
    eye = jnp.eye(size, dtype=jnp.float32)
    weights = jax.lax.stop_gradient(as_float(overlap)) ** (1.0 / temperature)
    if mask is not None:
        valid = mask != 0
        weights = jnp.where(valid[:, None] & valid[None, :], weights, 0.0)
    weights = jnp.where(eye > 0, 1.0, weights)
    weights = weights / jnp.sum(weights, axis=1, keepdims=True)
    return own_share * eye + (1.0 - own_share) * weights


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


def rescale_to_prior(targets: jax.Array, prior: jax.Array, marginal: jax.Array) -> jax.Array:
    """Distribution alignment in one step (ReMixMatch, Berthelot et al., ICLR 2020): t_k prior_k / marginal_k, scaled.

    Args:
      targets: [..., K], rows sum to 1, or to 0; prior: [K], what their mean should be, for example that of the reports.
      marginal: [K], what their mean is: over the data set, or a running mean over batches. 0 leaves out the prototype.

    Returns:
      [..., K] float32; rows sum to 1, or to 0 where nothing is left of them.
    """
    marginal = as_float(marginal)
    ratio = jnp.where(marginal > 0, as_float(prior) / jnp.where(marginal > 0, marginal, 1.0), 0.0)
    return _normalize_rows(as_float(targets) * ratio)


@functools.partial(jax.jit, static_argnames="iterations")
def align_to_prior(targets: jax.Array, prior: jax.Array, *, iterations: int = 1,
                   weights: jax.Array | None = None) -> jax.Array:
    """Distribution alignment to a prior by alternate scaling (Sinkhorn & Knopp, 1967): `rescale_to_prior`, repeated.

    One iteration is the plain step with the targets' own mean, and only approaches the prior; with many, the mean is
    the prior's, where the zeros of the targets allow it. The order of a prototype's targets over the rows may change.

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
    there = targets > 0
    counts = jnp.any(there, axis=1).astype(targets.dtype) * (1.0 if weights is None else as_float(weights))
    total = jnp.sum(counts)
    # In logarithms: a prior that the targets' zeros do not allow drives the scales apart, step by step, without end.
    logs = jnp.where(there, jnp.log(jnp.where(there, targets, 1.0)), -jnp.inf)
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
