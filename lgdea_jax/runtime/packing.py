"""Many small arrays as a few long ones, for stores that take their time by the array and not by the byte.

A table of names and shapes, one per dtype, says what lies where; it is plain JSON.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

LARGEST = 2**18  # Bytes of an array that is still packed: what is packed is copied on the host.
PREFIX = "packed/"

Table = dict[str, list[tuple[str, tuple[int, ...]]]]


def pack(flat: Mapping[str, Any], *, largest: int = LARGEST) -> tuple[dict[str, Any], Table]:
    """Joins the small arrays of a flat tree that every device holds whole; the others stay as they are.

    Args:
      flat: {name: `jax.Array`}.
      largest: bytes of the largest array that is packed.

    Returns:
      ({name: array} of those that stay and `packed/DTYPE` -> 1-D NumPy array of those that do not, the table
      {DTYPE: [(name, shape), ...]} in the order in which they lie there).
    """
    kept, small = {}, defaultdict(dict)
    for name, leaf in flat.items():
        whole = isinstance(leaf, jax.Array) and leaf.is_fully_replicated and not jnp.issubdtype(
            leaf.dtype, jax.dtypes.extended)
        if whole and leaf.nbytes <= largest:
            small[leaf.dtype.name][name] = leaf.addressable_data(0)
        else:
            kept[name] = leaf
    table: Table = {}
    for dtype, arrays in jax.device_get(dict(small)).items():  # All copies at once.
        kept[PREFIX + dtype] = np.concatenate([array.ravel() for array in arrays.values()])
        table[dtype] = [(name, array.shape) for name, array in arrays.items()]
    return kept, table


def shapes(table: Mapping[str, Any]) -> dict[str, jax.ShapeDtypeStruct]:
    """{name: shape and dtype} of the arrays in a table (of `pack`, through JSON or not)."""
    return {name: jax.ShapeDtypeStruct(tuple(shape), dtype) for dtype, entries in table.items()
            for name, shape in entries}


def empty(table: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """{`packed/DTYPE`: 1-D array} as `pack` makes them, of zeros."""
    return {PREFIX + dtype: np.zeros(sum(math.prod(shape) for _, shape in entries), dtype)
            for dtype, entries in table.items()}


def unpack(joined: Mapping[str, np.ndarray], table: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """{name: array} of what `pack` joined; `joined` may hold more.

    Raises:
      ValueError: the table tells of another number of values.
    """
    found = {}
    for dtype, entries in table.items():
        values, sizes = joined[PREFIX + dtype], [math.prod(shape) for _, shape in entries]
        if sum(sizes) != values.size:
            raise ValueError(f"{values.size} packed values of {dtype}, the table tells of {sum(sizes)}")
        parts = np.split(values, np.cumsum(sizes)[:-1])
        found |= {name: part.reshape(shape) for (name, shape), part in zip(entries, parts)}
    return found


def place(array: np.ndarray, target: jax.ShapeDtypeStruct) -> jax.Array:
    """The array with the dtype and the sharding of `target`, whichever processes hold the devices."""
    array = np.asarray(array, target.dtype)
    if target.sharding is None:
        return jnp.asarray(array)
    return jax.make_array_from_callback(array.shape, target.sharding, lambda index: array[index])
