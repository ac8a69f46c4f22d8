"""CLIP (Radford et al., 2021; ConVIRT, Zhang et al., 2020): whole image against whole text, softmax over the batch.

    python -m lgdea_jax.train --config=configs/phantom.py --workdir=RUN --config.method=clip
    python -m lgdea_jax.train --config=configs/phantom.py --workdir=RUN --config.method=clip_evidence

Rows of one study (two views of it, or a pair that repeats because there are few) are each other's positives: without
that, a batch larger than the number of pairs would push equal pairs apart. The preset `clip_evidence` replaces the
report by its extracted evidence phrases.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from lgdea_jax.losses import contrastive
from lgdea_jax.methods import _rows
from lgdea_jax.methods.base import Arrays, Method


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clip(Method):
    """See this module."""

    loss_names = ("contrastive",)

    def losses(self, outputs: Mapping[str, Any], rows: Mapping[str, Any], targets: Mapping[str, jax.Array],
               ) -> Arrays:
        """`contrastive`: symmetric InfoNCE over the pairs of the batch.

        Where the text is evidence, over the pairs whose reports have any (a stated normal study has).
        """
        image, text = _rows.paired(outputs, rows)
        valid = _rows.of_pairs(_rows.has_evidence(rows), rows) if self.text == "evidence" else None
        return {"contrastive": _rows.study_contrast(
            image, text, outputs["logit_scale"], rows, valid=valid, chunks=self.chunks)}

    def diagnostics(self, outputs: Mapping[str, Any], rows: Mapping[str, Any]) -> Arrays:
        """`logit_scale`, and `batch/recall@1`: share of images whose own report scores highest in the batch."""
        image, text = _rows.paired(outputs, rows)
        hits = rows["study"] == rows["study"][contrastive.best_text(image, text, self.chunks)]
        return {"logit_scale": outputs["logit_scale"], "batch/recall@1": hits.mean()}

    def image_embedding(self, outputs: Mapping[str, Any]) -> Arrays:
        """Pooled image; patches through the same projection."""
        return {"embedding": outputs["image"]["pooled"], "patches": outputs["image"]["pooled_patches"]}

    def text_embedding(self, outputs: Mapping[str, Any], weight: jax.Array) -> Arrays:
        """Pooled text, for scores and for grounding."""
        return {"embedding": outputs["text"]["pooled"], "query": outputs["text"]["pooled"]}
