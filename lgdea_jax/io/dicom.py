"""Reading a DICOM radiograph: one grey frame, larger is brighter, whatever the file's encoding.

The order is the standard's (PS3.3 C.11, PS3.4 N.2): stored values -> modality LUT or rescale -> VOI LUT or window ->
inversion of MONOCHROME1. Unused bits (old files keep overlays there) are cleared first, and padding is taken out of the
way last. What is missing or makes no sense in a header is replaced only where one replacement is possible, and counted
among the conversions; everything else is refused.

Parsers and decoders of other people meet damaged bytes here, and raise whatever they like: `read_dicom` turns all of it
into `UnreadableImage`.
"""

from __future__ import annotations

import io as _io
import math
import re
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from lgdea_jax.errors import UserError, require
from lgdea_jax.io.codestream import MAX_TILES, read_codestream
from lgdea_jax.io.image_info import MAX_PIXELS, ImageInfo, UnreadableImage

# Objects that hold a picture of something else than a radiograph: screen shots, scanned forms, dose sheets.
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_DAMAGED = "the DICOM file is truncated, damaged or has no usable pixels"
# Attributes without which pixels can still mean one thing only.
_DEFAULTS = (("SamplesPerPixel", 1), ("PixelRepresentation", 0), ("PhotometricInterpretation", "MONOCHROME2"))
_YEARS = {"D": 365.25, "W": 52.18, "M": 12.0, "Y": 1.0, "": 1.0}


def read_dicom(data: bytes) -> tuple[np.ndarray, ImageInfo]:
    """Reads one DICOM file.

    Args:
      data: the file's bytes.

    Returns:
      (array, info): float32 [rows, columns], larger is brighter; uint8 [rows, columns, 3] for a radiograph that is
      stored in colours.

    Raises:
      UnreadableImage: damaged, without pixels, several frames, a colour secondary capture, or compressed in a way that
        no installed decoder reads.
      UserError: the `dicom` extra is not installed.
    """
    pydicom = require("pydicom", "dicom", "reading DICOM")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Odd values in headers are common and harmless.
            dataset = pydicom.dcmread(_io.BytesIO(data), force=data[128:132] != b"DICM")
            conversions = _complete(dataset)
            _check(dataset)
            _check_codestream(dataset)
            array, mode, done = _picture(dataset)
            info = _info(dataset, mode, (*conversions, *done))
    except (UnreadableImage, UserError):
        raise
    except MemoryError:
        raise UnreadableImage("the DICOM image has more pixels than can be trusted") from None
    except Exception as error:
        if "missing dependencies" in str(error):
            raise UnreadableImage("no decoder for this compressed DICOM: pip install 'lgdea-jax[dicom]'") from None
        raise UnreadableImage(f"{_DAMAGED} ({type(error).__name__})") from None
    if array.shape[:2] != (int(dataset.Rows), int(dataset.Columns)) or not np.isfinite(array).all():
        raise UnreadableImage("the DICOM image is not finite or not of the size that it states")
    return array, info


def _complete(dataset: Any) -> list[str]:
    """Fills in missing attributes that have one possible value; what was done, for counting."""
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    done = []
    if not dataset.file_meta.get("TransferSyntaxUID"):
        implicit, little = dataset.original_encoding
        dataset.file_meta.TransferSyntaxUID = (
            ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian)
        done.append("missing tag")
    if dataset.get("BitsAllocated") is None:
        raise UnreadableImage("a DICOM file without BitsAllocated")
    for name, value in (*_DEFAULTS, ("BitsStored", dataset.BitsAllocated)):
        if dataset.get(name) in (None, ""):
            setattr(dataset, name, value)
            done.append("missing tag")
    if dataset.get("HighBit") is None:
        dataset.HighBit = int(dataset.BitsStored) - 1
        done.append("missing tag")
    return done[:1]  # An image counts once, however much was missing.


def _check(dataset: Any) -> None:
    """Raises UnreadableImage for what is not one radiograph, before any pixel is decoded."""
    if "PixelData" not in dataset and "FloatPixelData" not in dataset and "DoubleFloatPixelData" not in dataset:
        raise UnreadableImage("a DICOM file without pixels")
    rows, columns = dataset.get("Rows"), dataset.get("Columns")
    if not rows or not columns:
        raise UnreadableImage("a DICOM file without the image's size")
    if int(rows) * int(columns) > MAX_PIXELS:
        raise UnreadableImage("the DICOM image has more pixels than can be trusted")
    if int(dataset.get("NumberOfFrames") or 1) != 1:
        raise UnreadableImage("a multi-frame DICOM where one image is expected")
    if not 1 <= int(dataset.BitsStored) <= int(dataset.BitsAllocated):
        raise UnreadableImage("a DICOM file that stores more bits than it allocates")
    colour = int(dataset.SamplesPerPixel) != 1 or _photometric(dataset) == "PALETTE COLOR"
    if colour and str(dataset.get("SOPClassUID", "")).startswith(_SECONDARY_CAPTURE):
        raise UnreadableImage("a colour secondary capture, not a radiograph")
    if not colour and _photometric(dataset) not in ("MONOCHROME1", "MONOCHROME2"):
        raise UnreadableImage("a DICOM file whose photometric interpretation is unknown")


