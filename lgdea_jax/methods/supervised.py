"""Supervised pretraining of the image tower on labels (silver labels in arXiv 2509.13175), no text.

    python -m lgdea_jax.train --config=configs/phantom.py --workdir=RUN --config.method=supervised
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from lgdea_jax import records
from lgdea_jax.losses import classification

NEEDS = ("image", "labels")
UNPAIRED_STREAMS = ("images",)
LOSSES = ("labels",)


def losses(outputs: Mapping[str, Any], rows: Mapping[str, Any], aux: Any, step: jax.Array, *,
           terms: tuple[str, ...], uncertain: str, class_weights: tuple[float, ...],
           positive_weights: tuple[float, ...]) -> dict[str, jax.Array]:
    """`labels`: multi-label BCE over known labels.

    Args:
      uncertain: what an uncertain label counts as: "ignore", "positive" or "negative".
      class_weights, positive_weights: of the labels and of their positive cases, in the order of the run's labels; ()
        weighs all alike. See `losses.classification.binary_cross_entropy`.

    Raises:
      ValueError: weights of another number than there are labels.
    """
    given = {}
    for name, values in (("class_weights", class_weights), ("positive_weights", positive_weights)):
        if len(values) not in (0, rows["labels"].shape[-1]):
            raise ValueError(f"methods.supervised.{name}: {len(values)} values, {rows['labels'].shape[-1]} labels")
        given[name] = jnp.asarray(values, jnp.float32) if len(values) else None
    target = {"ignore": None, "positive": 1.0, "negative": 0.0}[uncertain]
    return {"labels": classification.binary_cross_entropy(
        outputs["image"]["logits"], rows["labels"], uncertain_target=target, **given)}


def diagnostics(outputs: Mapping[str, Any], rows: Mapping[str, Any]) -> dict[str, jax.Array]:
    """`batch/known_labels`: share of labels that are neither missing nor uncertain."""
    labels = rows["labels"]
    return {"batch/known_labels": jnp.mean((labels == records.POSITIVE) | (labels == records.NEGATIVE))}


def image_embedding(outputs: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Classifier logits in the order of the run's labels, and the features below them."""
    return {"embedding": outputs["image"]["features"], "logits": outputs["image"]["logits"]}


def text_embedding(outputs: Mapping[str, Any], weight: jax.Array) -> dict[str, jax.Array]:
    """There is no text."""
    raise TypeError("the method `supervised` has no text tower")
