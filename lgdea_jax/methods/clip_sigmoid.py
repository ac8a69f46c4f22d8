"""SigLIP (Zhai et al., 2023): whole image against whole report, a sigmoid for every couple.

    python -m lgdea_jax.train --config=configs/phantom.py --workdir=RUN --config.method=clip_sigmoid
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
LOSSES = ("sigmoid",)


def losses(outputs: Mapping[str, Any], rows: Mapping[str, Any], aux: Any, step: jax.Array, *,
           terms: tuple[str, ...], chunks: Chunks | None = None) -> dict[str, jax.Array]:
    """`sigmoid`: binary loss over all couples of the batch; rows of one study are positives."""
    image, text = _rows.paired(outputs, rows)
    return {"sigmoid": _rows.study_sigmoid(
        image, text, outputs["logit_scale"], outputs["logit_bias"], rows, chunks=chunks)}
