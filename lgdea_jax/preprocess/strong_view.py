"""The student's view of unpaired images: strong random transforms on the device, drawn from (key, row). No flips."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

from lgdea_jax.errors import UserError
from lgdea_jax.preprocess.augment import SMALLEST_CROP


@dataclasses.dataclass(frozen=True, kw_only=True)
class StrongView:
    """One affine resampling, one intensity curve, noise and holes an image; the slices of a volume share them.

    Attributes:
      levels: (lowest, highest) value of an image.
      crop: smallest share of the area that is kept, within [0.6, 1]; rotate: largest rotation in degrees.
      gamma, contrast: largest relative change of each; noise: largest standard deviation, a share of the levels.
      holes: rectangles that are filled with the image's mean; hole: largest side of one, a share of the image's.
    """

    levels: tuple[float, float]
    crop: float
    rotate: float
    gamma: float
    contrast: float
    noise: float
    holes: int
    hole: float

    def __post_init__(self) -> None:
        if not SMALLEST_CROP <= self.crop <= 1:
            raise UserError(f"strong.crop={self.crop}: a share of the area within [{SMALLEST_CROP}, 1]")
        if not 0 <= self.hole < 1 or self.holes < 0:
            raise UserError(f"strong.holes={self.holes}, strong.hole={self.hole}: a number, and a share of a side "
                            "below 1")

    def __call__(self, key: jax.Array, images: jax.Array) -> jax.Array:
        """Images [B, H, W] uint8, or volumes [B, D, H, W, 1] in HU, as float32 of the same shape and levels."""
        volumes = images.ndim == 5
        stacks = images[..., 0] if volumes else images[:, None]
        seen = jax.vmap(self._one)(row_keys(key, len(images)), stacks.astype(jnp.float32))
        return seen[..., None] if volumes else seen[:, 0]

    def _one(self, key: jax.Array, stack: jax.Array) -> jax.Array:
        """Slices [D, H, W] of one image."""
        low, high = self.levels
        keys = jax.random.split(key, 6)
        x = jnp.clip((stack - low) / (high - low), 0.0, 1.0)
        if self.crop < 1 or self.rotate:
            at = self._coordinates(keys[0], x.shape[-2:])
            x = jax.vmap(lambda one: map_coordinates(one, at, order=1, mode="constant"))(x)
        if self.gamma:
            # A power of 0 has no derivative, and nothing is differentiated here.
            x = x ** jnp.exp(jax.random.uniform(keys[1], minval=-self.gamma, maxval=self.gamma))
        if self.contrast:
            x = (x - 0.5) * (1 + jax.random.uniform(keys[2], minval=-self.contrast, maxval=self.contrast)) + 0.5
        if self.noise:
            x = x + self.noise * jax.random.uniform(keys[3]) * jax.random.normal(keys[4], x.shape)
        if self.holes:
            x = jnp.where(self._holes(keys[5], x.shape[-2:]), jnp.mean(x), x)
        return jnp.clip(x, 0.0, 1.0) * (high - low) + low

    def _coordinates(self, key: jax.Array, shape: tuple[int, int]) -> list[jax.Array]:
        """Where each pixel is read: a rotated part of it; coordinates of rows and of columns."""
        keys = jax.random.split(key, 4)
        size = jnp.asarray(shape, jnp.float32)
        side = jnp.sqrt(jax.random.uniform(keys[0], minval=self.crop, maxval=1.0))
        angle = jnp.deg2rad(jax.random.uniform(keys[1], minval=-self.rotate, maxval=self.rotate))
        centre = (size - 1) / 2 + (1 - side) * size * jax.random.uniform(keys[2], (2,), minval=-0.5, maxval=0.5)
        down, across = jnp.meshgrid(*(jnp.arange(n) - (n - 1) / 2 for n in shape), indexing="ij")
        cos, sin = side * jnp.cos(angle), side * jnp.sin(angle)
        return [centre[0] + cos * down - sin * across, centre[1] + sin * down + cos * across]

    def _holes(self, key: jax.Array, shape: tuple[int, int]) -> jax.Array:
        """bool [H, W], inside any of the rectangles."""
        sides, corners = (jax.random.uniform(one, (self.holes, 2)) for one in jax.random.split(key))
        sides = self.hole * sides
        return inside(corners * (1 - sides), sides, shape)


def row_keys(key: jax.Array, rows: int) -> jax.Array:
    """A key for each row of a batch, [rows]: of (key, row) alone, however the rows are spread over devices."""
    return jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(rows))


def inside(first: jax.Array, sides: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """bool [H, W]: which pixels lie inside any of the rectangles; first, sides: [N, 2] shares of (H, W)."""
    spans = [(jnp.arange(n) / n >= first[:, axis, None]) & (jnp.arange(n) / n < (first + sides)[:, axis, None])
             for axis, n in enumerate(shape)]
    return jnp.any(spans[0][:, :, None] & spans[1][:, None, :], axis=0)
