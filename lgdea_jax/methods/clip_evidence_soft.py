"""CLIP on evidence text with soft targets: reports that state the same findings are partly each other's matches.

    python -m lgdea_jax.train --config=configs/phantom.py --workdir=RUN --config.method=clip_evidence_soft

The strongest CLIP baseline: it uses the extracted evidence twice, as text and as the targets' overlap.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from lgdea_jax.methods import _rows
from lgdea_jax.methods.base import Arrays
from lgdea_jax.methods.clip import Clip


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipEvidenceSoft(Clip):
    """See this module.

    Attributes:
      own_share: mass of a row's own report; at 1 no other report is a match.
      target_temperature: of the overlap; towards 0 only reports with the same findings match.
    """

    own_share: float
    target_temperature: float

    def losses(self, outputs: Mapping[str, Any], rows: Mapping[str, Any], targets: Mapping[str, jax.Array],
               ) -> Arrays:
        """`contrastive`: InfoNCE against the overlap of the reports' findings."""
        image, text = _rows.paired(outputs, rows)
        valid = _rows.of_pairs(_rows.has_evidence(rows), rows)
        contrast = _rows.finding_contrast(
            rows, valid, temperature=self.target_temperature, own_share=self.own_share, chunks=self.chunks)
        return {"contrastive": contrast(image, text, outputs["logit_scale"])}
