"""The two towers and what LGDEA (arXiv 2602.07540) puts between them.

Either tower may be absent. Everything is arrays in, dict of arrays out; what is done with the outputs is up to the
methods. Projections are L2-normalised in float32.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from lgdea_jax.arrays import normalize
from lgdea_jax.models import layers
from lgdea_jax.models.lesion_queries import LesionQueries
from lgdea_jax.models.prototypes import Prototypes


class TwoTowers(nnx.Module):
    """Image tower, text tower, projections to a shared space, prototypes, lesion queries, classifier head."""

    def __init__(
        self, *, image_tower: nnx.Module | None, text_tower: nnx.Module | None, width: int, prototypes: int,
        lesion_queries: int, labels: int, logit_scale: float, logit_bias: float, rngs: nnx.Rngs,
        dtype: Any = jnp.float32,
    ) -> None:
        """Args:
          image_tower: [B, H, W, C] -> (pooled [B, Wi], {"patches": [B, L, Wi], "grid"}), or None.
          text_tower: (ids [N, T], mask [N, T]) -> (pooled [N, Wt], {"tokens": [N, T, Wt]}), or None.
          width: D, of the shared space.
          prototypes: K evidence prototypes, 0 for none.
          lesion_queries: Q learned queries over the patches, 0 for none.
          labels: outputs of a linear classifier on the pooled image, 0 for none.
          logit_scale, logit_bias: initial temperature (as its inverse) and bias of contrastive logits.
        """
        self.image_tower, self.text_tower, self.width = image_tower, text_tower, width
        self.logit_scale = nnx.Param(jnp.asarray(jnp.log(logit_scale), jnp.float32))
        self.logit_bias = nnx.Param(jnp.asarray(logit_bias, jnp.float32))
        self.prototypes = Prototypes(prototypes, width, rngs=rngs) if prototypes else None

        def projection(tower: nnx.Module | None, outputs: int = width) -> nnx.Module | None:
            return layers.dense(tower.width, outputs, dtype=dtype, rngs=rngs) if tower is not None and outputs else None

        self.image_projection, self.patch_projection = projection(image_tower), projection(image_tower)
        self.lesion_queries = LesionQueries(
            lesion_queries, width=image_tower.width, patch_width=image_tower.width, heads=4, dtype=dtype, rngs=rngs,
        ) if image_tower is not None and lesion_queries else None
        self.lesion_projection = projection(image_tower) if self.lesion_queries is not None else None
        self.classifier = projection(image_tower, labels)
        self.text_projection = projection(text_tower)

    def shared(self) -> dict[str, jax.Array]:
        """`logit_scale` (exp of its parameter, at most 100), `logit_bias`, and `prototypes` [K, D] if there are any."""
        values = {"logit_scale": jnp.exp(jnp.minimum(self.logit_scale[...], jnp.log(100.0))),
                  "logit_bias": self.logit_bias[...]}
        if self.prototypes is not None:
            values["prototypes"] = self.prototypes.mu[...]
        return values

    def encode_image(self, images: jax.Array, *, train: bool = False,
                     rngs: nnx.Rngs | None = None) -> dict[str, jax.Array]:
        """[B, H, W, C] -> pooled [B, D], patches and pooled_patches [B, L, D], features [B, Wi]; and where the model
        has them lesions [B, Q, D], logits [B, labels]."""
        pooled, out = self.image_tower(images, deterministic=not train, rngs=rngs)
        result = {
            "pooled": normalize(self.image_projection(pooled)),
            "patches": normalize(self.patch_projection(out["patches"])),
            # Patches in the space of the pooled image: what grounds in a model that was trained on pooled images only.
            "pooled_patches": normalize(self.image_projection(out["patches"])),
            "features": pooled.astype(jnp.float32),
        }
        if self.lesion_queries is not None:
            lesions = self.lesion_queries(out["patches"])
            result["lesions"] = normalize(self.lesion_projection(lesions))
        if self.classifier is not None:
            result["logits"] = self.classifier(pooled).astype(jnp.float32)
        return result

    def encode_text(self, ids: jax.Array, mask: jax.Array, *, train: bool = False,
                    rngs: nnx.Rngs | None = None) -> dict[str, jax.Array]:
        """ids, mask [N, T] -> pooled [N, D] and tokens [N, T, D], the same projection applied to each."""
        pooled, out = self.text_tower(ids, mask, deterministic=not train, rngs=rngs)
        return {"pooled": normalize(self.text_projection(pooled)),
                "tokens": normalize(self.text_projection(out["tokens"]))}
