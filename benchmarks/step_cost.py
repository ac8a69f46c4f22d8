"""What a full LGDEA step costs beside a plain two-tower step on the same images and the same phrases.

    python -m benchmarks.step_cost --out=step_cost.json

Both steps read one batch of pairs, unpaired images and unpaired reports of `configs/phantom.py`; the plain one trains
the global image-text loss alone. They take turns in one process; the ratio is that of the medians. The full step reads
its targets from the evidence memory by row, so it is measured with a memory of the data set's size and with one a
hundred times as large. The teacher's refresh is reported apart, and spread over the steps between two refreshes.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from lgdea_jax import cli, sharding
from lgdea_jax.train_data import device_batches, prepare_data
from lgdea_jax.train_state import compile_step, prepare_parts


def prepare(data: Path, weights: dict[str, float] | None, grow: int) -> tuple[Callable[[], None], Any]:
    """(a function that does one step and waits for it, what it is made of).

    Args:
      data: the phantom data set; weights: of the losses, those of the config by default.
      grow: times as many rows in the memory as the data set has items.
    """
    config = cli.read_config("configs/phantom.py")
    config.data.dir, config.data.pairs = str(data), 0.05
    config.batch.images = config.batch.reports = config.batch.pairs
    if weights is not None:
        config.methods.lgdea.weights.update(dict.fromkeys(config.methods.lgdea.weights, 0.0) | weights)
    mesh = sharding.make_mesh(**config.mesh)
    read = prepare_data(config, mesh, show=False)
    parts = prepare_parts(config, read, mesh)
    state = parts.initial()
    if grow > 1:
        state["aux"] = {name: jnp.tile(value, (grow, *[1] * (value.ndim - 1))) for name, value in state["aux"].items()}
        target = {**parts.target, "aux": jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state["aux"])}
        parts = type(parts)(**{**vars(parts), "target": target})
    batches = device_batches(config, mesh, read, 0)
    batch = next(batches)
    batches.close()
    step = compile_step(config, read, parts, batch, mesh)
    held = {"state": state}

    def one() -> None:
        held["state"], metrics = step(held["state"], batch)
        jax.block_until_ready(metrics)

    return one, (parts, held, config)


def seconds(function: Callable[[], Any]) -> float:
    """Of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main(argv: list[str]) -> int:
    """The command line; returns the exit status."""
    parser = cli.Parser(prog="python -m benchmarks.step_cost", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    parser.add_argument("--data", type=Path, default=Path("data/phantom"), help="the phantom data set, made if missing")
    parser.add_argument("--repeats", type=int, default=9, help="turns of each step (default: 9)")
    arguments = parser.parse_args(argv)
    plain, _ = prepare(arguments.data, {"overall": 1.0}, 1)
    full, (parts, held, config) = prepare(arguments.data, None, 1)
    large, _ = prepare(arguments.data, None, 100)
    steps = {"plain": plain, "full": full, "full_100_fold": large}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(arguments.repeats + 1):
        for name, step in steps.items():
            elapsed = seconds(step)
            if turn:  # The first warms up.
                times[name].append(elapsed)
    parts.memory.refresh(held["state"], 0)  # Compiles.
    refresh = seconds(lambda: jax.block_until_ready(parts.memory.refresh(held["state"], 0)))
    median = {name: statistics.median(values) for name, values in times.items()}
    result = {
        "device": jax.devices()[0].device_kind, "repeats": arguments.repeats, "seconds": median,
        "ratio": median["full"] / median["plain"], "ratio_100_fold_memory": median["full_100_fold"] / median["plain"],
        "refresh_seconds": refresh, "refresh_every": config.memory.refresh,
        "ratio_with_refresh": (median["full"] + refresh / config.memory.refresh) / median["plain"],
        "command": ["benchmarks.step_cost", *argv]}
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"plain step {1000 * median['plain']:.0f} ms; full {result['ratio']:.2f} x, with 100 times the memory "
          f"{result['ratio_100_fold_memory']:.2f} x; refresh {refresh:.1f} s every {config.memory.refresh} steps: "
          f"{result['ratio_with_refresh']:.2f} x in all")
    return cli.OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
