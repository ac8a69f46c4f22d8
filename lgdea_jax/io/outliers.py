"""Burnt-in markers in deep images: a few pixels far from all others, which would leave the image no grey levels.

Deep images are stretched from their least to their greatest value. A letter of 65,535 in a radiograph of 12 bits would
leave it 16 of 256 grey levels.
"""

from __future__ import annotations

import numpy as np

_BINS = 256
# A group of pixels beyond a gap of half the range is a marker if it is at most this share of them.
_MARKER = 0.05
# Without such a gap (smoothed edges), outer percentiles are cut where what lies between takes an eighth of the range.
_TAIL, _LEAST = 0.01, 1 / 8
_SAMPLE = 1 << 20  # Pixels for the percentiles.
_LEVELS = 32  # Different values that make a picture: a mask of two values has no markers.


def clip_markers(array: np.ndarray, inside: np.ndarray | None = None) -> tuple[np.ndarray, bool]:
    """The image without values that only burnt-in markers have.

    Args:
      array: uint16 or float [rows, columns]. inside: bool of its shape, the pixels that count; None for all.

    Returns:
      (array, clipped): markers take the greatest (or least) value of the rest. Where there are none, the array itself.
    """
    values = array if inside is None else array[inside]
    low, high = _range(values)
    if (low, high) == (values.min(), values.max()):
        return array, False
    return np.clip(array, low, high).astype(array.dtype, copy=False), True


def _range(values: np.ndarray) -> tuple[float, float]:
    """The least and the greatest value that belong to the image."""
    least, greatest = low, high = float(values.min()), float(values.max())
    step = max(1, values.size // _SAMPLE)
    sample = np.sort(values.reshape(-1)[::step])
    for _ in range(2):  # There may be a marker of the least value, and one of the greatest.
        if not high > low or not np.isfinite(high - low):
            return least, greatest
        counts, edges = np.histogram(values, _BINS, (low, high))
        filled = np.flatnonzero(counts)
        gap = int(np.argmax(np.diff(filled)))
        if filled[gap + 1] - filled[gap] <= _BINS // 2:
            break
        below = counts[:filled[gap] + 1].sum() / counts.sum()
        if below <= _MARKER:
            low = float(values[values >= edges[filled[gap + 1]]].min())
        elif 1 - below <= _MARKER:
            high = float(values[values < edges[filled[gap] + 1]].max())
        else:
            break
    if (low, high) == (least, greatest):
        first, last = (float(sample[int(share * (len(sample) - 1))]) for share in (_TAIL, 1 - _TAIL))
        if last - first < _LEAST * (high - low):
            low, high = max(low, 2 * first - last), min(high, 2 * last - first)
    kept = sample[(sample >= low) & (sample <= high)]
    return (low, high) if len(np.unique(kept)) >= _LEVELS else (least, greatest)
