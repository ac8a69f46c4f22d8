"""LGDEA (arXiv 2602.07540): the evidence objectives of `lgdea_pairs` over everything that a batch holds.

    python -m lgdea_jax.train --config=configs/phantom.py --workdir=RUN

Unpaired reports enter through the reconstruction and the anchor. The relations that link unpaired images with unpaired
reports are not part of this version: on them this method is `lgdea_pairs`, term by term.
"""

from __future__ import annotations

from lgdea_jax.methods.lgdea_pairs import LOSSES, NEEDS, diagnostics, image_embedding, losses, text_embedding

__all__ = ["LOSSES", "NEEDS", "diagnostics", "image_embedding", "losses", "text_embedding"]
