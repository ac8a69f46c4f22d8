"""Multi-label classification with missing and uncertain labels (CT-RATE labels, CheXpert labels, silver labels)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lgdea_jax.arrays import as_float
from lgdea_jax.records import MISSING, POSITIVE, UNCERTAIN


def binary_cross_entropy(logits: jax.Array, labels: jax.Array, *, uncertain_target: float | None = None,
                         uncertain_weight: float = 1.0, class_weights: jax.Array | None = None,
                         positive_weights: jax.Array | None = None, mask: jax.Array | None = None) -> jax.Array:
    """Masked multi-label binary cross-entropy.

    sum w_nk [-v_k t_nk log sigma(l_nk) - (1 - t_nk) log sigma(-l_nk)] / sum w_nk, with w_nk = class weight x (1 for a
    known label, `uncertain_weight` for an uncertain one that is used, 0 for one that is missing or masked).

    Args:
      logits: [N, K].
      labels: integers [N, K], values of `records`: POSITIVE, NEGATIVE, UNCERTAIN, MISSING.
      uncertain_target: None leaves uncertain labels out; a number in [0, 1] is their target (1: CheXpert's U-Ones).
      uncertain_weight: >= 0, weight of the uncertain labels where they are used.
      class_weights: [K], >= 0, weights of the classes; default 1.
      positive_weights: v [K], > 0, weights of the positive term (torch's `pos_weight`); default 1.
      mask: bool [N], rows that exist.

    Returns:
      A scalar >= 0; 0 where no label counts.

    Raises:
      ValueError: logits and labels of different shapes, or `uncertain_target` outside [0, 1].
    """
    if logits.shape != labels.shape:
        raise ValueError(f"logits {list(logits.shape)} and labels {list(labels.shape)} differ in shape")
    if uncertain_target is not None and not 0.0 <= uncertain_target <= 1.0:
        raise ValueError(f"uncertain_target must lie in [0, 1], not {uncertain_target}")
    logits = as_float(logits)
    uncertain = labels == UNCERTAIN
    targets = jnp.where(labels == POSITIVE, 1.0, 0.0)
    weights = jnp.where(labels == MISSING, 0.0, 1.0)
    if uncertain_target is None:
        weights = jnp.where(uncertain, 0.0, weights)
    else:
        targets = jnp.where(uncertain, uncertain_target, targets)
        weights = jnp.where(uncertain, uncertain_weight, weights)
    if mask is not None:
        weights = weights * (mask != 0)[:, None]
    if class_weights is not None:
        weights = weights * as_float(class_weights)
    positive = 1.0 if positive_weights is None else as_float(positive_weights)
    losses = -positive * targets * jax.nn.log_sigmoid(logits) - (1.0 - targets) * jax.nn.log_sigmoid(-logits)
    total = jnp.sum(weights)
    return jnp.sum(jnp.where(weights > 0, weights * losses, 0.0)) / jnp.where(total > 0, total, 1.0)
