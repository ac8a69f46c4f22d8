"""Random transforms of one training item. No flips: image-left is patient-right, and reports name sides."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from PIL import Image

from lgdea_jax.errors import UserError
from lgdea_jax.io.encoded_volume import ByteSource, volume_shape
from lgdea_jax.preprocess.volume import VolumeView

# A crop that keeps less than this share of the area can cut away what the report describes.
SMALLEST_CROP = 0.6
ERASED = (0.1, 0.32)  # Sides of the rectangle that is erased, shares of the image's.
# Random numbers that the affine map and the intensity curve take.
GEOMETRY_DRAWS, CURVE_DRAWS = 5, 3


@dataclasses.dataclass(frozen=True)
class Augment:
    """One affine resampling (crop, aspect, rotation, shift) and one intensity curve an image; one text variant an item.

    Attributes:
      crop: (smallest, largest) share of the area that is kept, within [0.6, 1].
      aspect: largest ratio of a side's change, >= 1.
      rotate: largest rotation in degrees.
      gamma, contrast, brightness: largest relative change of each; noise: standard deviation in grey levels.
      erase: probability that a random rectangle (at most 10% of the area) is filled with the mean.
      enabled: False leaves images as they are (text variants are still drawn).
      device: the images are transformed in the training step (`device_augment`), not here.
    """

    crop: tuple[float, float]
    aspect: float
    rotate: float
    gamma: float
    contrast: float
    brightness: float
    noise: float
    erase: float
    enabled: bool = True
    device: bool = False

    def __post_init__(self) -> None:
        if not SMALLEST_CROP <= self.crop[0] <= self.crop[1] <= 1:
            raise UserError(f"augment.crop={tuple(self.crop)}: shares of the area within [{SMALLEST_CROP}, 1]")
        if self.aspect < 1:
            raise UserError(f"augment.aspect={self.aspect}: at least 1")

    def changes(self, name: str) -> bool:
        """Whether `random_map` does anything to this entry of an element."""
        return name == "tokens" or (name == "image" and self.enabled and not self.device)

    def random_map(self, element: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """`element` with its image transformed, and one row of `tokens` chosen."""
        element = dict(element)
        if "image" in element and self.changes("image"):
            element["image"] = self.image(element["image"], rng)
        return _one_text(element, rng)

    def image(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Transforms a uint8 [S, S] image; the result has its shape and dtype."""
        size = image.shape[0]
        draws = rng.random(GEOMETRY_DRAWS + CURVE_DRAWS)
        moved = Image.fromarray(image).transform(
            (size, size), Image.Transform.AFFINE, self.matrix(draws[:GEOMETRY_DRAWS], size), Image.Resampling.BILINEAR)
        levels = self.curve(np.arange(256, dtype=np.float32) / 255, draws[GEOMETRY_DRAWS:])
        result = (levels * 255)[np.asarray(moved)]
        if self.noise:
            result += rng.standard_normal(result.shape, np.float32) * np.float32(self.noise * rng.uniform())
        if self.erase and rng.uniform() < self.erase:
            high, wide = (rng.uniform(*ERASED, 2) * size).astype(int)
            top, left = rng.integers(size - high), rng.integers(size - wide)
            result[top:top + high, left:left + wide] = result.mean()
        return np.clip(result + 0.5, 0, 255).astype(np.uint8)

    def matrix(self, draws: Any, size: int, xp: Any = np) -> tuple[Any, ...]:
        """Where each pixel of the result is read.

        Args:
          draws: [5] numbers of [0, 1); size: S.
          xp: numpy, or jax.numpy on a device.

        Returns:
          (a, b, c, d, e, f): the point (x, y) of the result is (a x + b y + c, d x + e y + f) of the image.
        """
        area = _between(*self.crop, draws[0])
        # A side that would be longer than the image is as long as the image; the other one keeps the area.
        wide = xp.clip(xp.sqrt(area) * xp.exp(_between(-1, 1, draws[1]) * float(np.log(self.aspect)) / 2), area, 1.0)
        high = area / wide
        left, top = _between(0, 1 - wide, draws[2]) * size, _between(0, 1 - high, draws[3]) * size
        angle = xp.deg2rad(_between(-self.rotate, self.rotate, draws[4]))
        cos, sin = xp.cos(angle), xp.sin(angle)
        centre_x, centre_y, half = left + wide * size / 2, top + high * size / 2, size / 2
        a, b, d, e = wide * cos, high * sin, -wide * sin, high * cos
        return a, b, centre_x - a * half - b * half, d, e, centre_y - d * half - e * half

    def curve(self, levels: Any, draws: Any, xp: Any = np) -> Any:
        """Grey levels in [0, 1] on the drawn curve, not clipped; draws: [3] numbers of [0, 1)."""
        levels = levels ** xp.exp(_between(-self.gamma, self.gamma, draws[0]))
        levels = (levels - 0.5) * (1 + _between(-self.contrast, self.contrast, draws[1])) + 0.5
        return levels + _between(-self.brightness, self.brightness, draws[2])


