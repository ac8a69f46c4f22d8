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

from lgdea_jax.relations.anchors import (
    assign_to_landmarks,
    landmark_evidence,
    landmarks,
    related_evidence,
    relation_factor,
)
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


def answers(arrays, shards, top):
    """Both directions of a graph made from features."""
    images, reports, evidence_i, evidence_r, seeds = arrays
    sides = []
    for key, features in zip(jax.random.split(jax.random.key(0)), (images, reports), strict=True):
        centres = landmarks(key, features, K, steps=2, shards=shards)
        sides.append(assign_to_landmarks(features, centres, temperature=0.1, top=top, shards=shards))
    factor = relation_factor(seeds, *sides, alpha=0.6, order=3, shards=shards)
    return {"images": related_evidence(sides[0], landmark_evidence(factor, sides[1], evidence_r, block=16,
                                                                   shards=shards)),
            "reports": related_evidence(sides[1], landmark_evidence(factor.T, sides[0], evidence_i, block=16,
                                                                    shards=shards))}


def anchor_targets(seeds, z_i, z_r, evidence_r, shards):
    """Targets from assignments, with rows in several blocks a device."""
    factor = relation_factor(seeds, z_i, z_r, alpha=0.6, order=3, block=16, shards=shards)
    return related_evidence(z_i, landmark_evidence(factor, z_r, evidence_r, block=16, shards=shards))


def main(argv):
    """Parses the arguments above."""
    arrays = inputs()
    variants = {"arrays": None, "sparse": TOP}
    expected = {name: jax.jit(answers, static_argnums=(1, 2))(arrays, 1, top) for name, top in variants.items()}
    table = {"gathered": {}, "elements": N * K}
    for name in argv[0].split(","):
        data, fsdp = map(int, name.split("x"))
        mesh = sharding.make_mesh(data=data, fsdp=fsdp)
        by_rows = NamedSharding(mesh, PartitionSpec(sharding.BATCH_AXES))
        placed = (*(jax.device_put(array, by_rows) for array in arrays[:4]),
                  jax.device_put(arrays[4], NamedSharding(mesh, PartitionSpec())))
        table[name] = {}
        for variant, top in variants.items():
            got = jax.jit(answers, static_argnums=(1, 2))(placed, mesh.size, top)
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
