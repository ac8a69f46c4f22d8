"""What several methods read from the rows of a batch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from lgdea_jax.findings.vocabulary import FINDINGS
from lgdea_jax.losses import contrastive, targets
from lgdea_jax.losses.chunks import Chunks
from lgdea_jax.models.forward import pairs_of


def paired(outputs: Mapping[str, Any], rows: Mapping[str, Any], name: str = "pooled") -> tuple[jax.Array, jax.Array]:
    """(image, text) output `name` of the pairs, row i of one belonging to row i of the other."""
    return of_pairs(outputs["image"][name], rows), of_pairs(outputs["text"][name], rows)


def of_pairs(array: jax.Array, rows: Mapping[str, Any]) -> jax.Array:
    """The pairs' part [B_pair, ...] of an array whose rows are all images or all reports of the batch."""
    return pairs_of(array, rows["num_pairs"])


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


def _equal(a: jax.Array, b: jax.Array) -> jax.Array:
    """[A], [B] -> [A, B]: 1 where the numbers are equal."""
    return (a[:, None] == b[None, :]).astype(jnp.float32)


def study_contrast(image: jax.Array, text: jax.Array, scale: jax.Array, rows: Mapping[str, Any], *,
                   valid: jax.Array | None = None, chunks: Chunks | None = None) -> jax.Array:
    """InfoNCE [B, D] x [B, D] in which rows of one study are each other's positives.

    Args:
      valid: bool [B], rows that count; chunks: how the loss is divided, None makes all scores at once.
    """
    return contrastive.soft_contrastive(image, text, scale, similarity=_equal, image_features=rows["study"],
                                        image_mask=valid, chunks=chunks)


def study_sigmoid(image: jax.Array, text: jax.Array, scale: jax.Array, bias: jax.Array, rows: Mapping[str, Any], *,
                  chunks: Chunks | None = None) -> jax.Array:
    """The sigmoid loss [B, D] x [B, D] in which rows of one study are each other's positives."""
    return contrastive.sigmoid_contrastive(image, text, scale, bias, similarity=_equal, image_features=rows["study"],
                                           chunks=chunks)


def finding_contrast(rows: Mapping[str, Any], valid: jax.Array, *, temperature: float, own_share: float,
                     chunks: Chunks | None = None) -> Callable[..., jax.Array]:
    """InfoNCE of the pairs against the overlap of the reports' findings, as a function of (image, text, scale).

    Args:
      rows: of the batch; valid: bool [B_pair], rows that count.
      temperature: > 0, of the overlap: towards 0 only exact matches keep mass, 1 is the overlap itself, larger values
        level it. A row is its own exact match.
      own_share: see `losses.contrastive.soft_contrastive`; 1 is plain CLIP.
      chunks: how the loss is divided, None makes all scores and targets at once.

    Raises:
      ValueError: temperature <= 0.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be > 0, not {temperature}")
    sets = of_pairs(finding_sets(rows), rows)

    def similarity(a: Any, b: Any) -> jax.Array:
        overlap = jnp.maximum(targets.finding_overlap(a["sets"], b["sets"]), _equal(a["study"], b["study"]))
        return jnp.where(a["row"][:, None] == b["row"][None, :], 1.0, overlap ** (1.0 / temperature))

    features = {"sets": sets, "study": rows["study"], "row": jnp.arange(len(sets))}
    return functools.partial(contrastive.soft_contrastive, similarity=None if own_share == 1.0 else similarity,
                             image_features=features, own_share=own_share, image_mask=valid, chunks=chunks)
