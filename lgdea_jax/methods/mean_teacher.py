"""Mean teacher (Tarvainen & Valpola, 2017): `lgdea` without any graph. The control that relations must beat.

    python -m lgdea_jax.train --config=configs/phantom.py --workdir=RUN --config.method=mean_teacher

The target of an unpaired image is the averaged model's own evidence of it, without augmentation, at the last refresh of
the memory, sharpened and aligned to the reports' mean evidence; unpaired reports have none.
"""

from __future__ import annotations

from lgdea_jax.methods.lgdea import (
    LOSSES,
    NEEDS,
    UNPAIRED_STREAMS,
    diagnostics,
    image_embedding,
    losses,
    memory_image,
    memory_report,
    text_embedding,
)

__all__ = ["LOSSES", "NEEDS", "TARGETS", "UNPAIRED_STREAMS", "diagnostics", "image_embedding", "losses", "memory_image",
           "memory_report", "text_embedding"]

TARGETS = "teacher"
