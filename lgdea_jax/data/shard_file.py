"""Where the records of volumes lie inside their ArrayRecord shards, so that a part of a volume is read alone.

ArrayRecord reads a record as a whole, checks it and copies it: for a volume of fifty megabytes that takes many times as
long as decoding a crop. Shards are written uncompressed with one record a group, so the bytes of a record stand in the
file as they are, but for Riegeli's block headers: 24 bytes at every multiple of 64 KiB. The build looks up where each
record begins, verifies it by its CRC and writes the byte offsets beside the shards (`offsets_SPLIT.npy`), with a CRC of
what is not the volume. The volume has checksums of its own, a part each (`io.encoded_volume`).

2D images need none of this: they are small, and ArrayRecord's own reader returns the whole record.
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

# Options of the ArrayRecord writer. One record a group, because records are read in random order; not compressed: the
# images, most of every record, are compressed already, and their bytes have to stand in the file as they are.
WRITER_OPTIONS = "group_size:1,uncompressed"
_BLOCK, _HEADER = 1 << 16, 24
# Columns of an offsets row: the first byte of the record in its file and its length; inside the record, the first byte
# of the image's map entry and of the image itself, and the length of the image; the CRC-32 of all but the image.
COLUMNS = ("start", "length", "image_entry", "image_start", "image_length", "checksum")


def offsets_file(folder: Path, split: str) -> Path:
    """The byte offsets of the records of a split: int64 [records, 6] (COLUMNS), for data sets of volumes only."""
    return folder / f"offsets_{split}.npy"


class ShardFile:
    """A shard that is read around its block headers. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        # Read, not mapped into memory: threads wait for a slow disk beside each other, and a file that was cut short
        # is an error instead of a signal.
        self.path = path
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115

    def read(self, start: int, offset: int, length: int) -> np.ndarray:
        """`length` bytes of a record, from byte `offset` of the record on.

        Args:
          start: first byte of the record in the file.

        Returns:
          uint8 [length], block headers left out.

        Raises:
          ValueError: the file ends before.
        """
        if not length:
            return np.empty(0, np.uint8)
        first, last = _in_file(start, offset), _in_file(start, offset + length - 1) + 1
        raw = np.empty(last - first, np.uint8)
        view = memoryview(raw)
        while view:
            got = os.preadv(self._file.fileno(), [view], first + len(raw) - len(view))
            if not got:
                raise ValueError("a shard ends inside a record")
            view = view[got:]
        edges = range(-(-first // _BLOCK) * _BLOCK, last, _BLOCK)
        begins, ends = [first, *(edge + _HEADER for edge in edges)], [*edges, last]
        pieces = [raw[begin - first:end - first] for begin, end in zip(begins, ends, strict=True)]
        return np.concatenate(pieces)


def _in_file(start: int, offset: int) -> int:
    """The position in the file of byte `offset` of the record that begins at `start`."""
    room = _BLOCK - start % _BLOCK
    if offset < room:
        return start + offset
    blocks, rest = divmod(offset - room, _BLOCK - _HEADER)
    return (start // _BLOCK + 1 + blocks) * _BLOCK + _HEADER + rest


class StoredVolume:
    """The encoded volume of one record in its shard, read on request: an `io.encoded_volume.ByteSource`."""

    def __init__(self, file: ShardFile, offsets: Sequence[int]) -> None:
        self._file, (self._start, _, _, self._image, self._length, _) = file, offsets

    def __len__(self) -> int:
        return self._length

    def __str__(self) -> str:
        return f"the volume at byte {self._start} of {self._file.path}"

    def read(self, start: int, stop: int) -> np.ndarray:
        """Bytes `start` to `stop` of the encoded volume, uint8."""
        return self._file.read(self._start, self._image + start, stop - start)


def find_offsets(path: Path, records: Sequence[tuple[bytes, int, int, int]]) -> np.ndarray:
    """Looks up the records of a finished shard.

    Args:
      path: the shard.
      records: `fingerprint` of each, in order.

    Returns:
      int64 [records, 6], see COLUMNS.

    Raises:
      RuntimeError: a record's bytes are not found: the writer's format has changed.
    """
    offsets = np.zeros((len(records), len(COLUMNS)), np.int64)
    if not records:
        return offsets
    file, after = ShardFile(path), 0
    with open(path, "rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        for row, (first, length, checksum, image_length) in enumerate(records):
            for start in _candidates(mapped, first, after):
                try:
                    data = file.read(start, 0, length).tobytes()
                except ValueError:
                    continue
                if zlib.crc32(data) == checksum:
                    _, image, _ = where = _image_offsets(data, image_length)
                    rest = zlib.crc32(data[image + image_length:], zlib.crc32(data[:image]))
                    offsets[row] = start, length, *where, rest
                    # No two records have a byte in common, block headers or not.
                    after = start + length
                    break
            else:
                raise RuntimeError(f"record {row} is not found in {path}: is the shard compressed?")
    return offsets


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


def _image_offsets(data: bytes, image_length: int) -> tuple[int, int, int]:
    """The last three COLUMNS of a serialised record.

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


def without_image(file: ShardFile, offsets: Sequence[int]) -> Record:
    """The record at these offsets (COLUMNS), its image left empty and unread.

    Raises:
      ValueError: it is not what was written.
    """
    start, length, entry, image_start, image_length, checksum = (int(value) for value in offsets)
    before = file.read(start, 0, image_start).tobytes()
    after = file.read(start, image_start + image_length, length - image_start - image_length).tobytes()
    if zlib.crc32(after, zlib.crc32(before)) != checksum:
        raise ValueError("the checksum does not match")
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


def fingerprint(record: Record, data: bytes) -> tuple[bytes, int, int, int]:
    """What `find_offsets` needs of a record that was serialised as `data`.

    Returns:
      (its first 64 bytes, its length, its CRC-32, the length of its image).
    """
    return data[:64], len(data), zlib.crc32(data), len(record.image)
