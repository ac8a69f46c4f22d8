"""2D image transforms with their geometry: "grey8@1" (what records store) and "letterbox@1" (the model's input).

No transform here mirrors an image: image-left is patient-right throughout (`io` has turned what a header states to be
turned). Boxes are (x, y, w, h) in pixels, x to the right and y down, where pixel i covers the interval [i, i + 1):
scaling a box is multiplying by the ratio of the sizes.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from lgdea_jax.records import Box

RECORD_TRANSFORM = "grey8@1"
MODEL_TRANSFORM = "letterbox@1"


def to_grey8(array: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Any decoded image as 8-bit grey, and what was converted (for counting).

    uint8 [h, w] is returned as it is. Colours become ITU-R 601 luma; transparent parts are laid on black. Deeper images
    (uint16, float) are scaled linearly from their minimum and maximum to 0..255.

    Args:
      array: uint8, uint16 or float [h, w]; uint8 or uint16 [h, w, 3] or [h, w, 4].

    Returns:
      (uint8 [h, w], conversions out of "16 bit", "float", "colour", "alpha").

    Raises:
      ValueError: another shape, or no pixels.
    """
    if array.size == 0 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise ValueError(f"not an image: {array.dtype} {list(array.shape)}")
    done: list[str] = []
    if array.ndim == 3:
        done += ["alpha", "colour"] if array.shape[2] == 4 else ["colour"]
        array = _luma(array)
    if array.dtype != np.uint8:
        done.append("float" if np.issubdtype(array.dtype, np.floating) else "16 bit")
        low, high = float(array.min()), float(array.max())
        scale = 255.0 / (high - low) if high > low else 0.0
        values = array.astype(np.float32)
        values -= np.float32(low)  # In place: radiographs have up to 60 million pixels.
        values *= np.float32(scale)
        array = np.rint(values, out=values).astype(np.uint8)
    return array, tuple(done)


