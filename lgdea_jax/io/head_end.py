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
CLEAR = 0.35
_STEP = 4.0  # mm of the grid on which lungs are looked for: coarser than vessels, finer than a lobe.
_LUNG, _GAS, _TISSUE = -500, -970, -400  # HU: of lung at most, of its median at least (bowel has less), of the body.
_LITRES = 0.7  # Less is a part of the lungs, or a child's.
_SLICES = 8
_CUT = 0.2  # Area of the lungs in an outermost slice, relative to the largest, from which they count as cut off.


def head_evidence(volume: np.ndarray, spacing: tuple[float, float, float]) -> float:
    """How clearly z grows to the head.

    Args:
      volume: int16 [z, y, x] in HU, in whatever order of z; spacing: mm (z, y, x).

    Returns:
      Correlation, over the columns of a lung, of the middle of its extent along z with the distance from its rim, as
      the mean of both lungs; positive where z grows to the head, negative where it grows to the feet. 0 where the lungs
      disagree; NaN where no whole lungs lie inside the volume.
    """
    from scipy import ndimage

    small = _pooled(volume, spacing)
    lungs = np.stack([_inside(plane) & (plane < _LUNG) for plane in small])
    labels, _ = ndimage.label(ndimage.binary_opening(lungs))
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    # The two lungs, or both as one where they touch; the rest is gas in the bowel, or foam of the table.
    chosen = [label for label in np.argsort(sizes)[::-1][:3] if sizes[label] >= max(1, 0.15 * sizes.max())
              and np.median(small[labels == label]) > _GAS][:2]
    areas = np.isin(labels, chosen).sum((1, 2))
    litres = areas.sum() * math.prod(spacing) * volume.size / small.size / 1e6
    if litres < _LITRES or (areas > 0).sum() < _SLICES or max(areas[0], areas[-1]) > _CUT * areas.max():
        return math.nan
    found = [_evidence(labels == label) for label in chosen]
    return float(np.mean(found)) if min(found) > 0 or max(found) < 0 else 0.0


def _evidence(lung: np.ndarray) -> float:
    """See `head_evidence`, of one lung."""
    from scipy import ndimage

    columns = lung.any(0)
    middle = (lung.argmax(0) + len(lung) - 1 - lung[::-1].argmax(0))[columns].astype(np.float64)
    depth = ndimage.distance_transform_edt(np.pad(columns, 1))[1:-1, 1:-1][columns]
    return float(np.corrcoef(middle, depth)[0, 1]) if middle.std() > 0 and depth.std() > 0 else 0.0


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
