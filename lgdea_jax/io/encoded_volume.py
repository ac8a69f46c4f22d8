"""CT volumes as bytes inside records: int16 in compressed chunks (Blosc2), of which any part is read alone.

A crop decodes only the chunks that it touches. The shards that hold them are written without ArrayRecord's own
compression, which would have to be undone as a whole first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lgdea_jax.cli import require

FORMAT = "blosc2"
# Voxels of a chunk (what is located) and of a block (what is decompressed): blocks fit a core's cache.
CHUNK = (64, 96, 96)
BLOCK = (16, 48, 48)


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
    # One thread: how many there are must not decide about the bytes.
    parameters = {"codec": blosc2.Codec.LZ4, "clevel": 5, "filters": [blosc2.Filter.BITSHUFFLE], "nthreads": 1}
    array = blosc2.asarray(np.ascontiguousarray(volume), chunks=chunk, blocks=block, cparams=parameters)
    return array.to_cframe()


def _open(data: bytes) -> Any:
    try:
        array = _blosc2().ndarray_from_cframe(data)
    except (RuntimeError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"not a stored volume: {error}") from None
    if array.dtype != np.int16 or array.ndim != 3:
        raise ValueError(f"a stored volume of {array.dtype} {list(array.shape)}")
    return array


def volume_shape(data: bytes) -> tuple[int, int, int]:
    """(z, y, x) of a stored volume, without decompressing it.

    Raises:
      ValueError: the bytes are no stored volume.
    """
    return tuple(_open(data).shape)


def decode_volume(data: bytes, region: Sequence[slice] | None = None) -> np.ndarray:
    """A stored volume, or a part of it.

    Args:
      data: of `encode_volume`.
      region: a slice (start, stop) per axis; None is all.

    Returns:
      int16 [z, y, x].

    Raises:
      ValueError: the bytes are no stored volume, or damaged.
    """
    array = _open(data)
    try:
        return array[...] if region is None else array[tuple(region)]
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"a stored volume cannot be decompressed: {error}") from None