def _between(low: Any, high: Any, draw: Any) -> Any:
    return low + (high - low) * draw


def _one_text(element: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """`element` with one row of its `tokens` chosen."""
    if "tokens" in element:
        element["tokens"] = element["tokens"][rng.integers(len(element["tokens"]))]
    return element


# Three sides shifted by this share keep 0.61 of the volume.
LARGEST_SHIFT = 0.15
_INT16 = (np.iinfo(np.int16).min, np.iinfo(np.int16).max)


@dataclasses.dataclass(frozen=True)
class VolumeAugment:
    """A random crop of the model's shape from the stored volume, of which only the chunks inside are decoded.

    Attributes:
      view: of the model.
      random_crop: where the stored volume is larger than the shape, any crop of it (else the middle, shifted). A small
        crop can lack what the report describes: that is the caller's choice.
      shift: largest shift of what is not cropped at random, a share of each side, at most LARGEST_SHIFT.
      noise: largest standard deviation of the noise in HU, drawn per volume.
      enabled: False shows the middle of the volume (text variants are still drawn).
    """

    view: VolumeView
    random_crop: bool = False
    shift: float = 0.0
    noise: float = 0.0
    enabled: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.shift <= LARGEST_SHIFT:
            raise UserError(f"volume.shift={self.shift}: a share of each side within [0, {LARGEST_SHIFT}]")
        if self.noise < 0:
            raise UserError(f"volume.noise={self.noise}: HU, not negative")

    @staticmethod
    def changes(name: str) -> bool:
        """Whether `random_map` does anything to this entry of an element."""
        return name in ("volume", "tokens")

    def random_map(self, element: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """`element` with `volume` (stored bytes) made into `image`, int16 [D, H, W, 1] in HU."""
        element = dict(element)
        if "volume" in element:
            element["image"] = self.image(element.pop("volume"), rng)
        return _one_text(element, rng)

    def image(self, data: bytes | ByteSource, rng: np.random.Generator) -> np.ndarray:
        """A random crop of the stored volume as the model's input; int16 [D, H, W, 1] in HU."""
        stored = volume_shape(data)
        offset = list(self.view.offset(stored))
        if self.enabled:
            for axis, (have, want) in enumerate(zip(stored, self.view.shape, strict=True)):
                if self.random_crop and have > want:
                    offset[axis] = -int(rng.integers(have - want + 1))
                else:
                    most = int(self.shift * want)
                    offset[axis] += int(rng.integers(-most, most + 1))
        volume = self.view.crop(data, offset)
        if self.enabled and self.noise:
            deviation = np.float32(self.noise * rng.uniform())
            noisy = volume + rng.standard_normal(volume.shape, np.float32) * deviation
            volume = np.rint(np.clip(noisy, *_INT16)).astype(np.int16)
        return volume[..., None]
