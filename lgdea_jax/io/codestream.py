"""Compressed images: the header, read before they are decoded, and decoding of JPEG that makes nothing up.

Decoders believe the numbers in the header of a JPEG, JPEG-LS or JPEG 2000 codestream: one damaged byte can make them
allocate gigabytes or work for minutes. Looking first costs microseconds.

Decoders go on where a stream was cut or has a hole: they fill up the rest, or shift it, and say so at most in a
warning. Streams of 8 bits are decoded by libjpeg-turbo with warnings as errors. For others, what is decoded must not
change when other bytes are put before the end marker (a decoder reads them only if it lacks data), and must change when
the last bytes do (a decoder that came to the end of the image before had too much data). JPEG 2000 notices data that
are missing, but not those that became zeros: they are looked for.

A hole that by chance leaves a valid stream cannot be told (a few in a hundred of them; more in the last scans of
progressive files, which hold the least of the image).
"""

from __future__ import annotations

import contextlib
import dataclasses
import io as _io
import re
import struct
from collections.abc import Iterator

import numpy as np

from lgdea_jax.errors import require
from lgdea_jax.io.image_info import UnreadableImage

# JPEG 2000 allows 65,535 tiles, and writers of radiographs make one or a few; a decoder visits every one of them.
MAX_TILES = 4096
# Every scan of a progressive JPEG goes over all pixels again. Writers make about ten.
MAX_SCANS = 200
# JPEG process by the marker of its frame header (ITU T.81, table B.1; T.87 for JPEG-LS).
_PROCESSES = {**dict.fromkeys((0xC0, 0xC1, 0xC9), "dct"), **dict.fromkeys((0xC2, 0xCA), "progressive"),
              **dict.fromkeys((0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF), "lossless"), 0xF7: "jpeg-ls"}
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # In the data of a scan: neither stuffing, nor restart, nor fill.

_DAMAGED = "the JPEG data are truncated or damaged"
_END = b"\xff\xd9"
# No byte of it is 255, which begins a marker.
_FILLING = bytes((37 * position + 11) % 249 + 1 for position in range(400))
_SCAN_END = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")  # Stuffing of JPEG-LS is below.
_LAST = 6  # Bytes at the end of the data that must matter.
_COLOURS = {1: "GRAY", 3: "RGB", 4: "CMYK"}


@dataclasses.dataclass(frozen=True)
class Codestream:
    """The header of a codestream.

    Attributes:
      kind: "dct", "progressive", "lossless" (or hierarchical), "jpeg-ls" or "jpeg2000".
      rows, columns: of the image; samples: per pixel; bits: of a sample; tiles: 1 where it is not tiled.
      start: where the data of the first scan begin, in bytes.
      complete: False where it is certain that a piece is missing: a JPEG 2000 image without some of its tiles or with
        a block of zeros, a progressive JPEG without its last scans.
    """

    kind: str
    rows: int
    columns: int
    samples: int
    bits: int
    tiles: int = 1
    start: int = 0
    complete: bool = True


def read_codestream(data: bytes) -> Codestream | None:
    """The header of a JPEG, JPEG-LS or JPEG 2000 codestream; None where there is none to be found."""
    try:
        if data[:2] == b"\xff\xd8":
            return _read_jpeg(data)
        start = data.find(b"\xff\x4f\xff\x51", 0, 4096)  # Some writers leave the boxes of a JP2 file around it.
        return _read_jpeg2000(data, start) if start >= 0 else None
    except (struct.error, IndexError, ZeroDivisionError):
        return None


def _read_jpeg(data: bytes) -> Codestream | None:
    offset, header = 2, None
    while data[offset] == 0xFF:
        marker = data[offset + 1]
        if marker == 0xFF:  # Fill bytes may stand before any marker.
            offset += 1
            continue
        if marker in _PROCESSES and header is None:
            bits, rows, columns, samples = struct.unpack_from(">BHHB", data, offset + 4)
            header = Codestream(_PROCESSES[marker], rows, columns, samples, bits)
        if marker == 0xDA:
            if header is None:
                return None
            whole = header.kind != "progressive" or _has_all_scans(data, offset, header.samples)
            return dataclasses.replace(header, start=offset, complete=whole)
        offset += 2 + struct.unpack_from(">H", data, offset + 2)[0]
    return None


def _has_all_scans(data: bytes, offset: int, samples: int) -> bool:
    """Whether the scans of a progressive JPEG give every coefficient to its last bit (ITU T.81, G.1.1.1.1).

    Args:
      offset: of the first scan's marker. Raises IndexError or struct.error where the file ends early.
    """
    missing: dict[int, set[int]] = {}
    scans = 0
    while data[offset + 1] != 0xD9:
        length = struct.unpack_from(">H", data, offset + 2)[0]
        if data[offset + 1] == 0xDA:
            scans += 1
            components = data[offset + 4]
            first, last, precision = data[offset + 5 + 2 * components:offset + 8 + 2 * components]
            for part in range(components):
                left = missing.setdefault(data[offset + 5 + 2 * part], set(range(64)))
                if precision & 15 == 0:
                    left.difference_update(range(first, last + 1))
        found = _MARKER.search(data, offset + 2 + length)
        if found is None or scans > MAX_SCANS:
            break
        offset = found.start()
    return scans <= MAX_SCANS and len(missing) == samples and not any(missing.values())


