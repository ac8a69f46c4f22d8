"""What a full LGDEA step costs beside a plain two-tower step on the same images and the same phrases.

    python -m benchmarks.speed.step_cost --out=step_cost.json
    python -m benchmarks.speed.step_cost --out=step_cost.json --repeats=5 --data=data/phantom

Both steps read one batch of pairs, unpaired images and unpaired reports of `configs/phantom.py`; the plain one trains
the global image-text loss alone. They take turns in one process (`benchmarks.speed.turns`), a few steps in a row each;
the ratio is the median of the turns', with its 95% interval. The full step reads its targets from the evidence memory
by row, so it is measured with a memory of the data set's size and with one a hundred times as large. The teacher's
refresh is reported apart, and spread over the steps between two refreshes.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.speed.turns import Turns, take_turns
from lgdea_jax import cli, train
from lgdea_jax.experiment import Experiment
from lgdea_jax.runtime import host_memory, sharding
from lgdea_jax.training.data import device_batches, prepare_data
from lgdea_jax.training.state import compile_step, prepare_parts


def prepare(data: Path, weights: dict[str, float] | None, grow: int) -> tuple[Callable[[int], None], Any]:
    """(a function that does so many steps and waits for them, what it is made of).

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
    train.make_missing(config.data)
    experiment = Experiment.of(config, mesh)
    read = prepare_data(experiment, mesh, show=False)
    parts = prepare_parts(experiment, read, mesh)
    state = parts.initial()
    if grow > 1:
        state["aux"] = {name: jnp.tile(value, (grow, *[1] * (value.ndim - 1))) for name, value in state["aux"].items()}
        target = {**parts.target, "aux": jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state["aux"])}
        parts = dataclasses.replace(parts, target=target)
    batches = device_batches(experiment, mesh, read, 0)
    batch = next(batches)
    batches.close()
    step = compile_step(experiment, parts, batch, mesh, pad_id=read.tokenizer.pad_id)
    held = {"state": state}

    def run(steps: int) -> None:
        for _ in range(steps):
            held["state"], metrics = step(held["state"], batch)
        jax.block_until_ready((held, metrics))

    return run, (parts, held, config)


def seconds(function: Callable[[], Any]) -> float:
    """Of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main(argv: list[str]) -> int:
    """The command line; returns the exit status."""
    parser = cli.Parser(prog="python -m benchmarks.speed.step_cost", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    parser.add_argument("--data", type=Path, default=Path("data/phantom"), help="the phantom data set, made if missing")
    parser.add_argument("--repeats", type=int, default=15, help="turns of each form (default: 15)")
    parser.add_argument("--steps", type=int, default=2, help="of a turn (default: 2)")
    arguments = parser.parse_args(argv)
    plain, _ = prepare(arguments.data, {"overall": 1.0}, 1)
    full, (parts, held, config) = prepare(arguments.data, None, 1)
    large, _ = prepare(arguments.data, None, 100)
    turns = take_turns({"plain": plain, "full": full, "full_100_fold": large},
                       turns=arguments.repeats, steps=arguments.steps)
    parts.memory.refresh(held["state"], 0)  # Compiles.
    refresh = statistics.median(seconds(lambda: jax.block_until_ready(parts.memory.refresh(held["state"], 0)))
                                for _ in range(3))
    every = config.memory.refresh
    with_refresh = Turns({**turns.seconds, "full": [value + refresh / every for value in turns.seconds["full"]]})
    ratios = {"full": turns.ratio("full", "plain"), "full_100_fold": turns.ratio("full_100_fold", "plain"),
              "full_with_refresh": with_refresh.ratio("full", "plain")}
    result = {
        "device": jax.devices()[0].device_kind, "seconds": {name: turns.median(name) for name in turns.seconds},
        "all_seconds": turns.seconds, "refresh_seconds": refresh, "refresh_every": every,
        "ratio": {name: dataclasses.asdict(ratio) for name, ratio in ratios.items()},
        "command": ["benchmarks.speed.step_cost", *argv]}
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"plain step {1000 * turns.median('plain'):.0f} ms; full {ratios['full']} x, with 100 times the memory "
          f"{ratios['full_100_fold']} x; refresh {refresh:.1f} s every {every} steps: "
          f"{ratios['full_with_refresh']} x in all")
    return cli.OK


if __name__ == "__main__":
    host_memory.keep_freed_memory()  # As training does.
    cli.run(main)
