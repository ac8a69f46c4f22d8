"""What several methods read from the rows of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from lgdea_jax.findings.vocabulary import FINDINGS


def paired(outputs: Mapping[str, Any], rows: Mapping[str, Any], name: str = "pooled") -> tuple[jax.Array, jax.Array]:
    """(image, text) output `name` of the pairs, row i of one belonging to row i of the other."""
    count = rows["num_pairs"]
    return outputs["image"][name][:count], outputs["text"][name][:count]


def same_study(rows: Mapping[str, Any]) -> jax.Array:
    """bool [B_pair, B_pair]: rows of one study (two views share a report; few pairs repeat in a batch)."""
    return rows["study"][:, None] == rows["study"][None, :]


def row_targets(positives: jax.Array) -> jax.Array:
    """Rows of a non-negative [B, B] scaled to sum to one."""
    positives = positives.astype(jnp.float32)
    return positives / jnp.maximum(positives.sum(axis=1, keepdims=True), 1e-9)


def has_evidence(rows: Mapping[str, Any]) -> jax.Array:
    """bool [R]: reports with at least one evidence phrase (a stated normal study has one)."""
    return rows["weight"].sum(axis=-1) > 0


def finding_sets(rows: Mapping[str, Any]) -> jax.Array:
    """float32 [R, F + 1]: which findings a report states; the last column is stated normality."""
    one_hot = jax.nn.one_hot(rows["finding"], len(FINDINGS), dtype=jnp.float32)  # -1 is a row of zeros.
    sets = (one_hot * (rows["weight"] > 0)[..., None]).max(axis=-2)
    return jnp.concatenate([sets, rows["normal"].astype(jnp.float32)[:, None]], axis=-1)


def report_vector(phrases: jax.Array, weight: jax.Array) -> jax.Array:
    """Weighted mean [R, D] of phrases [R, P, D] with weights [R, P], scaled to unit norm; zero without any."""
    total = jnp.einsum("rpd,rp->rd", phrases, weight)
    return total * jax.lax.rsqrt(jnp.sum(jnp.square(total), axis=-1, keepdims=True) + 1e-12)