def _read_jpeg2000(data: bytes, start: int) -> Codestream:
    right, bottom, left, top, tile_width, tile_height, tile_left, tile_top, samples, bits = struct.unpack_from(
        ">8IHB", data, start + 8)
    tiles = -(-(right - tile_left) // tile_width) * -(-(bottom - tile_top) // tile_height)
    size = (min(tile_width, right - left), min(tile_height, bottom - top))
    return Codestream("jpeg2000", bottom - top, right - left, samples, (bits & 0x7F) + 1, tiles, start,
                      tiles <= MAX_TILES and _has_all_tiles(data, start + 2, tiles)
                      and not _has_zeros(data, start + 2, size, samples))


def _has_zeros(data: bytes, offset: int, tile: tuple[int, int], samples: int) -> bool:
    """Whether more zeros follow each other than a tile of JPEG 2000 has packets: an empty one is a byte of zero.

    Args:
      offset: of the main header's first segment; tile: its size, (columns, rows).
    """
    packets = 0
    while data[offset:offset + 2] not in (b"\xff\x90", b""):
        length = struct.unpack_from(">H", data, offset + 2)[0]
        if data[offset:offset + 2] == b"\xff\x52":  # The coding style (ITU T.800, A.6.1).
            style, _, layers, _, levels = struct.unpack_from(">BBHBB", data, offset + 4)
            for level in range(levels + 1):
                precinct = data[offset + 14 + level] if style & 1 else 0xFF
                across, down = (-(-side >> levels - level) // (1 << bits) + 2
                                for side, bits in zip(tile, (precinct & 15, precinct >> 4), strict=True))
                packets += layers * samples * across * down
        offset += 2 + length
    return data.find(bytes(packets + 64), offset) >= 0


def _has_all_tiles(data: bytes, offset: int, tiles: int) -> bool:
    """Whether a JPEG 2000 codestream has each part of each tile (ITU T.800, A.4.2).

    Decoders notice a tile that ends early, but leave one that is not there black.

    Args:
      offset: of the main header's first segment.
    """
    while data[offset:offset + 2] not in (b"\xff\x90", b""):
        offset += 2 + struct.unpack_from(">H", data, offset + 2)[0]
    found: dict[int, int] = {}
    parts: dict[int, int] = {}
    while data[offset:offset + 2] == b"\xff\x90":
        tile, length, _, stated = struct.unpack_from(">HIBB", data, offset + 4)
        found[tile] = found.get(tile, 0) + 1
        parts[tile] = stated or parts.get(tile, 0)  # Not every part of a tile states how many there are.
        offset = offset + length if length >= 14 else len(data)  # 0: the last one, up to the end.
    return len(found) == tiles and all(found[tile] == count for tile, count in parts.items() if count)


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
    data = _sequential(data, header) if header.kind == "dct" else data
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


def _sequential(data: bytes, header: Codestream) -> bytes:
    """The stream with the numbers in its scan headers that only progressive ones have any use for; some have others."""
    out, offset = bytearray(data), header.start
    while offset >= 0:
        numbers = offset + 5 + 2 * data[offset + 4]
        out[numbers:numbers + 3] = b"\0\x3f\0"
        offset = data.find(b"\xff\xda", offset + 2, len(data) - 8)
    return bytes(out)


def _decode_plain(data: bytes, header: Codestream) -> np.ndarray:
    if header.samples not in _COLOURS:
        raise UnreadableImage(f"a JPEG with {header.samples} samples per pixel")
    import simplejpeg

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
    data += b"" if data.rfind(_END, header.start) >= 0 else _END
    scans = list(_scans(data, header.start))
    restarts = re.findall(rb"\xff([\xd0-\xd7])", data[header.start:])
    if len(scans) == 1 and any(mark[0] & 7 != count % 8 for count, mark in enumerate(restarts)):
        raise UnreadableImage(_DAMAGED)  # The decoder would go on at the next restart, some rows too high.
    array = np.asarray(libjpeg.decode(data))
    for begin, end in scans:
        if not np.array_equal(array, np.asarray(libjpeg.decode(data[:end] + _FILLING + data[end:]))):
            raise UnreadableImage(_DAMAGED)
        if end - begin < 4 * _LAST:
            continue
        with contextlib.suppress(ValueError, RuntimeError, OSError, SyntaxError):  # It may well be no code.
            if np.array_equal(array, np.asarray(libjpeg.decode(data[:end - _LAST] + _FILLING[:_LAST] + data[end:]))):
                raise UnreadableImage(_DAMAGED)
    if array.ndim == 3 and array.dtype != np.uint8:
        raise UnreadableImage("a colour JPEG of more than 8 bits")
    if array.dtype not in (np.uint8, np.uint16):
        raise UnreadableImage(_DAMAGED)
    return array


def _scans(data: bytes, offset: int) -> Iterator[tuple[int, int]]:
    """Where the data of each scan begin and end, without the fill bytes behind them."""
    while (offset := data.find(b"\xff\xda", offset)) >= 0:
        begin = offset + 2 + struct.unpack_from(">H", data, offset + 2)[0]
        found = _SCAN_END.search(data, begin)
        offset = found.start() if found else len(data)
        yield begin, begin + len(data[begin:offset].rstrip(b"\xff"))
