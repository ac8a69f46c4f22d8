"""CLIP on evidence text: the report is replaced by its extracted evidence phrases; otherwise as `clip`.

    python -m lgdea_jax.train --config=configs/phantom.py --workdir=RUN --config.method=clip_evidence
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax

from lgdea_jax.losses.chunked import Chunks
from lgdea_jax.methods import _rows
from lgdea_jax.methods.clip import diagnostics, image_embedding, text_embedding

__all__ = ["LOSSES", "NEEDS", "diagnostics", "image_embedding", "losses", "text_embedding"]

NEEDS = ("image", "text")
LOSSES = ("contrastive",)


def losses(outputs: Mapping[str, Any], rows: Mapping[str, Any], aux: Any, step: jax.Array, *,
           terms: tuple[str, ...], chunks: Chunks | None = None) -> dict[str, jax.Array]:
    """`contrastive`: InfoNCE over the pairs whose reports have evidence (a stated normal study has)."""
    image, text = _rows.paired(outputs, rows)
    valid = _rows.has_evidence(rows)[: rows["num_pairs"]]
    return {"contrastive": _rows.study_contrast(
        image, text, outputs["logit_scale"], rows, valid=valid, chunks=chunks)}
