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
        classifies: str = "", projection_bias: bool = True, dtype: Any = jnp.float32,
    ) -> None:
        """Args:
          image_tower: [B, H, W, C] -> (pooled [B, Wi], {"patches": [B, L, Wi], "grid"}), or None.
          text_tower: (ids [N, T], mask [N, T]) -> (pooled [N, Wt], {"tokens": [N, T, Wt]}), or None.
          width: D, of the shared space.
          prototypes: K evidence prototypes, 0 for none.
          lesion_queries: Q learned queries over the patches, 0 for none.
          labels: outputs of the linear classifier.
          classifies: what it reads: the features of one tower, "image" or "text", or "latents", those of both in the
            shared space; "" for no classifier.
          logit_scale, logit_bias: initial temperature (as its inverse) and bias of contrastive logits.
          projection_bias: whether the projections to the shared space have a bias.
        """
        self.image_tower, self.text_tower, self.width, self.classifies = image_tower, text_tower, width, classifies
        self.logit_scale = nnx.Param(jnp.asarray(jnp.log(logit_scale), jnp.float32))
        self.logit_bias = nnx.Param(jnp.asarray(logit_bias, jnp.float32))
        self.prototypes = Prototypes(prototypes, width, rngs=rngs) if prototypes else None

        def projection(tower: nnx.Module | None) -> nnx.Module | None:
            if tower is None:
                return None
            return layers.dense(tower.width, width, bias=projection_bias, dtype=dtype, rngs=rngs)

        self.image_projection, self.patch_projection = projection(image_tower), projection(image_tower)
        self.lesion_queries = LesionQueries(
            lesion_queries, width=image_tower.width, patch_width=image_tower.width, heads=4, dtype=dtype, rngs=rngs,
        ) if image_tower is not None and lesion_queries else None
        self.lesion_projection = projection(image_tower) if self.lesion_queries is not None else None
        read = {"": None, "image": image_tower, "text": text_tower, "latents": self}[classifies]
        self.classifier = layers.dense(read.width, labels, dtype=dtype, rngs=rngs) if read is not None else None
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
        """[B, H, W, C] -> pooled [B, D], patches and pooled_patches [B, L, D] of unit norm, features [B, Wi], latents
        [B, D] (`pooled` before it is normalised); where the model has them lesions [B, Q, D], logits [B, labels] and
        label_patches [B, L, Wi]."""
        pooled, out = self.image_tower(images, deterministic=not train, rngs=rngs)
        latents = self.image_projection(pooled)
        result = {
            "pooled": normalize(latents),
            "patches": normalize(self.patch_projection(out["patches"])),
            # Patches in the space of the pooled image: what grounds in a model that was trained on pooled images only.
            "pooled_patches": normalize(self.image_projection(out["patches"])),
            **self._classified("image", pooled, latents),
        }
        if self.classifies == "image":
            # What the classifier's weights are compared with for heatmaps: patches in the space of its features.
            result["label_patches"] = out["patches"].astype(jnp.float32)
        if self.lesion_queries is not None:
            lesions = self.lesion_queries(out["patches"])
            result["lesions"] = normalize(self.lesion_projection(lesions))
        return result

    def encode_text(self, ids: jax.Array, mask: jax.Array, *, train: bool = False,
                    rngs: nnx.Rngs | None = None) -> dict[str, jax.Array]:
        """ids, mask [N, T] -> pooled [N, D] and tokens [N, T, D] of unit norm, the same projection applied to each,
        features [N, Wt], latents [N, D] (`pooled` before it is normalised); where it has them logits [N, labels]."""
        pooled, out = self.text_tower(ids, mask, deterministic=not train, rngs=rngs)
        latents = self.text_projection(pooled)
        return {"pooled": normalize(latents), "tokens": normalize(self.text_projection(out["tokens"])),
                **self._classified("text", pooled, latents)}

    def _classified(self, side: str, features: jax.Array, latents: jax.Array) -> dict[str, jax.Array]:
        """`features` and `latents` in float32, and `logits` where the classifier reads this side."""
        result = {"features": features.astype(jnp.float32), "latents": latents.astype(jnp.float32)}
        if self.classifier is not None and self.classifies in (side, "latents"):
            inputs = latents if self.classifies == "latents" else features
            result["logits"] = self.classifier(inputs).astype(jnp.float32)
        return result