def _check_codestream(dataset: Any) -> None:
    """Raises UnreadableImage where compressed pixels are not the image that the attributes describe."""
    from pydicom.encaps import get_frame

    if _plain(dataset):
        return
    header = read_codestream(get_frame(dataset.PixelData, 0, number_of_frames=1))
    if header is None:
        raise UnreadableImage(f"{_DAMAGED} (no codestream)")
    if not header.complete:
        raise UnreadableImage(f"{_DAMAGED} (the codestream ends early)")
    stated = (int(dataset.Rows), int(dataset.Columns), int(dataset.SamplesPerPixel))
    if (header.rows, header.columns, header.samples) != stated or header.tiles > MAX_TILES:
        raise UnreadableImage("a DICOM file whose compressed pixels are not the image that it describes")


def _plain(dataset: Any) -> bool:
    """Whether stored values come as they are, unused bits included: uncompressed, or run-length encoded."""
    from pydicom.uid import RLELossless

    syntax = dataset.file_meta.TransferSyntaxUID
    return not syntax.is_encapsulated or syntax == RLELossless


def _photometric(dataset: Any) -> str:
    return str(dataset.PhotometricInterpretation).strip().upper()


def _picture(dataset: Any) -> tuple[np.ndarray, str, tuple[str, ...]]:
    """(array, mode, conversions) of a checked file."""
    plain = _plain(dataset)
    dataset.pixel_array_options(correct_unused_bits=not plain)  # `_used_bits` does: pydicom overlooks HighBit.
    photometric, pixels = _photometric(dataset), dataset.pixel_array
    colour = int(dataset.SamplesPerPixel) == 3
    if pixels.ndim != (3 if colour else 2):
        raise UnreadableImage("a multi-frame DICOM where one image is expected")
    if colour or photometric == "PALETTE COLOR":
        return _colours(dataset, pixels, photometric)
    pixels = _used_bits(dataset, pixels) if plain else pixels
    padding = _padding(dataset, pixels)
    values, done = _modality(dataset, pixels)
    inside = values if padding is None else values[~padding]
    windowed, how = _voi(dataset, values, inside)
    done += how
    array = windowed.astype(np.float32)
    kept = array if padding is None else array[~padding]
    if photometric == "MONOCHROME1":  # Small values are bright: turn them round.
        array = kept.max() + kept.min() - array
        done.append("monochrome1")
    if padding is not None:
        array[padding] = kept.min()  # Turning round keeps minimum and maximum: padding is black in either case.
        done.append("padding")
    return array, "grey8" if int(dataset.BitsStored) <= 8 else "grey16", tuple(done)


def _colours(dataset: Any, pixels: np.ndarray, photometric: str) -> tuple[np.ndarray, str, tuple[str, ...]]:
    from pydicom.pixels import apply_color_lut, convert_color_space

    palette = photometric == "PALETTE COLOR"
    if palette:
        pixels = apply_color_lut(pixels, dataset)
    elif photometric.startswith("YBR") and photometric not in ("YBR_RCT", "YBR_ICT"):  # Decoders undo those two.
        pixels = convert_color_space(pixels, photometric, "RGB")
    bits = 8 * pixels.dtype.itemsize if palette else int(dataset.BitsStored)
    if bits > 8:
        pixels = pixels >> (bits - 8)
    return pixels[..., :3].astype(np.uint8), "rgb", ("palette",) if palette else ()


def _used_bits(dataset: Any, pixels: np.ndarray) -> np.ndarray:
    """Stored values without what lies in the unused bits."""
    allocated, stored = int(dataset.BitsAllocated), int(dataset.BitsStored)
    if pixels.dtype.kind not in "iu" or stored == allocated:
        return pixels
    unsigned = pixels.astype(pixels.dtype.newbyteorder("=")).view(f"u{pixels.dtype.itemsize}")
    shift = min(max(int(dataset.HighBit) + 1 - stored, 0), allocated - stored)
    values = (unsigned >> shift) & unsigned.dtype.type((1 << stored) - 1)
    if pixels.dtype.kind == "u":
        return values
    sign = 1 << (stored - 1)
    return (values.astype(np.int64) ^ sign) - sign


