"""Location-aware evidence (ours): a phrase that names a place attends to patches there.

"Left upper lung" tells an image's patches apart as no contrast between images does: with few pairs, where a finding
hides among many patches, the words for its place are the cheapest labels of where it is that a report has.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from lgdea_jax.models.prototypes import as_float

# Patients are not centred to the pixel, and lobes have no straight borders: a patch counts in full up to MARGIN outside
# of its region, in shares of the image's side, and over RAMP more it ceases to count.
MARGIN, RAMP = 0.05, 0.1
# What a patch outside counts still: the loss of a phrase stays below -log of it.
FLOOR = 1e-6


def inside_regions(region: jax.Array, frame: jax.Array, patches: int) -> jax.Array:
    """How far the middle of each patch lies inside each phrase's region.

    Args:
      region: [B, P, 4], x0, y0, x1, y1 in shares of the sides of the image as it was before augmentation.
      frame: [B, 2, 3], where augmentation took places from: `preprocess.augment.Augment.image_and_frame`.
      patches: L, row by row over a square image.

    Returns:
      float32 [B, P, L] in [0, 1]: 1 inside and up to MARGIN outside, 0 from MARGIN + RAMP outside on.

    Raises:
      ValueError: L is not a square.
    """
    side = math.isqrt(patches)
    if side * side != patches:
        raise ValueError(f"{patches} patches are not those of a square image")
    middle = (jnp.arange(side, dtype=jnp.float32) + 0.5) / side
    y, x = jnp.meshgrid(middle, middle, indexing="ij")
    here = jnp.stack([x.reshape(-1), y.reshape(-1), jnp.ones(patches, jnp.float32)])
    before = jnp.einsum("bij,jl->bil", as_float(frame), here, precision=jax.lax.Precision.HIGHEST)[:, None]
    region = as_float(region)
    outside = jnp.maximum(region[..., :2, None] - before, before - region[..., 2:, None])  # [B, P, (x, y), L]
    return jnp.prod(jnp.clip(1.0 - (outside - MARGIN) / RAMP, 0.0, 1.0), axis=2)


def place_loss(scores: jax.Array, inside: jax.Array, weight: jax.Array) -> jax.Array:
    """Mean over phrases of -log of the share of their attention, softmax over patches, that lies inside their regions.

    Args:
      scores: [B, P, L], of phrases and patches of the same study, divided by the temperature.
      inside: [B, P, L] in [0, 1], see `inside_regions`.
      weight: [B, P], >= 0, 0 where there is no phrase.

    Returns:
      A scalar in [0, -log FLOOR]. A phrase whose region holds all patches, or none (cut off by augmentation), does not
      count; 0 without any that does.
    """
    scores, inside = as_float(scores), as_float(inside)
    counts = as_float(weight) * (jnp.min(inside, axis=-1) < 0.5) * (jnp.max(inside, axis=-1) > 0.5)
    log_share = jax.nn.logsumexp(scores, axis=-1, b=jnp.maximum(inside, FLOOR)) - jax.nn.logsumexp(scores, axis=-1)
    total = jnp.sum(counts)
    return jnp.sum(-log_share * counts) / jnp.where(total > 0, total, 1.0)
