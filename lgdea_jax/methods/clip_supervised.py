"""CLIP with supervision of both sides through one shared linear classifier (GreenRFM, arXiv 2603.06467).

    python -m lgdea_jax.train --config=configs/silver_ct.py --workdir=RUN --config.init_from=IMAGES,REPORTS

The second stage of that recipe: both towers were made to classify before (`methods.supervised`), and what aligns them
keeps classifying. `similarity="dot"` is the paper's: plain dot products of the projections, without norms and without a
temperature, which have no scale to learn. `similarity="cosine"` is CLIP's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from lgdea_jax.errors import UserError, choose
from lgdea_jax.losses import contrastive
from lgdea_jax.methods import _rows
from lgdea_jax.methods.base import Arrays
from lgdea_jax.methods.supervised import Classifying

# The output of the towers whose products are the scores.
SIMILARITIES = {"dot": "latents", "cosine": "pooled"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipSupervised(Classifying):
    """See this module.

    Attributes:
      similarity: "dot" or "cosine".
    """

    similarity: str

    classifies = "latents"
    projection_bias = False
    loss_names = ("contrastive", "image_labels", "text_labels")

    def __post_init__(self) -> None:
        super().__post_init__()
        choose(f"config.methods.{self.name}.similarity", self.similarity, SIMILARITIES)
        if self.text not in ("report", "evidence"):
            raise UserError(f"config.methods.{self.name}.text is {self.text!r}: one text per image, report or evidence")

    @property
    def scaled(self) -> bool:
        """Dot products have no temperature."""
        return self.similarity == "cosine"

    def losses(self, outputs: Mapping[str, Any], rows: Mapping[str, Any], targets: Mapping[str, jax.Array],
               ) -> Arrays:
        """`contrastive`: symmetric InfoNCE over the pairs, rows of one study each other's positives; `image_labels`,
        `text_labels`: `label_loss` of the pairs' images and texts through the shared classifier."""
        result: Arrays = {}
        if "contrastive" in self.terms:
            image, text = _rows.paired(outputs, rows, SIMILARITIES[self.similarity])
            scale = outputs["logit_scale"] if self.scaled else 1.0
            valid = _rows.of_pairs(_rows.has_evidence(rows), rows) if self.text == "evidence" else None
            result["contrastive"] = _rows.study_contrast(image, text, scale, rows, valid=valid, chunks=self.chunks)
        image, text = _rows.paired(outputs, rows, "logits")
        labels = _rows.of_pairs(rows["labels"], rows)
        for term, logits in (("image_labels", image), ("text_labels", text)):
            if term in self.terms:
                result[term] = self.label_loss(logits, labels)
        return result

    def diagnostics(self, outputs: Mapping[str, Any], rows: Mapping[str, Any]) -> Arrays:
        """`batch/known_labels`, and `batch/recall@1`: share of images whose own report scores highest in the batch."""
        image, text = _rows.paired(outputs, rows, SIMILARITIES[self.similarity])
        hits = rows["study"] == rows["study"][contrastive.best_text(image, text, self.chunks)]
        return {**super().diagnostics(outputs, rows), "batch/recall@1": hits.mean()}

    def image_embedding(self, outputs: Mapping[str, Any]) -> Arrays:
        """The projected image, its patches through the same projection, and the classifier's logits."""
        image = outputs["image"]
        return {"embedding": image[SIMILARITIES[self.similarity]], "patches": image["pooled_patches"],
                "logits": image["logits"]}

    def text_embedding(self, outputs: Mapping[str, Any], weight: jax.Array) -> Arrays:
        """The projected text, its unit vector for heatmaps, and the classifier's logits."""
        text = outputs["text"]
        return {"embedding": text[SIMILARITIES[self.similarity]], "query": text["pooled"], "logits": text["logits"]}
