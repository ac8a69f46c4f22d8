"""A run's training images in a few numbers, and whether another image is like them.

The numbers travel in the checkpoint (`spec["image_statistics"]`), so that `lgdea_jax.predict` can warn of a photograph,
an inverted radiograph or another modality. It is a net with wide meshes: an image that passes need not be a suitable
one, and a warning stops nothing.

- Ranges of grey level, contrast, black and white area and fine detail, widened by half their width on each side.
- The mean of the images, standardised and reduced to 12 x 12: correlation with it separates frontal radiographs from
  most other pictures, and is negative where black and white are exchanged. It shows no single image.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lgdea_jax.preprocess.image import resize

SAMPLE = 512  # Images that the numbers are taken from, spread evenly over the training data.
THUMBNAIL = 12
_EDGES = (0.5, 99.5)  # Percentiles: a single odd training image does not widen a range.
_NAMES = {"mean": "grey level", "deviation": "contrast", "black": "black area", "white": "white area",
          "detail": "fine detail"}
# Ranges are never narrower than this to either side: training images may all be alike (the phantom's area of pure
# white, say), which makes nothing else unlike them.
_SLACK = {"mean": 25.0, "deviation": 12.0, "black": 0.15, "white": 0.05, "detail": 3.0}


def describe(image: np.ndarray) -> dict[str, float]:
    """The numbers of one image.

    Args:
      image: uint8 [S, S], the model's input.

    Returns:
      mean and deviation in grey levels (0 to 255); black and white: shares of the pixels below 4 and above 251;
      detail: mean difference of neighbouring pixels in grey levels.
    """
    values = image.astype(np.float32)
    detail = (np.abs(np.diff(values, axis=0)).mean() + np.abs(np.diff(values, axis=1)).mean()) / 2
    return {"mean": float(values.mean()), "deviation": float(values.std()), "black": float((image < 4).mean()),
            "white": float((image > 251).mean()), "detail": float(detail)}


def thumbnail(image: np.ndarray) -> np.ndarray:
    """float32 [12, 12] of mean 0 and norm 1; zeros where the image is constant."""
    small = resize(image, (THUMBNAIL, THUMBNAIL)).astype(np.float32)
    small -= small.mean()
    norm = float(np.linalg.norm(small))
    return small / norm if norm > 1e-6 else small * 0.0


def measure(images: Iterable[np.ndarray]) -> dict[str, Any]:
    """The numbers of training images, for a checkpoint's spec (JSON values).

    Args:
      images: uint8 [S, S] each.

    Returns:
      {"count", "ranges": {name: [low, high]}, "thumbnail": [12][12], "likeness": [low, median]}; {} without images.
    """
    described, small = [], []
    for image in images:
        described.append(describe(image))
        small.append(thumbnail(image))
    if not described:
        return {}
    mean = np.mean(small, axis=0)
    mean /= max(float(np.linalg.norm(mean)), 1e-6)
    likeness = np.array([float((one * mean).sum()) for one in small])
    ranges = {name: [round(float(edge), 5) for edge in np.percentile([row[name] for row in described], _EDGES)]
              for name in _NAMES}
    return {"count": len(described), "ranges": ranges, "thumbnail": np.round(mean, 4).tolist(),
            "likeness": [round(float(np.percentile(likeness, _EDGES[0])), 4), round(float(np.median(likeness)), 4)]}


def of_items(parts: Sequence[Any], *, sample: int = SAMPLE) -> dict[str, Any]:
    """`measure` over a sample of several sources of items with an "image" each, evenly spaced over all of them.

    Args:
      parts: sequences of {"image": uint8 [S, S]}.
      sample: number of images at most.

    Returns:
      As of `measure`; {} where the images are volumes, or not read.
    """
    parts = [part for part in parts if len(part)]
    if not parts or np.ndim(parts[0][0].get("image")) != 2:
        return {}
    total = sum(len(part) for part in parts)
    positions = np.unique(np.linspace(0, total - 1, min(sample, total)).astype(np.int64))
    starts = np.cumsum([0, *(len(part) for part in parts)])

    def images() -> Iterable[np.ndarray]:
        for position in positions:
            which = int(np.searchsorted(starts, position, side="right")) - 1
            yield np.asarray(parts[which][int(position - starts[which])]["image"])

    return measure(images())


def unusual(image: np.ndarray, statistics: Mapping[str, Any]) -> list[str]:
    """What sets an image apart from the training images, in words; [] where nothing does.

    Args:
      image: uint8 [S, S], the model's input.
      statistics: of `measure`; {} (a checkpoint without them) leaves only what holds for any image.
    """
    found = []
    values = describe(image)
    if values["deviation"] < 2:
        return ["hardly any contrast: is it an image?"]
    for name, (low, high) in statistics.get("ranges", {}).items():
        slack = max((high - low) / 2, _SLACK[name])
        if not low - slack <= values[name] <= high + slack:
            percent = name in ("black", "white")
            shown = [f"{100 * value:.0f}%" if percent else f"{value:.0f}" for value in (values[name], low, high)]
            found.append(f"{_NAMES[name]} {shown[0]}, training images {shown[1]} to {shown[2]}")
    if statistics.get("thumbnail"):
        low, median = statistics["likeness"]
        like = float((thumbnail(image) * np.array(statistics["thumbnail"], np.float32)).sum())
        if like < -0.25 and low > 0:
            found.append("looks inverted: black where training images are white")
        elif like < low - (median - low) / 2:
            found.append(f"unlike the training images in its coarse shape (likeness {like:.2f}, theirs {low:.2f} and "
                         "more): another body part, view or modality?")
    return found
