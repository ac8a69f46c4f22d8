"""Relations of unpaired images and reports: from the pairs, through similar images and similar reports, to both.

LGDEA (arXiv 2602.07540) propagates its seed edges, the pairs, along image-image and report-report similarity; its
formulas are not available to us. Ours, with S0 the seed matrix [N_I, N_R] and W_I, W_R the similarities:

    S = (1 - alpha) sum_{t=0..T} alpha^t W_I^t S0 W_R^t

S is never made: it has images x reports entries. What is asked of it is made directly: the evidence that an image
inherits from reports (`image_targets`), that a report inherits from images (`report_targets`), and the few relations
of a batch (`relations_between`). All three take either graph:

- `AnchorGraph` (after anchor graphs, Liu et al., ICML 2010): W = Z D^-1 Z^T from soft assignments Z [N, K] to landmarks
  of instance features, D the column sums of Z. Then S = (1 - alpha) S0 + Z_I M Z_R^T with M of K x K algebra alone:
  time O(N K^2), memory O(N K). W is symmetric and its rows sum to 1.
- `NeighbourGraph`: W from the k nearest neighbours by cosine. Propagation takes O(N k T); finding the neighbours
  exactly takes O(N^2), in blocks.

Both sides' W walk: rowsum(S), the confidence, is the chance that a walk from an image ends at a seed, at most
1 - alpha^(T+1), and at most alpha - alpha^(T+1) without a seed of its own. Nothing here is meant to be differentiated.

Large arrays may be split by rows over devices. Blocks are then cut within each device's rows, if `shards` says how
many devices there are; with another `shards` the numbers are the same, and rows travel between devices. Which landmarks
and neighbours are the nearest is not left to rounding: of equal ones the first count.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from lgdea_jax.arrays import as_float, normalize

__all__ = ["AnchorGraph", "NeighbourGraph", "Neighbours", "Rows", "Seeds", "SparseRows", "anchor_graph",
           "assign_to_landmarks", "confidence_weight", "dense_rows", "find_neighbours", "flip", "image_targets",
           "landmarks", "link_neighbours", "neighbour_graph", "relation_graph", "relations_between",
           "report_targets", "seed_edges"]

GRAPHS = ("anchors", "knn")
SCALINGS = ("balanced", "symmetric", "row")
_BLOCK = 1024  # Rows at a time: 4 MB of float32 at 1,024 landmarks; larger blocks are no faster.
_TINY = 1e-30  # Anchors and rows with less mass than this count as empty: what is divided by it could overflow.
_BALANCING_STEPS = 50
_TIE = 1e-5  # Cosines that are less apart count as equal: equal reports differ by rounding, and so do two meshes.
_NO_LANDMARK = -1e30  # Score of a landmark that does not exist: its share of a softmax is 0, and finite without others.

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
        """(N, width), the shape of the matrix that is meant."""
        return self.indices.shape[0], self.width


Rows = jax.Array | SparseRows


class Seeds(NamedTuple):
    """The entries of S0: image `images[p]` and report `reports[p]` have `weights[p]` in [0, 1]; each array is [P]."""

    images: jax.Array
    reports: jax.Array
    weights: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AnchorGraph:
    """S = (1 - alpha) S0 + images @ factor @ reports^T; of `anchor_graph`.

    seeds: S0; images: Z_I [N_I, K_I]; reports: Z_R [N_R, K_R]; factor: M [K_I, K_R]; alpha: scalar.
    """

    seeds: Seeds
    images: Rows
    reports: Rows
    factor: jax.Array
    alpha: jax.Array


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


Graph = AnchorGraph | NeighbourGraph


def _fold(step: Callable[[Carry, Any, int], Carry], carry: Carry, rows: int, block: int) -> Carry:
    """`carry = step(carry, start, size)` over blocks of `rows`; the first may be shorter: nothing is padded."""
    full, rest = divmod(rows, block)
    if rest:  # First, because XLA copies the result of a loop before another step writes into it.
        carry = step(carry, 0, rest)
    if full:
        carry = lax.fori_loop(0, full, lambda i, carry: step(carry, rest + i * block, block), carry)
    return carry


def _split(tree: Any, shards: int) -> Any:
    """[N, ...] -> [shards, N / shards, ...]: a slice of the second axis takes rows of every device, and moves none."""
    return jax.tree.map(lambda array: array.reshape(shards, -1, *array.shape[1:]), tree)


def _join(tree: Any) -> Any:
    """Undoes `_split`."""
    return jax.tree.map(lambda array: array.reshape(-1, *array.shape[2:]), tree)


def _cut(tree: Any, start: Any, size: int, axis: int = 1) -> Any:
    return jax.tree.map(lambda array: lax.dynamic_slice_in_dim(array, start, size, axis), tree)


def _put(tree: Any, part: Any, start: Any, axis: int = 1) -> Any:
    return jax.tree.map(lambda array, new: lax.dynamic_update_slice_in_dim(array, new, start, axis), tree, part)


def _check_shards(rows: int, shards: int) -> None:
    if shards < 1 or rows % shards:
        raise ValueError(f"{rows} rows do not divide into {shards} shards")


def _matmul(subscripts: str, *arrays: jax.Array) -> jax.Array:
    return jnp.einsum(subscripts, *arrays, precision=lax.Precision.HIGHEST)


def _divide(x: jax.Array, by: jax.Array) -> jax.Array:
    """x / by, and 0 where there is nothing to divide by (an empty anchor, a row without mass)."""
    some = by > _TINY
    return jnp.where(some, x / jnp.where(some, by, 1.0), 0.0)


def _nearest(cosines: jax.Array) -> jax.Array:
    """Index of the largest entry [..., N] -> int [...], the first among equals."""
    return jnp.argmax(cosines >= jnp.max(cosines, axis=-1, keepdims=True) - _TIE, axis=-1)


def _top(cosines: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """The `k` largest entries and their indices, as `lax.top_k`; of those that equal the last, the first ones."""

    def largest(values: jax.Array) -> tuple[jax.Array, jax.Array]:
        # XLA sorts whole rows on a CPU, six times slower, where it sees that half of this result is not used.
        return lax.optimization_barrier(lax.top_k(values, k))

    last = largest(cosines)[0][..., -1:]
    _, indices = largest(jnp.where(jnp.abs(cosines - last) < _TIE, last, cosines))
    return jnp.take_along_axis(cosines, indices, axis=-1), indices


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


def _gather(rows: Rows, at: jax.Array) -> jax.Array:
    """Dense rows [B, K] at the indices `at` [B]; zeros at negative ones."""
    taken = dense_rows(jax.tree.map(lambda array: array[jnp.maximum(at, 0)], rows))
    return jnp.where((at >= 0)[:, None], taken, 0.0)


# Seeds and landmarks.


def seed_edges(images: jax.Array, reports: jax.Array, *, num_images: int, num_reports: int,
               weights: jax.Array | None = None) -> Seeds:
    """The seed matrix S0 from pairs.

    An entry is divided by the larger of its row's and its column's sum where that exceeds 1, so that a report with two
    views, or an image with two reports, has no more mass than others. With one partner each, S0 is the 0/1 matrix.

    Args:
      images, reports: int [P], rows of the two sides; a negative one is padding, no pair. Repeated pairs add up.
      num_images, num_reports: N_I and N_R.
      weights: [P], >= 0; default 1.

    Returns:
      Seeds with weights float32 [P]; rows and columns of S0 sum to at most 1.
    """
    images, reports = jnp.asarray(images, jnp.int32), jnp.asarray(reports, jnp.int32)
    there = (images >= 0) & (reports >= 0)
    weights = jnp.where(there, 1.0 if weights is None else as_float(weights), 0.0)
    images, reports = jnp.where(there, images, 0), jnp.where(there, reports, 0)
    rows = jax.ops.segment_sum(weights, images, num_images)[images]
    columns = jax.ops.segment_sum(weights, reports, num_reports)[reports]
    return Seeds(images, reports, weights / jnp.maximum(jnp.maximum(rows, columns), 1.0))


@functools.partial(jax.jit, static_argnames=("num", "steps", "block", "shards"))
def landmarks(key: jax.Array, features: jax.Array, num: int, *, mask: jax.Array | None = None, steps: int = 10,
              block: int = _BLOCK, shards: int = 1) -> jax.Array:
    """Landmarks of instance features: rows drawn without replacement, then spherical k-means (Dhillon & Modha, 2001).

    A landmark that no row is nearest to stays where it is; where there are fewer rows than landmarks the rest are
    zeros, to which nothing is assigned. Time O(steps N num D), memory O(block num).

    Args:
      key: PRNG key; features: [N, D]; num: K; mask: bool [N], rows that exist.
      steps: rounds of k-means; 0 leaves the drawn rows. block: rows at a time. shards: see the module.

    Returns:
      [K, D] float32, unit norm or zeros.

    Raises:
      ValueError: fewer rows than landmarks, or rows that do not divide into `shards`.
    """
    rows = features.shape[0]
    if not 1 <= num <= rows:
        raise ValueError(f"{num} landmarks cannot be drawn from {rows} rows")
    _check_shards(rows, shards)
    valid = jnp.ones(rows, bool) if mask is None else mask != 0
    chosen = jax.random.choice(key, rows, (num,), replace=False, p=valid / jnp.maximum(jnp.sum(valid), 1))
    drawn = jnp.where(valid[chosen][:, None], normalize(features[chosen]), 0.0)
    parts = _split((features, valid), shards)

    def improve(_: Any, centres: jax.Array) -> jax.Array:
        def collect(sums: jax.Array, start: Any, size: int) -> jax.Array:
            part, there = _cut(parts, start, size)
            part = normalize(part)
            nearest_one = _nearest(_cosines(part, centres))
            # A product rather than a scatter: the same on every machine, and no row leaves its device.
            own = jax.nn.one_hot(nearest_one, num, dtype=part.dtype) * there[..., None]
            return sums + _matmul("sbk,sbd->skd", own, part)

        sums = _fold(collect, jnp.zeros((shards, *centres.shape), centres.dtype), rows // shards, block)
        moved = normalize(jnp.sum(sums, axis=0))
        return jnp.where(jnp.any(moved != 0, axis=-1, keepdims=True), moved, centres)

    return lax.fori_loop(0, steps, improve, drawn)


def _cosines(rows: jax.Array, centres: jax.Array) -> jax.Array:
    """Rows [S, B, D] with landmarks [K, D], both of unit norm: [S, B, K]."""
    exists = jnp.any(centres != 0, axis=-1)
    return jnp.where(exists, _matmul("sbd,kd->sbk", rows, centres), _NO_LANDMARK)


@functools.partial(jax.jit, static_argnames=("top", "block", "shards"))
def assign_to_landmarks(features: jax.Array, centres: jax.Array, *, temperature: jax.Array | float,
                        top: int | None = None, mask: jax.Array | None = None, block: int = _BLOCK,
                        shards: int = 1) -> Rows:
    """Soft assignments Z = softmax_k(cosine(features, centres) / temperature).

    Args:
      features: [N, D]; centres: [K, D] (of `landmarks`); a row of zeros is no landmark. temperature: > 0.
      top: keep the softmax over the nearest `top` landmarks only, as `SparseRows`; default: all, as an array.
      mask: bool [N], rows that exist; the others get zeros and take no part in a graph.
      block: rows at a time. shards: see the module.

    Returns:
      Z [N, K] float32, rows sum to 1 (or 0 where masked); with `top`, `SparseRows` of that width.

    Raises:
      ValueError: `top` outside [1, K], or rows that do not divide into `shards`.
    """
    rows, num = features.shape[0], centres.shape[0]
    if top is not None and not 1 <= top <= num:
        raise ValueError(f"top={top} of {num} landmarks")
    _check_shards(rows, shards)
    centres = normalize(centres)
    parts = _split((features, jnp.ones(rows, bool) if mask is None else mask != 0), shards)
    lead = (shards, rows // shards)

    def step(out: Any, start: Any, size: int) -> Any:
        part, there = _cut(parts, start, size)
        cosines = _cosines(normalize(part), centres)
        if top is None:
            return _put(out, jax.nn.softmax(cosines / temperature, axis=-1) * there[..., None], start)
        cosines, indices = _top(cosines, top)
        return _put(out, (indices, jax.nn.softmax(cosines / temperature, axis=-1) * there[..., None]), start)

    if top is None:
        return _join(_fold(step, jnp.zeros((*lead, num), centres.dtype), rows // shards, block))
    out = (jnp.zeros((*lead, top), jnp.int32), jnp.zeros((*lead, top), centres.dtype))
    return SparseRows(*_join(_fold(step, out, rows // shards, block)), width=num)


# Anchors.


@functools.partial(jax.jit, static_argnames=("order", "block", "shards"))
def _anchor_factor(seeds: Seeds, images: Rows, reports: Rows, alpha: jax.Array, order: int, block: int,
                   shards: int) -> jax.Array:
    """M [K_I, K_R] for order T >= 1, with B_X = D_X^-1 Z_X^T Z_X and C = Z_I^T S0 Z_R, the sum over the pairs:

    M = (1 - alpha) sum_{t=1..T} alpha^t B_I^(t-1) D_I^-1 C D_R^-1 (B_R^T)^(t-1)
    """

    def side(rows: Rows) -> tuple[jax.Array, jax.Array]:
        """(D as a column [K, 1], B [K, K]); a row of B is zero where the anchor is empty."""
        count, width = rows.shape
        parts = _split(rows, shards)
        dtype = jax.eval_shape(dense_rows, rows).dtype

        def collect(sums: tuple[jax.Array, jax.Array], start: Any, size: int) -> tuple[jax.Array, jax.Array]:
            z = dense_rows(_cut(parts, start, size))
            # Products of single steps need no Z^T Z.
            gram = sums[1] + _matmul("sbk,sbl->skl", z, z) if order > 1 else sums[1]
            return sums[0] + jnp.sum(z, axis=1), gram

        # Each device sums for itself, and the sums meet once: not in every block.
        zeros = (jnp.zeros((shards, width), dtype), jnp.zeros((shards, width, width if order > 1 else 0), dtype))
        mass, gram = jax.tree.map(lambda x: jnp.sum(x, axis=0), _fold(collect, zeros, count // shards, block))
        return mass[:, None], _divide(gram, mass[:, None])

    def pairs(sums: jax.Array, start: Any, size: int) -> jax.Array:
        at = _cut(seeds, start, size, 0)
        return sums + _matmul("p,pk,pl->kl", at.weights, _gather(images, at.images), _gather(reports, at.reports))

    (mass_i, walk_i), (mass_r, walk_r) = side(images), side(reports)
    joint = _fold(pairs, jnp.zeros((images.shape[1], reports.shape[1]), mass_i.dtype), seeds.images.shape[0], block)
    term = alpha * _divide(_divide(joint, mass_i), mass_r.T)

    def walk(_: Any, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        total, term = carry
        term = alpha * _matmul("km,ml,nl->kn", walk_i, term, walk_r)
        return total + term, term

    total = lax.fori_loop(1, order, walk, (term, term))[0] if order > 1 else term
    return (1.0 - alpha) * total


def anchor_graph(seeds: Seeds, images: Rows, reports: Rows, *, alpha: float, order: int, block: int = _BLOCK,
                 shards: int = 1) -> AnchorGraph:
    """The graph through anchors, by K x K algebra (ours, after Liu et al., ICML 2010; see the module).

    Evidence distributions may stand for assignments (Z = Qbar), which is a poor choice: every target is then a linear
    function of the item's own evidence, a recalibrated mean teacher. Landmarks of instance features tell more.

    Args:
      seeds: of `seed_edges`.
      images, reports: Z_I [N_I, K_I], Z_R [N_R, K_R], >= 0, rows sum to 1; a row of zeros is an item that does not
        exist. Arrays or `SparseRows`; anchors that no row uses are allowed.
      alpha: in [0, 1), weight of a further step; order: T >= 0, steps on each side; 0 leaves the seeds alone.
      block: rows at a time. shards: see the module.

    Raises:
      ValueError: alpha or order out of range, or rows that do not divide into `shards`.
    """
    _check_walk(alpha, order)
    _check_shards(images.shape[0], shards)
    _check_shards(reports.shape[0], shards)
    alpha = jnp.asarray(alpha, float)
    if order == 0:
        factor = jnp.zeros((images.shape[1], reports.shape[1]), jnp.float32)
    else:
        factor = _anchor_factor(seeds, images, reports, alpha, order, block, shards)
    return AnchorGraph(seeds, images, reports, factor, alpha)


def _check_walk(alpha: float, order: int) -> None:
    if not 0.0 <= alpha < 1.0 or order < 0:
        raise ValueError(f"alpha must be in [0, 1) and order >= 0, not {alpha} and {order}")


# Nearest neighbours.


@functools.partial(jax.jit, static_argnames=("k", "block"))
def find_neighbours(features: jax.Array, *, k: int, mask: jax.Array | None = None,
                    block: int = 1024) -> tuple[jax.Array, jax.Array]:
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
        query, there = _cut((x, valid), start, size, 0)

        def candidates(best: tuple[jax.Array, jax.Array], at: Any, width: int) -> tuple[jax.Array, jax.Array]:
            other, exists = _cut((x, valid), at, width, 0)
            index = at + jnp.arange(width, dtype=jnp.int32)
            usable = exists[None, :] & there[:, None] & (index[None, :] != own[:, None])
            scores = jnp.where(usable, _matmul("qd,nd->qn", query, other), -jnp.inf)
            scores = jnp.concatenate([best[0], scores], axis=1)
            index = jnp.concatenate([best[1], jnp.broadcast_to(index, (size, width))], axis=1)
            scores, chosen = _top(scores, k)
            return scores, jnp.take_along_axis(index, chosen, axis=1)

        none = (jnp.full((size, k), -jnp.inf, x.dtype), jnp.zeros((size, k), jnp.int32))
        cosines, indices = _fold(candidates, none, rows, block)
        return _put(out, (indices, cosines), start, 0)

    return _fold(queries, (jnp.zeros((rows, k), jnp.int32), jnp.zeros((rows, k), x.dtype)), rows, block)


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
    there = jnp.isfinite(cosines)
    # An item without any neighbour has a softmax of nothing: computed on zeros, and dropped.
    alone = ~jnp.any(there, axis=1, keepdims=True)
    scores = jnp.where(there, cosines / temperature, jnp.where(alone, 0.0, -jnp.inf))
    shares = jnp.where(there, jax.nn.softmax(scores, axis=1), 0.0)
    own = jnp.arange(indices.shape[0], dtype=jnp.int32)[:, None]
    indices = jnp.concatenate([own, jnp.asarray(indices, jnp.int32)], axis=1)
    weights = jnp.concatenate([jnp.full_like(shares[:, :1], self_share), (1.0 - self_share) * shares], axis=1)
    one = jnp.ones(indices.shape[0], weights.dtype)
    plain = Neighbours(indices, weights, one, one)
    degree = _walk(plain, one[:, None], _BLOCK)[:, 0]
    if scaling == "row":
        return dataclasses.replace(plain, left=1.0 / degree)

    def balance(_: Any, s: jax.Array) -> jax.Array:
        return jnp.sqrt(s / _walk(plain, s[:, None], _BLOCK)[:, 0])

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
    _check_walk(alpha, order)
    return NeighbourGraph(seeds, images, reports, jnp.asarray(alpha, float), order)


def _walk(side: Neighbours, values: jax.Array, block: int) -> jax.Array:
    """W @ values: [N, E] -> [N, E], without an array [N, k, E]."""
    scaled = side.right[:, None] * values

    def step(out: jax.Array, start: Any, size: int) -> jax.Array:
        (indices, weights), own = _cut((side.indices, side.weights), start, size, 0), _cut(scaled, start, size, 0)
        out = out.at[indices].add(0.5 * weights[..., None] * own[:, None, :])  # A^T
        got = _cut(out, start, size, 0) + 0.5 * _matmul("nk,nke->ne", weights, scaled[indices])  # A
        return _put(out, got, start, 0)

    rows, k = side.indices.shape
    return side.left[:, None] * _fold(step, jnp.zeros_like(scaled), rows, max(1, block // k))


# What is asked of a graph.


def flip(graph: Graph) -> Graph:
    """The graph with images and reports exchanged: its S is the transpose."""
    seeds = Seeds(graph.seeds.reports, graph.seeds.images, graph.seeds.weights)
    if isinstance(graph, AnchorGraph):
        return AnchorGraph(seeds, graph.reports, graph.images, graph.factor.T, graph.alpha)

    def transpose(side: Neighbours) -> Neighbours:
        return dataclasses.replace(side, left=side.right, right=side.left)

    return NeighbourGraph(seeds, transpose(graph.reports), transpose(graph.images), graph.alpha, graph.order)


def _with_mass(evidence: jax.Array) -> jax.Array:
    """[..., E] -> [..., E + 1]: the row sums follow S as a column of their own."""
    evidence = as_float(evidence)
    return jnp.concatenate([evidence, jnp.sum(evidence, axis=-1, keepdims=True)], axis=-1)


@functools.partial(jax.jit, static_argnames=("block", "shards"))
def image_targets(graph: Graph, evidence: jax.Array, *, block: int = _BLOCK,
                  shards: int = 1) -> tuple[jax.Array, jax.Array]:
    """Target evidence of every image, (S Qbar_R) / rowsum(S), and its confidence, rowsum(S).

    Args:
      graph: of `anchor_graph` or `neighbour_graph`.
      evidence: Qbar_R [N_R, E], rows sum to 1, or to 0 in reports without evidence: those relate nothing, and do not
        count in the confidence either.
      block: rows (over neighbours: edges) at a time. shards: see the module; used by anchors.

    Returns:
      (targets float32 [N_I, E], rows sum to 1, or to 0 where nothing is related; confidence float32 [N_I], in [0, 1],
      usually well below: see the module and `confidence_weight`).

    Raises:
      ValueError: evidence of another number of reports, or rows that do not divide into `shards`.
    """
    side = graph.reports if isinstance(graph, AnchorGraph) else graph.reports.indices
    if evidence.shape[0] != side.shape[0]:
        raise ValueError(f"evidence of {evidence.shape[0]} rows for a side of {side.shape[0]}")
    if isinstance(graph, NeighbourGraph):
        total = _neighbour_sums(graph, evidence, block)
        return _divide(total[:, :-1], total[:, -1:]), total[:, -1]
    return _anchor_targets(graph, evidence, block, shards)


@functools.partial(jax.jit, static_argnames=("block", "shards"))
def report_targets(graph: Graph, evidence: jax.Array, *, block: int = _BLOCK,
                   shards: int = 1) -> tuple[jax.Array, jax.Array]:
    """The mirror of `image_targets`: from Qbar_I [N_I, E], (S^T Qbar_I) / colsum(S) [N_R, E] and colsum(S) [N_R]."""
    return image_targets(flip(graph), evidence, block=block, shards=shards)


def _anchor_targets(graph: AnchorGraph, evidence: jax.Array, block: int, shards: int) -> tuple[jax.Array, jax.Array]:
    rows, width = graph.images.shape[0], evidence.shape[1]
    _check_shards(rows, shards)
    _check_shards(evidence.shape[0], shards)
    givers, takers, given = _split(graph.reports, shards), _split(graph.images, shards), _split(evidence, shards)
    dtype = jnp.promote_types(graph.factor.dtype, as_float(evidence[:0]).dtype)

    def collect(sums: jax.Array, start: Any, size: int) -> jax.Array:
        return sums + _matmul("sbk,sbe->ske", dense_rows(_cut(givers, start, size)),
                              _with_mass(_cut(given, start, size)))

    zeros = jnp.zeros((shards, graph.reports.shape[1], width + 1), dtype)
    sums = jnp.sum(_fold(collect, zeros, evidence.shape[0] // shards, block), axis=0)
    offers = _matmul("kl,le->ke", graph.factor, sums)

    def direct(out: tuple[jax.Array, jax.Array], start: Any, size: int) -> tuple[jax.Array, jax.Array]:
        at = _cut(graph.seeds, start, size, 0)
        weights = (1.0 - graph.alpha) * at.weights
        values = as_float(evidence[at.reports])
        return (out[0].at[at.images].add(weights[:, None] * values),
                out[1].at[at.images].add(weights * jnp.sum(values, axis=1)))

    # The result is written over the seeds' part, block by block: with two arrays of this size there would be four.
    out = (jnp.zeros((rows, width), dtype), jnp.zeros(rows, dtype))
    out = _split(_fold(direct, out, graph.seeds.images.shape[0], block), shards)

    def spread(out: tuple[jax.Array, jax.Array], start: Any, size: int) -> tuple[jax.Array, jax.Array]:
        seeded, confidence = _cut(out, start, size)
        got = _matmul("sbk,ke->sbe", dense_rows(_cut(takers, start, size)), offers)
        confidence = confidence + got[..., -1]
        return _put(out, (_divide(seeded + got[..., :-1], confidence[..., None]), confidence), start)

    return _join(_fold(spread, out, rows // shards, block))


def _neighbour_sums(graph: NeighbourGraph, evidence: jax.Array, block: int) -> jax.Array:
    """S [Qbar_R, its row sums]: [N_I, E + 1]."""
    values = _with_mass(evidence)
    seeds, rows = graph.seeds, graph.images.indices.shape[0]

    # What each step brings to the seeds is kept for the seeds' rows only; Horner's rule then needs one array a side.
    def towards(values: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        values = _walk(graph.reports, values, block)
        return values, values[seeds.reports]

    def onwards(total: jax.Array, stop: jax.Array) -> tuple[jax.Array, None]:
        return graph.alpha * _walk(graph.images, arrive(total, stop), block), None

    def arrive(total: jax.Array, stop: jax.Array) -> jax.Array:
        return total.at[seeds.images].add(seeds.weights[:, None] * stop)

    _, stops = lax.scan(towards, values, None, length=graph.order)
    dtype = jnp.promote_types(values.dtype, graph.alpha.dtype)
    total, _ = lax.scan(onwards, jnp.zeros((rows, values.shape[1]), dtype), stops, reverse=True)
    return (1.0 - graph.alpha) * arrive(total, values[seeds.reports])


@jax.jit
def relations_between(graph: Graph, image_rows: jax.Array, report_rows: jax.Array) -> jax.Array:
    """S[image_rows, report_rows], for the images and reports of a batch: what a soft contrastive loss needs.

    Through anchors the cost is O(B K^2) and, for the seeds, O(N + P); over neighbours that of propagating B columns
    over all items, which is much for every step of a training. `evidence.sharpen` makes targets of the rows, and of
    the rows of the transpose.

    Args:
      image_rows: int [A]; report_rows: int [B]; a negative one is padding, and its relations are 0. Rows may repeat.

    Returns:
      float32 [A, B], >= 0.
    """
    seeds = graph.seeds
    if isinstance(graph, AnchorGraph):
        counts = graph.images.shape[0], graph.reports.shape[0]
        left, right = _gather(graph.images, image_rows), _gather(graph.reports, report_rows)
        related = _matmul("ak,kl,bl->ab", left, graph.factor, right)
        return related + (1.0 - graph.alpha) * _seeds_between(seeds, image_rows, report_rows, counts)

    def start(side: Neighbours, rows: jax.Array) -> jax.Array:
        columns = jnp.arange(rows.shape[0])
        one_hot = jnp.zeros((side.indices.shape[0], rows.shape[0]), side.weights.dtype)
        return one_hot.at[jnp.maximum(rows, 0), columns].set((rows >= 0).astype(one_hot.dtype))

    images = dataclasses.replace(graph.images, left=graph.images.right, right=graph.images.left)
    left, right = start(images, image_rows), start(graph.reports, report_rows)

    def meet(left: jax.Array, right: jax.Array) -> jax.Array:
        return _matmul("p,pa,pb->ab", seeds.weights, left[seeds.images], right[seeds.reports])

    def step(number: Any, carry: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        left, right, related = carry
        left, right = _walk(images, left, _BLOCK), _walk(graph.reports, right, _BLOCK)
        return left, right, related + graph.alpha**number * meet(left, right)

    _, _, related = lax.fori_loop(1, graph.order + 1, step, (left, right, meet(left, right)))
    return (1.0 - graph.alpha) * related


def _seeds_between(seeds: Seeds, image_rows: jax.Array, report_rows: jax.Array, counts: tuple[int, int]) -> jax.Array:
    """S0[image_rows, report_rows]: every seed looks up where its two ends lie in the batch, if they do."""

    def place(rows: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
        size = rows.shape[0]
        # Padding and items outside the batch share the place behind the batch. A repeated row has one place of its
        # several, which all of them then read.
        where = jnp.full(count + 1, size).at[jnp.where(rows >= 0, rows, count)].set(jnp.arange(size))
        where = where.at[count].set(size)
        return where, where[jnp.where(rows >= 0, rows, count)]

    (image_place, mine), (report_place, theirs) = place(image_rows, counts[0]), place(report_rows, counts[1])
    table = jnp.zeros((image_rows.shape[0] + 1, report_rows.shape[0] + 1), seeds.weights.dtype)
    table = table.at[image_place[seeds.images], report_place[seeds.reports]].add(seeds.weights)
    inside = (image_rows >= 0)[:, None] & (report_rows >= 0)[None, :]
    return jnp.where(inside, table[mine][:, theirs], 0.0)


def confidence_weight(confidence: jax.Array, *, low: float = 0.0, high: float = 1.0, power: float = 1.0) -> jax.Array:
    """Weights of pseudo-targets in a loss from their confidence: clip((c - low) / (high - low), 0, 1)^power (ours).

    Confidences of unpaired items are at most alpha - alpha^(T+1) and usually far smaller: take `low` and `high` from
    their quantiles.

    Args:
      confidence: any shape, >= 0. low < high; power > 0.

    Returns:
      float32 of that shape, in [0, 1].

    Raises:
      ValueError: low >= high or power <= 0.
    """
    if not low < high or power <= 0:
        raise ValueError(f"low < high and power > 0 are needed, not {low}, {high} and {power}")
    return jnp.clip((as_float(confidence) - low) / (high - low), 0.0, 1.0) ** power


def relation_graph(kind: str, seeds: Seeds, images: jax.Array, reports: jax.Array, *, alpha: float, order: int,
                   key: jax.Array | None = None, num_landmarks: int = 1024, steps: int = 10, top: int | None = 32,
                   neighbours: int = 16, scaling: str = "balanced", temperature: float = 0.1,
                   image_mask: jax.Array | None = None, report_mask: jax.Array | None = None,
                   shards: int = 1) -> Graph:
    """A graph from the instance features of both sides, by name.

    Args:
      kind: "anchors" (`landmarks`, `assign_to_landmarks`, `anchor_graph`) or "knn" (`find_neighbours`,
        `link_neighbours`, `neighbour_graph`).
      seeds: of `seed_edges`; images: [N_I, D_I]; reports: [N_R, D_R]; alpha, order: as for `anchor_graph`.
      key: PRNG key of the landmarks. num_landmarks (at most the rows of a side), steps, top, shards: for anchors.
      neighbours (k, at most the other rows of a side), scaling: for "knn". temperature: for both.
      image_mask, report_mask: bool [N_I], [N_R], rows that exist.

    Raises:
      ValueError: unknown kind, anchors without a key, or what the functions above refuse.
    """
    if kind not in GRAPHS:
        raise ValueError(f"unknown graph {kind!r}; known: {', '.join(GRAPHS)}")
    sides = ((images, image_mask), (reports, report_mask))
    if kind == "knn":
        linked = []
        for features, mask in sides:
            found = find_neighbours(features, k=min(neighbours, features.shape[0] - 1), mask=mask)
            linked.append(link_neighbours(*found, temperature=temperature, scaling=scaling))
        return neighbour_graph(seeds, *linked, alpha=alpha, order=order)
    if key is None:
        raise ValueError("anchors need a key, from which their landmarks are drawn")
    assigned = []
    for side_key, (features, mask) in zip(jax.random.split(key), sides, strict=True):
        num = min(num_landmarks, features.shape[0])
        centres = landmarks(side_key, features, num, mask=mask, steps=steps, shards=shards)
        assigned.append(assign_to_landmarks(features, centres, temperature=temperature, mask=mask, shards=shards,
                                            top=None if top is None else min(top, num)))
    return anchor_graph(seeds, *assigned, alpha=alpha, order=order, shards=shards)
