"""Prints what the compiled step of eight devices moves and makes, as JSON on the last line.

    python tests/runtime/mesh_program.py [KEY=VALUE...]

The tiny `lgdea` with 64 pairs, 16 unpaired images and 16 unpaired reports; nothing is run. `permutes` and `swaps` count
collective permutations and all-to-alls; `vocabulary` counts the instructions, parameters and what hands them on apart,
whose result has the shape of the words' embedding.
"""

import json
import re
import sys

from lgdea_jax import cli
from lgdea_jax.experiment import Experiment
from lgdea_jax.runtime import sharding
from lgdea_jax.training.data import batch_sizes
from lgdea_jax.training.dry_run import abstract_batch
from lgdea_jax.training.state import compile_step, make_memory, make_parts

VOCABULARY, LABELS = 997, 3


def main(flags):
    """Compiles and counts."""
    config = cli.read_config("tests/training/tiny.py:lgdea")
    config.batch.pairs, config.batch.images, config.batch.reports = 64, 16, 16
    config.methods.lgdea.weights.evid_report, config.methods.lgdea.weights.evid_align = 0.2, 0.1
    for flag in flags:
        cli.set_override(config, *flag.split("=", 1))
    mesh = sharding.make_mesh(**config.mesh)
    experiment = Experiment.of(config, mesh)
    made = {"vocab_size": VOCABULARY, "num_labels": LABELS}
    sizes = batch_sizes(experiment, mesh)
    memory = make_memory(experiment, sizes, {"pairs": 100, "images": 300, "reports": 300}, mesh)
    parts = make_parts(experiment, mesh, *experiment.model.abstract(**made), made, memory=memory)
    batch = abstract_batch(experiment.batch_schema(LABELS), sizes, mesh)
    program = compile_step(experiment, parts, batch, mesh, pad_id=0).as_text()
    words = [name for name in re.findall(rf" = f32\[{VOCABULARY},\d+\]\S* ([\w-]+)\(", program)
             if name not in ("parameter", "get-tuple-element", "bitcast", "copy")]
    print(json.dumps({"devices": mesh.size, "permutes": len(re.findall(r" collective-permute(?:-start)?\(", program)),
                      "swaps": len(re.findall(r" all-to-all\(", program)), "vocabulary": sorted(words)}))


if __name__ == "__main__":
    main(sys.argv[1:])
