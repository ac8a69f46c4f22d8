"""Writes PNG files that Pillow does not write: colours and alpha of 16 bits, any chunk, checksums that fit."""

import struct
import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(kind, body):
    """A chunk with its length and checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def encode(array, extra=b""):
    """uint8 or uint16 [h, w] or [h, w, 1 to 4] as a PNG; `extra` are chunks before the pixels."""
    array = array if array.ndim == 3 else array[..., None]
    depth, colour = 8 * array.itemsize, {1: 0, 2: 4, 3: 2, 4: 6}[array.shape[2]]
    rows = b"".join(b"\0" + row.tobytes() for row in array.astype(array.dtype.newbyteorder(">")))
    header = struct.pack(">IIBBBBB", array.shape[1], array.shape[0], depth, colour, 0, 0, 0)
    return SIGNATURE + chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def mend(data):
    """The file with checksums that fit what its chunks hold; anything but a PNG as it is."""
    if data[:8] != SIGNATURE:
        return data
    out, offset = [SIGNATURE], 8
    while offset + 12 <= len(data):
        length = int.from_bytes(data[offset:offset + 4], "big")
        out.append(chunk(data[offset + 4:offset + 8], data[offset + 8:offset + 8 + length]))
        offset += 12 + length
    return b"".join(out)


def change_pixels(data, change):
    """A PNG of one IDAT chunk with `change` of its filtered rows."""
    start = data.index(b"IDAT")
    length = int.from_bytes(data[start - 4:start], "big")
    rows = change(zlib.decompress(data[start + 4:start + 4 + length]))
    return data[:start - 4] + chunk(b"IDAT", zlib.compress(rows)) + data[start + 8 + length:]
