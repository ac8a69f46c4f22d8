"""Supervised pretraining of one tower on labels (silver labels in arXiv 2509.13175): of images, or of reports.

    python -m lgdea_jax.train --config=configs/phantom.py --workdir=RUN --config.method=supervised
    python -m lgdea_jax.train --config=configs/phantom.py --workdir=RUN --config.method=supervised_text

`supervised_text` reads no image: a text tower that tells findings from their denials is to be had before any alignment
(arXiv 2603.06467).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from lgdea_jax import records
from lgdea_jax.errors import UserError, choose
from lgdea_jax.losses import classification
from lgdea_jax.methods.base import Arrays, Method

# The target that stands for an uncertain label; None leaves it out of the loss.
UNCERTAIN = {"ignore": None, "positive": 1.0, "negative": 0.0, "soft": 0.5}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classifying(Method):
    """A method with a linear classifier of the labels. Missing labels are always left out of its losses.

    Attributes:
      uncertain: what an uncertain label counts as: "ignore" leaves it out, "positive", "negative", or "soft" for a
        target of one half.
      class_weights, positive_weights: of the labels and of their positive cases, in the order of the run's labels; ()
        weighs all alike. See `losses.classification.binary_cross_entropy`.
    """

    uncertain: str
    class_weights: Sequence[float]
    positive_weights: Sequence[float]

    def __post_init__(self) -> None:
        choose(f"config.methods.{self.name}.uncertain", self.uncertain, UNCERTAIN)

    def label_loss(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        """Multi-label BCE, a scalar, of logits [N, K] over the known ones of labels int8 [N, K].

        Raises:
          ValueError: weights of another number than there are labels.
        """
        given = {}
        for name, values in (("class_weights", self.class_weights), ("positive_weights", self.positive_weights)):
            if len(values) not in (0, labels.shape[-1]):
                raise ValueError(f"methods.{self.name}.{name}: {len(values)} values, {labels.shape[-1]} labels")
            given[name] = jnp.asarray(values, jnp.float32) if len(values) else None
        return classification.binary_cross_entropy(
            logits, labels, uncertain_target=UNCERTAIN[self.uncertain], **given)

    def diagnostics(self, outputs: Mapping[str, Any], rows: Mapping[str, Any]) -> Arrays:
        """`batch/known_labels`: share of labels that are neither missing nor uncertain."""
        labels = rows["labels"]
        return {"batch/known_labels": jnp.mean((labels == records.POSITIVE) | (labels == records.NEGATIVE))}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Supervised(Classifying):
    """Of the image tower; see this module."""

    needs = ("image",)
    classifies = "image"
    loss_names = ("labels",)
    unpaired_streams = ("images",)

    def losses(self, outputs: Mapping[str, Any], rows: Mapping[str, Any], targets: Mapping[str, jax.Array],
               ) -> Arrays:
        """`labels`: `label_loss` of the images."""
        return {"labels": self.label_loss(outputs["image"]["logits"], rows["labels"])}

    def image_embedding(self, outputs: Mapping[str, Any]) -> Arrays:
        """Classifier logits in the order of the run's labels, the features below them, and the patches."""
        image = outputs["image"]
        return {"embedding": image["features"], "logits": image["logits"], "label_patches": image["label_patches"]}

    def text_embedding(self, outputs: Mapping[str, Any], weight: jax.Array) -> Arrays:
        """There is no text."""
        raise TypeError(f"the method `{self.name}` has no text tower")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SupervisedText(Classifying):
    """Of the text tower; see this module."""

    needs = ("text",)
    classifies = "text"
    loss_names = ("labels",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.text not in ("report", "evidence"):
            raise UserError(f"config.methods.{self.name}.text is {self.text!r}: one text per label, report or evidence")

    def losses(self, outputs: Mapping[str, Any], rows: Mapping[str, Any], targets: Mapping[str, jax.Array],
               ) -> Arrays:
        """`labels`: `label_loss` of the reports."""
        return {"labels": self.label_loss(outputs["text"]["logits"], rows["labels"])}

    def image_embedding(self, outputs: Mapping[str, Any]) -> Arrays:
        """There is no image."""
        raise TypeError(f"the method `{self.name}` has no image tower")

    def text_embedding(self, outputs: Mapping[str, Any], weight: jax.Array) -> Arrays:
        """Classifier logits in the order of the run's labels, and the features below them."""
        return {"embedding": outputs["text"]["features"], "logits": outputs["text"]["logits"]}
