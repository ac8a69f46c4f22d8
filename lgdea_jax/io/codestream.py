"""The header of a compressed image, read before it is decoded: JPEG, JPEG-LS and JPEG 2000 codestreams.

Decoders believe these numbers: one damaged byte can make them allocate gigabytes or work for minutes. Looking first
costs microseconds.
"""

from __future__ import annotations

import dataclasses
import re
import struct

# JPEG 2000 allows 65,535 tiles, and writers of radiographs make one or a few; a decoder visits every one of them.
MAX_TILES = 4096
# Every scan of a progressive JPEG goes over all pixels again. Writers make about ten.
MAX_SCANS = 200
# JPEG process by the marker of its frame header (ITU T.81, table B.1; T.87 for JPEG-LS).
_PROCESSES = {**dict.fromkeys((0xC0, 0xC1, 0xC9), "dct"), **dict.fromkeys((0xC2, 0xCA), "progressive"),
              **dict.fromkeys((0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF), "lossless"), 0xF7: "jpeg-ls"}
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # In the data of a scan: neither stuffing, nor restart, nor fill.


@dataclasses.dataclass(frozen=True)
class Codestream:
    """The header of a codestream.

    Attributes:
      kind: "dct", "progressive", "lossless" (or hierarchical), "jpeg-ls" or "jpeg2000".
      rows, columns: of the image; samples: per pixel; bits: of a sample; tiles: 1 where it is not tiled.
      start: where the data of the first scan begin, in bytes.
      complete: False where it is certain that a piece is missing: a JPEG 2000 tile that ends beyond the file, a
        progressive JPEG without its last scans. The data within a scan are not looked at.
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
    return Codestream("jpeg2000", bottom - top, right - left, samples, (bits & 0x7F) + 1, tiles, start,
                      _has_all_tile_parts(data, start + 2))


def _has_all_tile_parts(data: bytes, offset: int) -> bool:
    """Whether each tile part of a JPEG 2000 codestream ends where the next one, or the end, begins (ITU T.800, A.4)."""
    while data[offset:offset + 2] not in (b"\xff\x90", b""):  # The segments of the main header.
        offset += 2 + struct.unpack_from(">H", data, offset + 2)[0]
    while data[offset:offset + 2] == b"\xff\x90":
        length = struct.unpack_from(">I", data, offset + 6)[0]
        if length == 0:  # The last one, up to the end of the codestream.
            return data.find(b"\xff\xd9", offset) >= 0
        if length < 14:
            return False
        offset += length
    # Only the end marker may be missing, with at most the byte that makes a DICOM fragment even.
    return data[offset:offset + 2] == b"\xff\xd9" or len(data) - 1 <= offset <= len(data)
