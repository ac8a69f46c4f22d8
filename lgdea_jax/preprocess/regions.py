"""The region of a frontal radiograph that a statement names: side and height in words, as a box in the image.

Image-left is patient-right. Only words that leave out much of the image count: a side, the upper, middle or lower part
of the lungs. An organ ("heart", "rib"), both sides or a word that is not known here leave the whole image.
"""

from __future__ import annotations

from collections.abc import Mapping

Region = tuple[float, float, float, float]  # x0, y0, x1, y1 in shares of the image's sides; x to the right, y down.

# What rotation brings in from beyond the border lies in a region that reaches to the border.
_BEYOND = 1.0
EVERYWHERE: Region = (-_BEYOND, -_BEYOND, 1 + _BEYOND, 1 + _BEYOND)

# Words of `records.Evidence.anatomy` -> (top, bottom).
_HEIGHTS: Mapping[str, tuple[float, float]] = {
    **dict.fromkeys(("upper lobe", "upper lung", "apex", "clavicle"), (-_BEYOND, 0.5)),
    "mid lung": (0.3, 0.7),
    **dict.fromkeys(("lower lobe", "lower lung", "base", "costophrenic angle", "hemidiaphragm"), (0.5, 1 + _BEYOND)),
}

# Views as sources state them; everything else (PA, AP, FRONTAL, unknown) counts as frontal.
_LATERAL = frozenset({"LATERAL", "LL", "L", "LAT", "SWIMMERS", "XTABLE LATERAL", "LEFT LATERAL", "RIGHT LATERAL"})


def is_frontal(view: str) -> bool:
    """Whether a view is not stated to be lateral."""
    return view.strip().upper() not in _LATERAL


def region(laterality: str, anatomy: str) -> Region:
    """The part of a frontal radiograph that a statement names; EVERYWHERE where it names none.

    Args:
      laterality: one of `records.LATERALITIES`; the patient's left and right.
      anatomy: as in `records.Evidence`.
    """
    x0, y0, x1, y1 = EVERYWHERE
    if laterality == "right":
        x1 = 0.5
    elif laterality == "left":
        x0 = 0.5
    y0, y1 = _HEIGHTS.get(anatomy, (y0, y1))
    return x0, y0, x1, y1
