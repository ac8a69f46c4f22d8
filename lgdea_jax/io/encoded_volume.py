"""CT volumes as bytes inside records: int16 in compressed chunks (Blosc2), of which any part is read alone.

A crop decodes only the chunks that it touches. The shards that hold them are written without ArrayRecord's own
compression, which would have to be undone as a whole first.

The layout is that of C-Blosc2's contiguous frame (header, chunks, index of chunks, trailer) and, behind it, a table of
CRC-32s: of the frame without its chunks, of each chunk, of the table. Whatever is decoded is compared with them.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from lgdea_jax.errors import require

FORMAT = "blosc2"
# Voxels of a chunk (what is located) and of a block (what is decompressed): blocks fit a core's cache.
CHUNK = (64, 96, 96)
BLOCK = (16, 48, 48)
_END = struct.Struct("<II8s")  # Of the table: number of parts, its own CRC-32, _MAGIC.
_MAGIC = b"LGDEACRC"
_HEAD = 1 << 14  # Bytes that are read at first: more than a header has.
# Decompressing a whole volume. More than two gain nothing: the result is put together by one.
WHOLE_THREADS = 2


class ByteSource(Protocol):
    """An encoded volume whose bytes lie elsewhere and are read on request, such as `data.shard_file.StoredVolume`."""

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int) -> np.ndarray:
        """Bytes `start` to `stop`, uint8."""


def _blosc2() -> Any:
    return require("blosc2", "ct", "reading and writing volumes")


def encode_volume(volume: np.ndarray) -> bytes:
    """Compresses a volume without loss.

    Args:
      volume: int16 [z, y, x], not empty.

    Returns:
      Bytes for `decode_volume`; equal volumes give equal bytes. They begin with a contiguous frame of Blosc2.

    Raises:
      ValueError: another dtype or shape. UserError: the extra `ct` is not installed.
    """
    if volume.dtype != np.int16 or volume.ndim != 3 or 0 in volume.shape:
        raise ValueError(f"expected int16 [z, y, x], got {volume.dtype} {list(volume.shape)}")
    blosc2 = _blosc2()
    chunk = tuple(min(a, b) for a, b in zip(CHUNK, volume.shape, strict=True))
    block = tuple(min(a, b) for a, b in zip(BLOCK, chunk, strict=True))
    # One thread: how many there are must not decide about the bytes. Shuffled by bytes, not bits: a sixth more of them,
    # read in a fifth less time.
    parameters = {"codec": blosc2.Codec.LZ4, "clevel": 5, "filters": [blosc2.Filter.SHUFFLE], "nthreads": 1}
    array = blosc2.asarray(np.ascontiguousarray(volume), chunks=chunk, blocks=block, cparams=parameters)
    frame = array.to_cframe()
    header, end = _sections(frame)
    sums = [zlib.crc32(frame[end:], zlib.crc32(frame[:header]))]
    for start in _chunk_starts(frame, end):
        size = int.from_bytes(frame[header + start + 12:header + start + 16], "little") if start >= 0 else 0
        sums.append(zlib.crc32(frame[header + start:header + start + size]))
    table = np.array(sums, "<u4").tobytes()
    return frame + table + _END.pack(len(sums), zlib.crc32(table), _MAGIC)


class DamagedVolume(ValueError):
    """Bytes that are no stored volume, or not the ones that were written."""


def _open(data: bytes | ByteSource, region: Sequence[slice] | None = None) -> tuple[Any, Any]:
    """(the array of a stored volume, what must be kept while it is used: the array does not own its bytes).

    Only the chunks of `region` are compared with their checksums and, of a volume that lies elsewhere, read.
    """
    try:
        frame = _checked(data, region)
        array = _blosc2().ndarray_from_cframe(frame)
    except (RuntimeError, ValueError, TypeError, KeyError, IndexError, struct.error) as error:
        where = "" if isinstance(data, bytes) else f"{data}: "
        raise DamagedVolume(f"{where}not a stored volume: {error}") from None
    if array.dtype != np.int16 or array.ndim != 3:
        raise DamagedVolume(f"a stored volume of {array.dtype} {list(array.shape)}")
    return array, frame


def _sections(head: Any) -> tuple[int, int]:
    """Where the chunks of a frame begin and end."""
    if len(head) < 64 or bytes(head[2:9]) != b"b2frame":
        raise ValueError("no frame")
    header, chunks = int.from_bytes(head[11:15], "big"), int.from_bytes(head[39:47], "big")
    return header, header + chunks


def _chunk_starts(frame: Any, end: int) -> list[int]:
    """Where each chunk begins, counted from the end of the header; negative for one of equal values, without bytes."""
    tail = bytes(frame[end:])
    return np.frombuffer(_blosc2().decompress2(tail[:int.from_bytes(tail[12:16], "little")]), np.int64).tolist()


def _checked(data: bytes | ByteSource, region: Sequence[slice] | None) -> memoryview:
    """The frame of a stored volume in which the index and the chunks of `region` are there, and as they were written.

    The rest of the buffer is never touched, so it takes neither time nor memory. Without a region only the array's
    shape is wanted.
    """
    everything = region is not None and all(part.start is None and part.stop is None for part in region)
    if isinstance(data, bytes):
        buffer = np.frombuffer(data, np.uint8)
    elif everything:
        buffer = data.read(0, len(data))
    else:
        buffer = np.zeros(len(data), np.uint8)
        buffer[:_HEAD] = data.read(0, min(_HEAD, len(data)))

    def fill(start: int, stop: int) -> None:
        if not (everything or isinstance(data, bytes)):
            buffer[start:stop] = data.read(start, stop)

    header, end = _sections(buffer)
    if end > len(buffer) - _END.size:
        raise ValueError("damaged header")
    fill(end, len(buffer))
    count, own, magic = _END.unpack(buffer[-_END.size:].tobytes())
    length = len(buffer) - _END.size - 4 * count
    if magic != _MAGIC or length < end:
        raise ValueError("no checksums")
    table = buffer[length:-_END.size].tobytes()
    sums = np.frombuffer(table, "<u4").tolist()
    if zlib.crc32(table) != own or zlib.crc32(buffer[end:length], zlib.crc32(buffer[:header])) != sums[0]:
        raise ValueError("the checksum of its index does not match")
    frame = memoryview(buffer)[:length]
    if region is None:
        return frame
    array = _blosc2().ndarray_from_cframe(frame)
    grid = [math.ceil(size / chunk) for size, chunk in zip(array.shape, array.chunks, strict=True)]
    touched = [range(*part.indices(size)) for part, size in zip(region, array.shape, strict=True)]
    cells = [np.arange(part.start // chunk, (part.stop - 1) // chunk + 1)
             for part, chunk in zip(touched, array.chunks, strict=True)]
    starts = _chunk_starts(frame, end)
    for number in np.ravel_multi_index(np.ix_(*cells), grid).ravel().tolist():
        if starts[number] < 0:
            continue
        start = header + starts[number]
        fill(start, start + 16)
        stop = start + int.from_bytes(buffer[start + 12:start + 16].tobytes(), "little")
        if stop <= end:
            fill(start, stop)
        if stop > end or zlib.crc32(buffer[start:stop]) != sums[1 + number]:
            raise ValueError(f"the checksum of chunk {number} does not match")
    return frame


def volume_shape(data: bytes | ByteSource) -> tuple[int, int, int]:
    """(z, y, x) of a stored volume, without decompressing it.

    Raises:
      DamagedVolume: the bytes are no stored volume, or damaged.
    """
    array, _keep = _open(data)
    return tuple(array.shape)  # Of one that lies elsewhere, header and index are read.


def decode_volume(data: bytes | ByteSource, region: Sequence[slice] | None = None) -> np.ndarray:
    """A stored volume, or a part of it.

    Args:
      data: of `encode_volume`; of one that lies elsewhere only the chunks of `region` are read.
      region: a slice (start, stop) per axis; None is all.

    Returns:
      int16 [z, y, x].

    Raises:
      DamagedVolume: the bytes are no stored volume, or damaged.
    """
    array, _keep = _open(data, (slice(None),) * 3 if region is None else region)
    if region is None:  # A crop is done before a second thread has begun.
        array.schunk.dparams = _blosc2().DParams(nthreads=WHOLE_THREADS)
    try:
        return array[...] if region is None else array[tuple(region)]
    except (RuntimeError, ValueError) as error:
        raise DamagedVolume(f"a stored volume cannot be decompressed: {error}") from None
