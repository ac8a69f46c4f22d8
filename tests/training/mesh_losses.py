"""Prints losses and gradients of a few steps for methods and meshes, as JSON on the last line: {METHOD: {MESH: {...}}}.

    python tests/training/mesh_losses.py DATA METHODS MESHES [COORDINATOR NUMBER_OF_PROCESSES PROCESS] [KEY=VALUE...]

METHODS are names by commas; MESHES are DATAxFSDP by commas, for example 8x1,4x2. For each: `losses` of the steps, and
`gradients`: for every parameter that of the first step, over the gradient's global norm.
"""

import json
import sys

import jax
import numpy as np

from lgdea_jax import cli
from lgdea_jax.arrays import flatten
from lgdea_jax.experiment import Experiment, load_method
from lgdea_jax.runtime import sharding
from lgdea_jax.training.data import device_batches, prepare_data
from lgdea_jax.training.state import compile_rebuild, compile_step, prepare_parts

STEPS = 4
BETA1, CLIP_NORM = 0.9, 1.0


def losses(config):
    """Losses and gradients of a config; checks what is split over the devices."""
    mesh = sharding.make_mesh(**config.mesh)
    experiment = Experiment.of(config, mesh)
    data = prepare_data(experiment, mesh, show=False)
    parts = prepare_parts(experiment, data, mesh)
    state, batches = parts.initial(), device_batches(experiment, mesh, data, 0)
    first = next(batches)
    step = compile_step(experiment, parts, first, mesh, pad_id=data.tokenizer.pad_id)
    rebuild, out = compile_rebuild(parts), []
    for number in range(STEPS):
        if rebuild and parts.memory.due(number):
            state["aux"] = rebuild(state["aux"])
        state, metrics = step(state, first if number == 0 else next(batches))
        out.append(float(metrics["loss"]))
        if number == 0:
            gradients = first_gradients(state["opt"], float(metrics["grad_norm"]))
    batches.close()
    for path, leaf in flatten(state["aux"]).items():
        assert len(leaf.sharding.device_set) == mesh.size
        assert mesh.size == 1 or leaf.sharding.is_fully_replicated == path.startswith(("graph/", "means/")), path
    split = any(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state["params"]))
    assert split == (config.mesh.fsdp > 1), "fsdp must split parameters, and nothing else may"
    return {"losses": out, "gradients": gradients}


def first_gradients(opt, norm):
    """The first step's gradients over their global norm, from Adam's first moments."""
    flat = {path: leaf for path, leaf in flatten(opt).items() if "/mu/" in f"/{path}/"}
    assert len(flat) > 4
    moments = sharding.whole_on_host(flat)
    scale = (1 - BETA1) * min(1.0, CLIP_NORM / norm) * norm  # The moments hold (1 - beta1) times the clipped gradient.
    return {path: (np.asarray(moments[path], np.float64) / scale).ravel().tolist() for path in sorted(moments)}


def main(argv):
    """Parses the arguments above."""
    data, methods, meshes, *rest = argv
    hosts, flags = [a for a in rest if "=" not in a], [a for a in rest if "=" in a]
    if hosts:
        sharding.start_hosts(coordinator=hosts[0], num_processes=int(hosts[1]), process_id=int(hosts[2]))
    table = {}
    for method in methods.split(","):
        table[method] = {}
        for mesh in meshes.split(","):
            config = cli.read_config(f"tests/training/tiny.py:{method}")
            config.data.dir, config.data.pairs = data, 0.5
            for stream in load_method(config).streams:
                config.batch[stream] = 8
            config.mesh.data, config.mesh.fsdp = map(int, mesh.split("x"))
            config.optim.warmup_steps, config.optim.rate = 0, 1e-3
            # Steps 2, 3 and 4 have targets, of relations that are made before each of them.
            config.memory.start, config.memory.graph_every, config.memory.truth = 0.15, 1, True
            config.optim.beta1, config.optim.clip_norm = BETA1, CLIP_NORM
            for flag in flags:
                cli.set_override(config, *flag.split("=", 1))
            table[method][mesh] = losses(config)
    print(json.dumps(table))


if __name__ == "__main__":
    main(sys.argv[1:])
