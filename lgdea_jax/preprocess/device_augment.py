"""`Augment` inside the training step: the host's formulas, drawn by (seed, step, stream, row). No flips."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

from lgdea_jax.preprocess.augment import CURVE_DRAWS, ERASED, GEOMETRY_DRAWS, Augment
from lgdea_jax.preprocess.strong_view import inside, row_keys

# Set apart from the dropout masks and the strong views, which are drawn by (seed, step) too.
_AUGMENT_STREAM = 2


@dataclasses.dataclass(frozen=True)
class DeviceAugment:
    """The random transform of a batch's images. The host sends them as they are, uint8.

    Attributes:
      options: what `Augment` does to an image on the host; between their results lies rounding.
    """

    options: Augment

    def __call__(self, batch: Mapping[str, Mapping[str, jax.Array]], seed: int, step: jax.Array,
                 ) -> dict[str, Mapping[str, jax.Array]]:
        """A batch (streams of arrays, see `data.batch`) with the images of all its streams transformed."""
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), _AUGMENT_STREAM), step)
        out = dict(batch)
        for number, stream in enumerate(("pairs", "images")):
            if "image" in batch.get(stream, {}):
                images = self.images(jax.random.fold_in(key, number), batch[stream]["image"])
                out[stream] = {**batch[stream], "image": images}
        return out

    def images(self, key: jax.Array, images: jax.Array) -> jax.Array:
        """uint8 [B, S, S], each transformed by what is drawn from (key, its row); the same shape and dtype."""
        return jax.vmap(self._one)(row_keys(key, len(images)), images)

    def _one(self, key: jax.Array, image: jax.Array) -> jax.Array:
        of_geometry, of_curve, of_noise, of_hole = jax.random.split(key, 4)
        x = self.moved(image, jax.random.uniform(of_geometry, (GEOMETRY_DRAWS,)))
        x = self.options.curve(x / 255.0, jax.random.uniform(of_curve, (CURVE_DRAWS,)), jnp) * 255.0
        if self.options.noise:
            strength, pixels = jax.random.split(of_noise)
            x = x + self.options.noise * jax.random.uniform(strength) * jax.random.normal(pixels, x.shape)
        if self.options.erase:
            x = self._erased(of_hole, x)
        return jnp.clip(x + 0.5, 0, 255).astype(jnp.uint8)

    def moved(self, image: jax.Array, draws: jax.Array) -> jax.Array:
        """The image cropped, stretched, turned and shifted by `Augment.matrix` of `draws`; float32, black outside."""
        size = image.shape[0]
        a, b, c, d, e, f = self.options.matrix(draws, size, jnp)
        # A pixel is where its centre is. Within half a pixel of the edge there is one neighbour only, as in PIL.
        y, x = jnp.meshgrid(*[jnp.arange(size) + 0.5] * 2, indexing="ij")
        x, y = a * x + b * y + c, d * x + e * y + f
        seen = map_coordinates(image.astype(jnp.float32), [y - 0.5, x - 0.5], order=1, mode="nearest")
        return jnp.where((x >= 0) & (x < size) & (y >= 0) & (y < size), seen, 0.0)

    def _erased(self, key: jax.Array, x: jax.Array) -> jax.Array:
        whether, of_sides, of_corner = jax.random.split(key, 3)
        size, (smallest, largest) = len(x), ERASED
        sides = jnp.floor(size * jax.random.uniform(of_sides, (1, 2), minval=smallest, maxval=largest)) / size
        # Half a pixel off: no rounding decides whether a pixel is inside.
        first = (jnp.floor(size * (1 - sides) * jax.random.uniform(of_corner, (1, 2))) - 0.5) / size
        erased = inside(first, sides, x.shape) & (jax.random.uniform(whether) < self.options.erase)
        return jnp.where(erased, jnp.mean(x), x)
