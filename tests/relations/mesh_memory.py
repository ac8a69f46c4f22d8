"""Compiles a training step and a rebuild of the relations over eight devices, and prints what travels between them.

    XLA_FLAGS=--xla_force_host_platform_device_count=8 python tests/relations/mesh_memory.py

Printed as JSON: {"step" and "rebuild": {kind of collective: the most elements of one array in it}, "rows": of the
memory's images, "elements": of their evidence}.
"""

import json
import math
import re

from lgdea_jax import cli
from lgdea_jax.experiment import Experiment
from lgdea_jax.runtime import sharding
from lgdea_jax.training.data import batch_sizes
from lgdea_jax.training.dry_run import abstract_batch
from lgdea_jax.training.state import compile_rebuild, compile_step, make_memory, make_parts

COUNTS = {"pairs": 800, "images": 80_000, "reports": 40_000}
SIZES = {"vocab_size": 100, "num_labels": 3}


def collectives(compiled):
    """{kind: elements of the largest array}."""
    found = {}
    kinds = "all-gather|all-reduce|collective-permute|all-to-all|reduce-scatter"
    for shapes, kind in re.findall(rf"= (.*?) ({kinds})(?:-start)?\(", compiled.as_text()):
        sizes = [math.prod(map(int, shape.split(","))) for shape in re.findall(r"\[([\d,]+)\]", shapes)]
        found[kind] = max([found.get(kind, 0), *sizes])
    return found


def main():
    """Both programs of the tiny `lgdea`, with a memory of many items."""
    config = cli.read_config("tests/training/tiny.py:lgdea")
    config.data.pairs, config.mesh.data, config.methods.lgdea.weights.evid_report = 0.5, 8, 0.2
    mesh = sharding.make_mesh(**config.mesh)
    experiment = Experiment.of(config, mesh)
    rows = batch_sizes(experiment, mesh)
    memory = make_memory(experiment, rows, COUNTS, mesh)
    parts = make_parts(experiment, mesh, *experiment.model.abstract(**SIZES), SIZES, memory=memory)
    batch = abstract_batch(experiment.batch_schema(SIZES["num_labels"]), rows, mesh)
    step = compile_step(experiment, parts, batch, mesh, pad_id=0)
    print(json.dumps({"step": collectives(step), "rebuild": collectives(compile_rebuild(parts)),
                      "rows": memory.rows("images"), "elements": memory.rows("images") * memory.prototypes}))


if __name__ == "__main__":
    main()
