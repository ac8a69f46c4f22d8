"""CLIP on evidence text with soft targets: reports that state the same findings are partly each other's matches.

    python -m lgdea_jax.train --config=configs/phantom.py --workdir=RUN --config.method=clip_evidence_soft

The strongest CLIP baseline: it uses the extracted evidence twice, as text and as the targets' overlap.
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


def losses(outputs: Mapping[str, Any], rows: Mapping[str, Any], aux: Any, step: jax.Array, *, terms: tuple[str, ...],
           own_share: float, target_temperature: float, chunks: Chunks | None = None) -> dict[str, jax.Array]:
    """`contrastive`: InfoNCE against the overlap of the reports' findings.

    Args:
      own_share: mass of a row's own report; 1 is `clip_evidence`.
      target_temperature: of the overlap; towards 0 only reports with the same findings match.
    """
    image, text = _rows.paired(outputs, rows)
    valid = _rows.has_evidence(rows)[: rows["num_pairs"]]
    contrast = _rows.finding_contrast(rows, valid, temperature=target_temperature, own_share=own_share, chunks=chunks)
    return {"contrastive": contrast(image, text, outputs["logit_scale"])}
