"""Relations of a graph, whichever kind it is: targets of images and of reports, and the relations of a batch.

`relation_graph` makes a graph from instance features; the others take it. See `relations` for the formula.
"""

from __future__ import annotations

import dataclasses
import functools

import jax

from lgdea_jax.relations.anchors import (
    AnchorGraph,
    anchor_graph,
    anchor_relations,
    anchor_targets,
    assign_to_landmarks,
    landmarks,
)
from lgdea_jax.relations.neighbours import (
    NeighbourGraph,
    Neighbours,
    find_neighbours,
    link_neighbours,
    neighbour_graph,
    neighbour_relations,
    neighbour_targets,
)
from lgdea_jax.relations.rows import BLOCK
from lgdea_jax.relations.seeds import Seeds

GRAPHS = ("anchors", "knn")
Graph = AnchorGraph | NeighbourGraph


def flip(graph: Graph) -> Graph:
    """The graph with images and reports exchanged: its S is the transpose."""
    seeds = Seeds(graph.seeds.reports, graph.seeds.images, graph.seeds.weights)
    if isinstance(graph, AnchorGraph):
        return AnchorGraph(seeds, graph.reports, graph.images, graph.factor.T, graph.alpha)

    def transpose(side: Neighbours) -> Neighbours:
        return dataclasses.replace(side, left=side.right, right=side.left)

    return NeighbourGraph(seeds, transpose(graph.reports), transpose(graph.images), graph.alpha, graph.order)


@functools.partial(jax.jit, static_argnames=("block", "shards"))
def image_targets(graph: Graph, evidence: jax.Array, *, block: int = BLOCK,
                  shards: int = 1) -> tuple[jax.Array, jax.Array]:
    """Target evidence of every image, (S Qbar_R) / rowsum(S), and its confidence, rowsum(S).

    Args:
      graph: of `anchor_graph` or `neighbour_graph`.
      evidence: Qbar_R [N_R, E], rows sum to 1, or to 0 in reports without evidence: those relate nothing, and do not
        count in the confidence either.
      block: rows (over neighbours: edges) at a time. shards: see `relations`; used by anchors.

    Returns:
      (targets float32 [N_I, E], rows sum to 1, or to 0 where nothing is related; confidence float32 [N_I], in [0, 1],
      usually well below: see `relations`).

    Raises:
      ValueError: evidence of another number of reports, or rows that do not divide into `shards`.
    """
    side = graph.reports if isinstance(graph, AnchorGraph) else graph.reports.indices
    if evidence.shape[0] != side.shape[0]:
        raise ValueError(f"evidence of {evidence.shape[0]} rows for a side of {side.shape[0]}")
    if isinstance(graph, NeighbourGraph):
        return neighbour_targets(graph, evidence, block)
    return anchor_targets(graph, evidence, block, shards)


@functools.partial(jax.jit, static_argnames=("block", "shards"))
def report_targets(graph: Graph, evidence: jax.Array, *, block: int = BLOCK,
                   shards: int = 1) -> tuple[jax.Array, jax.Array]:
    """The mirror of `image_targets`: from Qbar_I [N_I, E], (S^T Qbar_I) / colsum(S) [N_R, E] and colsum(S) [N_R]."""
    return image_targets(flip(graph), evidence, block=block, shards=shards)


@jax.jit
def relations_between(graph: Graph, image_rows: jax.Array, report_rows: jax.Array) -> jax.Array:
    """S[image_rows, report_rows], for the images and reports of a batch: what a soft contrastive loss needs.

    Through anchors the cost is O(B K^2) and, for the seeds, O(N + P); over neighbours that of propagating B columns
    over all items, which is much for every step of a training. `targets.sharpen` makes targets of the rows, and of
    the rows of the transpose.

    Args:
      image_rows: int [A]; report_rows: int [B]; a negative one is padding, and its relations are 0. Rows may repeat.

    Returns:
      float32 [A, B], >= 0.
    """
    between = anchor_relations if isinstance(graph, AnchorGraph) else neighbour_relations
    return between(graph, image_rows, report_rows)


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
