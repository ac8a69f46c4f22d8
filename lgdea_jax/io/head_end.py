"""Which end of a chest CT is the head's, by the shape of its lungs.

Lungs are domes at both ends: the apices rise to the middle of each lung, and so does the diaphragm below, over liver
and stomach. So the middle of a lung's extent along z lies higher in the middle of the lung than at its rim; in a volume
that is upside down it lies lower. Of lungs that the scan cuts off this need not hold: the recesses at the top of an
abdominal scan are deepest in their middle.
"""

from __future__ import annotations

import math

import numpy as np

# Below -CLEAR a volume counts as upside down, above CLEAR as upright; between them its shape tells nothing.
CLEAR = 0.3
_STEP = 4.0  # mm of the grid on which lungs are looked for: coarser than vessels, finer than a lobe.
_LUNG = (-970, -500)  # HU; gas in bowel and trachea lies below.
_TISSUE = -400
_LITRES = 0.7  # Less is a part of the lungs, or a child's.
_SLICES = 8
_CUT = 0.2  # Area of the lungs in an outermost slice, relative to the largest, from which they count as cut off.


def head_evidence(volume: np.ndarray, spacing: tuple[float, float, float]) -> float:
    """How clearly z grows to the head.

    Args:
      volume: int16 [z, y, x] in HU, in whatever order of z; spacing: mm (z, y, x).

    Returns:
      Correlation, over the columns of the lungs, of the middle of their extent along z with their distance from the
      lungs' rim: positive where z grows to the head, negative where it grows to the feet; NaN where no
      whole lungs lie inside the volume.
    """
    from scipy import ndimage

    small = _pooled(volume, spacing)
    lungs = np.zeros(small.shape, bool)
    for plane, found in zip(small, lungs, strict=True):
        found[:] = _inside(plane) & (plane > _LUNG[0]) & (plane < _LUNG[1])
    lungs = ndimage.binary_opening(lungs)
    labels, count = ndimage.label(lungs)
    if not count:
        return math.nan
    sizes = np.bincount(labels.ravel())[1:]
    # The two lungs, or both as one where they touch; the rest is gas in the bowel, or foam of the table.
    largest = 1 + np.argsort(sizes)[::-1][:2]
    lungs = np.isin(labels, [label for label in largest if sizes[label - 1] >= 0.15 * sizes.max()])
    columns = lungs.any(0)
    voxel = math.prod(spacing) * volume.size / small.size
    areas = lungs.sum((1, 2))
    if (areas.sum() * voxel < _LITRES * 1e6 or (areas > 0).sum() < _SLICES
            or max(areas[0], areas[-1]) > _CUT * areas.max()):
        return math.nan
    first = lungs.argmax(0)[columns]
    last = len(lungs) - 1 - lungs[::-1].argmax(0)[columns]
    middle = (first + last).astype(np.float64)
    depth = ndimage.distance_transform_edt(np.pad(columns, 1))[1:-1, 1:-1][columns]
    if middle.std() == 0 or depth.std() == 0:
        return math.nan
    return float(np.corrcoef(middle, depth)[0, 1])


def _pooled(volume: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """float32 [z, y, x] on a grid of about _STEP mm: every n-th slice, in which blocks are averaged against noise."""
    z, y, x = (max(1, round(_STEP / mm)) for mm in spacing)
    height, width = (max(1, n // step) for n, step in zip(volume.shape[1:], (y, x), strict=True))
    y, x = min(y, volume.shape[1]), min(x, volume.shape[2])
    planes = [plane[:height * y, :width * x].reshape(height, y, width, x).mean((1, 3), dtype=np.float32)
              for plane in volume[::z]]
    return np.stack(planes)


def _inside(plane: np.ndarray) -> np.ndarray:
    """bool [y, x]: the body of one slice with what it encloses."""
    from scipy import ndimage

    labels, count = ndimage.label(ndimage.binary_opening(plane > _TISSUE))
    if not count:
        return np.zeros(plane.shape, bool)
    return ndimage.binary_fill_holes(labels == 1 + np.argmax(np.bincount(labels.ravel())[1:]))
