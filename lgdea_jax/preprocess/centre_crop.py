"""The image geometry of BioViL's phrase grounding (MS-CXR): shorter side to 512, a centred square, and the way back.

Boecking et al., "Making the Most of Text Semantics", ECCV 2022; the crop is 480 in BioViL, 448 in BioViL-T, and 512 in
hi-ml's zero-shot classification. What lies outside the crop is not part of the input: its heatmap is NaN. It is a
benchmark's protocol; models here are trained with a letterbox.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lgdea_jax.preprocess.image import resize

RESIZED = 512
CROPS = (480, 448, 512)


def min_max(image: np.ndarray) -> np.ndarray:
    """Grey levels stretched to 0..255, uint8; a constant image is 0."""
    low, high = int(image.min()), int(image.max())
    if high == low:
        return np.zeros_like(image, np.uint8)
    return ((image.astype(np.float32) - low) * (255.0 / (high - low))).astype(np.uint8)


def crop_offset(shape: tuple[int, int], crop: int) -> tuple[int, int]:
    """(top, left) of a centred square in an image (h, w), as torchvision rounds it: half to even."""
    return round((shape[0] - crop) / 2), round((shape[1] - crop) / 2)


def resized_shape(shape: tuple[int, int]) -> tuple[int, int]:
    """(h, w) with the shorter side at 512 and the longer one rounded down, as torchvision does."""
    height, width = shape
    if height <= width:
        return RESIZED, int(RESIZED * width / height)
    return int(RESIZED * height / width), RESIZED


def centre_crop(image: np.ndarray, size: int, *, crop: int) -> np.ndarray:
    """uint8 [h, w] -> uint8 [size, size]: min-max, shorter side to 512, the centred `crop` x `crop`, then to `size`."""
    scaled = resize(min_max(image), resized_shape(image.shape))
    top, left = crop_offset(scaled.shape, crop)
    return resize(np.ascontiguousarray(scaled[top:top + crop, left:left + crop]), (size, size))


@dataclasses.dataclass(frozen=True)
class CentreCrop:
    """Geometry of `centre_crop`.

    Attributes:
      original: (h, w) of the original image.
      side: of the square in original pixels that the crop covers.
      offset: (top, left) of that square in original pixels.
    """

    original: tuple[int, int]
    side: int
    offset: tuple[int, int]

    @classmethod
    def of(cls, original_shape: tuple[int, ...], crop: int) -> CentreCrop:
        """Geometry for an image of `original_shape`, (h, w) or (1, h, w), as the public script maps back.

        Its square has int(crop x shorter side / 512) pixels; of an odd margin the larger half is right and below.
        """
        height, width = int(original_shape[-2]), int(original_shape[-1])
        side = int(crop * min(height, width) / RESIZED)
        return cls((height, width), side, ((height - side) // 2, (width - side) // 2))

    def heatmap(self, grid: np.ndarray, *, patch_offset: float = 0.0) -> np.ndarray:
        """[gh, gw] over the crop -> float32 [H, W] in original pixels: nearest patch inside the square, NaN outside.

        `patch_offset` (see `Letterbox.heatmap`) is not corrected for: the public script does not either.
        """
        del patch_offset
        grid = np.asarray(grid, np.float32)
        rows, columns = (np.arange(self.side) * cells // self.side for cells in grid.shape)
        out = np.full(self.original, np.nan, np.float32)
        top, left = self.offset
        out[top:top + self.side, left:left + self.side] = grid[rows][:, columns]
        return out


def _entry(crop: int) -> tuple[Callable[..., np.ndarray], Callable[..., Any]]:
    return functools.partial(centre_crop, crop=crop), lambda original, size, stored: CentreCrop.of(original, crop)


# As in `evaluators.data.TRANSFORMS`.
TRANSFORMS: Mapping[str, tuple[Callable[..., np.ndarray], Callable[..., Any]]] = {
    f"biovil{crop}@1": _entry(crop) for crop in CROPS}
