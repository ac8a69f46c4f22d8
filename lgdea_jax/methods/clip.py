"""CLIP (Radford et al., 2021; ConVIRT, Zhang et al., 2020): whole image against whole report, softmax over the batch.

    python -m lgdea_jax.train --config=configs/phantom.py --workdir=RUN --config.method=clip

Rows of one study (two views of it, or a pair that repeats because there are few) are each other's positives: without
that, a batch larger than the number of pairs would push equal pairs apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax

from lgdea_jax.losses import contrastive
from lgdea_jax.losses.chunked import Chunks
from lgdea_jax.methods import _rows

NEEDS = ("image", "text")
LOSSES = ("contrastive",)


def losses(outputs: Mapping[str, Any], rows: Mapping[str, Any], aux: Any, step: jax.Array, *,
           terms: tuple[str, ...], chunks: Chunks | None = None) -> dict[str, jax.Array]:
    """`contrastive`: symmetric InfoNCE over the pairs of the batch."""
    image, text = _rows.paired(outputs, rows)
    return {"contrastive": _rows.study_contrast(image, text, outputs["logit_scale"], rows, chunks=chunks)}


def diagnostics(outputs: Mapping[str, Any], rows: Mapping[str, Any], *,
                chunks: Chunks | None = None) -> dict[str, jax.Array]:
    """`logit_scale`, and `batch/recall@1`: share of images whose own report scores highest in the batch."""
    image, text = _rows.paired(outputs, rows)
    hits = rows["study"] == rows["study"][contrastive.best_text(image, text, chunks)]
    return {"logit_scale": outputs["logit_scale"], "batch/recall@1": hits.mean()}


def image_embedding(outputs: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Pooled image; patches through the same projection."""
    return {"embedding": outputs["image"]["pooled"], "patches": outputs["image"]["pooled_patches"]}


def text_embedding(outputs: Mapping[str, Any], weight: jax.Array) -> dict[str, jax.Array]:
    """Pooled text, for scores and for grounding."""
    return {"embedding": outputs["text"]["pooled"], "query": outputs["text"]["pooled"]}
