"""What a training step would cost on devices that are not at hand: compiled for them, read, and put into words.

    python -m lgdea_jax.train --config=configs/lgdea_mimic.py --workdir=RUN --config.dry_run_on=h100x8,v5e:4x4

The bound of a step is the sum over the instructions of the compiled program of max(operations / peak, bytes /
bandwidth): no device is faster as long as instructions do not overlap. MFU at the bound counts the products that the
step needs, without what is computed twice to save memory. The time that collectives need between devices is not in it.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import logging
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from lgdea_jax.errors import UserError
from lgdea_jax.experiment import Experiment
from lgdea_jax.runtime import sharding
from lgdea_jax.runtime.devices import TERA, Device
from lgdea_jax.runtime.files import write_text_atomically
from lgdea_jax.training import dry_run
from lgdea_jax.training.aot import costs, flops, hlo, properties, topologies
from lgdea_jax.training.aot.topologies import Target

log = logging.getLogger("lgdea_jax")
FOLDER = "dry_run"
DEAREST = 10
GIB, GB, MB = 2.0**30, 1e9, 1e6
PACKAGES = ("jax", "jaxlib", "libtpu", "jax-cuda12-plugin", "nvidia-cudnn-cu12")


def dry_run_on(config: Any, workdir: Path) -> Iterator[str]:
    """Compiles the step for each of `config.dry_run_on` and yields what it costs, as lines for the log.

    Writes WORKDIR/dry_run/TARGET.json. No device is looked for: everything happens on the CPU.

    Raises:
      UserError: a device that is not known, or whose compiler is not installed; sizes that do not go together.
    """
    targets = topologies.read_targets(config.dry_run_on)
    if lines := [line for target in targets if (line := topologies.missing(target))]:
        raise UserError(lines[0])
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)  # What it holds is loaded onto a device.
    folder = workdir / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for target in targets:
        found = examine(config, target)
        write_text_atomically(folder / f"{target.text.replace(':', '_')}.json",
                              json.dumps(found, indent=1) + "\n")
        yield from describe(found)


def examine(config: Any, target: Target) -> dict[str, Any]:
    """Everything that is known of a step on `target`, as plain values; `does_not_fit` where the compiler refuses.

    Raises:
      UserError: as of `dry_run_on`.
    """
    mesh = sharding.make_mesh(**config.mesh, devices=topologies.devices_of(target))
    experiment = Experiment.of(config, mesh)
    step = dry_run.trace(experiment, mesh)
    found: dict[str, Any] = {"target": target.text, "devices": sharding.describe(mesh), "rows": step.rows,
                             "assumed": step.assumed, "versions": versions(), "dtype": config.dtype,
                             "needed_flops": needed_flops(config, mesh, step.traced) / mesh.size}
    start = time.perf_counter()
    try:
        compiled, options = compile_for(step.traced.lower(), target, step.options)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise UserError(f"dry_run_on={target.text}: the compiler failed: {one_line(error)}") from None
        return {**found, "does_not_fit": does_not_fit(str(error))}
    found |= {"compile_seconds": time.perf_counter() - start, "compiler_options": options}
    program = hlo.read_program(compiled.as_text())
    return {**found, "memory": memory(compiled.memory_analysis(), target.device),
            **read(program, target.device, attention_sizes(experiment), found["needed_flops"], config.dtype)}


def compile_for(lowered: Any, target: Target, own: Mapping[str, bool]) -> tuple[Any, dict[str, Any]]:
    """(the compiled step, the settings that it was compiled with): the first of `topologies.OPTIONS` that compile.

    Args:
      lowered: the step; own: settings that training compiles it with, on top.

    Raises:
      JaxRuntimeError: none does, or the step does not fit the devices.
    """
    *tries, last = ({**options, **own} for options in topologies.OPTIONS[target.device.platform])
    for options in tries:
        try:
            return lowered.compile(compiler_options=options), options
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" in str(error):
                raise
            log.warning("%s: the compiler failed with %s (%s); trying others", target.text, options, one_line(error))
    return lowered.compile(compiler_options=last), last


def one_line(error: BaseException) -> str:
    """The beginning of an error's text."""
    return " ".join(str(error).split())[:200]


def needed_flops(config: Any, mesh: Any, traced: Any) -> int:
    """Operations of a step's products on all devices, nothing computed twice to save memory."""
    if config.model.remat or config.batch.micro > 1:
        config = config.copy_and_resolve_references()
        with config.unlocked():
            config.model.remat, config.batch.micro = False, 1
        traced = dry_run.trace(Experiment.of(config, mesh), mesh).traced
    return flops.needed(traced.jaxpr)


def does_not_fit(message: str) -> str:
    """The compiler's sentence on memory, on one line."""
    found = re.search(r"Used [\d.]+\w+ of [\d.]+\w+ \w+(?:\. Exceeded \w+ capacity by [\d.]+\w+)?", message)
    return found[0] if found else one_line(MemoryError(message))


def memory(stats: Any, device: Device) -> dict[str, float]:
    """Bytes of a device: what the step is given, what it works with, the most at a time, and what the device has."""
    held, work = stats.argument_size_in_bytes, stats.temp_size_in_bytes
    results = stats.output_size_in_bytes - stats.alias_size_in_bytes
    return {"arguments": held, "temporaries": work, "results": results,
            "peak": max(held + work + results, stats.peak_memory_in_bytes), "device": device.memory}


