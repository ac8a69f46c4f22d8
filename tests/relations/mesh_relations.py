"""Compares relations of whole arrays with relations of arrays that are split by rows, and prints a JSON summary.

    XLA_FLAGS=--xla_force_host_platform_device_count=8 python tests/relations/mesh_relations.py MESHES

MESHES are DATAxFSDP by commas. Printed: {MESH: {NAME: largest difference}, "gathered": {MESH: {SHARDS: largest
number of elements that one all-gather of the propagation through anchors makes}}, "elements": those of an assignment
matrix}.
"""

import json
import math
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from lgdea_jax.relations.anchors import anchor_graph
from lgdea_jax.relations.graph import image_targets, relation_graph, relations_between, report_targets
from lgdea_jax.relations.seeds import seed_edges
from lgdea_jax.runtime import sharding

N, D, K, TOP, E, PAIRS = 320, 6, 24, 4, 5, 40


def inputs():
    """Features and evidence of both sides, and pairs."""
    rng = np.random.default_rng(0)
    images, reports = rng.normal(size=(2, N, D)).astype(np.float32)
    evidence = rng.dirichlet(np.full(E, 0.5), size=(2, N)).astype(np.float32)
    pairs = rng.permutation(N)[:PAIRS], rng.permutation(N)[:PAIRS]
    return images, reports, evidence[0], evidence[1], seed_edges(*pairs, num_images=N, num_reports=N)


def answers(arrays, shards, top, kind):
    """Everything that is asked of a graph made from features."""
    images, reports, evidence_i, evidence_r, seeds = arrays
    graph = relation_graph(kind, seeds, images, reports, key=jax.random.key(0), alpha=0.6, order=3,
                                     num_landmarks=K, steps=2, top=top, neighbours=TOP, shards=shards)
    rows = jnp.arange(16) * 3 - 1
    return {"image_targets": image_targets(graph, evidence_r, block=16, shards=shards),
            "report_targets": report_targets(graph, evidence_i, block=16, shards=shards),
            "between": relations_between(graph, rows, rows + 1)}


def anchor_targets(seeds, z_i, z_r, evidence_r, shards):
    """Targets from assignments, with rows in several blocks a device."""
    graph = anchor_graph(seeds, z_i, z_r, alpha=0.6, order=3, block=16, shards=shards)
    return image_targets(graph, evidence_r, block=16, shards=shards)


def main(argv):
    """Parses the arguments above."""
    arrays = inputs()
    variants = {"anchors": (None, "anchors"), "sparse": (TOP, "anchors"), "knn": (None, "knn")}
    expected = {name: jax.jit(answers, static_argnums=(1, 2, 3))(arrays, 1, *variant)
                for name, variant in variants.items()}
    table = {"gathered": {}, "elements": N * K}
    for name in argv[0].split(","):
        data, fsdp = map(int, name.split("x"))
        mesh = sharding.make_mesh(data=data, fsdp=fsdp)
        by_rows = NamedSharding(mesh, PartitionSpec(sharding.BATCH_AXES))
        placed = (*(jax.device_put(array, by_rows) for array in arrays[:4]),
                  jax.device_put(arrays[4], NamedSharding(mesh, PartitionSpec())))
        table[name] = {}
        for variant, options in variants.items():
            got = jax.jit(answers, static_argnums=(1, 2, 3))(placed, mesh.size, *options)
            differences = jax.tree.map(lambda a, b: float(np.max(np.abs(np.asarray(a) - np.asarray(b)))), got,
                                       expected[variant])
            table[name][variant] = max(jax.tree.leaves(differences))
        z = jax.device_put(jax.nn.softmax(jnp.ones((N, K))), by_rows)
        table["gathered"][name] = {}
        for shards in (1, mesh.size):
            program = jax.jit(anchor_targets, static_argnums=4).lower(placed[4], z, z, placed[3], shards).compile()
            target, confidence = program(placed[4], z, z, placed[3])
            split = not (target.sharding.is_fully_replicated or confidence.sharding.is_fully_replicated)
            assert split or shards == 1, "with a shard a device, the results are split like the inputs"
            shapes = re.findall(r"= \w+\[([\d,]*)\]\S* all-gather\(", program.as_text())
            sizes = [math.prod(map(int, shape.split(","))) for shape in shapes]
            table["gathered"][name][shards] = max(sizes, default=0)
    print(json.dumps(table))


if __name__ == "__main__":
    main(sys.argv[1:])
