"""SigLIP (Zhai et al., 2023): whole image against whole report, a sigmoid for every image and text of the batch.

    python -m lgdea_jax.train --config=configs/phantom.py --workdir=RUN --config.method=clip_sigmoid
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
class ClipSigmoid(Clip):
    """See this module."""

    loss_names = ("sigmoid",)

    def losses(self, outputs: Mapping[str, Any], rows: Mapping[str, Any], targets: Mapping[str, jax.Array],
               ) -> Arrays:
        """`sigmoid`: binary loss over all images and texts of the batch; rows of one study are positives."""
        image, text = _rows.paired(outputs, rows)
        return {"sigmoid": _rows.study_sigmoid(
            image, text, outputs["logit_scale"], outputs["logit_bias"], rows, chunks=self.chunks)}
