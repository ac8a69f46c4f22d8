"""Supervised pretraining of the image tower on labels (silver labels in arXiv 2509.13175), no text.

    python -m lgdea_jax.train --config=configs/phantom.py --workdir=RUN --config.method=supervised
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from lgdea_jax import records
from lgdea_jax.errors import choose
from lgdea_jax.losses import classification
from lgdea_jax.methods.base import Arrays, Method

# What an uncertain label counts as.
UNCERTAIN = {"ignore": None, "positive": 1.0, "negative": 0.0}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Supervised(Method):
    """See this module.

    Attributes:
      uncertain: what an uncertain label counts as: "ignore", "positive" or "negative".
      class_weights, positive_weights: of the labels and of their positive cases, in the order of the run's labels; ()
        weighs all alike. See `losses.classification.binary_cross_entropy`.
    """

    uncertain: str
    class_weights: Sequence[float]
    positive_weights: Sequence[float]

    needs = ("image", "labels")
    loss_names = ("labels",)
    unpaired_streams = ("images",)

    def __post_init__(self) -> None:
        choose(f"config.methods.{self.name}.uncertain", self.uncertain, UNCERTAIN)

    def losses(self, outputs: Mapping[str, Any], rows: Mapping[str, Any], targets: Mapping[str, jax.Array],
               ) -> Arrays:
        """`labels`: multi-label BCE over known labels.

        Raises:
          ValueError: weights of another number than there are labels.
        """
        labels = rows["labels"].shape[-1]
        given = {}
        for name, values in (("class_weights", self.class_weights), ("positive_weights", self.positive_weights)):
            if len(values) not in (0, labels):
                raise ValueError(f"methods.{self.name}.{name}: {len(values)} values, {labels} labels")
            given[name] = jnp.asarray(values, jnp.float32) if len(values) else None
        return {"labels": classification.binary_cross_entropy(
            outputs["image"]["logits"], rows["labels"], uncertain_target=UNCERTAIN[self.uncertain], **given)}

    def diagnostics(self, outputs: Mapping[str, Any], rows: Mapping[str, Any]) -> Arrays:
        """`batch/known_labels`: share of labels that are neither missing nor uncertain."""
        labels = rows["labels"]
        return {"batch/known_labels": jnp.mean((labels == records.POSITIVE) | (labels == records.NEGATIVE))}

    def image_embedding(self, outputs: Mapping[str, Any]) -> Arrays:
        """Classifier logits in the order of the run's labels, and the features below them."""
        return {"embedding": outputs["image"]["features"], "logits": outputs["image"]["logits"]}

    def text_embedding(self, outputs: Mapping[str, Any], weight: jax.Array) -> Arrays:
        """There is no text."""
        raise TypeError("the method `supervised` has no text tower")