def _padding(dataset: Any, pixels: np.ndarray) -> np.ndarray | None:
    """bool [rows, columns], True where there is no image but padding; None without any."""
    value = dataset.get("PixelPaddingValue")
    if value is None or value == "":
        return None
    limit = dataset.get("PixelPaddingRangeLimit")
    ends = [int(value), int(value if limit in (None, "") else limit)]
    if pixels.dtype.kind == "i":  # Writers that gave the value as unsigned meant its two's complement.
        wrap = 1 << int(dataset.BitsAllocated)
        ends = [end - wrap if end >= wrap // 2 else end for end in ends]
    padding = (pixels >= min(ends)) & (pixels <= max(ends))
    return padding if padding.any() and not padding.all() else None


def _modality(dataset: Any, pixels: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """(values, conversions) after the modality LUT or the rescale, whichever there is."""
    if dataset.get("ModalityLUTSequence"):
        return _lookup(dataset.ModalityLUTSequence[0], pixels), ["modality lut"]
    slope, intercept = _number(dataset.get("RescaleSlope")), _number(dataset.get("RescaleIntercept"))
    if not slope or not math.isfinite(slope) or not math.isfinite(intercept):
        return pixels, []  # A slope of 0 would blank the image.
    return pixels.astype(np.float64) * slope + intercept, []


def _voi(dataset: Any, values: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """(values, conversions) after the VOI LUT, or the first window that leaves contrast.

    A window that lies beside all values of the image (`inside`, without padding) would blank it: such are passed over.
    """
    tried = False
    for item in dataset.get("VOILUTSequence") or ():
        if item.get("LUTDescriptor") and item.get("LUTData"):
            tried = True
            if _has_contrast(_lookup(item, inside), inside):
                return _lookup(item, values), ["voi lut"]
    windows = list(zip(_numbers(dataset.get("WindowCenter")), _numbers(dataset.get("WindowWidth"))))
    function = str(dataset.get("VOILUTFunction") or "LINEAR").strip().upper()
    top = float((1 << int(dataset.BitsStored)) - 1)
    for centre, width in windows:
        tried = True
        if not math.isfinite(centre) or not math.isfinite(width) or width < (1 if function == "LINEAR" else 1e-9):
            continue
        windowed = _window(inside, centre, width, function)
        if windowed is not None and _has_contrast(windowed, inside):
            return _window(values, centre, width, function) * top, ["window"]
    return values, ["window ignored"] if tried else []


def _has_contrast(windowed: np.ndarray, inside: np.ndarray) -> bool:
    return bool(inside.max() == inside.min() or windowed.max() > windowed.min())


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


def _lookup(item: Any, values: np.ndarray) -> np.ndarray:
    """Values through a LUT (PS3.3 C.11.1.1): those before its first and after its last entry take these entries'."""
    entries, first, bits = (int(number) for number in item.LUTDescriptor)
    entries = entries or 1 << 16
    if values.dtype.kind != "u" and first >= 1 << 15:
        first -= 1 << 16  # Written as unsigned, meant as signed.
    data = item.LUTData
    if isinstance(data, bytes):
        table = np.frombuffer(data, np.uint8 if len(data) < 2 * entries else "<u2")
    else:
        table = np.asarray(data, np.int64)
    if not 1 <= bits <= 16 or len(table) < entries:
        raise UnreadableImage("a DICOM file whose lookup table is shorter than it states")
    indices = np.clip(np.rint(values.astype(np.float64)) - first, 0, entries - 1).astype(np.int64)
    return table[:entries][indices].astype(np.float64)


def _number(value: Any) -> float:
    """A header's number, NaN where it is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _numbers(value: Any) -> list[float]:
    """The numbers of an attribute that may have none, one or several."""
    if value is None or value == "":
        return []
    many = isinstance(value, Sequence) and not isinstance(value, str | bytes)
    return [_number(part) for part in (value if many else [value])]


def _info(dataset: Any, mode: str, conversions: tuple[str, ...]) -> ImageInfo:
    spacing = (0.0, 0.0)
    for name in ("PixelSpacing", "ImagerPixelSpacing"):
        found = _numbers(_value(dataset, name))
        if len(found) == 2 and all(math.isfinite(number) and number > 0 for number in found):
            spacing = (found[0], found[1])
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
