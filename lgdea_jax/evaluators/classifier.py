"""A model's own classifier (methods without a text tower, such as a fine-tuned image tower) on labelled images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from lgdea_jax.errors import UserError
from lgdea_jax.evaluators import classified
from lgdea_jax.evaluators.classified import ClassifierSamples
from lgdea_jax.evaluators.data import EvalData
from lgdea_jax.evaluators.encoder import Encoder, Model
from lgdea_jax.evaluators.samples import Evaluator
from lgdea_jax.records import NEGATIVE, POSITIVE


@dataclasses.dataclass(frozen=True)
class TrainedSamples(ClassifierSamples):
    """Log odds of a model's classifier; see `ClassifierSamples`.

    `info`: images, probabilities, one_class_only (labels without both classes, which are left out) and unknown (labels
    that the classifier does not have).
    """

    task: ClassVar[str] = "classifier"


@dataclasses.dataclass(frozen=True)
class Classifier(Evaluator):
    """The labels of `data` by the model's classifier.

    Attributes:
      data: the images.
      label_names: of the classifier's outputs, in order.
      exclusive: the labels are classes of which an image has one.
    """

    data: EvalData
    label_names: Sequence[str]
    exclusive: bool = False

    def run(self, model: Model | Encoder) -> TrainedSamples:
        """Scores every image for every label that the classifier has and of which the data hold both classes.

        Raises:
          UserError: there is no such label.
        """
        encoder, data = Encoder.of(model, self.data), self.data
        both = (data.labels == POSITIVE).any(0) & (data.labels == NEGATIVE).any(0)
        known = np.array([name in self.label_names for name in data.label_names], bool)
        if not known.any():
            raise UserError(f"the classifier has none of the labels {', '.join(data.label_names) or '(none)'}; it has "
                            f"{', '.join(self.label_names)}")
        columns = np.flatnonzero(both & known)
        findings = tuple(data.label_names[column] for column in columns)
        scores = encoder.logits()[:, [list(self.label_names).index(name) for name in findings]]
        choice = columns if self.exclusive else columns[:0]
        truth, predicted, classes = classified.single_class(data, choice, scores, exclusive=self.exclusive)
        info = {"images": len(data.images), "probabilities": True,
                "one_class_only": [data.label_names[column] for column in np.flatnonzero(known & ~both)],
                "unknown": [data.label_names[column] for column in np.flatnonzero(~known)]}
        return TrainedSamples(
            data.subjects, {"scores": scores, "labels": data.labels[:, columns], "truth": truth,
                            "predicted": predicted}, {"findings": findings, "classes": classes}, info)
