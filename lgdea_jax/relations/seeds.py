"""The seed edges of a graph of relations: the pairs (the seeds of LGDEA, arXiv 2602.07540; the scaling is ours)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from lgdea_jax.arrays import as_float


class Seeds(NamedTuple):
    """The entries of S0: image `images[p]` and report `reports[p]` have `weights[p]` in [0, 1]; each array is [P]."""

    images: jax.Array
    reports: jax.Array
    weights: jax.Array


def seed_edges(images: jax.Array, reports: jax.Array, *, num_images: int, num_reports: int,
               weights: jax.Array | None = None) -> Seeds:
    """The seed matrix S0 from pairs.

    An entry is divided by the larger of its row's and its column's sum where that exceeds 1, so that a report with two
    views, or an image with two reports, has no more mass than others. With one partner each, S0 is the 0/1 matrix.

    Args:
      images, reports: int [P], rows of the two sides; a negative one is padding, no pair. Repeated pairs add up.
      num_images, num_reports: N_I and N_R.
      weights: [P], >= 0; default 1.

    Returns:
      Seeds with weights float32 [P]; rows and columns of S0 sum to at most 1.
    """
    images, reports = jnp.asarray(images, jnp.int32), jnp.asarray(reports, jnp.int32)
    exists = (images >= 0) & (reports >= 0)
    weights = jnp.where(exists, 1.0 if weights is None else as_float(weights), 0.0)
    images, reports = jnp.where(exists, images, 0), jnp.where(exists, reports, 0)
    rows = jax.ops.segment_sum(weights, images, num_images)[images]
    columns = jax.ops.segment_sum(weights, reports, num_reports)[reports]
    return Seeds(images, reports, weights / jnp.maximum(jnp.maximum(rows, columns), 1.0))
