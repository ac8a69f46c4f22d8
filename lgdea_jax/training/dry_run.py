"""What a training would cost on the devices at hand, without reading data: memory, FLOPs and time of a step.

    python -m lgdea_jax.train --config=configs/lgdea_mimic.py --workdir=RUN --config.dry_run=true

The step is compiled for the mesh as training would compile it, and not run; nothing is written. For devices that are
not at hand see `lgdea_jax.training.aot`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lgdea_jax.data.batch import BatchSchema
from lgdea_jax.experiment import Experiment
from lgdea_jax.preprocess.text import TextTokenizer
from lgdea_jax.runtime import sharding
from lgdea_jax.runtime.devices import DEVICES, TERA, of_kind
from lgdea_jax.training.data import batch_sizes
from lgdea_jax.training.state import Parts, compiler_options, make_memory, make_parts, trace_step

# Known from the data only, and assumed here: the vocabulary of BERT, and the number of labels of CheXpert.
ASSUMED_VOCABULARY, ASSUMED_LABELS = 30_522, 14
# Items of MIMIC-CXR's size at 5% of the pairs, for the rows of the evidence memory.
ASSUMED_ITEMS = {"pairs": 18_850, "images": 358_150, "reports": 208_150}
MFU = 0.4
GIB = 2.0**30
# Of the device that the time is given for where the one at hand has no known peak.
FALLBACK = next(device for device in DEVICES if device.name == "h100")


def abstract_batch(schema: BatchSchema, sizes: Mapping[str, int], mesh: Mesh) -> dict[str, dict[str, Any]]:
    """A batch as `jax.ShapeDtypeStruct`s, split over the devices.

    Args:
      schema: what a batch holds; sizes: rows of each stream, 0 leaves it out.
    """
    split = NamedSharding(mesh, PartitionSpec(sharding.BATCH_AXES))
    return {stream: {name: jax.ShapeDtypeStruct((rows, *field.shape), field.dtype, sharding=split)
                     for name, field in schema.batch_fields(stream).items()} for stream, rows in sizes.items() if rows}


@dataclasses.dataclass(frozen=True)
class AbstractStep:
    """A step without data or parameters.

    Attributes:
      traced: a `jax.stages.Traced`; options: to compile it with; parts: what it is made of.
      batch: shapes of what it reads.
      rows: of each stream in a batch; assumed: lines on what only data would tell.
    """

    traced: Any
    options: dict[str, bool]
    parts: Parts
    batch: dict[str, dict[str, Any]]
    rows: dict[str, int]
    assumed: list[str]


def trace(experiment: Experiment, mesh: Mesh) -> AbstractStep:
    """The step as training would trace it.

    Args:
      experiment: what would be trained.
      mesh: of devices, which need not be at hand.

    Raises:
      UserError: sizes or names that do not go together.
    """
    config = experiment.config
    rows = batch_sizes(experiment, mesh)
    known = bool(config.text.tokenizer) and Path(config.text.tokenizer).exists()
    tokenizer = TextTokenizer.load(config.text.tokenizer) if known else None
    sizes = {"vocab_size": tokenizer.vocab_size if tokenizer else ASSUMED_VOCABULARY, "num_labels": ASSUMED_LABELS}
    graphdef, shapes = experiment.model.abstract(**sizes)
    memory = make_memory(experiment, rows, ASSUMED_ITEMS, mesh)
    parts = make_parts(experiment, mesh, graphdef, shapes, sizes, memory=memory)
    batch = abstract_batch(experiment.batch_schema(ASSUMED_LABELS), rows, mesh)
    traced = trace_step(experiment, parts, batch, mesh, pad_id=tokenizer.pad_id if tokenizer else 0)
    lines = []
    if experiment.text and not tokenizer:
        lines.append(f"  vocabulary assumed: {ASSUMED_VOCABULARY:,} tokens")
    if memory and memory.has_rows:
        held = memory.row_bytes() * (memory.rows("images") + memory.rows("reports")) / mesh.size
        lines.append(f"  evidence memory of a device: {held / GIB:.2f} GiB for {memory.images:,} images and "
                     f"{memory.reports:,} reports (assumed), {memory.row_bytes():,} bytes an item")
    return AbstractStep(traced, compiler_options(experiment, mesh), parts, batch, rows, lines)


def rows_line(rows: Mapping[str, int]) -> str:
    """ "384 rows a step (256 pairs, 128 images)": a batch, for people."""
    return f"{sum(rows.values())} rows a step ({', '.join(f'{n} {s}' for s, n in rows.items() if n)})"


def dry_run(experiment: Experiment, mesh: Mesh) -> list[str]:
    """Compiles the step for the devices at hand and returns what it costs, as lines for the log.

    Arguments and errors as of `trace`.
    """
    step = trace(experiment, mesh)
    return [f"dry run: {sharding.describe(mesh)}; {rows_line(step.rows)}", *step.assumed,
            *costs(step.traced.lower().compile(step.options), experiment.config, rows=sum(step.rows.values()))]


def costs(compiled: Any, config: Any, *, rows: int) -> list[str]:
    """Memory of a device, FLOPs and time of a step, as text.

    Args:
      compiled: the step.
      config: for the number of steps and the peak of the device.
      rows: of a batch.
    """
    lines = []
    memory = compiled.memory_analysis()
    if memory is not None:
        held, work = memory.argument_size_in_bytes, memory.temp_size_in_bytes
        lines.append(f"  memory of a device: {(held + work) / GIB:.2f} GiB ({held / GIB:.2f} state and batch, "
                     f"{work / GIB:.2f} for the step)")
    flops = float((compiled.cost_analysis() or {}).get("flops", 0.0))
    if flops:
        device = of_kind(jax.local_devices()[0].device_kind) or FALLBACK
        peak = config.log.peak_tflops or device.peaks["bf16"] / TERA
        seconds = flops / (MFU * peak * 1e12)
        where = f"{peak:g} TFLOP/s" + ("" if config.log.peak_tflops else f" ({device.kind})")
        lines.append(f"  FLOPs of a step and device: {flops:.3g}")
        lines.append(f"  time at {MFU:.0%} of {where}: {1000 * seconds:.1f} ms a step, {rows / seconds:,.0f} rows/s, "
                     f"{config.total_steps * seconds / 3600:.2f} hours for {config.total_steps:,} steps")
    return lines
