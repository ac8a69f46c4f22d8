"""The training step of a config on the device at hand, beside the bound of its compiled program.

    python -m benchmarks.speed.device_step --config=configs/lgdea_mimic.py --out=step.json
    python -m benchmarks.speed.device_step --config=configs/clip_mimic.py --out=step.json --config.batch.pairs=64

The keys of the config are those of docs/reference/configuration.md.

The step is training's own, with random parameters and a made-up batch that lies on the device: no data set is read.
Compiling is timed apart. A turn is some steps in a row, read after the last; the median turn counts. MFU counts the
products that the step needs (nothing that is computed twice to save memory); the bound is that of the dry run
(`lgdea_jax.training.aot`). On a device without a row in `runtime/devices.py`, such as a CPU, there is neither.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lgdea_jax import cli
from lgdea_jax.experiment import Experiment
from lgdea_jax.runtime import devices, host_memory, sharding
from lgdea_jax.training import dry_run
from lgdea_jax.training.aot import hlo, report


def measure(config: Any, *, turns: int, steps: int) -> dict[str, Any]:
    """Seconds of a step of `config`, its share of the peak, and the bound of the program that ran."""
    mesh = sharding.make_mesh(**config.mesh)
    experiment = Experiment.of(config, mesh)
    step = dry_run.trace(experiment, mesh)
    needed = report.needed_flops(config, mesh, step.traced) / mesh.size
    start = time.perf_counter()
    compiled = step.traced.lower().compile()
    compile_seconds = time.perf_counter() - start
    state = step.parts.initial()
    batch = jax.tree.map(lambda leaf: jax.device_put(np.ones(leaf.shape, leaf.dtype), leaf.sharding), step.batch)
    seconds = []
    for _ in range(turns + 1):  # The first turn warms up.
        start = time.perf_counter()
        for _ in range(steps):
            state, metrics = compiled(state, batch)
        jax.block_until_ready((state, metrics))
        seconds.append((time.perf_counter() - start) / steps)
    median, kind = statistics.median(seconds[1:]), mesh.devices.flat[0].device_kind
    stats = jax.local_devices()[0].memory_stats() or {}
    found = {"device": sharding.describe(mesh), "rows": step.rows, "versions": report.versions(),
             "seconds": median, "all_seconds": seconds[1:], "compile_seconds": compile_seconds,
             "needed_flops": needed, "peak_memory": stats.get("peak_bytes_in_use", 0)}
    if device := devices.of_kind(kind):
        found |= report.read(hlo.read_program(compiled.as_text()), device, report.attention_sizes(experiment), needed,
                             config.dtype)
        found |= {"measured_mfu": found["mfu"] * found["bound_seconds"] / median,
                  "over_bound": median / found["bound_seconds"]}
    return found


def line(found: dict[str, Any]) -> str:
    """The result in one line."""
    rows = sum(found["rows"].values())
    text = (f"{1000 * found['seconds']:.1f} ms a step, {rows / found['seconds']:,.0f} rows/s, compiled in "
            f"{found['compile_seconds']:.0f} s, {found['peak_memory'] / report.GIB:.1f} GiB at most")
    if "over_bound" in found:
        text += (f", MFU {found['measured_mfu']:.0%} (at most {found['mfu']:.0%}), {found['over_bound']:.2f} x the "
                 f"bound of {1000 * found['bound_seconds']:.1f} ms")
    return text


def main(argv: list[str]) -> int:
    """The command line; returns the exit status."""
    parser = cli.Parser(prog="python -m benchmarks.speed.device_step", description=__doc__)
    parser.add_argument("--config", metavar="FILE", required=True, help="the experiment")
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    parser.add_argument("--turns", type=int, default=7, help="turns that are timed (default: 7)")
    parser.add_argument("--steps", type=int, default=5, help="of a turn (default: 5)")
    if {"-h", "--help"} & set(argv):
        parser.print_help()
        return cli.OK
    config, rest = cli.load_config(argv)
    arguments = parser.parse_args(["--config=read", *rest])
    found = {"command": ["benchmarks.speed.device_step", *argv],
             **measure(config, turns=arguments.turns, steps=arguments.steps)}
    arguments.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(line(found))
    return cli.OK


if __name__ == "__main__":
    host_memory.keep_freed_memory()  # As training does.
    cli.run(main)
