"""Relations over nearest neighbours: the exact search, the walk as a sparse matrix, and propagation step by step.

W links each item to its k nearest by cosine and to itself, made symmetric and scaled: by symmetric Sinkhorn scaling
(ours), by the square roots of the degrees (Zhou et al., NIPS 2003), or by rows. Propagation takes O(N k T); the search
takes O(N^2), in blocks.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from lgdea_jax.arrays import as_float, normalize
from lgdea_jax.relations.rows import BLOCK, check_walk, cut, divide, fold, matmul, put, top_k_with_ties, with_mass
from lgdea_jax.relations.seeds import Seeds

SCALINGS = ("balanced", "symmetric", "row")
_BALANCING_STEPS = 50


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Neighbours:
    """W = diag(left) (A + A^T) / 2 diag(right), A[n, indices[n, j]] += weights[n, j]; of `link_neighbours`.

    indices: int32 [N, k]; weights: float32 [N, k], 0 where there is no such neighbour; left, right: float32 [N].
    """

    indices: jax.Array
    weights: jax.Array
    left: jax.Array
    right: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class NeighbourGraph:
    """S by walking over `images` (W_I) and `reports` (W_R) for `order` steps; of `neighbour_graph`."""

    seeds: Seeds
    images: Neighbours
    reports: Neighbours
    alpha: jax.Array
    order: int = dataclasses.field(metadata={"static": True})


@functools.partial(jax.jit, static_argnames=("k", "block"))
def find_neighbours(features: jax.Array, *, k: int, mask: jax.Array | None = None,
                    block: int = BLOCK) -> tuple[jax.Array, jax.Array]:
    """The exact `k` nearest other rows by cosine, block against block: time O(N^2 D), memory O(block^2 + N (D + k)).

    Args:
      features: [N, D]; k: in [1, N - 1]; mask: bool [N], rows that exist; block: rows at a time.

    Returns:
      (indices int32 [N, k], cosines float32 [N, k]), nearest first, the smaller indices of those that are equal to the
      last; -inf where there is no such neighbour.

    Raises:
      ValueError: k out of range.
    """
    rows = features.shape[0]
    if not 1 <= k < rows:
        raise ValueError(f"k={k} neighbours of {rows} rows")
    x = normalize(features)
    valid = jnp.ones(rows, bool) if mask is None else mask != 0

    def queries(out: Any, start: Any, size: int) -> Any:
        own = start + jnp.arange(size)
        query, asked = cut((x, valid), start, size, 0)

        def candidates(best: tuple[jax.Array, jax.Array], at: Any, width: int) -> tuple[jax.Array, jax.Array]:
            other, exists = cut((x, valid), at, width, 0)
            index = at + jnp.arange(width, dtype=jnp.int32)
            usable = exists[None, :] & asked[:, None] & (index[None, :] != own[:, None])
            scores = jnp.where(usable, matmul("qd,nd->qn", query, other), -jnp.inf)
            scores = jnp.concatenate([best[0], scores], axis=1)
            index = jnp.concatenate([best[1], jnp.broadcast_to(index, (size, width))], axis=1)
            scores, chosen = top_k_with_ties(scores, k)
            return scores, jnp.take_along_axis(index, chosen, axis=1)

        none = (jnp.full((size, k), -jnp.inf, x.dtype), jnp.zeros((size, k), jnp.int32))
        cosines, indices = fold(candidates, none, rows, block)
        return put(out, (indices, cosines), start, 0)

    return fold(queries, (jnp.zeros((rows, k), jnp.int32), jnp.zeros((rows, k), x.dtype)), rows, block)


@functools.partial(jax.jit, static_argnames=("scaling",))
def link_neighbours(indices: jax.Array, cosines: jax.Array, *, temperature: jax.Array | float,
                    self_share: jax.Array | float = 0.1, scaling: str = "balanced") -> Neighbours:
    """W over nearest neighbours, sparse.

    A = (1 - self_share) softmax_j(cosines / temperature) + self_share I, made symmetric, (A + A^T) / 2 = Y; then
    - "balanced": diag(s) Y diag(s) with rows and columns that sum to 1 (symmetric Sinkhorn scaling), as for anchors;
    - "symmetric": D^-1/2 Y D^-1/2, D the row sums (Zhou et al., NIPS 2003); rows sum to about 1;
    - "row": D^-1 Y; rows sum to 1, columns do not, so that a report's confidence may exceed 1.

    Args:
      indices: int [N, k]; cosines: [N, k], -inf where there is no neighbour (of `find_neighbours`).
      temperature: > 0; self_share: in (0, 1); what keeps "balanced" possible on any graph.

    Raises:
      ValueError: unknown scaling.
    """
    if scaling not in SCALINGS:
        raise ValueError(f"unknown scaling {scaling!r}; known: {', '.join(SCALINGS)}")
    cosines = as_float(cosines)
    exists = jnp.isfinite(cosines)
    # An item without any neighbour has a softmax of nothing: computed on zeros, and dropped.
    alone = ~jnp.any(exists, axis=1, keepdims=True)
    scores = jnp.where(exists, cosines / temperature, jnp.where(alone, 0.0, -jnp.inf))
    shares = jnp.where(exists, jax.nn.softmax(scores, axis=1), 0.0)
    own = jnp.arange(indices.shape[0], dtype=jnp.int32)[:, None]
    indices = jnp.concatenate([own, jnp.asarray(indices, jnp.int32)], axis=1)
    weights = jnp.concatenate([jnp.full_like(shares[:, :1], self_share), (1.0 - self_share) * shares], axis=1)
    one = jnp.ones(indices.shape[0], weights.dtype)
    plain = Neighbours(indices, weights, one, one)
    degree = walk_step(plain, one[:, None], BLOCK)[:, 0]
    if scaling == "row":
        return dataclasses.replace(plain, left=1.0 / degree)

    def balance(_: Any, s: jax.Array) -> jax.Array:
        return jnp.sqrt(s / walk_step(plain, s[:, None], BLOCK)[:, 0])

    scale = lax.rsqrt(degree)
    if scaling == "balanced":
        scale = lax.fori_loop(0, _BALANCING_STEPS, balance, scale)
    return dataclasses.replace(plain, left=scale, right=scale)


def neighbour_graph(seeds: Seeds, images: Neighbours, reports: Neighbours, *, alpha: float,
                    order: int) -> NeighbourGraph:
    """The graph over nearest neighbours (of `link_neighbours`); alpha and order as for `anchor_graph`.

    Raises:
      ValueError: alpha or order out of range.
    """
    check_walk(alpha, order)
    return NeighbourGraph(seeds, images, reports, jnp.asarray(alpha, float), order)


def walk_step(side: Neighbours, values: jax.Array, block: int) -> jax.Array:
    """W @ values: [N, E] -> [N, E], without an array [N, k, E]."""
    scaled = side.right[:, None] * values

    def step(out: jax.Array, start: Any, size: int) -> jax.Array:
        (indices, weights), own = cut((side.indices, side.weights), start, size, 0), cut(scaled, start, size, 0)
        out = out.at[indices].add(0.5 * weights[..., None] * own[:, None, :])  # A^T
        got = cut(out, start, size, 0) + 0.5 * matmul("nk,nke->ne", weights, scaled[indices])  # A
        return put(out, got, start, 0)

    rows, k = side.indices.shape
    return side.left[:, None] * fold(step, jnp.zeros_like(scaled), rows, max(1, block // k))


def neighbour_targets(graph: NeighbourGraph, evidence: jax.Array, block: int) -> tuple[jax.Array, jax.Array]:
    """(targets [N_I, E], confidence [N_I]); see `graph.image_targets`."""
    total = _neighbour_sums(graph, evidence, block)
    return divide(total[:, :-1], total[:, -1:]), total[:, -1]



def _neighbour_sums(graph: NeighbourGraph, evidence: jax.Array, block: int) -> jax.Array:
    """S [Qbar_R, its row sums]: [N_I, E + 1]."""
    values = with_mass(evidence)
    seeds, rows = graph.seeds, graph.images.indices.shape[0]

    # Of each step only the rows of the seeds are kept; Horner's rule then needs one array per side.
    def towards(values: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        values = walk_step(graph.reports, values, block)
        return values, values[seeds.reports]

    def onwards(total: jax.Array, stop: jax.Array) -> tuple[jax.Array, None]:
        return graph.alpha * walk_step(graph.images, arrive(total, stop), block), None

    def arrive(total: jax.Array, stop: jax.Array) -> jax.Array:
        return total.at[seeds.images].add(seeds.weights[:, None] * stop)

    _, stops = lax.scan(towards, values, None, length=graph.order)
    dtype = jnp.promote_types(values.dtype, graph.alpha.dtype)
    total, _ = lax.scan(onwards, jnp.zeros((rows, values.shape[1]), dtype), stops, reverse=True)
    return (1.0 - graph.alpha) * arrive(total, values[seeds.reports])


def neighbour_relations(graph: NeighbourGraph, image_rows: jax.Array, report_rows: jax.Array) -> jax.Array:
    """S[image_rows, report_rows]; see `graph.relations_between`."""
    seeds = graph.seeds

    def start(side: Neighbours, rows: jax.Array) -> jax.Array:
        columns = jnp.arange(rows.shape[0])
        one_hot = jnp.zeros((side.indices.shape[0], rows.shape[0]), side.weights.dtype)
        return one_hot.at[jnp.maximum(rows, 0), columns].set((rows >= 0).astype(one_hot.dtype))

    images = dataclasses.replace(graph.images, left=graph.images.right, right=graph.images.left)
    left, right = start(images, image_rows), start(graph.reports, report_rows)

    def meet(left: jax.Array, right: jax.Array) -> jax.Array:
        return matmul("p,pa,pb->ab", seeds.weights, left[seeds.images], right[seeds.reports])

    def step(number: Any, carry: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        left, right, related = carry
        left, right = walk_step(images, left, BLOCK), walk_step(graph.reports, right, BLOCK)
        return left, right, related + graph.alpha**number * meet(left, right)

    _, _, related = lax.fori_loop(1, graph.order + 1, step, (left, right, meet(left, right)))
    return (1.0 - graph.alpha) * related
