"""Reading image files as they come (PNG, JPEG, DICOM) to an array and what is known about it.

The array keeps the file's depth and colours; `preprocess/image.py` makes the record's image of it. Formats are
recognised by the file's first bytes, not by its name. The orientation in EXIF data is applied, as viewers do.
"""

from __future__ import annotations

import io as _io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from lgdea_jax.io.codestream import decode_jpeg, read_codestream
from lgdea_jax.io.dicom import read_dicom
from lgdea_jax.io.dicom_file import is_dicom
from lgdea_jax.io.image_info import MAX_PIXEL_BYTES, MAX_PIXELS, ImageInfo, UnreadableImage, damage_as
from lgdea_jax.io.opening import PNG, file_kind, open_regular
from lgdea_jax.io.outliers import clip_markers

# Larger files hold no radiograph of MAX_PIXELS.
MAX_BYTES = 1 << 29
_HEAD = 1 << 12  # Bytes by which a file is recognised.
# Chunks that say what the pixels are; others (text, colour profiles, animations) may be of any size and are left out.
_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"IDAT", b"IEND")
_GREY, _COLOUR, _GREY_ALPHA, _COLOUR_ALPHA = 0, 2, 4, 6  # Colour types of PNG.
# Of an image that is interlaced, and of one that is not: (left, top, step across, step down).
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_PASS = ((0, 0, 1, 1),)
_ORIENTATION = 0x0112  # The EXIF tag.


def read_image_file(path: str | Path) -> tuple[np.ndarray, ImageInfo]:
    """Reads one image.

    Args:
      path: PNG (1 to 16 bit, grey, colour, palette, with alpha), JPEG or DICOM file.

    Returns:
      (array, info): uint8 or uint16 [h, w], [h, w, 3] (RGB) or [h, w, 4] (RGBA), or float32 [h, w] (DICOM, after
      rescale and window, larger is brighter).

    Raises:
      UnreadableImage: whatever keeps the file from being opened, read and decoded.
      UserError: a DICOM file and the `dicom` extra is not installed.
    """
    with damage_as("the image file cannot be read", named=False), open_regular(path) as (file, size):
        if size > MAX_BYTES:
            raise UnreadableImage(f"the image file has {size >> 20} MB: more than a radiograph can have")
        data = file.read(min(size, _HEAD))
        _check_kind(data)
        data += file.read(size - len(data))
    return read_image_bytes(data)


def read_image_bytes(data: bytes) -> tuple[np.ndarray, ImageInfo]:
    """`read_image_file` on the file's content."""
    kind = _check_kind(data[:_HEAD])
    with damage_as(f"the {kind} file is truncated or damaged", named=False):
        return {"PNG": _read_png, "JPEG": _read_jpeg, "DICOM": read_dicom}[kind](data)


def _check_kind(head: bytes) -> str:
    """"PNG", "JPEG" or "DICOM", by a file's first bytes; raises UnreadableImage for others."""
    if not head:
        raise UnreadableImage("the image file is empty")
    if head[:8] == PNG:
        return "PNG"
    if head[:2] == b"\xff\xd8":
        return "JPEG"
    if is_dicom(head):
        return "DICOM"
    kind = file_kind(head)
    if "volume" in kind:
        raise UnreadableImage(f"{kind} where a 2D image is expected (config.volume.geometry is for those)")
    raise UnreadableImage(f"{kind}, not a PNG, JPEG or DICOM file" if kind else "not a PNG, JPEG or DICOM file")


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
}


def _read_png(data: bytes) -> tuple[np.ndarray, ImageInfo]:
    data = _image_chunks(data)
    width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    bits = depth * {_COLOUR: 3, _GREY_ALPHA: 2, _COLOUR_ALPHA: 4}.get(colour, 1)
    size = width * height * bits
    if width * height > MAX_PIXELS or size > 8 * MAX_PIXEL_BYTES:
        raise UnreadableImage("the image has more pixels than can be trusted")
    if depth == 16 and colour != _GREY:
        mode, array = ("rgba" if colour in (_GREY_ALPHA, _COLOUR_ALPHA) else "rgb"), _deep_colours(data, colour)
        conversions: tuple[str, ...] = ()
    else:
        with Image.open(_io.BytesIO(data), formats=["PNG"]) as image:
            if image.mode == "P":
                if np.asarray(image).max() >= len(image.getpalette() or ()) // 3:
                    raise UnreadableImage("a PNG file whose pixels are not in its palette")
                mode, conversions = "palette", ("palette",)
                array = np.array(image.convert("RGBA" if "transparency" in image.info else "RGB"))
            elif image.mode in _MODES:
                mode, target, conversions = _MODES[image.mode]
                array = np.array(image.convert(target) if target else image)
            else:
                raise UnreadableImage(f"pixels of kind {image.mode} are not supported")
    if (interlaced or mode == "palette" or not array[-1].any()) and not _has_all_rows(
            data, _filtered_size(width, height, bits, _PASSES if interlaced else _PASS)):
        raise UnreadableImage("the PNG file is truncated or damaged")
    if array.dtype == np.int32:
        array = array.astype(np.uint16)
    if array.ndim == 3 and array.shape[2] == 4 and not array[..., 3].any():  # A writer that knew no alpha left it 0.
        array, conversions = array[..., :3], (*conversions, "alpha ignored")
    if array.ndim == 3 and array.dtype == np.uint16 and (array[..., :1] == array[..., 1:3]).all() and (
            array.shape[2] == 3 or array[..., 3].min() == 65535):
        array = np.ascontiguousarray(array[..., 0])  # A grey image of 16 bits, whatever it is stored as.
    if array.dtype == np.uint16 and array.ndim == 2:
        array, clipped = clip_markers(array)
        conversions += ("markers clipped",) if clipped else ()
    array, turned = _upright(data, "PNG", array)
    return array, ImageInfo("png", mode, (0.0, 0.0), (*conversions, *turned))


