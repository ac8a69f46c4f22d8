"""Relations through anchors: landmarks of instance features, soft assignments, and K x K algebra.

After anchor graphs (Liu et al., ICML 2010) with landmarks by spherical k-means (Dhillon & Modha, 2001): the walk on one
side is W = Z D^-1 Z^T, with Z [N, K] the assignments and D the column sums of Z. The propagated relations are then
S = (1 - alpha) S0 + Z_I M Z_R^T, where M [K_I, K_R] is `relation_factor` (ours). Time O(N K^2), memory O(N K).
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from lgdea_jax.arrays import normalize
from lgdea_jax.relations.rows import (
    BLOCK,
    Rows,
    SparseRows,
    argmax_with_ties,
    check_shards,
    check_walk,
    cut,
    dense_rows,
    divide,
    fold,
    gather_rows,
    join_rows,
    matmul,
    put,
    split_rows,
    top_k_with_ties,
    with_mass,
)
from lgdea_jax.relations.seeds import Seeds

_NO_LANDMARK = -1e30  # Score of a landmark that does not exist: its share of a softmax is 0, and finite without others.


@functools.partial(jax.jit, static_argnames=("num", "steps", "block", "shards"))
def landmarks(key: jax.Array, features: jax.Array, num: int, *, mask: jax.Array | None = None, steps: int = 10,
              block: int = BLOCK, shards: int = 1) -> jax.Array:
    """Landmarks of instance features: rows drawn without replacement, then spherical k-means (Dhillon & Modha, 2001).

    A landmark that no row is nearest to stays where it is; where there are fewer rows than landmarks the rest are
    zeros, to which nothing is assigned. Time O(steps N num D), memory O(block num).

    Args:
      key: PRNG key; features: [N, D]; num: K; mask: bool [N], rows that exist.
      steps: rounds of k-means; 0 leaves the drawn rows. block: rows at a time. shards: see `relations`.

    Returns:
      [K, D] float32, unit norm or zeros.

    Raises:
      ValueError: fewer rows than landmarks, or rows that do not divide into `shards`.
    """
    rows = features.shape[0]
    if not 1 <= num <= rows:
        raise ValueError(f"{num} landmarks cannot be drawn from {rows} rows")
    check_shards(rows, shards)
    valid = jnp.ones(rows, bool) if mask is None else mask != 0
    chosen = jax.random.choice(key, rows, (num,), replace=False, p=valid / jnp.maximum(jnp.sum(valid), 1))
    drawn = jnp.where(valid[chosen][:, None], normalize(features[chosen]), 0.0)
    parts = split_rows((features, valid), shards)

    def improve(_: Any, centres: jax.Array) -> jax.Array:
        def collect(sums: jax.Array, start: Any, size: int) -> jax.Array:
            part, exists = cut(parts, start, size)
            part = normalize(part)
            nearest = argmax_with_ties(_cosines(part, centres))
            # A product rather than a scatter: the same on every machine, and no row leaves its device.
            own = jax.nn.one_hot(nearest, num, dtype=part.dtype) * exists[..., None]
            return sums + matmul("sbk,sbd->skd", own, part)

        sums = fold(collect, jnp.zeros((shards, *centres.shape), centres.dtype), rows // shards, block)
        moved = normalize(jnp.sum(sums, axis=0))
        return jnp.where(jnp.any(moved != 0, axis=-1, keepdims=True), moved, centres)

    return lax.fori_loop(0, steps, improve, drawn)


@functools.partial(jax.jit, static_argnames=("top", "block", "shards"))
def assign_to_landmarks(features: jax.Array, centres: jax.Array, *, temperature: jax.Array | float,
                        top: int | None = None, mask: jax.Array | None = None, block: int = BLOCK,
                        shards: int = 1) -> Rows:
    """Soft assignments Z = softmax_k(cosine(features, centres) / temperature).

    Args:
      features: [N, D]; centres: [K, D] (of `landmarks`); a row of zeros is no landmark. temperature: > 0.
      top: keep the softmax over the nearest `top` landmarks only, as `SparseRows`; default: all, as an array.
      mask: bool [N], rows that exist; the others get zeros and take no part in a graph.
      block: rows at a time. shards: see `relations`.

    Returns:
      Z [N, K] float32, rows sum to 1 (or 0 where masked); with `top`, `SparseRows` of that width.

    Raises:
      ValueError: `top` outside [1, K], or rows that do not divide into `shards`.
    """
    rows, num = features.shape[0], centres.shape[0]
    if top is not None and not 1 <= top <= num:
        raise ValueError(f"top={top} of {num} landmarks")
    check_shards(rows, shards)
    centres = normalize(centres)
    parts = split_rows((features, jnp.ones(rows, bool) if mask is None else mask != 0), shards)
    lead = (shards, rows // shards)

    def step(out: Any, start: Any, size: int) -> Any:
        part, exists = cut(parts, start, size)
        cosines = _cosines(normalize(part), centres)
        if top is None:
            return put(out, jax.nn.softmax(cosines / temperature, axis=-1) * exists[..., None], start)
        cosines, indices = top_k_with_ties(cosines, top)
        return put(out, (indices, jax.nn.softmax(cosines / temperature, axis=-1) * exists[..., None]), start)

    if top is None:
        return join_rows(fold(step, jnp.zeros((*lead, num), centres.dtype), rows // shards, block))
    out = (jnp.zeros((*lead, top), jnp.int32), jnp.zeros((*lead, top), centres.dtype))
    return SparseRows(*join_rows(fold(step, out, rows // shards, block)), width=num)


def _cosines(rows: jax.Array, centres: jax.Array) -> jax.Array:
    """Rows [S, B, D] with landmarks [K, D], both of unit norm: [S, B, K]."""
    exists = jnp.any(centres != 0, axis=-1)
    return jnp.where(exists, matmul("sbd,kd->sbk", rows, centres), _NO_LANDMARK)


def relation_factor(seeds: Seeds, images: Rows, reports: Rows, *, alpha: float, order: int, block: int = BLOCK,
                    shards: int = 1) -> jax.Array:
    """M of S = (1 - alpha) S0 + Z_I M Z_R^T, by K x K algebra (ours, after Liu et al., ICML 2010; see the module).

    Evidence distributions may serve as assignments (Z = Qbar), which is a poor choice: every target is then a linear
    function of the item's own evidence, a recalibrated mean teacher. Landmarks of instance features add information.

    Args:
      seeds: of `seed_edges`.
      images, reports: Z_I [N_I, K_I], Z_R [N_R, K_R], >= 0, rows sum to 1; a row of zeros is an item that does not
        exist. Arrays or `SparseRows`; anchors that no row uses are allowed.
      alpha: in [0, 1), weight of a further step; order: T >= 0, steps on each side; 0 leaves the seeds alone.
      block: rows at a time. shards: see `relations`.

    Returns:
      M [K_I, K_R] float32; its transpose is that of the graph with images and reports exchanged.

    Raises:
      ValueError: alpha or order out of range, or rows that do not divide into `shards`.
    """
    check_walk(alpha, order)
    check_shards(images.shape[0], shards)
    check_shards(reports.shape[0], shards)
    if order == 0:
        return jnp.zeros((images.shape[1], reports.shape[1]), jnp.float32)
    return _factor(seeds, images, reports, jnp.asarray(alpha, float), order, block, shards)


@functools.partial(jax.jit, static_argnames=("order", "block", "shards"))
def _factor(seeds: Seeds, images: Rows, reports: Rows, alpha: jax.Array, order: int, block: int,
            shards: int) -> jax.Array:
    """M [K_I, K_R] for order T >= 1, with B_X = D_X^-1 Z_X^T Z_X and C = Z_I^T S0 Z_R, the sum over the pairs:

    M = (1 - alpha) sum_{t=1..T} alpha^t B_I^(t-1) D_I^-1 C D_R^-1 (B_R^T)^(t-1)
    """

    def side(rows: Rows) -> tuple[jax.Array, jax.Array]:
        """(D as a column [K, 1], B [K, K]); a row of B is zero where the anchor is empty."""
        count, width = rows.shape
        parts = split_rows(rows, shards)
        dtype = jax.eval_shape(dense_rows, rows).dtype

        def collect(sums: tuple[jax.Array, jax.Array], start: Any, size: int) -> tuple[jax.Array, jax.Array]:
            z = dense_rows(cut(parts, start, size))
            # Products of single steps need no Z^T Z.
            gram = sums[1] + matmul("sbk,sbl->skl", z, z) if order > 1 else sums[1]
            return sums[0] + jnp.sum(z, axis=1), gram

        # Each device sums for itself, and the sums meet once: not in every block.
        zeros = (jnp.zeros((shards, width), dtype), jnp.zeros((shards, width, width if order > 1 else 0), dtype))
        mass, gram = jax.tree.map(lambda x: jnp.sum(x, axis=0), fold(collect, zeros, count // shards, block))
        return mass[:, None], divide(gram, mass[:, None])

    def pairs(sums: jax.Array, start: Any, size: int) -> jax.Array:
        at = cut(seeds, start, size, 0)
        of_images, of_reports = gather_rows(images, at.images), gather_rows(reports, at.reports)
        return sums + matmul("p,pk,pl->kl", at.weights, of_images, of_reports)

    (mass_i, walk_i), (mass_r, walk_r) = side(images), side(reports)
    joint = fold(pairs, jnp.zeros((images.shape[1], reports.shape[1]), mass_i.dtype), seeds.images.shape[0], block)
    term = alpha * divide(divide(joint, mass_i), mass_r.T)

    def walk(_: Any, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        total, term = carry
        term = alpha * matmul("km,ml,nl->kn", walk_i, term, walk_r)
        return total + term, term

    total = lax.fori_loop(1, order, walk, (term, term))[0] if order > 1 else term
    return (1.0 - alpha) * total


@functools.partial(jax.jit, static_argnames=("block", "shards"))
def landmark_evidence(factor: jax.Array, givers: Rows, evidence: jax.Array, *, block: int = BLOCK,
                      shards: int = 1) -> jax.Array:
    """M Z^T [Qbar, 1]: the evidence, with its mass, that each landmark of one side gets from the items of the other.

    An item of that side without a seed of its own is then related as `related_evidence` says; nothing of the size of
    both sides is made.

    Args:
      factor: [K_I, K_R], of `relation_factor`; transposed for what reports get from images.
      givers: Z [N, K_R] of the other side; evidence: Qbar [N, E], rows sum to 1, or to 0 in items without evidence:
        those relate nothing, and do not count in the mass either.
      block: rows at a time. shards: see `relations`.

    Returns:
      float32 [K_I, E + 1].

    Raises:
      ValueError: evidence of another number of items, or rows that do not divide into `shards`.
    """
    rows, width = evidence.shape
    if rows != givers.shape[0]:
        raise ValueError(f"evidence of {rows} rows for a side of {givers.shape[0]}")
    check_shards(rows, shards)
    parts = split_rows((givers, evidence), shards)

    def collect(sums: jax.Array, start: Any, size: int) -> jax.Array:
        z, given = cut(parts, start, size)
        return sums + matmul("sbk,sbe->ske", dense_rows(z), with_mass(given))

    zeros = jnp.zeros((shards, givers.shape[1], width + 1), factor.dtype)
    return matmul("kl,le->ke", factor, jnp.sum(fold(collect, zeros, rows // shards, block), axis=0))


def related_evidence(takers: Rows, offered: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Target evidence of items without a seed of their own, (S Qbar) / rowsum(S), and its confidence, rowsum(S).

    Args:
      takers: Z [B, K] of the items, by `assign_to_landmarks`; offered: [K, E + 1], of `landmark_evidence`.

    Returns:
      (targets float32 [B, E], rows sum to 1, or to 0 where nothing is related; confidence float32 [B], in [0, 1],
      usually well below: see `relations`).
    """
    got = matmul("bk,ke->be", dense_rows(takers), offered)
    return divide(got[:, :-1], got[:, -1:]), got[:, -1]
