"""Softmax losses with several positives, over tiles of scores: phrases against images, phrases against phrases.

The multiple-instance form of InfoNCE (MIL-NCE, Miech et al., 2020, arXiv 1912.06430): some positive must win, not all
of them. The scores need not be products of embeddings: a function makes those of a tile, and says which are positives.
With `chunks` one tile at a time is held, each device has its own rows, and the backward pass makes the tiles once more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lgdea_jax.arrays import as_float, masked_mean
from lgdea_jax.losses.chunks import ABSENT, Chunks, cut_rows, fill, gather, over_devices

# (some rows, some columns), trees of arrays -> (scores [R, C], positives bool [R, C]); an entry depends on its row and
# its column alone. It closes over no arrays.
Tile = Callable[[Any, Any], tuple[jax.Array, jax.Array]]


def positives_contrastive(rows: Any, columns: Any, tile: Tile, *, row_mask: jax.Array, column_mask: jax.Array,
                          both_directions: bool = True, chunks: Chunks | None = None,
                          column_chunk: int = 0) -> jax.Array:
    """mean_r [-log (sum_{c in P(r)} exp s_rc / sum_c exp s_rc)] over the rows that have a positive.

    With `both_directions` the mean of this and of the same over rows for each column.

    Args:
      rows, columns: trees of arrays [N, ...] and [M, ...], what the scores are made of.
      tile: makes the scores (logits, temperature applied) and the positives of some rows and columns. A row (column)
        without a valid positive is left out as an anchor and stays as a negative.
      row_mask: bool [N]; column_mask: bool [M]; what exists.
      chunks: how the rows are divided over steps and devices; None makes all scores at once.
      column_chunk: columns of a tile where there are `chunks`; 0 takes all.

    Returns:
      A float32 scalar >= 0; 0 without an anchor.
    """
    count, width = len(row_mask), len(column_mask)
    devices = chunks.mesh.size if chunks and chunks.axes else 1
    rows, row_mask = _filled((rows, row_mask), devices)
    columns, column_mask = _filled((columns, column_mask), devices)
    held = jax.checkpoint(_tile_sums, static_argnums=0) if chunks else _tile_sums
    row_chunk = chunks.rows if chunks else len(row_mask)
    column_chunk = column_chunk if chunks and column_chunk else len(column_mask)

    def local(rows: Any, columns: Any) -> tuple[jax.Array, jax.Array]:
        columns = gather(columns, chunks.axes) if chunks else columns

        def some_rows(rows: Any) -> tuple[jax.Array, jax.Array]:
            by_row, by_column = _map_chunks(lambda columns: held(tile, rows, columns), columns, column_chunk)
            return jax.nn.logsumexp(by_row, axis=0), _joined(by_column, len(columns[1]))

        by_row, by_column = _map_chunks(some_rows, rows, row_chunk)
        return _joined(by_row, len(rows[1])), jax.nn.logsumexp(by_column, axis=0)[None]

    run = over_devices(local, chunks, out=("rows", "rows")) if chunks else local
    by_row, by_column = run((rows, row_mask), (columns, column_mask))
    loss = _mean(by_row[:count])
    if not both_directions:
        return loss
    return 0.5 * (loss + _mean(jax.nn.logsumexp(by_column, axis=0)[:width]))


def _tile_sums(tile: Tile, rows: tuple[Any, jax.Array], columns: tuple[Any, jax.Array]) -> tuple[jax.Array, jax.Array]:
    """Log-sum-exps over all and over the positives of a tile: of each row [R, 2], of each column [C, 2]."""
    scores, positives = tile(rows[0], columns[0])
    exists = rows[1][:, None] & columns[1][None, :]
    scores = jnp.where(exists, as_float(scores), ABSENT)
    both = scores, jnp.where(positives, scores, ABSENT)
    by_row, by_column = ([jax.nn.logsumexp(some, axis=axis) for some in both] for axis in (1, 0))
    return jnp.stack(by_row, axis=-1), jnp.stack(by_column, axis=-1)


def _mean(sums: jax.Array) -> jax.Array:
    """The loss of anchors with the log-sum-exps [N, 2] over all and over the positives."""
    anchored = sums[:, 1] > 0.5 * ABSENT
    return masked_mean(jnp.where(anchored, sums[:, 0] - sums[:, 1], 0.0), anchored)


def _map_chunks(function: Callable[[Any], Any], arrays: Any, rows: int) -> Any:
    """`function` of chunks of so many rows, the last one filled with zeros; the results stacked [chunks, ...]."""
    if len(jax.tree.leaves(arrays)[0]) <= rows:
        return jax.tree.map(lambda x: x[None], function(arrays))
    return jax.lax.map(function, cut_rows(arrays, rows))


def _joined(stacked: jax.Array, count: int) -> jax.Array:
    """[chunks, rows, ...] -> [count, ...]."""
    return stacked.reshape(-1, *stacked.shape[2:])[:count]


def _filled(tree: Any, devices: int) -> Any:
    return jax.tree.map(lambda x: fill(jnp.asarray(x), -(-len(x) // devices) * devices), tree)