def _filtered_size(width: int, height: int, bits: int, passes: tuple[tuple[int, int, int, int], ...]) -> int:
    """Bytes of the rows of a PNG, each with the byte of its filter."""
    size = 0
    for left, top, across, down in passes:
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        size += rows * (1 + -(-columns * bits // 8)) if min(columns, rows) > 0 else 0
    return size


def _has_all_rows(data: bytes, size: int) -> bool:
    """Whether the data of a PNG are `size` bytes or more. Pillow leaves rows that are not there black."""
    inflater, offset = zlib.decompressobj(), 8
    while offset < len(data) and size > 0:
        length, kind = int.from_bytes(data[offset:offset + 4], "big"), data[offset + 4:offset + 8]
        rest = data[offset + 8:offset + 8 + length] if kind == b"IDAT" else b""
        while rest and not inflater.eof and size > 0:
            size -= len(inflater.decompress(rest, 1 << 24))
            rest = inflater.unconsumed_tail
        offset += 12 + length
    return size <= 0


def _image_chunks(data: bytes) -> bytes:
    """A PNG without the chunks that do not make its pixels."""
    parts, offset, ended = [data[:8]], 8, False
    while offset + 8 <= len(data) and not ended:
        length, kind = int.from_bytes(data[offset:offset + 4], "big"), data[offset + 4:offset + 8]
        end = offset + 12 + length
        if kind in _CHUNKS:
            parts.append(data[offset:end])
        offset, ended = end, kind == b"IEND"
    if len(parts) < 2 or parts[1][4:8] != b"IHDR" or len(parts[1]) != 25:
        raise UnreadableImage("the PNG file is truncated or damaged")
    return b"".join(parts)


def _deep_colours(data: bytes, colour: int) -> np.ndarray:
    """uint16 [h, w, 3 or 4] of a PNG with colours or alpha of 16 bits.

    Pillow keeps the high byte of each sample. Told that the samples are little-endian it keeps the low one; grey with
    alpha has as many bytes in a pixel as RGBA of 8 bits.
    """
    names = {_COLOUR: ("RGB;16B", "RGB;16L"), _COLOUR_ALPHA: ("RGBA;16B", "RGBA;16L"), _GREY_ALPHA: ("RGBA",)}[colour]
    array = np.zeros(0, np.uint16)
    for name in names:
        with Image.open(_io.BytesIO(data), formats=["PNG"]) as image:
            image.tile = [tile._replace(args=name) for tile in image.tile]
            samples = np.asarray(image)
        if colour == _GREY_ALPHA:
            grey, alpha = (samples[..., first].astype(np.uint16) << 8 | samples[..., first + 1] for first in (0, 2))
            return np.stack([grey, grey, grey, alpha], axis=-1)
        if not array.size:
            array = samples.astype(np.uint16)
            array <<= 8
        else:
            array |= samples
    return array


def _read_jpeg(data: bytes) -> tuple[np.ndarray, ImageInfo]:
    header = read_codestream(data)
    if header is None:
        raise UnreadableImage("the JPEG file is truncated or damaged")
    if header.rows * header.columns > MAX_PIXELS:
        raise UnreadableImage("the image has more pixels than can be trusted")
    array = decode_jpeg(data, header)
    mode = "rgb" if array.ndim == 3 else "grey8" if array.dtype == np.uint8 else "grey16"
    conversions = ["cmyk"] if header.samples == 4 else []
    if mode == "grey16":
        array, clipped = clip_markers(array)
        conversions += ["markers clipped"] if clipped else []
    array, turned = _upright(data, "JPEG", array)
    return array, ImageInfo("jpeg", mode, (0.0, 0.0), (*conversions, *turned))


def _upright(data: bytes, file_format: str, array: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """(the image as its EXIF orientation wants it to be looked at, conversions)."""
    if (b"Exif\0\0" if file_format == "JPEG" else b"eXIf") not in data:
        return array, ()
    warnings.filterwarnings("ignore", module=r"PIL\.TiffImagePlugin$")  # For good: what it warns of is no matter here.
    try:
        with Image.open(_io.BytesIO(data), formats=[file_format]) as image:
            orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # A damaged description does not spoil good pixels.
        return array, ()
    if orientation not in range(2, 9):
        return array, ()
    array = array.swapaxes(0, 1) if orientation >= 5 else array
    array = array[::-1] if orientation in (3, 4, 7, 8) else array
    array = array[:, ::-1] if orientation in (2, 3, 6, 7) else array
    return np.ascontiguousarray(array), ("turned",)
