"""Phrase-grounding metrics in NumPy, in 2D and 3D: CNR, pointing game, mIoU, Dice.

Protocol: MS-CXR (Boecking et al., "Making the Most of Text Semantics", ECCV 2022). A heatmap has the shape of the
original image, NaN where the model saw nothing (padding, cropped margins); a box is (start, stop) per axis.
Undefined values are NaN and are left out by the aggregate, which counts them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5)


def box_slices(start: Sequence[float], extent: Sequence[float], shape: Sequence[int]) -> tuple[slice, ...]:
    """The pixels whose centres lie in a box, clipped to the image.

    Args:
      start, extent: corner and size per axis, in the order of `shape` (rows before columns), in pixels.
      shape: of the image.

    Returns:
      One slice per axis; empty where the box lies outside or between two centres.
    """
    out = []
    for low, size, length in zip(start, extent, shape, strict=True):
        first, last = int(np.ceil(low - 0.5)), int(np.ceil(low + size - 0.5))
        first = min(max(first, 0), length)
        out.append(slice(first, min(max(last, first), length)))
    return tuple(out)


def union_mask(boxes: Sequence[tuple[slice, ...]], shape: Sequence[int]) -> np.ndarray:
    """bool mask of `shape`, True inside any of the boxes (slices)."""
    mask = np.zeros(tuple(shape), bool)
    for box in boxes:
        mask[box] = True
    return mask


def cnr_signed(heatmap: np.ndarray, mask: np.ndarray) -> float:
    """(mean inside - mean outside) / sqrt(variance inside + variance outside), population variances, NaN ignored.

    A constant map has 0 (no contrast); one that is constant on either side with different values is infinite. NaN
    when no defined pixel is inside, or none outside.
    """
    values = np.asarray(heatmap, np.float64)
    defined = ~np.isnan(values)
    inside, outside = values[mask & defined], values[~mask & defined]
    if not len(inside) or not len(outside):
        return float("nan")
    # A constant side has no spread: rounding in its mean must not make one.
    spread_in = inside.var() if np.ptp(inside) else 0.0
    spread_out = outside.var() if np.ptp(outside) else 0.0
    difference = (inside.mean() if spread_in else inside[0]) - (outside.mean() if spread_out else outside[0])
    spread = spread_in + spread_out
    if spread == 0:
        return float(np.sign(difference) * np.inf) if difference else 0.0
    return float(difference / np.sqrt(spread))


def cnr(heatmap: np.ndarray, boxes: Sequence[tuple[slice, ...]], *, mode: str = "clean",
        undefined: float | None = None) -> tuple[float, float]:
    """Contrast-to-noise ratio: (absolute, signed).

    The absolute value (the one published) rewards a map that is dark exactly where the finding is: an inverted
    model scores like a good one. Read the signed value beside it. Neither says how far off a wrong peak is.

    Args:
      heatmap: float [...], NaN where undefined.
      boxes: slices of `box_slices`.
      mode: "clean", one union mask of all boxes; "official", the public script: one box after another, each blanked
        before the next is measured (so the result depends on their order), mean over boxes.
      undefined: official only, what a box without a value counts; None leaves it out.

    Returns:
      NaN without a measurable box, or, where they count, without a box.
    """
    if mode == "clean":
        value = cnr_signed(heatmap, union_mask(boxes, heatmap.shape))
        return abs(value), value
    if mode != "official":
        raise ValueError(f"mode must be clean or official, not {mode!r}")
    left, values = np.array(heatmap, np.float64), []
    for box in boxes:
        value = cnr_signed(left, union_mask([box], left.shape))
        left[box] = np.nan
        if np.isnan(value) and undefined is not None:
            value = undefined
        if not np.isnan(value):
            values.append(value)
    if not values:
        return float("nan"), float("nan")
    return float(np.mean(np.abs(values))), float(np.mean(values))


def pointing(heatmap: np.ndarray, mask: np.ndarray, *, mode: str = "clean") -> float:
    """Pointing game: 1 if the maximal pixel lies in the mask.

    Large boxes are hit by chance: their share of the image is the score of a random pixel.

    Args:
      heatmap: float [...], NaN where undefined; mask: bool of that shape.
      mode: of several maximal pixels, "clean" takes the share that lies inside, so that a constant map scores what
        chance scores; "official" (MedKLIP's script) calls any of them inside a hit, so that a constant map always hits.
    """
    values = np.where(np.isnan(heatmap), -np.inf, heatmap)
    top = values.max(initial=-np.inf)
    if np.isneginf(top) or not mask.any():
        return float("nan")
    best = values == top
    inside = (best & mask).sum()
    return float(inside > 0) if mode == "official" else float(inside / best.sum())


def visible(heatmap: np.ndarray, boxes: Sequence[tuple[slice, ...]]) -> list[int]:
    """The boxes (numbers, ascending) that the public script of MS-CXR measures.

    It draws the boxes one over another, crops, and drops those of which nothing is left: outside the crop (NaN), or
    covered by later ones.
    """
    free = ~np.isnan(heatmap)
    found = []
    for number in reversed(range(len(boxes))):
        if free[boxes[number]].any():
            found.append(number)
        free[boxes[number]] = False
    return found[::-1]


def rescaled(heatmap: np.ndarray) -> np.ndarray:
    """The map shifted and scaled so that its least value is 0 and its greatest 1; a constant map is 0. NaN stays."""
    values = np.asarray(heatmap, np.float64)
    if np.isnan(values).all():
        return values
    low, high = np.nanmin(values), np.nanmax(values)
    return (values - low) / (high - low) if high > low else np.where(np.isnan(values), np.nan, 0.0)


def miou(heatmap: np.ndarray, mask: np.ndarray, thresholds: Sequence[float] = THRESHOLDS) -> float:
    """Mean over `thresholds` of the IoU of (map > threshold) with the mask, after clamping the map at 0; NaN is false.

    The thresholds are absolute: they assume cosine similarities. A model with another scale gets other values from
    the same ranking of pixels; `rescaled` maps take the scale out, but then every image is assumed to hold something.
    NaN without a box in the image.
    """
    if not mask.any():
        return float("nan")
    values = np.maximum(np.nan_to_num(np.asarray(heatmap, np.float64), nan=0.0), 0.0)
    everything = _above(values, thresholds)
    inside = _above(values[mask], thresholds)
    return float(np.mean(inside / (everything + mask.sum() - inside)))


def dice(heatmap: np.ndarray, mask: np.ndarray, threshold: float) -> float:
    """2 |A and B| / (|A| + |B|) of A = (map > threshold) and the mask; NaN pixels are false, NaN without a box."""
    if not mask.any():
        return float("nan")
    predicted = np.nan_to_num(np.asarray(heatmap, np.float64), nan=-np.inf) > threshold
    return float(2 * (predicted & mask).sum() / (predicted.sum() + mask.sum()))


def best_dice(heatmap: np.ndarray, mask: np.ndarray) -> float:
    """The greatest Dice over all thresholds: an upper bound that no user can reach, who does not know the box."""
    if not mask.any():
        return float("nan")
    values = np.asarray(heatmap)
    inside = np.sort(values[mask & ~np.isnan(values)])
    if not len(inside):
        return 0.0
    # The best threshold is the value of some pixel inside: above it and below the next one only outsiders are gained.
    cuts = np.unique(inside)
    outside = values[~mask]
    outside = outside[outside >= cuts[0]]
    hits = len(inside) - np.searchsorted(inside, cuts, side="left")
    at = np.bincount(np.searchsorted(cuts, outside, side="right") - 1, minlength=len(cuts))
    false = at[::-1].cumsum()[::-1]
    return float((2 * hits / (hits + false + mask.sum())).max())


def category_mean(values: np.ndarray, categories: np.ndarray, weights: np.ndarray | None = None) -> float | np.ndarray:
    """Mean inside each category, then the unweighted mean over categories; NaN values are left out.

    A category of three samples weighs as much as one of three hundred: look at the sizes. With `weights` [B, N] a
    category that no resample drew is left out of that resample's mean.

    Args:
      values: float [N]; categories: [N], any sortable labels; weights: [B, N] or None.

    Returns:
      A float, or float64 [B] with weights; NaN without a defined value.
    """
    values, categories = np.asarray(values, np.float64), np.asarray(categories)
    known = np.flatnonzero(~np.isnan(values))
    rows = np.ones((1, len(known))) if weights is None else np.take(weights, known, axis=1).astype(np.float64)
    names, index = np.unique(categories[known], return_inverse=True)
    indicator = np.zeros((len(known), len(names)))
    indicator[np.arange(len(known)), index] = 1
    size = rows @ indicator
    summed = rows @ (indicator * values[known, None])
    means = np.divide(summed, size, out=np.zeros_like(summed), where=size > 0)
    present = (size > 0).sum(1)
    out = np.divide(means.sum(1), present, out=np.full(len(rows), np.nan), where=present > 0)
    return float(out[0]) if weights is None else out


def _above(values: np.ndarray, thresholds: Sequence[float]) -> np.ndarray:
    """How many of `values` lie above each threshold."""
    return np.array([np.count_nonzero(values > threshold) for threshold in thresholds], np.float64)
