"""Where records lie inside their ArrayRecord shards: read in one piece, and of a volume only the part that is wanted.

ArrayRecord reads a record as a whole, checks it and copies it: for a small image that takes longer than everything else
but the decoding, for a volume of fifty megabytes many times as long as decoding a crop; and its readers keep an index
of all records in memory. Shards are written uncompressed with one record a group, so a record's bytes stand in the file
as they are, but for Riegeli's block headers: 24 bytes at every multiple of 64 KiB. The build looks up where each record
begins, checks by its CRC that this is so, and writes the places beside the shards (`rows_SPLIT.npy`), with what else
training reads of an image: its study and its labels. A record whose place is not known is read by ArrayRecord,
slowly and with the same result. What is read so is not checked against bit rot: `sha256sum -c SHA256SUMS` does that for
a whole data set.
"""

from __future__ import annotations

import mmap
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lgdea_jax.data.codec import decode_record
from lgdea_jax.records import Record

_BLOCK, _HEADER = 1 << 16, 24
_BUFFERS = 1024  # Of one `preadv`, at most.
# Columns of a place: of the record's first byte in its file (-1: unknown), its length; in it, where the image's entry
# and where the image's bytes begin, and how many they are.
COLUMNS = ("start", "length", "image_entry", "image_start", "image_length")
UNKNOWN = (-1, 0, 0, 0, 0)


def row_type(labels: int) -> np.dtype:
    """Of a split's row of `rows_SPLIT.npy`: `place` (COLUMNS), `study` (hash of its id) and `labels` (that many)."""
    return np.dtype([("place", "<i8", (len(COLUMNS),)), ("study", "<u8"), ("labels", "|i1", (labels,))])


class RowFile:
    """`rows_SPLIT.npy`, of which a row is read when it is asked for: a million of them take no memory.

    Raises:
      ValueError: the file is damaged or has another number of rows.
    """

    def __init__(self, path: Path, count: int) -> None:
        try:
            rows = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, EOFError) as error:
            raise ValueError(f"not a file of rows: {error}") from None
        names = rows.dtype.names or ()
        if rows.shape != (count,) or "labels" not in names or rows.dtype != row_type(rows.dtype["labels"].itemsize):
            raise ValueError("not the rows of these records")
        self._dtype, self._offset = rows.dtype, rows.offset
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115

    def take(self, indices: Sequence[int]) -> np.ndarray:
        """The rows of these records, see `row_type`."""
        file, size = self._file.fileno(), self._dtype.itemsize
        rows = [os.pread(file, size, self._offset + index * size) for index in indices]
        return np.frombuffer(b"".join(rows), self._dtype)


class ShardFile:
    """A shard that is read around its block headers. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        # Read, not mapped into memory: threads wait for a slow disk beside each other, and a file that was cut short
        # is an error instead of a signal.
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115

    def read(self, start: int, offset: int, length: int) -> np.ndarray:
        """`length` bytes (uint8) that begin `offset` bytes behind the place `start`, block headers left out.

        Raises:
          ValueError: the file ends before.
        """
        out = np.empty(length, np.uint8)
        self.read_into(start, offset, [memoryview(out)])
        return out

    def read_into(self, start: int, offset: int, views: Sequence[memoryview]) -> None:
        """The same into `views` of bytes one after the other, as many as they have room for."""
        room = _BLOCK - start % _BLOCK
        at = start + offset
        if offset >= room:
            blocks, rest = divmod(offset - room, _BLOCK - _HEADER)
            at = (start // _BLOCK + 1 + blocks) * _BLOCK + _HEADER + rest
        room, header, buffers = _BLOCK - at % _BLOCK, bytearray(_HEADER), []
        for view in views:
            while len(view) > room:
                buffers += [view[:room], header]
                view, room = view[room:], _BLOCK - _HEADER
            buffers.append(view)
            room -= len(view)
        file, wanted = self._file.fileno(), sum(map(len, buffers))
        while wanted:
            got = os.preadv(file, buffers[:_BUFFERS], at)
            if not got:
                raise ValueError("a shard ends inside a record")
            wanted -= got
            if not wanted:
                break
            at, full = at + got, 0
            while full < len(buffers) and got >= len(buffers[full]):
                got -= len(buffers[full])
                full += 1
            buffers = buffers[full:]
            if got:
                buffers[0] = buffers[0][got:]


class StoredImage:
    """The image of one record in its shard: bytes that are read when they are asked for, and only those."""

    def __init__(self, file: ShardFile, place: Sequence[int]) -> None:
        self._file, (self._start, _, _, self._image, self._length) = file, place

    def __len__(self) -> int:
        return self._length

    def read(self, start: int, stop: int) -> np.ndarray:
        """Bytes `start` to `stop` of the image, uint8."""
        return self._file.read(self._start, self._image + start, stop - start)

    def read_into(self, views: Sequence[memoryview]) -> None:
        """The image's first bytes into these views one after the other."""
        self._file.read_into(self._start, self._image, views)


def find_places(path: Path, records: list[tuple[bytes, int, int, int]]) -> np.ndarray:
    """Looks up the records of a finished shard.

    Args:
      path: the shard.
      records: of each, in order: its first bytes (at most 64), its length, its CRC-32, and the image's length.

    Returns:
      int64 [records, 5], see COLUMNS; UNKNOWN where the bytes do not stand there as expected.
    """
    places = np.tile(np.array(UNKNOWN, np.int64), (len(records), 1))
    if not records:
        return places
    file, after = ShardFile(path), 0
    with open(path, "rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        for row, (first, length, checksum, image_length) in enumerate(records):
            for start in _candidates(mapped, first, after):
                try:
                    data = file.read(start, 0, length).tobytes()
                except ValueError:
                    continue
                if zlib.crc32(data) == checksum:
                    places[row] = start, length, *_image_place(data, image_length)
                    # No two records have a byte in common, block headers or not.
                    after = start + length
                    break
    return places


def _candidates(mapped: mmap.mmap, first: bytes, after: int) -> list[int]:
    """Where a record that begins with `first` may begin, the next block or so behind `after`."""
    found = mapped.find(first, after, after + 2 * _BLOCK)
    edge = (after // _BLOCK + 1) * _BLOCK  # Its first bytes may have a block's header among them.
    split = [start for start in range(max(after, edge - len(first) + 1), edge)
             if mapped[start:edge] == first[:edge - start]]
    return sorted([found, *split]) if found >= 0 else split


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _image_place(data: bytes, image_length: int) -> tuple[int, int, int]:
    """The last three columns of a record's place.

    Raises:
      ValueError: not a serialised record, or its image has another length.
    """
    _, at = _varint(data, 1)  # Field 1, `features`.
    while at < len(data):
        size, payload = _varint(data, at + 1)
        if data[payload:payload + 7] == b"\x0a\x05image":  # The key; the value's bytes end with the entry.
            return at, payload + size - image_length, image_length
        at = payload + size
    raise ValueError("a serialised record without an image")


def without_image(file: ShardFile, place: np.ndarray) -> Record:
    """The record at a known place, its image left empty and unread."""
    start, length, entry, image_start, image_length = place.tolist()
    before = file.read(start, 0, image_start).tobytes()
    after = file.read(start, image_start + image_length, length - image_start - image_length).tobytes()
    _, first = _varint(before, 1)
    body = before[first:entry] + _EMPTY_IMAGE + after
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
