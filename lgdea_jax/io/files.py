"""Reading image files as they come (PNG, JPEG, DICOM) to an array and what is known about it.

The array keeps the file's depth and colours; `preprocess/image.py` makes the record's image of it. Formats are
recognised by the file's first bytes, not by its name.
"""

from __future__ import annotations

import io as _io
import warnings
from pathlib import Path

import numpy as np

from lgdea_jax.errors import require
from lgdea_jax.io.codestream import Codestream, read_codestream
from lgdea_jax.io.dicom import read_dicom
from lgdea_jax.io.image_info import MAX_PIXELS, ImageInfo, UnreadableImage

# How a DICOM file without its preamble begins: groups 2 and 8, with the lowest elements that stand there.
_BARE_DICOM = (b"\x02\0\0\0", b"\x08\0\0\0", b"\x08\0\x05\0", b"\x08\0\x08\0", b"\x08\0\x16\0")


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
        header = read_codestream(data)
        return _read_deep_jpeg(data, header) if header and header.bits > 8 else _read_pillow(data, "jpeg")
    if data[128:132] == b"DICM" or data[:4] in _BARE_DICOM:
        return read_dicom(data)
    if data[:2] == b"\x1f\x8b" or data[344:348] in (b"n+1\0", b"ni1\0"):
        raise UnreadableImage("a volume (NIfTI) where a 2D image is expected (config.volume.geometry is for those)")
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
    except UnreadableImage:
        raise
    except Exception:
        # What Pillow raises on a file that ends early or is damaged is not limited to what it documents.
        raise UnreadableImage(f"the {file_format.upper()} file is truncated or damaged") from None
    if array.dtype == np.int32:
        array = array.astype(np.uint16)
    return array, ImageInfo(file_format, mode, (0.0, 0.0), conversions)


def _read_deep_jpeg(data: bytes, header: Codestream) -> tuple[np.ndarray, ImageInfo]:
    """JPEG of more than 8 bits (12 bit, lossless), which Pillow does not read."""
    libjpeg = require("libjpeg", "dicom", "reading JPEG of more than 8 bits")
    if header.rows * header.columns > MAX_PIXELS:
        raise UnreadableImage("the image has more pixels than can be trusted")
    if not header.complete:
        raise UnreadableImage("the JPEG file is truncated or damaged")
    if header.samples != 1:
        raise UnreadableImage("a colour JPEG of more than 8 bits")
    try:
        array = np.asarray(libjpeg.decode(data))
    except Exception:  # The decoder does not document what it raises.
        raise UnreadableImage("the JPEG file is truncated or damaged") from None
    if array.dtype != np.uint16 or array.shape != (header.rows, header.columns) or not array.size:
        raise UnreadableImage("the JPEG file is truncated or damaged")
    return array, ImageInfo("jpeg", "grey16")
