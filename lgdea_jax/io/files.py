"""Reading image files as they come (PNG, JPEG, DICOM) to an array and what is known about it.

The array keeps the file's depth and colours; `preprocess/image.py` makes the record's image of it. Formats are told by
the file's first bytes, not by its name.
"""

from __future__ import annotations

import dataclasses
import io as _io
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from lgdea_jax.cli import require


class UnreadableImage(Exception):
    """An image file that cannot be used; the message is a short reason without a path."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclasses.dataclass(frozen=True)
class ImageInfo:
    """What a file says about its image.

    Attributes:
      file_format: "png", "jpeg" or "dicom".
      mode: the file's pixels: "grey8", "grey16", "rgb", "rgba", "palette" or "grey1".
      spacing: mm per pixel (row, column); 0 where the file does not say.
      conversions: what had to be converted to get the array, for counting ("palette", "monochrome1", "window", ...).
      view, modality: from DICOM, "" otherwise.
    """

    file_format: str
    mode: str
    spacing: tuple[float, float] = (0.0, 0.0)
    conversions: tuple[str, ...] = ()
    view: str = ""
    modality: str = ""


def read_image_file(path: str | Path) -> tuple[np.ndarray, ImageInfo]:
    """Reads one image.

    Args:
      path: PNG (1 to 16 bit, grey, colour, palette, with alpha), JPEG or DICOM file.

    Returns:
      (array, info): uint8 or uint16 [h, w], uint8 [h, w, 3] (RGB) or [h, w, 4] (RGBA), or float32 [h, w] (DICOM, after
      rescale and window, larger is brighter).

    Raises:
      UnreadableImage: missing, empty, truncated or unknown file.
      UserError: a DICOM file and the `dicom` extra is not installed.
    """
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise UnreadableImage("the image file is missing") from None
    except IsADirectoryError:
        raise UnreadableImage("the image is a folder, not a file") from None
    except PermissionError:
        raise UnreadableImage("no permission to read the image file") from None
    return read_image_bytes(data)


def read_image_bytes(data: bytes) -> tuple[np.ndarray, ImageInfo]:
    """`read_image_file` on the file's content."""
    if not data:
        raise UnreadableImage("the image file is empty")
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return _read_pillow(data, "png")
    if data[:2] == b"\xff\xd8":
        return _read_pillow(data, "jpeg")
    if data[128:132] == b"DICM":
        return _read_dicom(data)
    if data[:2] == b"\x1f\x8b" or data[344:348] in (b"n+1\0", b"ni1\0"):
        raise UnreadableImage("a volume (NIfTI) where a 2D image is expected")
    raise UnreadableImage("not a PNG, JPEG or DICOM file")


# Pillow's mode -> (our mode, the mode to convert to or "" to keep, what to count).
_MODES = {
    "L": ("grey8", "", ()),
    "I;16": ("grey16", "", ()),
    "I": ("grey16", "", ()),  # How older Pillow opens 16-bit grey PNG.
    "RGB": ("rgb", "", ()),
    "RGBA": ("rgba", "", ()),
    "LA": ("rgba", "RGBA", ()),
    "PA": ("palette", "RGBA", ("palette",)),
    "1": ("grey1", "L", ("1 bit",)),
    "CMYK": ("rgb", "RGB", ("cmyk",)),
    "YCbCr": ("rgb", "RGB", ()),
}


def _read_pillow(data: bytes, file_format: str) -> tuple[np.ndarray, ImageInfo]:
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(_io.BytesIO(data), formats=[file_format.upper()]) as image:
                image.load()
                if image.mode == "P":
                    mode, conversions = "palette", ("palette",)
                    array = np.array(image.convert("RGBA" if "transparency" in image.info else "RGB"))
                elif image.mode in _MODES:
                    mode, target, conversions = _MODES[image.mode]
                    array = np.array(image.convert(target) if target else image)
                else:
                    raise UnreadableImage(f"pixels of kind {image.mode} are not supported")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnreadableImage("the image has more pixels than can be trusted") from None
    except (OSError, SyntaxError, ValueError, EOFError):
        # Pillow raises any of these on a file that ends early or is damaged.
        raise UnreadableImage(f"the {file_format.upper()} file is truncated or damaged") from None
    if array.dtype == np.int32:
        array = array.astype(np.uint16)
    return array, ImageInfo(file_format, mode, (0.0, 0.0), conversions)


def _read_dicom(data: bytes) -> tuple[np.ndarray, ImageInfo]:
    pydicom = require("pydicom", "dicom", "reading DICOM")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Odd values in headers are common and harmless.
            dataset = pydicom.dcmread(_io.BytesIO(data))
            array, mode, conversions = _dicom_pixels(dataset)
    except UnreadableImage:
        raise
    except (AttributeError, KeyError, ValueError, TypeError, EOFError, OSError, NotImplementedError, RuntimeError,
            pydicom.errors.InvalidDicomError) as error:
        if "missing dependencies" in str(error):
            raise UnreadableImage("no decoder for this compressed DICOM: pip install 'lgdea-jax[dicom]'") from None
        raise UnreadableImage(f"the DICOM file is truncated, damaged or has no usable pixels ({type(error).__name__})"
                              ) from None
    if array.size == 0 or not np.isfinite(array).all():
        raise UnreadableImage("the DICOM image is empty or not finite")
    spacing = dataset.get("PixelSpacing") or dataset.get("ImagerPixelSpacing") or (0.0, 0.0)
    view = str(dataset.get("ViewPosition", "") or "").upper()
    return array, ImageInfo("dicom", mode, (float(spacing[0]), float(spacing[1])), conversions, view,
                            str(dataset.get("Modality", "") or ""))


def _dicom_pixels(dataset: Any) -> tuple[np.ndarray, str, tuple[str, ...]]:
    """(array, mode, conversions) of a parsed DICOM file with one frame."""
    from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, convert_color_space

    photometric = str(dataset.get("PhotometricInterpretation", ""))
    pixels = dataset.pixel_array
    colour = int(dataset.get("SamplesPerPixel", 1)) == 3
    if pixels.ndim != (3 if colour else 2):
        raise UnreadableImage("a multi-frame DICOM where one image is expected")
    if colour or photometric == "PALETTE COLOR":
        if photometric == "PALETTE COLOR":
            pixels = apply_color_lut(pixels, dataset)
        elif photometric.startswith("YBR"):
            pixels = convert_color_space(pixels, photometric, "RGB")
        bits = 8 * pixels.dtype.itemsize
        if bits > 8:
            pixels = pixels >> (bits - 8 if photometric == "PALETTE COLOR" else int(dataset.BitsStored) - 8)
        return pixels[..., :3].astype(np.uint8), "rgb", ("palette",) if photometric == "PALETTE COLOR" else ()
    array, conversions = apply_modality_lut(pixels, dataset), []
    if "WindowCenter" in dataset or "VOILUTSequence" in dataset:
        array = apply_voi_lut(array, dataset)
        conversions.append("window")
    array = array.astype(np.float32)
    if photometric == "MONOCHROME1":  # Small values are bright: turn them round.
        array = array.max() + array.min() - array
        conversions.append("monochrome1")
    return array, "grey16", tuple(conversions)
