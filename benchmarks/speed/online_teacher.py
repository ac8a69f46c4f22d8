"""What learning from unpaired images costs: the teacher in the step, the size of the data set, the relations' rebuild.

    python -m benchmarks.speed.online_teacher --out=online_teacher.json
    python -m benchmarks.speed.online_teacher --out=online_teacher.json --paper

Three steps of `configs/phantom.py:limited` on one batch take turns in one process (`benchmarks.speed.turns`): with the
teacher, the same rows without it (no loss reads targets then), and with a memory of a million items. Ratios are medians
over turns with their 95% intervals. The rebuild of the relations is timed at `--images` and `--reports` rows of the
width of `configs/lgdea_mimic.py`; with `--paper` its step is timed too, with `--pairs` pairs a batch and scaled to the
config's, which gives the share of the time that rebuilds take (some 10 GB of memory and minutes on a laptop).
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.speed.turns import take_turns
from lgdea_jax import cli, train
from lgdea_jax.data.batch import empty
from lgdea_jax.experiment import Experiment
from lgdea_jax.runtime import host_memory, sharding
from lgdea_jax.training.data import device_batches, prepare_data
from lgdea_jax.training.evidence_memory import SIDES, EvidenceMemory, MemoryOptions
from lgdea_jax.training.state import compile_step, make_memory, make_parts, prepare_parts

LARGE = 1_000_000
VOCABULARY, LABELS = 30_522, 14


def runner(step: Any, state: Any, batch: Any) -> Callable[[int], None]:
    """A function that does so many steps and waits for them."""
    held = {"state": state}

    def run(steps: int) -> None:
        for _ in range(steps):
            held["state"], metrics = step(held["state"], batch)
        jax.block_until_ready((held, metrics))

    return run


def phantom_step(data: Path, *, teacher: bool = True, items: int = 0) -> Callable[[int], None]:
    """A step on the phantom data set; `items`: rows of each side of the memory, those of the data set by default."""
    config, _ = cli.load_config(["--config=configs/phantom.py:limited", f"--config.data.dir={data}",
                                 "--config.data.pairs=0.05"])
    if not teacher:
        config.methods.lgdea.weights.evid_image = 0.0
    mesh = sharding.make_mesh(**config.mesh)
    train.make_missing(config.data)
    experiment = Experiment.of(config, mesh)
    read = prepare_data(experiment, mesh, show=False)
    parts = prepare_parts(experiment, read, mesh)
    if items:
        sizes = {"vocab_size": read.tokenizer.vocab_size, "num_labels": len(read.label_names)}
        memory = dataclasses.replace(parts.memory, images=items, reports=items)
        parts = make_parts(experiment, mesh, *experiment.model.abstract(**sizes), sizes, memory=memory)
    batches = device_batches(experiment, mesh, read, 0)
    batch = next(batches)
    batches.close()
    return runner(compile_step(experiment, parts, batch, mesh, pad_id=read.tokenizer.pad_id), parts.initial(), batch)


def seconds(function: Callable[[], Any], repeats: int) -> float:
    """The fastest of `repeats` calls, after one that compiles."""
    jax.block_until_ready(function())
    tries = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(function())
        tries.append(time.perf_counter() - start)
    return min(tries)


def rebuild_seconds(images: int, reports: int, repeats: int) -> float:
    """Of one rebuild with the options of `configs/lgdea_mimic.py`, from random rows that were all visited."""
    config, _ = cli.load_config(["--config=configs/lgdea_mimic.py:limited"])
    experiment = Experiment.of(config)
    memory = EvidenceMemory(options=MemoryOptions.of(experiment), num_pairs=images // 20, images=images,
                            reports=reports, prototypes=experiment.model.prototypes, width=experiment.model.width)
    aux = jax.jit(memory.blank)()
    for number, side in enumerate(SIDES):
        keys, shapes = jax.random.split(jax.random.key(number)), aux[side]
        aux[side] = {"evidence": jax.nn.softmax(3 * jax.random.normal(keys[0], shapes["evidence"].shape)),
                     "features": jax.random.normal(keys[1], shapes["features"].shape),
                     "visited": jnp.ones_like(shapes["visited"])}
    rebuild = jax.jit(memory.rebuild)
    return seconds(lambda: rebuild(aux), repeats)


def paper_step_seconds(pairs: int) -> float:
    """Of a step of `configs/lgdea_mimic.py:limited` on this machine, measured with `pairs` pairs and scaled."""
    config, _ = cli.load_config(["--config=configs/lgdea_mimic.py:limited", "--config.model.image.weights=",
                                 "--config.model.text.weights=", "--config.text.tokenizer=",
                                 f"--config.batch.pairs={pairs}", "--config.dtype=float32"])
    whole = cli.load_config(["--config=configs/lgdea_mimic.py:limited"])[0].batch.pairs
    mesh = sharding.make_mesh(**config.mesh)
    experiment = Experiment.of(config, mesh)
    sizes = {"vocab_size": VOCABULARY, "num_labels": LABELS}
    rows = {"pairs": pairs, "images": round(config.batch.images_per_pair * pairs),
            "reports": round(config.batch.reports_per_pair * pairs)}
    memory = make_memory(experiment, rows, {"pairs": 100, "images": 1000, "reports": 1000}, mesh)
    parts = make_parts(experiment, mesh, *experiment.model.abstract(**sizes), sizes, memory=memory)
    batch = {stream: {name: np.ones_like(array) for name, array in empty(
        experiment.batch_schema(LABELS).batch_fields(stream), count).items()} for stream, count in rows.items()}
    batch = sharding.put_batch(batch, mesh)
    run = runner(compile_step(experiment, parts, batch, mesh, pad_id=0), parts.initial(), batch)
    return seconds(lambda: run(1), 2) * whole / pairs


def main(argv: list[str]) -> int:
    """The command line; returns the exit status."""
    parser = cli.Parser(prog="python -m benchmarks.speed.online_teacher", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    parser.add_argument("--data", type=Path, default=Path("data/phantom"), help="the phantom data set, made if missing")
    parser.add_argument("--repeats", type=int, default=15, help="turns of each form (default: 15)")
    parser.add_argument("--steps", type=int, default=2, help="of a turn (default: 2)")
    parser.add_argument("--images", type=int, default=377_000, help="rows of the rebuild (default: 377,000)")
    parser.add_argument("--reports", type=int, default=227_000, help="likewise (default: 227,000)")
    parser.add_argument("--large", type=int, default=LARGE, help=f"rows of the large memory (default: {LARGE:,})")
    parser.add_argument("--paper", action="store_true", help="time a step of configs/lgdea_mimic.py too")
    parser.add_argument("--pairs", type=int, default=4, help="of its batch, scaled to the config's (default: 4)")
    arguments = parser.parse_args(argv)
    forms = {"teacher": phantom_step(arguments.data), "without": phantom_step(arguments.data, teacher=False),
             "small": phantom_step(arguments.data, items=10_000),
             "large": phantom_step(arguments.data, items=arguments.large)}
    turns = take_turns(forms, turns=arguments.repeats, steps=arguments.steps)
    ratios = {"teacher": turns.ratio("teacher", "without"), "size": turns.ratio("large", "small")}
    del forms
    result: dict[str, Any] = {
        "device": jax.devices()[0].device_kind, "seconds": {name: turns.median(name) for name in turns.seconds},
        "all_seconds": turns.seconds, "ratio": {name: dataclasses.asdict(ratio) for name, ratio in ratios.items()},
        "rebuild_seconds": rebuild_seconds(arguments.images, arguments.reports, 3),
        "images": arguments.images, "reports": arguments.reports,
        "command": ["benchmarks.speed.online_teacher", *argv]}
    text = (f"step with the teacher {1000 * turns.median('teacher'):.0f} ms, {ratios['teacher']} x the step without; "
            f"with {arguments.large:,} items {ratios['size']} x that with 10,000; a rebuild over {arguments.images:,} "
            f"images and {arguments.reports:,} reports {result['rebuild_seconds']:.1f} s")
    if arguments.paper:
        every = cli.load_config(["--config=configs/lgdea_mimic.py:limited"])[0].memory.graph_every
        result["paper_step_seconds"] = paper_step_seconds(arguments.pairs)
        result["rebuild_share"] = result["rebuild_seconds"] / (every * result["paper_step_seconds"])
        text += (f", {result['rebuild_share']:.2%} of the time of {every} steps of "
                 f"{result['paper_step_seconds']:.0f} s on this machine")
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(text)
    return cli.OK


if __name__ == "__main__":
    host_memory.keep_freed_memory()  # As training does.
    cli.run(main)
