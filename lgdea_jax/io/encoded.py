"""Images as bytes inside records: encoding at build time, decoding in the input pipeline.

"png" is lossless and small, "jpeg" (quality 95) is smaller still, "raw" is the pixels as they are: largest, and the
quickest to read.
"""

from __future__ import annotations

import contextlib
import io as _io
import struct

import numpy as np

from lgdea_jax.errors import choose

ENCODINGS = ("png", "jpeg", "raw")

_RAW_SHAPE = struct.Struct("<II")  # Height, width.
_RAW_HEADER = _RAW_SHAPE.size


def encode_image(array: np.ndarray, encoding: str) -> bytes:
    """Encodes a grey image.

    Args:
      array: uint8 [h, w].
      encoding: one of ENCODINGS.

    Returns:
      The bytes that `decode_image(bytes, encoding)` turns back into uint8 [h, w]: exactly, but for "jpeg".

    Raises:
      UserError: unknown encoding. ValueError: not a uint8 [h, w] array.
    """
    choose("image encoding", encoding, ENCODINGS)
    if array.dtype != np.uint8 or array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"expected uint8 [h, w], got {array.dtype} {list(array.shape)}")
    if encoding == "raw":
        return _RAW_SHAPE.pack(*array.shape) + np.ascontiguousarray(array).tobytes()
    from PIL import Image

    buffer = _io.BytesIO()
    if encoding == "png":
        Image.fromarray(array).save(buffer, "PNG", compress_level=3)
    else:
        # Huffman tables of its own: equal pixels in fewer bytes, which are decoded in less time.
        Image.fromarray(array).save(buffer, "JPEG", quality=95, optimize=True)
    return buffer.getvalue()


def decode_image(data: bytes, image_format: str, out: np.ndarray | None = None) -> np.ndarray:
    """Decodes a record's image.

    Args:
      data: `Record.image`.
      image_format: `Record.image_format`, one of ENCODINGS.
      out: contiguous uint8 [h, w]; an image of this shape is written there, without an array of its own between.

    Returns:
      uint8 [h, w]; `out` if it has this shape; else of "raw" a view of `data`, that may be read-only.

    Raises:
      UserError: unknown format. ValueError: the bytes are not such an image.
    """
    choose("image format", image_format, ENCODINGS)
    if image_format == "raw":
        if len(data) < _RAW_HEADER:
            raise ValueError("a raw image has no header")
        height, width = _RAW_SHAPE.unpack_from(data)
        if len(data) != _RAW_HEADER + height * width:
            raise ValueError(f"a raw image of {height} x {width} has {len(data)} bytes")
        image = np.frombuffer(data, np.uint8, offset=_RAW_HEADER).reshape(height, width)
        return image if out is None else _moved(image, out)
    if image_format == "jpeg":
        import simplejpeg

        if out is not None:
            with contextlib.suppress(ValueError):  # Larger than `out`, or damaged: the second try decides.
                image = simplejpeg.decode_jpeg(data, colorspace="GRAY", buffer=out)[..., 0]
                return out if image.shape == out.shape else image.copy()
        try:  # The same libjpeg-turbo as PIL's, with less around it; equal pixels.
            return simplejpeg.decode_jpeg(data, colorspace="GRAY")[..., 0]
        except ValueError as error:
            raise ValueError(f"a jpeg image cannot be decoded: {error}") from None
    from PIL import Image

    try:
        with Image.open(_io.BytesIO(data), formats=[image_format.upper()]) as image:
            found = np.array(image.convert("L") if image.mode != "L" else image)
    except (OSError, SyntaxError) as error:
        raise ValueError(f"a {image_format} image cannot be decoded: {error}") from None
    return found if out is None else _moved(found, out)


def _moved(image: np.ndarray, out: np.ndarray) -> np.ndarray:
    if image.shape != out.shape:
        return image
    out[:] = image
    return out
