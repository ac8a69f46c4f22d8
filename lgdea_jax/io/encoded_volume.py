"""CT volumes as bytes inside records: int16 in compressed chunks (Blosc2), of which any part is read alone.

A crop decodes only the chunks that it touches. The shards that hold them are written without ArrayRecord's own
compression, which would have to be undone as a whole first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from lgdea_jax.errors import require

FORMAT = "blosc2"
# Voxels of a chunk (what is located) and of a block (what is decompressed): blocks fit a core's cache.
CHUNK = (64, 96, 96)
BLOCK = (16, 48, 48)
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
      Bytes for `decode_volume`; equal volumes give equal bytes.

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
    return array.to_cframe()


def _open(data: bytes | ByteSource, region: Sequence[slice] | None = None) -> tuple[Any, Any]:
    """(the array of a stored volume, what must be kept while it is used: the array does not own its bytes).

    Of a volume that lies elsewhere only `region` may be read then.
    """
    if not isinstance(data, bytes):
        data = _part(data, region)
    try:
        array = _blosc2().ndarray_from_cframe(data)
    except (RuntimeError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"not a stored volume: {error}") from None
    if array.dtype != np.int16 or array.ndim != 3:
        raise ValueError(f"a stored volume of {array.dtype} {list(array.shape)}")
    return array, data


def _part(stored: ByteSource, region: Sequence[slice] | None) -> memoryview:
    """The frame of a stored volume in which only the index and the chunks of `region` are filled in.

    The layout is that of C-Blosc2's contiguous frame: header, chunks, index of chunks (compressed itself), trailer. The
    rest of the buffer is never touched, so it takes neither time nor memory.
    """
    if region is not None and all(part.start is None and part.stop is None for part in region):
        return memoryview(stored.read(0, len(stored)))
    head = stored.read(0, min(1 << 14, len(stored))).tobytes()
    if head[2:9] != b"b2frame" or len(head) < 64:
        raise ValueError("not a stored volume: no frame")
    header, chunks = int.from_bytes(head[11:15], "big"), int.from_bytes(head[39:47], "big")
    if header + chunks > len(stored):
        raise ValueError("not a stored volume: damaged header")
    buffer = np.zeros(len(stored), np.uint8)

    def fill(start: int, stop: int) -> None:
        buffer[start:stop] = stored.read(start, stop)

    fill(0, header)
    fill(header + chunks, len(stored))
    if region is None:  # Of the array only its shape is wanted.
        return memoryview(buffer)
    tail = buffer[header + chunks:].tobytes()
    index = np.frombuffer(_blosc2().decompress2(tail[:int.from_bytes(tail[12:16], "little")]), np.int64)
    array = _blosc2().ndarray_from_cframe(memoryview(buffer))
    grid = [math.ceil(size / chunk) for size, chunk in zip(array.shape, array.chunks, strict=True)]
    touched = [np.arange(part.start // chunk, (part.stop - 1) // chunk + 1)
               for part, chunk in zip(region, array.chunks, strict=True)]
    for number in np.ravel_multi_index(np.ix_(*touched), grid).ravel():
        if index[number] >= 0:  # Chunks of one value have no bytes, and are marked in the sign.
            start = header + int(index[number])
            fill(start, start + int.from_bytes(stored.read(start + 12, start + 16).tobytes(), "little"))
    return memoryview(buffer)


def volume_shape(data: bytes | ByteSource) -> tuple[int, int, int]:
    """(z, y, x) of a stored volume, without decompressing it.

    Raises:
      ValueError: the bytes are no stored volume.
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
      ValueError: the bytes are no stored volume, or damaged.
    """
    array, _keep = _open(data, (slice(None),) * 3 if region is None else region)
    if region is None:  # A crop is done before a second thread has begun.
        array.schunk.dparams = _blosc2().DParams(nthreads=WHOLE_THREADS)
    try:
        return array[...] if region is None else array[tuple(region)]
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"a stored volume cannot be decompressed: {error}") from None
