"""Burnt-in markers in deep images: a few pixels far from all others, which would leave the image no grey levels.

Deep images are stretched from their least to their greatest value. A letter of 65,535 in a radiograph of 12 bits would
leave it 16 of 256 grey levels.
"""

from __future__ import annotations

import numpy as np

_BINS = 256
# Pixels beyond a gap of an eighth of the range are markers if they are at most this share, and if the rest takes less
# than half the range.
_GAP, _MARKER, _CORE = 1 / 8, 0.05, 1 / 2
# Where edges are smoothed there are no gaps: then outer percentiles are cut, if what lies between them takes less than
# an eighth of the range.
_TAIL, _MIDDLE = 0.01, 1 / 8
_SAMPLE = 1 << 16  # Pixels for the percentiles: a radiograph has millions.
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
    if not 0 < high - low < np.inf:
        return least, greatest
    sample = np.sort(values.reshape(-1)[::max(1, values.size // _SAMPLE)])

    def percentile(share: float) -> float:
        return float(sample[int(share * (len(sample) - 1))])

    if percentile(1 - _MARKER) - percentile(_MARKER) >= _CORE * (high - low):
        return least, greatest  # The usual case, quickly.
    counts, edges = np.histogram(values, _BINS, (low, high))
    filled = np.flatnonzero(counts)
    below = np.cumsum(counts)[filled] / counts.sum()
    gaps = np.flatnonzero(np.diff(filled) > _GAP * _BINS)  # Between these and the next filled bins.
    first = max((gap + 1 for gap in gaps if below[gap] <= _MARKER), default=0)
    last = min((gap for gap in gaps if 1 - below[gap] <= _MARKER), default=len(filled) - 1)
    if first <= last and filled[last] - filled[first] < _CORE * _BINS:
        core = values[(values >= edges[filled[first]]) & (values <= edges[filled[last] + 1])]
        low, high = float(core.min()), float(core.max())
    start, end = percentile(_TAIL), percentile(1 - _TAIL)
    if end - start < _MIDDLE * (high - low):
        low, high = max(low, 2 * start - end), min(high, 2 * end - start)
    kept = sample[(sample >= low) & (sample <= high)]
    return (low, high) if len(np.unique(kept)) >= _LEVELS else (least, greatest)
