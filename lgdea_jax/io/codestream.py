"""The header of a compressed image, read before it is decoded: JPEG, JPEG-LS and JPEG 2000 codestreams.

Decoders believe these numbers: one damaged byte can make them allocate gigabytes or work for minutes. Looking first
costs microseconds.
"""

from __future__ import annotations

import dataclasses
import struct

# JPEG 2000 allows 65,535 tiles, and writers of radiographs make one or a few; a decoder visits every one of them.
MAX_TILES = 4096


@dataclasses.dataclass(frozen=True)
class Codestream:
    """The header of a codestream.

    Attributes:
      rows, columns: of the image; samples: per pixel; bits: of a sample; tiles: 1 where it is not tiled.
      complete: False where a JPEG does not end with its end marker: decoders fill up what is missing without an error.
        (JPEG 2000 can be cut by design.)
    """

    rows: int
    columns: int
    samples: int
    bits: int
    tiles: int = 1
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
    offset = 2
    while data[offset] == 0xFF:
        marker = data[offset + 1]
        if marker == 0xFF:  # Fill bytes may stand before any marker.
            offset += 1
            continue
        # SOF0 to SOF15 without DHT, JPG and DAC, which share their range; SOF55 is JPEG-LS.
        if (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:
            bits, rows, columns, samples = struct.unpack_from(">BHHB", data, offset + 4)
            return Codestream(rows, columns, samples, bits, complete=b"\xff\xd9" in data[-64:])  # Padding may follow.
        offset += 2 + struct.unpack_from(">H", data, offset + 2)[0]
    return None


def _read_jpeg2000(data: bytes, start: int) -> Codestream:
    right, bottom, left, top, tile_width, tile_height, tile_left, tile_top, samples, bits = struct.unpack_from(
        ">8IHB", data, start + 8)
    tiles = -(-(right - tile_left) // tile_width) * -(-(bottom - tile_top) // tile_height)
    return Codestream(bottom - top, right - left, samples, (bits & 0x7F) + 1, tiles)
