"""JPEG of every process and JPEG-LS, decoded so that what is missing is not made up.

Decoders go on where a stream was cut or has a hole: they fill up the rest, or shift it, and say so at most in a
warning. Streams of 8 bits are decoded by libjpeg-turbo with warnings as errors. For others, what is decoded must not
change when other bytes are put before the end marker: a decoder reads them only if it lacks data.

A hole that by chance leaves a valid stream cannot be told (a few in a hundred of them; more in the last scans of
progressive files, which hold the least of the image).
"""

from __future__ import annotations

import io as _io
import re

import numpy as np
import simplejpeg

from lgdea_jax.errors import require
from lgdea_jax.io.codestream import Codestream
from lgdea_jax.io.image_info import UnreadableImage

_DAMAGED = "the JPEG data are truncated or damaged"
_END = b"\xff\xd9"
# No byte of it is 255, which begins a marker.
_FILLING = bytes((37 * position + 11) % 249 + 1 for position in range(400))
_COLOURS = {1: "GRAY", 3: "RGB", 4: "CMYK"}


def decode_jpeg(data: bytes, header: Codestream) -> np.ndarray:
    """Decodes a JPEG or JPEG-LS stream; one that lacks only its end marker is whole.

    Args:
      data: the stream, from its start marker on; header: of `read_codestream`, not of JPEG 2000.

    Returns:
      uint8 or uint16 [rows, columns]; uint8 [rows, columns, 3], RGB.

    Raises:
      UnreadableImage: cut, damaged, or colours of more than 8 bits. UserError: the extra `dicom` is not installed, for
        what is not plain JPEG of 8 bits.
    """
    if not header.complete:
        raise UnreadableImage(_DAMAGED)
    try:
        if header.bits == 8 and header.kind in ("dct", "progressive"):
            array = _decode_plain(data, header)
        else:
            array = _decode_other(data, header)
    except (ValueError, RuntimeError, OSError, SyntaxError):  # The decoders do not document what they raise.
        raise UnreadableImage(_DAMAGED) from None
    if array.shape[:2] != (header.rows, header.columns) or not array.size:
        raise UnreadableImage(_DAMAGED)
    return array


def _decode_plain(data: bytes, header: Codestream) -> np.ndarray:
    if header.samples not in _COLOURS:
        raise UnreadableImage(f"a JPEG with {header.samples} samples per pixel")
    colours = _COLOURS[header.samples]
    try:
        array = simplejpeg.decode_jpeg(data, colours)
    except ValueError as error:
        if "premature end of jpeg file" not in str(error).lower():
            raise
        data += _END
        array = simplejpeg.decode_jpeg(data, colours)
    if header.samples == 4:  # Its data are whole. Adobe's CMYK is inverted, which Pillow knows.
        from PIL import Image

        with Image.open(_io.BytesIO(data), formats=["JPEG"]) as image:
            return np.array(image.convert("RGB"))
    return array[..., 0] if header.samples == 1 else array


def _decode_other(data: bytes, header: Codestream) -> np.ndarray:
    libjpeg = require("libjpeg", "dicom", "reading JPEG-LS, lossless JPEG and JPEG of more than 8 bits")
    end = data.rfind(_END, header.start)
    scans, rest = (data, _END) if end < 0 else (data[:end], data[end:])
    restarts = re.findall(rb"\xff([\xd0-\xd7])", scans[header.start:])
    one = scans.count(b"\xff\xda", header.start) == 1
    if one and any(mark[0] & 7 != count % 8 for count, mark in enumerate(restarts)):
        raise UnreadableImage(_DAMAGED)  # The decoder would go on at the next restart, some rows too high.
    array = np.asarray(libjpeg.decode(scans + rest))
    if not np.array_equal(array, np.asarray(libjpeg.decode(scans + _FILLING + rest))):
        raise UnreadableImage(_DAMAGED)
    if array.ndim == 3 and array.dtype != np.uint8:
        raise UnreadableImage("a colour JPEG of more than 8 bits")
    if array.dtype not in (np.uint8, np.uint16):
        raise UnreadableImage(_DAMAGED)
    return array
