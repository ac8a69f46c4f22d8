"""Matrices of many rows, in blocks and split over devices: what the graphs share.

A block is cut within each device's rows: [N, ...] becomes [shards, N / shards, ...], and a slice of the second axis
moves no row between devices. The largest entries are chosen with a tolerance, the first among equals, so that rounding
chooses no landmark and no neighbour.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from lgdea_jax.arrays import as_float

BLOCK = 1024  # Rows at a time: 4 MB of float32 at 1,024 landmarks; larger blocks are no faster.
# Anchors and rows with less mass than this count as empty: a division by it could overflow.
_TINY = 1e-30
# Cosines that differ by less count as equal: those of equal reports differ by rounding, and so do those of two meshes.
_TIE = 1e-5
Carry = TypeVar("Carry")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SparseRows:
    """A matrix [N, width] with at most `top` entries a row: `indices` int32 [N, top] and `weights` float32 [N, top]."""

    indices: jax.Array
    weights: jax.Array
    width: int = dataclasses.field(metadata={"static": True})

    @property
    def shape(self) -> tuple[int, int]:
        """(N, width), the shape of the dense matrix."""
        return self.indices.shape[0], self.width


Rows = jax.Array | SparseRows


def dense_rows(rows: Rows) -> jax.Array:
    """`rows` as an array [..., K], float32 or wider; entries of equal index add up."""
    if not isinstance(rows, SparseRows):
        return as_float(rows)
    weights = as_float(rows.weights)

    def scatter(indices: jax.Array, weights: jax.Array) -> jax.Array:
        return jnp.zeros(rows.width, weights.dtype).at[indices].add(weights)

    for _ in range(weights.ndim - 1):
        scatter = jax.vmap(scatter)
    return scatter(rows.indices, weights)


def gather_rows(rows: Rows, at: jax.Array) -> jax.Array:
    """Dense rows [B, K] at the indices `at` [B]; zeros at negative indices."""
    taken = dense_rows(jax.tree.map(lambda array: array[jnp.maximum(at, 0)], rows))
    return jnp.where((at >= 0)[:, None], taken, 0.0)


def fold(step: Callable[[Carry, Any, int], Carry], carry: Carry, rows: int, block: int) -> Carry:
    """`carry = step(carry, start, size)` over blocks of `rows`; the first may be shorter: nothing is padded."""
    full, rest = divmod(rows, block)
    if rest:  # First, because XLA copies the result of a loop before another step writes into it.
        carry = step(carry, 0, rest)
    if full:
        carry = lax.fori_loop(0, full, lambda i, carry: step(carry, rest + i * block, block), carry)
    return carry


def split_rows(tree: Any, shards: int) -> Any:
    """[N, ...] -> [shards, N / shards, ...]: a slice of the second axis takes rows of every device, and moves none."""
    return jax.tree.map(lambda array: array.reshape(shards, -1, *array.shape[1:]), tree)


def join_rows(tree: Any) -> Any:
    """The inverse of `split_rows`."""
    return jax.tree.map(lambda array: array.reshape(-1, *array.shape[2:]), tree)


def cut(tree: Any, start: Any, size: int, axis: int = 1) -> Any:
    """`size` entries of each array from `start` on, along `axis`."""
    return jax.tree.map(lambda array: lax.dynamic_slice_in_dim(array, start, size, axis), tree)


def put(tree: Any, part: Any, start: Any, axis: int = 1) -> Any:
    """`tree` with `part` written from `start` on, along `axis`."""
    return jax.tree.map(lambda array, new: lax.dynamic_update_slice_in_dim(array, new, start, axis), tree, part)


def check_shards(rows: int, shards: int) -> None:
    """Raises ValueError unless `rows` divide into `shards`."""
    if shards < 1 or rows % shards:
        raise ValueError(f"{rows} rows do not divide into {shards} shards")


def check_walk(alpha: float, order: int) -> None:
    """Raises ValueError unless alpha is in [0, 1) and order >= 0."""
    if not 0.0 <= alpha < 1.0 or order < 0:
        raise ValueError(f"alpha must be in [0, 1) and order >= 0, not {alpha} and {order}")


def matmul(subscripts: str, *arrays: jax.Array) -> jax.Array:
    """`jnp.einsum` at full float32 precision."""
    return jnp.einsum(subscripts, *arrays, precision=lax.Precision.HIGHEST)


def divide(x: jax.Array, by: jax.Array) -> jax.Array:
    """x / by, and 0 where there is nothing to divide by (an empty anchor, a row without mass)."""
    nonzero = by > _TINY
    return jnp.where(nonzero, x / jnp.where(nonzero, by, 1.0), 0.0)


def with_mass(evidence: jax.Array) -> jax.Array:
    """[..., E] -> [..., E + 1]: the row sums are propagated as one more column."""
    evidence = as_float(evidence)
    return jnp.concatenate([evidence, jnp.sum(evidence, axis=-1, keepdims=True)], axis=-1)


def argmax_with_ties(cosines: jax.Array) -> jax.Array:
    """Index of the largest entry [..., N] -> int [...], the first among equals."""
    return jnp.argmax(cosines >= jnp.max(cosines, axis=-1, keepdims=True) - _TIE, axis=-1)


def top_k_with_ties(cosines: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """The `k` largest entries and their indices, as `lax.top_k`; of those that equal the last, the first ones."""

    def largest(values: jax.Array) -> tuple[jax.Array, jax.Array]:
        # On a CPU, XLA sorts whole rows, six times slower, where half of this result is not used.
        return lax.optimization_barrier(lax.top_k(values, k))

    last = largest(cosines)[0][..., -1:]
    _, indices = largest(jnp.where(jnp.abs(cosines - last) < _TIE, last, cosines))
    return jnp.take_along_axis(cosines, indices, axis=-1), indices
