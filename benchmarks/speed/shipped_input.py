"""The input pipeline of configs/lgdea_mimic.py as it is shipped, in turns with one that does everything each time.

Called by `python -m benchmarks.speed.input_pipeline --only=shipped`. The studies are phantoms of 512 px, built twice by
`data_prep.build`: as configs/data/mimic_cxr.py stores images, and as 512 px PNG. Batches are those of training, images
and phrases, made one after the other in one thread; what is counted is the processor time of the process.

- `shipped`: records at the model's size, kept tokens, images as they are (the step transforms them).
- `each_time`: 512 px PNG, reduced, transformed and tokenised for each batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from benchmarks.speed.turns import take_turns
from data_prep.build import build
from lgdea_jax import cli
from lgdea_jax.experiment import Experiment
from lgdea_jax.runtime import sharding
from lgdea_jax.training.data import prepare_data

EACH_TIME = {"image_size": 512, "image_encoding": "png"}


def make_data(folder: Path, studies: int, image: dict[str, Any]) -> Path:
    """A data set of phantoms of 512 px in `folder`, stored as `image` says."""
    config = cli.read_config("configs/data/phantom.py")
    config.update(image)
    config.phantom.update({"size": 512, "train": studies, "validation": 4, "test": 4})
    build(config, folder, command="")
    return folder


def batches_of(folder: Path, **changes: Any) -> Callable[[int], Any]:
    """Makes so many of the training's batches when called; `changes`: keys of the config, with __ for the dot."""
    config = cli.read_config("configs/lgdea_mimic.py")
    config.data.dir, config.data.near_duplicates = str(folder), "allow"  # Phantoms are much alike.
    config.text.tokenizer = ""  # The data set's own: the published one is not at hand.
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
    experiment = Experiment.of(config)
    mesh = sharding.make_mesh(data=1, fsdp=1, devices=jax.local_devices()[:1])
    batches = iter(range(2**31))
    data = prepare_data(experiment, mesh, show=False)

    def make(steps: int) -> None:
        for _ in range(steps):
            data.batches[next(batches)]

    make.pairs = data.sizes["pairs"]
    return make


def measure(folder: Path, repeats: int, studies: int, steps: int = 1) -> dict[str, Any]:
    """Pairs a second and core of both, and their ratio.

    Args:
      folder: for the data sets; studies: of each.
      repeats: turns; steps: batches in each.
    """
    stored = cli.read_config("configs/data/mimic_cxr.py")
    shipped = {key: stored[key] for key in EACH_TIME}
    functions = {
        "each_time": batches_of(make_data(folder / "each_time", studies, EACH_TIME), data__keep_tokens=False,
                                augment__device=False),
        "shipped": batches_of(make_data(folder / "shipped", studies, shipped))}
    turns = take_turns(functions, turns=repeats, steps=steps, clock=time.process_time)
    ratio = turns.ratio("each_time", "shipped")
    return {"stored": shipped, "seconds_per_batch": turns.seconds, "ratio": vars(ratio), "ratio_text": str(ratio),
            "pairs_per_second": {name: make.pairs / turns.median(name) for name, make in functions.items()}}
