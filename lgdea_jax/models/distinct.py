"""Equal texts of a batch are encoded once: rows that do not exist, templated reports, phrases in canonical words.

Shapes are fixed: a pass encodes a fixed share of the rows, the first one always, a further one only in a step that has
more distinct rows than the passes before it hold. So no text is ever dropped, and the outputs are those of every row
encoded by itself; dropout alone draws one mask for equal texts. Each device looks for equal rows among its own, so that
no row is moved.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Odd, so that no bit of a token is lost modulo 2^32 (Knuth's multiplicative hashing).
_MULTIPLIER = 2_654_435_761


def encode(encode_rows: Callable[[jax.Array, Any], Any], tokens: jax.Array, *, share: float,
           devices: int) -> tuple[Any, jax.Array]:
    """`encode_rows(tokens, 0)`, with equal rows encoded once.

    Args:
      encode_rows: (tokens [M, T], number of the pass) -> tree of arrays [M, ...], of which each row depends on its own
        tokens alone.
      tokens: int32 [N, T]; the devices divide N.
      share: of the rows that a pass encodes, in (0, 1); rounded up to whole rows on each device.
      devices: that share the rows.

    Returns:
      (the tree of [N, ...], the share of rows that are distinct, a scalar).
    """
    local = tokens.reshape(devices, -1, tokens.shape[-1])
    rows = local.shape[1]
    size = math.ceil(share * rows)
    passes = -(-rows // size)
    chosen, slot, count = jax.vmap(lambda some: distinct_rows(some, size=passes * size))(local)
    cut = chosen.reshape(devices, passes, size, -1).swapaxes(0, 1).reshape(passes, devices * size, -1)
    first = encode_rows(cut[0], 0)
    most = jnp.max(count)

    @jax.checkpoint  # What is held for the rare passes is their tokens.
    def further(inputs: tuple[jax.Array, jax.Array]) -> Any:
        some, number = inputs
        return jax.lax.cond(most > number * size, lambda: encode_rows(some, number),
                            lambda: jax.tree.map(jnp.zeros_like, first))

    others = jax.lax.map(further, (cut[1:], jnp.arange(1, passes)))

    def spread(first: jax.Array, others: jax.Array) -> jax.Array:
        """[devices * size, ...] and [passes - 1, devices * size, ...] -> [N, ...]."""
        encoded = jnp.concatenate([first[None], others]).reshape(passes, devices, size, *first.shape[1:])
        encoded = jnp.swapaxes(encoded, 0, 1).reshape(devices, passes * size, *first.shape[1:])
        return jax.vmap(lambda some, at: some[at])(encoded, slot).reshape(-1, *first.shape[1:])

    return jax.tree.map(spread, first, others), jnp.mean(count) / rows


def distinct_rows(tokens: jax.Array, *, size: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The rows of `tokens` [N, T] that differ from each other.

    Args:
      size: at least N.

    Returns:
      (int32 [size, T]: each distinct row once, then the first row again and again; int32 [N]: where each row stands in
      it; how many there are, a scalar).
    """
    rows, length = tokens.shape
    multipliers = np.array([pow(_MULTIPLIER, power + 1, 2**32) for power in range(length)], np.uint32)
    # Equal rows have equal keys and stand together in this order. Where different rows have equal keys, equal ones may
    # be parted and encoded twice; different ones are never taken for equal.
    order = jnp.argsort(jnp.sum(tokens.astype(jnp.uint32) * multipliers, axis=1, dtype=jnp.uint32))
    ordered = tokens[order]
    new = jnp.concatenate([jnp.ones(1, bool), jnp.any(ordered[1:] != ordered[:-1], axis=1)])
    group = jnp.cumsum(new) - 1
    # Positions of the groups' first rows come first.
    starts = order[jnp.argsort(~new)]
    starts = jnp.where(jnp.arange(rows) <= group[-1], starts, 0)
    chosen = tokens[jnp.pad(starts, (0, size - rows))]
    return chosen, group[jnp.argsort(order)], group[-1] + 1
