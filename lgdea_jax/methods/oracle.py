"""An upper bound: `lgdea` whose unpaired images are given the evidence of the reports that they really have.

    python -m lgdea_jax.train --config=configs/phantom.py --workdir=RUN --config.method=oracle
        --config.memory.truth=True --config.data.pairs=0.01 --config.batch.images=32 --config.batch.reports=32

Not a method: it reads what unpaired data do not have. What lies between it and `lgdea` is what better targets could
win.
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

TARGETS = "truth"