def _luma(array: np.ndarray) -> np.ndarray:
    """uint8 or uint16 [h, w] of colours, by bands of rows: in float32 an image takes several times its memory."""
    deep = array.dtype == np.uint16
    top, grey = (65535.0, np.uint16) if deep else (255.0, np.uint8)
    out, rows = np.empty(array.shape[:2], grey), max(1, (1 << 20) // array.shape[1])
    for first in range(0, len(array), rows):
        values = array[first:first + rows].astype(np.float32)
        if array.shape[2] == 4:
            values = values[..., :3] * (values[..., 3:] / top)
        luma = values @ np.array([0.299, 0.587, 0.114], np.float32)
        out[first:first + rows] = np.clip(np.rint(luma), 0, top).astype(grey)
    return out


def fit_shape(shape: tuple[int, int], size: int, *, enlarge: bool) -> tuple[int, int]:
    """(h, w) scaled so that the longer side is `size`, each side at least 1; unchanged if smaller and not `enlarge`."""
    height, width = shape
    longer = max(height, width)
    if longer == size or (longer < size and not enlarge):
        return height, width
    return max(1, round(height * size / longer)), max(1, round(width * size / longer))


def resize(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Bilinear resize with antialiasing; uint8 [h, w] -> uint8 [*shape]."""
    if image.shape == tuple(shape):
        return image
    from PIL import Image

    return np.asarray(Image.fromarray(image).resize((shape[1], shape[0]), Image.Resampling.BILINEAR))


def grey8(array: np.ndarray, size: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """The record transform "grey8@1": 8-bit grey, longer side at most `size`, aspect kept, never enlarged.

    Returns:
      (uint8 [h, w], the conversions of `to_grey8`).
    """
    image, done = to_grey8(array)
    return resize(image, fit_shape(image.shape, size, enlarge=False)), done


def letterbox(image: np.ndarray, size: int) -> np.ndarray:
    """The model transform "letterbox@1": the longer side is resized to `size`, black bars make a centred square.

    Args:
      image: uint8 [h, w].

    Returns:
      uint8 [size, size].
    """
    height, width = fit_shape(image.shape, size, enlarge=True)
    if (height, width) == (size, size):
        return resize(image, (size, size))
    out = np.zeros((size, size), np.uint8)
    top, left = (size - height) // 2, (size - width) // 2
    out[top:top + height, left:left + width] = resize(image, (height, width))
    return out


@dataclasses.dataclass(frozen=True)
class Letterbox:
    """Geometry of `letterbox`: original pixels <-> the model's square.

    Attributes:
      original: (h, w) of the original image, the frame in which boxes are given and heatmaps are wanted.
      size: side of the model's square.
      content: (h, w) of the image inside the square.
      offset: (top, left) of the image inside the square.
    """

    original: tuple[int, int]
    size: int
    content: tuple[int, int]
    offset: tuple[int, int]

    @classmethod
    def of(cls, original_shape: tuple[int, ...], size: int, stored_shape: tuple[int, ...] | None = None) -> Letterbox:
        """Geometry for an image of `original_shape`.

        Args:
          original_shape: (h, w) or (depth, h, w), before the record transform.
          size: side of the model's square.
          stored_shape: the shape in the record, from which `letterbox` was made; the same as the original if not given.
            Rounding to whole pixels on the way makes it count, by at most one pixel.
        """
        original = (int(original_shape[-2]), int(original_shape[-1]))
        stored = original if stored_shape is None else (int(stored_shape[-2]), int(stored_shape[-1]))
        if min(original) < 1 or min(stored) < 1:
            raise ValueError(f"an image of {original} pixels, stored as {stored}, has no geometry")
        content = fit_shape(stored, size, enlarge=True)
        return cls(original, size, content, ((size - content[0]) // 2, (size - content[1]) // 2))

    def box(self, box: Box) -> Box:
        """A box in original pixels -> in the model's pixels."""
        sy, sx = self.content[0] / self.original[0], self.content[1] / self.original[1]
        return dataclasses.replace(box, x=box.x * sx + self.offset[1], y=box.y * sy + self.offset[0],
                                   w=box.w * sx, h=box.h * sy)

    def box_back(self, box: Box) -> Box:
        """A box in the model's pixels -> in original pixels (not clipped)."""
        sy, sx = self.content[0] / self.original[0], self.content[1] / self.original[1]
        return dataclasses.replace(box, x=(box.x - self.offset[1]) / sx, y=(box.y - self.offset[0]) / sy,
                                   w=box.w / sx, h=box.h / sy)

    def heatmap(self, grid: np.ndarray, *, patch_offset: float = 0.0) -> np.ndarray:
        """A heatmap over the model's square, mapped back onto the original image.

        Args:
          grid: [gh, gw], one value per patch; patch (0, 0) is the square's top left corner.
          patch_offset: by how many cells the centre of a patch's field of view lies right of and below the middle of
            its cell (negative: left and above); see the image towers' `offset`.

        Returns:
          float32 [H, W]: bilinear between the patches' centres, constant outside the outermost ones; what lies on the
          bars is left out.
        """
        grid = np.asarray(grid, np.float32)
        rows = self._positions(0, grid.shape[0], patch_offset)
        columns = self._positions(1, grid.shape[1], patch_offset)
        low, high, part = rows
        tall = grid[low] * (1 - part)[:, None] + grid[high] * part[:, None]
        low, high, part = columns
        return tall[:, low] * (1 - part) + tall[:, high] * part

    def _positions(self, axis: int, cells: int, patch_offset: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For every original pixel along `axis`: the two patches around its centre and the second one's share."""
        centre = (np.arange(self.original[axis]) + 0.5) * (self.content[axis] / self.original[axis])
        cell = (centre + self.offset[axis]) * (cells / self.size) - 0.5 - patch_offset
        cell = np.clip(cell, 0, cells - 1)
        low = np.minimum(cell.astype(np.int64), max(cells - 2, 0))
        high = np.minimum(low + 1, cells - 1)
        return low, high, (cell - low).astype(np.float32)


def difference_hash(image: np.ndarray) -> np.ndarray:
    """256-bit difference hash of an image: near-duplicates differ in few bits (Hamming distance).

    The image is reduced to 16 x 17 and each bit is whether a pixel is darker than its right neighbour; a constant
    image gives all zeros, like no image at all, so it never counts as a duplicate.

    Args:
      image: uint8 [h, w].

    Returns:
      uint64 [4].
    """
    small = resize(image, (16, 17))
    return np.packbits(small[:, 1:] > small[:, :-1]).view(">u8").astype(np.uint64)
