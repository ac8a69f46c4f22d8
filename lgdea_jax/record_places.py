"""Where records with volumes lie inside their ArrayRecord shards, so that a part of a volume is read without the rest.

ArrayRecord reads a record as a whole, checks and copies it: for a volume of fifty megabytes that takes many times as
long as decoding a crop. Shards of volumes are written uncompressed with one record a group, so a record's bytes stand
in the file as they are, but for Riegeli's block headers: 24 bytes at every multiple of 64 KiB. The build looks up where
each record begins, checks by its CRC that this is so, and writes the places beside the shards (`volumes_SPLIT.npy`).
A record whose place is not known is read by ArrayRecord, slowly and with the same result.
"""

from __future__ import annotations

import mmap
import zlib
from pathlib import Path

import numpy as np

from lgdea_jax.record_codec import decode_record
from lgdea_jax.records import Record

_BLOCK, _HEADER = 1 << 16, 24
# Columns of a place: of the record's first byte in its file (-1: unknown), its length, and its image's in it.
COLUMNS = ("start", "length", "image_start", "image_length")
UNKNOWN = (-1, 0, 0, 0)


class ShardFile:
    """A shard mapped into memory, read around its block headers. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        with open(path, "rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def find(self, data: bytes, after: int) -> int:
        """Where `data` begins behind `after`, -1 if nowhere."""
        return self._map.find(data, after)

    def read(self, start: int, offset: int, length: int) -> np.ndarray:
        """`length` bytes (uint8) that begin `offset` bytes behind the place `start`, block headers left out.

        Raises:
          ValueError: the file ends before.
        """
        room = _BLOCK - start % _BLOCK
        at = start + offset
        if offset >= room:
            blocks, rest = divmod(offset - room, _BLOCK - _HEADER)
            at = (start // _BLOCK + 1 + blocks) * _BLOCK + _HEADER + rest
        out = np.empty(length, np.uint8)
        first = min(length, _BLOCK - at % _BLOCK)
        whole, last = divmod(length - first, _BLOCK - _HEADER)
        block = at // _BLOCK + 1
        end = (block + whole) * _BLOCK + _HEADER + last if length > first else at + first
        if end > len(self._map):
            raise ValueError("a shard ends inside a record")
        data = np.frombuffer(self._map, np.uint8)
        out[:first] = data[at:at + first]
        if whole:
            rows = data[block * _BLOCK:(block + whole) * _BLOCK].reshape(whole, _BLOCK)
            out[first:length - last].reshape(whole, _BLOCK - _HEADER)[:] = rows[:, _HEADER:]
        if last:
            out[length - last:] = data[end - last:end]
        return out


class StoredImage:
    """The image of one record in its shard: bytes that are read when they are asked for, and only those."""

    def __init__(self, file: ShardFile, place: np.ndarray) -> None:
        self._file, (self._start, _, self._image, self._length) = file, (int(value) for value in place)

    def __len__(self) -> int:
        return self._length

    def read(self, start: int, stop: int) -> np.ndarray:
        """Bytes `start` to `stop` of the image, uint8."""
        return self._file.read(self._start, self._image + start, stop - start)


def find_places(path: Path, records: list[tuple[bytes, int, int, int]]) -> np.ndarray:
    """Looks up the records of a finished shard.

    Args:
      path: the shard.
      records: of each, in order: its first bytes (at most 64), its length, its CRC-32, and the image's length.

    Returns:
      int64 [records, 4], see COLUMNS; UNKNOWN where the bytes do not stand there as expected.
    """
    places = np.tile(np.array(UNKNOWN, np.int64), (len(records), 1))
    if not records:
        return places
    file, after = ShardFile(path), 0
    for row, (first, length, checksum, image_length) in enumerate(records):
        start = file.find(first, after)
        if start < 0:
            continue
        try:
            data = file.read(start, 0, length).tobytes()
        except ValueError:
            continue
        if zlib.crc32(data) != checksum:
            continue
        image_start = _image_start(data, image_length)
        if image_start >= 0:
            places[row] = start, length, image_start, image_length
        after = start + length
    return places


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _entries(data: bytes) -> tuple[int, list[tuple[int, int, int]]]:
    """Where the features begin in a serialised record, and (begin, payload, end) of the map's entries in it."""
    _, at = _varint(data, 1)  # Field 1, `features`.
    first, found = at, []
    while at < len(data):
        size, payload = _varint(data, at + 1)
        found.append((at, payload, payload + size))
        at = payload + size
    return first, found


def _image_start(data: bytes, image_length: int) -> int:
    """Where the image's bytes begin in a serialised record; -1 if there are none of that length."""
    for _, payload, end in _entries(data)[1]:
        if data[payload:payload + 7] == b"\x0a\x05image":  # The key; the value's bytes end with the entry.
            return end - image_length if image_length else -1
    return -1


def without_image(file: ShardFile, place: np.ndarray) -> Record:
    """The record at a known place, its image left empty and unread."""
    start, length, image_start, image_length = (int(value) for value in place)
    before = file.read(start, 0, image_start).tobytes()
    after = file.read(start, image_start + image_length, length - image_start - image_length).tobytes()
    first, entries = _entries(before)
    kept = before[first:entries[-1][0]]  # The last one is the image's, which goes on behind.
    body = kept + _EMPTY_IMAGE + after
    return decode_record(b"\x0a" + _to_varint(len(body)) + body)


def _to_varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


# Key "image", value `bytes_list { value: "" }`.
_EMPTY_IMAGE = b"\x0a\x0d\x0a\x05image\x12\x04\x0a\x02\x0a\x00"


def summary(record: Record, data: bytes) -> tuple[bytes, int, int, int]:
    """What `find_places` needs of a record that was serialised as `data`."""
    return data[:64], len(data), zlib.crc32(data), len(record.image)


