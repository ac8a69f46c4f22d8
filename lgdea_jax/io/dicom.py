"""Reading a DICOM radiograph: one grey frame, larger is brighter, whatever the file's encoding.

The order is the standard's (PS3.3 C.11, PS3.4 N.2): stored values -> modality LUT or rescale -> VOI LUT or window ->
inversion of MONOCHROME1, or of a presentation LUT shape INVERSE. Unused bits (old files keep overlays there) are
cleared first, and padding is taken out of the way last. What is missing or makes no sense in a header is replaced only
where one replacement is possible, and counted among the conversions; everything else is refused.

PatientOrientation is believed: an image is turned and flipped until its columns run to the feet, and the rows of a
frontal one to the patient's left. The rows of a lateral image keep their direction. Without the attribute, or with one
that is not of an upright projection, an image stays as it is stored.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from lgdea_jax.io.dicom_file import DAMAGED, numbers, object_kind, read_dataset
from lgdea_jax.io.dicom_pixels import (
    fill_missing,
    look_up,
    lut_entries,
    padding_mask,
    photometric,
    pixel_array,
    rescale,
)
from lgdea_jax.io.image_info import ImageInfo, UnreadableImage, damage_as
from lgdea_jax.io.outliers import clip_markers

# Objects that hold a picture of something else than a radiograph: screen shots, scanned forms, dose sheets.
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_YEARS = {"D": 365.25, "W": 52.18, "M": 12.0, "Y": 1.0, "": 1.0}
_AXES = {"L": "x", "R": "x", "A": "y", "P": "y", "H": "z", "F": "z"}
_BAND = 1 << 20  # Pixels that are computed at once, in float64: large images take no more memory than they need.

Values = Callable[[np.ndarray], np.ndarray]


def read_dicom(data: bytes) -> tuple[np.ndarray, ImageInfo]:
    """Reads one DICOM file.

    Args:
      data: the file's bytes.

    Returns:
      (array, info): float32 [rows, columns], larger is brighter; uint8 or uint16 [rows, columns, 3] for a radiograph
      that is stored in colours.

    Raises:
      UnreadableImage: damaged, without pixels, several frames, a colour secondary capture, or compressed in a way that
        no installed decoder reads.
      UserError: the `dicom` extra is not installed.
    """
    dataset = read_dataset(data)
    with damage_as(DAMAGED), np.errstate(all="ignore"):  # What overflows is not finite, and refused.
        conversions = _check(dataset)
        array, mode, done = _picture(dataset)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise UnreadableImage("the DICOM image has pixels that are not finite")
        transposed, array, turned = _upright(dataset, array)
        return array, _info(dataset, mode, (*conversions, *done, *turned), transposed)


def _check(dataset: Any) -> list[str]:
    """What was filled in; raises UnreadableImage for what is not one radiograph, before any pixel is decoded."""
    if "PixelData" not in dataset and "FloatPixelData" not in dataset and "DoubleFloatPixelData" not in dataset:
        kind = object_kind(dataset)
        raise UnreadableImage(f"{kind} (DICOM), not an image" if kind else "a DICOM file without pixels")
    conversions = fill_missing(dataset)
    if int(dataset.NumberOfFrames) != 1:
        raise UnreadableImage("a multi-frame DICOM where one image is expected")
    colour = int(dataset.SamplesPerPixel) != 1 or photometric(dataset) == "PALETTE COLOR"
    if colour and str(dataset.get("SOPClassUID", "")).startswith(_SECONDARY_CAPTURE):
        raise UnreadableImage("a colour secondary capture, not a radiograph")
    if not photometric(dataset).startswith(("RGB", "YBR_", "PALETTE") if colour else ("MONOCHROME1", "MONOCHROME2")):
        raise UnreadableImage("a DICOM file whose photometric interpretation is unknown")
    return conversions


def _picture(dataset: Any) -> tuple[np.ndarray, str, tuple[str, ...]]:
    """(array, mode, conversions) of a checked file."""
    stored = pixel_array(dataset)
    dataset.pop("PixelData", None)  # Large images are in memory often enough.
    if stored.ndim == 3 or photometric(dataset) == "PALETTE COLOR":
        return _colours(dataset, stored)
    padding = padding_mask(dataset, stored)
    inside = None if padding is None else ~padding
    _, done = rescale(dataset, stored[:1])

    def modality(pixels: np.ndarray) -> np.ndarray:
        return rescale(dataset, pixels)[0]

    shown, how = _voi(dataset, modality, stored, inside)
    done += how
    array = np.empty(stored.shape, np.float32)
    for band in _bands(stored):
        array[band] = shown(modality(stored[band]))
    if "window" not in how and "voi lut" not in how:
        array, clipped = clip_markers(array, inside)
        done += ["markers clipped"] if clipped else []
    inverse = str(dataset.get("PresentationLUTShape") or "").strip().upper() == "INVERSE"
    one = photometric(dataset) == "MONOCHROME1"  # INVERSE is how newer files say the same once more.
    where = True if inside is None else inside
    low, high = array.min(where=where, initial=np.inf), array.max(where=where, initial=-np.inf)
    if one or inverse:  # Small values are bright: turn them round.
        np.subtract(high + low, array, out=array)
        done.append("monochrome1" if one else "inverse")
    if padding is not None:
        array[padding] = low  # Turning round keeps minimum and maximum: padding is black in either case.
        done.append("padding")
    return array, "grey8" if int(dataset.BitsStored) <= 8 else "grey16", tuple(done)


def _colours(dataset: Any, pixels: np.ndarray) -> tuple[np.ndarray, str, tuple[str, ...]]:
    if photometric(dataset) == "PALETTE COLOR":
        from pydicom.pixels import apply_color_lut

        pixels = apply_color_lut(pixels, dataset)
        pixels = pixels >> 8 if pixels.dtype.itemsize > 1 else pixels
        return pixels[..., :3].astype(np.uint8), "rgb", ("palette",)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype.kind != "u":
        raise UnreadableImage("a DICOM file in colours of an unknown kind")
    return pixels.astype(np.uint8 if int(dataset.BitsStored) <= 8 else np.uint16), "rgb", ()


def _bands(stored: np.ndarray) -> Iterator[slice]:
    rows = max(1, _BAND // stored.shape[1])
    return (slice(first, first + rows) for first in range(0, len(stored), rows))


def _ends(values: Values, stored: np.ndarray, inside: np.ndarray | None) -> tuple[float, float]:
    """The least and the greatest of `values(stored)` where the image is."""
    ends = []
    for band in _bands(stored):
        part = values(stored[band])
        part = part if inside is None else part[inside[band]]
        ends += [float(part.min()), float(part.max())] if part.size else []
    return min(ends), max(ends)


def _voi(dataset: Any, modality: Values, stored: np.ndarray,
         inside: np.ndarray | None) -> tuple[Values, list[str]]:
    """(function of values, conversions): the VOI LUT, or the first window that leaves contrast.

    A window that lies beside all values of the image (`inside`, without padding) would blank it: such are passed over.
    """
    tried, short = False, []
    low, high = _ends(modality, stored, inside)
    for item in dataset.get("VOILUTSequence") or ():
        if item.get("LUTDescriptor") and item.get("LUTData"):
            tried = True
            entries, table = lut_entries(item)
            if len(table) < entries:  # Another table or a window is to be trusted more.
                short.append(item)
            elif _shows(item, modality, stored, inside):
                return lambda values, item=item: look_up(item, values), ["voi lut"]
    windows = list(zip(numbers(dataset.get("WindowCenter")), numbers(dataset.get("WindowWidth"))))
    function = str(dataset.get("VOILUTFunction") or "LINEAR").strip().upper()
    top = float((1 << int(dataset.BitsStored)) - 1)
    for centre, width in windows:
        tried = True
        if not math.isfinite(centre) or not math.isfinite(width) or width < (1 if function == "LINEAR" else 1e-9):
            continue
        ends = _window(np.array([low, high]), centre, width, function)
        if ends is not None and (ends[1] > ends[0] or low == high):
            return lambda values, c=centre, w=width: _window(values, c, w, function) * top, ["window"]
    for item in short:
        with contextlib.suppress(UnreadableImage):
            if _shows(item, modality, stored, inside):
                return lambda values, item=item: look_up(item, values), ["voi lut"]
    return lambda values: values, ["window ignored"] if tried else []


def _shows(item: Any, modality: Values, stored: np.ndarray, inside: np.ndarray | None) -> bool:
    """Whether a LUT leaves contrast."""
    low, high = _ends(lambda pixels: look_up(item, modality(pixels)), stored, inside)
    return low < high or stored.min() == stored.max()


def _window(values: np.ndarray, centre: float, width: float, function: str) -> np.ndarray | None:
    """Values in [0, 1] (PS3.3 C.11.2.1.2 and C.11.2.1.3); None for a function that the standard does not know."""
    values = values.astype(np.float64)
    if function == "LINEAR":
        return np.clip((values - (centre - 0.5)) / max(width - 1, 1e-6) + 0.5, 0, 1)
    if function == "LINEAR_EXACT":
        return np.clip((values - centre) / width + 0.5, 0, 1)
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700)))
    return None


def _upright(dataset: Any, array: np.ndarray) -> tuple[bool, np.ndarray, tuple[str, ...]]:
    """(whether rows and columns were exchanged, the image in the orientation that is promised, conversions)."""
    directions = _value(dataset, "PatientOrientation")
    directions = [str(part).strip().upper() for part in directions] if not isinstance(directions, str) and \
        directions is not None else []
    if len(directions) != 2 or not all(directions) or set("".join(directions)) - set(_AXES):
        return False, array, ()
    row, column = (direction[0] for direction in directions)  # The main direction of an oblique one comes first.
    if (_AXES[row] == "z") == (_AXES[column] == "z"):
        return False, array, ()  # Not upright: a slice, or nonsense.
    transposed = _AXES[row] == "z"
    if transposed:
        array, row, column = array.swapaxes(0, 1), column, row
    array = array[::-1] if column == "H" else array
    array = array[:, ::-1] if row == "R" else array
    turned = transposed or column == "H" or row == "R"
    return transposed, np.ascontiguousarray(array), ("turned",) if turned else ()


def _info(dataset: Any, mode: str, conversions: tuple[str, ...], transposed: bool) -> ImageInfo:
    spacing = (0.0, 0.0)
    for name in ("PixelSpacing", "ImagerPixelSpacing"):
        found = numbers(_value(dataset, name))
        if len(found) == 2 and all(math.isfinite(mm) and mm > 0 for mm in found):
            spacing = (found[1], found[0]) if transposed else (found[0], found[1])
            break
    sex = _text(dataset, "PatientSex").upper()
    return ImageInfo("dicom", mode, spacing, conversions, _text(dataset, "ViewPosition").upper(),
                     _text(dataset, "Modality"), sex if sex in ("M", "F") else "",
                     parse_age(_text(dataset, "PatientAge")))


def _value(dataset: Any, name: str) -> Any:
    """An attribute that describes the image but is not needed to read it: None when it cannot be read."""
    try:
        return dataset.get(name)
    except Exception:  # Values are parsed on access; a damaged description does not spoil good pixels.
        return None


def _text(dataset: Any, name: str) -> str:
    value = _value(dataset, name)
    text = value if isinstance(value, str) else ""
    return text.strip() if text.isprintable() and text.isascii() else ""


def parse_age(text: str) -> float:
    """Years from a DICOM age string ("058Y", "010M", "003W", "012D", or a bare number); NaN for anything else."""
    match = re.fullmatch(r"(\d{1,3})([DWMY]?)", text.strip().upper())
    years = float(match[1]) / _YEARS[match[2]] if match else math.nan
    return years if years <= 120 else math.nan
