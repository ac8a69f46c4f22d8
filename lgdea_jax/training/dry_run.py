"""What a training would cost on the devices at hand, without reading data: memory, FLOPs and time of a step.

    python -m lgdea_jax.train --config=configs/lgdea_mimic.py --workdir=RUN --config.dry_run=true

The step is compiled for the mesh as training would compile it, and not run; nothing is written.
"""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lgdea_jax import experiment
from lgdea_jax.preprocess.image_spec import input_dtype, input_shape
from lgdea_jax.preprocess.text import TextTokenizer
from lgdea_jax.runtime import sharding
from lgdea_jax.runtime.log import PEAK_TFLOPS
from lgdea_jax.training import data, evidence_memory, optim, step
from lgdea_jax.training import state as train_state

# What nothing but the data could tell: the vocabulary of BERT, and the labels of CheXpert.
ASSUMED_VOCABULARY, ASSUMED_LABELS = 30_522, 14
MFU = 0.4
GIB = 2.0**30
# Of the device that the time is given for where the one at hand has no known peak.
FALLBACK = "NVIDIA H100"


def batch_shapes(config: Any, sizes: dict[str, int], *, method: experiment.Method,
                 num_labels: int) -> dict[str, dict[str, Any]]:
    """Shapes and dtypes of a batch of `data.pipeline`, by stream.

    Args:
      config: the experiment's config.
      sizes: rows of each stream.
      method: the config's.
      num_labels: of the data sets.
    """
    spec, phrases, text = experiment.image_spec(config), config.text.phrases, method.text
    shapes: dict[str, dict[str, Any]] = {}
    for stream, rows in sizes.items():
        if not rows:
            continue
        fields: dict[str, tuple[tuple[int, ...], Any]] = {
            "index": ((), jnp.int32), "study": ((), jnp.int32), "labels": ((num_labels,), jnp.int8)}
        if stream != "reports":
            fields["image"] = (input_shape(spec), input_dtype(spec))
        if stream != "images" and text:
            length = config.text.length[text]
            fields |= {"tokens": ((phrases, length) if text == "phrases" else (length,), jnp.int32),
                       "weight": ((phrases,), jnp.float32), "finding": ((phrases,), jnp.int32),
                       "normal": ((), jnp.bool_)}
        if stream == "pairs" and method.reads_places:
            fields |= {"region": ((phrases, 4), jnp.float32), "frame": ((2, 3), jnp.float32)}
        shapes[stream] = {name: jax.ShapeDtypeStruct((rows, *shape), dtype) for name, (shape, dtype) in fields.items()}
    return shapes


def aux_shapes(config: Any) -> dict[str, Any]:
    """What the method keeps beside the parameters (`state["aux"]`); nothing for most methods."""
    if not experiment.load_method(config).targets:
        return {}
    # As if every stream held one block: the memory is small beside the rest.
    rows = config.memory.block
    return evidence_memory.blank(rows, rows, config.model.prototypes)


def dry_run(config: Any, mesh: Mesh) -> list[str]:
    """Compiles the step and says what it costs.

    Args:
      config: see configs/common.py.
      mesh: of the devices at hand.

    Returns:
      Lines for the log.

    Raises:
      UserError: sizes or names that do not go together.
    """
    method = experiment.load_method(config)
    sizes = data.batch_sizes(config, method, mesh)
    known = bool(config.text.tokenizer) and Path(config.text.tokenizer).exists()
    tokenizer = TextTokenizer.load(config.text.tokenizer) if known else types.SimpleNamespace(
        vocab_size=ASSUMED_VOCABULARY, pad_id=0)
    made = {"vocab_size": tokenizer.vocab_size, "num_labels": ASSUMED_LABELS}
    graphdef, params = experiment.abstract_model(config, **made)
    tx, schedule = experiment.build_optimizer(config, params)
    state = jax.eval_shape(lambda params, aux: step.new_state(params, tx, ema=config.optim.ema > 0, aux=aux),
                           params, aux_shapes(config))
    rates = optim.rates_by_path(params, experiment.rate_rules(config.optim.rates))

    def placed(tree: Any, shardings: Any) -> Any:
        return jax.tree.map(lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), tree,
                            shardings)

    batch = batch_shapes(config, sizes, method=method, num_labels=ASSUMED_LABELS)
    split = NamedSharding(mesh, PartitionSpec(sharding.BATCH_AXES))
    parts = types.SimpleNamespace(graphdef=graphdef, tx=tx, schedule=schedule, rates=rates,
                                  target=placed(state, sharding.tree_shardings(state, mesh)))
    compiled = train_state.compile_step(config, types.SimpleNamespace(tokenizer=tokenizer), parts,
                                        placed(batch, jax.tree.map(lambda _: split, batch)), mesh)
    lines = [f"dry run: {mesh.size} x {jax.local_devices()[0].device_kind}, mesh "
             f"{', '.join(f'{axis} {size}' for axis, size in mesh.shape.items())}; "
             f"{sum(sizes.values())} rows a step ({', '.join(f'{n} {s}' for s, n in sizes.items() if n)})"]
    if not known and method.text:
        lines.append(f"  vocabulary assumed: {ASSUMED_VOCABULARY:,} tokens")
    return [*lines, *costs(compiled, config, rows=sum(sizes.values()))]


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
        kind = jax.local_devices()[0].device_kind
        name = next((name for name in PEAK_TFLOPS if kind.startswith(name)), FALLBACK)
        peak = config.log.peak_tflops or PEAK_TFLOPS[name]
        seconds = flops / (MFU * peak * 1e12)
        where = f"{peak:g} TFLOP/s" + ("" if config.log.peak_tflops else f" ({name})")
        lines.append(f"  FLOPs of a step and device: {flops:.3g}")
        lines.append(f"  time at {MFU:.0%} of {where}: {1000 * seconds:.1f} ms a step, {rows / seconds:,.0f} rows/s, "
                     f"{config.total_steps * seconds / 3600:.2f} hours for {config.total_steps:,} steps")
    return lines
