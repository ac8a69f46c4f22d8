"""Word-region alignment (GLoRIA, Huang et al., ICCV 2021): every word of a report attends to the patches it is about.

    python -m lgdea_jax.train --config=configs/phantom.py --workdir=RUN --config.method=local

Beside CLIP's global loss, a report and an image match as well as the report's words match the regions that they attend
to. Zero-shot scores and retrieval use the global embeddings: the word-region score is no product of two vectors, and
costs a pass over words and patches for every image and report. Grounding uses the patches that the words are aligned
with.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from lgdea_jax.losses import contrastive
from lgdea_jax.methods import _rows
from lgdea_jax.methods.base import Arrays
from lgdea_jax.methods.clip import Clip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Local(Clip):
    """See this module.

    Attributes:
      attention_temperature: of a word's attention over patches (GLoRIA's 1 / tau_1).
      word_temperature: of the log-sum-exp over words (1 / tau_2): small is the best word, large their mean.
      local_temperature: of the contrast (1 / tau_3).
      chunks: how `contrastive` is cut; `local` holds its [B, B] scores in any case.
    """

    attention_temperature: float
    word_temperature: float
    local_temperature: float

    loss_names = ("contrastive", "local")

    def losses(self, outputs: Mapping[str, Any], rows: Mapping[str, Any], targets: Mapping[str, jax.Array],
               ) -> Arrays:
        """`contrastive`: as `clip`. `local`: the same over word-region scores."""
        result = super().losses(outputs, rows, targets) if "contrastive" in self.terms else {}
        if "local" in self.terms:
            text, patches = outputs["text"], outputs["image"]["patches"]
            scores = word_region_scores(
                *(_rows.of_pairs(array, rows) for array in (text["tokens"], text["mask"], patches)),
                attention_temperature=self.attention_temperature, word_temperature=self.word_temperature)
            result["local"] = contrastive.scored_contrastive(
                scores / self.local_temperature, _rows.row_targets(_rows.same_study(rows)))
        return result

    def image_embedding(self, outputs: Mapping[str, Any]) -> Arrays:
        """Pooled image; the patches that words attend to."""
        return {"embedding": outputs["image"]["pooled"], "patches": outputs["image"]["patches"]}

    def text_embedding(self, outputs: Mapping[str, Any], weight: jax.Array) -> Arrays:
        """Pooled text for scores; the mean word for grounding."""
        total = jnp.einsum("rtd,rt->rd", outputs["text"]["tokens"], outputs["text"]["mask"].astype(jnp.float32))
        return {"embedding": outputs["text"]["pooled"], "query": contrastive.normalize(total)}


def word_region_scores(words: jax.Array, mask: jax.Array, patches: jax.Array, *, attention_temperature: float,
                       word_temperature: float) -> jax.Array:
    """How well each report's words match each image's regions (GLoRIA, equations 3-6).

    A word w attends to the patches, a_l = softmax_l(w . v_l / attention_temperature); its match is the cosine of w and
    sum_l a_l v_l; a report's score is word_temperature log mean_w exp(match / word_temperature).

    Args:
      words: [R, T, D] unit vectors; mask: bool [R, T], words that exist; patches: [I, L, D] unit vectors.

    Returns:
      float32 [I, R], in [-1, 1]; one image at a time, so that nothing of size I x R x T x L is held.
    """
    few_patches = patches.shape[1] <= patches.shape[2]

    def one(image: jax.Array) -> jax.Array:
        similarity = jnp.einsum("rtd,ld->rtl", words, image)
        attention = jax.nn.softmax(similarity / attention_temperature, axis=-1)
        # The cosine needs no context vector: its product with the word is a sum over the similarities, and its length
        # comes from the products of the patches with each other, which are fewer than D as long as L is.
        if few_patches:
            squared = jnp.sum((attention @ (image @ image.T)) * attention, axis=-1)
        else:
            squared = jnp.sum(jnp.square(attention @ image), axis=-1)
        product = jnp.sum(attention * similarity, axis=-1)
        # No cosine is above 1, also where rounding makes next to nothing of a length.
        squared = jnp.maximum(jnp.maximum(squared, jnp.square(product)), 1e-12)
        match = product * jax.lax.rsqrt(squared) / word_temperature
        pooled = jax.nn.logsumexp(match, axis=-1, where=mask) - jnp.log(jnp.maximum(mask.sum(axis=-1), 1))
        return word_temperature * jnp.where(mask.any(axis=-1), pooled, 0.0)

    return jax.lax.map(jax.checkpoint(one), patches)
