"""Former names of `chunks` and `contrastive`, until the methods import those."""

from lgdea_jax.losses.chunks import Chunks
from lgdea_jax.losses.contrastive import best_text, sigmoid_contrastive, soft_contrastive

__all__ = ["Chunks", "best_text", "sigmoid_contrastive", "soft_contrastive"]