def attention_sizes(experiment: Experiment) -> dict[str, tuple[int, int]]:
    """{tower: (tokens, heads)} of the towers with attention."""
    found = {}
    image, text = experiment.model.image, experiment.model.text
    if image and "patch_size" in image.options:
        found["image"] = ((experiment.image_spec // image.options["patch_size"]) ** 2, image.options["heads"])
    if text:
        found["text"] = (experiment.text.length, text.options["heads"])
    return found


def read(program: hlo.Program, device: Device, towers: Mapping[str, tuple[int, int]], needed: float, dtype: str
         ) -> dict[str, Any]:
    """Costs and properties of a program, as plain values.

    Args:
      towers: of `attention_sizes`; needed: operations of a device; dtype: of the config.
    """
    rows = costs.rows(program, device)
    work: collections.Counter[str] = collections.Counter()
    for row in rows:
        work.update(row.flops)
    seconds, moved = sum(row.seconds for row in rows), sum(row.bytes for row in rows)
    peak = device.peak({"bfloat16": "bf16", "float32": "f32"}[dtype])
    return {
        "flops": dict(work), "bytes": moved, "bound_seconds": seconds,
        "overlapped_seconds": max(sum(count / device.peak(kind) for kind, count in work.items()),
                                  moved / device.bandwidth),
        "mfu": needed / peak / seconds if seconds else 0.0, "peak_tflops": peak / TERA,
        "bandwidth": device.bandwidth, "unknown_loops": costs.unknown_loops(program),
        "dearest": [dataclasses.asdict(line) for line in dearest(program, rows)],
        **properties.summary(program, rows, towers),
    }


@dataclasses.dataclass(frozen=True)
class SourceLine:
    """All instructions of one line of the source: seconds of their bounds, operations, bytes, runs, and an example."""

    line: str
    seconds: float
    flops: int
    bytes: int
    runs: int
    example: str


def dearest(program: hlo.Program, rows: Sequence[costs.Row]) -> list[SourceLine]:
    """The source lines whose instructions bound the step most."""
    by_line: dict[str, list[costs.Row]] = collections.defaultdict(list)
    for row in rows:
        by_line[program.line(row.item, row.computation)].append(row)
    found = []
    for line, some in by_line.items():
        first = max(some, key=lambda row: row.seconds).item
        found.append(SourceLine(
            line, sum(row.seconds for row in some), sum(sum(row.flops.values()) for row in some),
            sum(row.bytes for row in some), sum(row.times for row in some),
            f"{first.target or first.opcode} {first.op_name.rsplit('/', 1)[-1]}".strip()))
    return sorted(found, key=lambda line: -line.seconds)[:DEAREST]


def describe(found: Mapping[str, Any]) -> Iterator[str]:
    """What `examine` found, as lines for the log."""
    yield f"dry run for {found['target']} ({found['devices']}); {dry_run.rows_line(found['rows'])}; a device:"
    yield from found["assumed"]
    if "does_not_fit" in found:
        yield f"  does not fit: {found['does_not_fit']}"
        return
    held = found["memory"]
    fits = "" if held["peak"] <= held["device"] else "; DOES NOT FIT"
    yield (f"  memory: {held['peak'] / GIB:.2f} of {held['device'] / GIB:.1f} GiB at most "
           f"({held['arguments'] / GIB:.2f} state and batch, {held['temporaries'] / GIB:.2f} for the step){fits}")
    kinds = ", ".join(f"{kind} {count / TERA:.3g}" for kind, count in found["flops"].items() if count)
    yield (f"  TFLOP: {sum(found['flops'].values()) / TERA:.3g} ({kinds}), {found['needed_flops'] / TERA:.3g} needed; "
           f"bytes: {found['bytes'] / GB:.4g} GB")
    yield (f"  bound: {1000 * found['bound_seconds']:.1f} ms a step, MFU at most {found['mfu']:.0%} of "
           f"{found['peak_tflops']:g} TFLOP/s; with everything overlapped {1000 * found['overlapped_seconds']:.1f} ms")
    if found["unknown_loops"]:
        yield f"  loops of unknown length, counted once: {found['unknown_loops']}"
    yield "  dearest source lines: ms, TFLOP, GB, runs"
    for line in found["dearest"]:
        yield (f"    {1000 * line['seconds']:8.2f} {line['flops'] / TERA:8.3f} {line['bytes'] / GB:8.2f} "
               f"{line['runs']:5d}  {line['line']}  {line['example']}")
    for kind, lines in found["collectives"].items():
        runs, size = (sum(line[key] for line in lines.values()) for key in ("count", "bytes"))
        most = ", ".join(f"{name} {line['bytes'] / MB:.1f} MB" for name, line in list(lines.items())[:3])
        yield f"  {kind}: {runs}, {size / MB:.1f} MB ({most})"
    if not found["collectives"]:
        yield "  collectives: none"
    scores = ", ".join(f"{item['count']} of {name} ({item['bytes'] / GB:.2f} GB)"
                       for name, item in found["attention"]["scores"].items())
    yield f"  attention: {found['attention']['fused']} fused kernels; scores in memory: {scores or 'none'}"
    layouts = ", ".join(f"{count} x {layout}" for layout, count in found["convolutions"].items())
    yield (f"  convolutions: {layouts or 'none'}; transposes and copies to another layout: "
           f"{found['transposes']['count']}, {found['transposes']['bytes'] / GB:.2f} GB")
    calls = ", ".join(f"{count} x {name}" for name, count in found["host_callbacks"].items())
    yield f"  host callbacks: {calls or 'none'}"


def versions() -> dict[str, str]:
    """Of what compiles, as far as it is installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
