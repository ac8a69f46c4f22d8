"""Time, memory and growth of relation inference through anchors, against the same propagation with N x N matrices.

    python -m benchmarks.speed.relations --out=runs/relations              # 200,000 images and reports, 1,024 anchors
    python -m benchmarks.speed.relations --out=runs/small --rows=20000 --dense=4000

Inputs are random assignments (arrays, and the `top` largest entries of each row), evidence and pairs. Measured is the
graph and both directions: `anchor_graph`, `image_targets` and `report_targets`. Every line of the table is a process of
its own, because a process's peak memory never falls. `above` is the peak of the whole process, interpreter, compiler
and results included, minus the bytes of assignments and evidence; `start` is what the process had before it made them:
Python and JAX. The dense form has W_I and W_R [N, N] but not S, which it applies to the evidence: it is the fastest
dense form that we know of. It is timed in turns with the anchors in one process, and must agree with them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.speed.memory import current_bytes, peak_bytes
from lgdea_jax import cli
from lgdea_jax.errors import UserError

ALPHA = 0.6
_MEGA = 1e6


@dataclasses.dataclass(frozen=True)
class Case:
    """One measurement: images = reports = rows; `top` 0 for arrays; `dense` for the comparison."""

    rows: int
    anchors: int
    evidence: int
    pairs: float
    order: int
    top: int
    repeats: int
    dense: bool = False


def make_inputs(case: Case) -> tuple[Any, ...]:
    """(seeds, Z_I, Z_R, Qbar_I, Qbar_R) on the device, made block by block: nothing else of their size exists."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    from lgdea_jax.relations.rows import Rows, SparseRows
    from lgdea_jax.relations.seeds import seed_edges

    def softmax_rows(key: jax.Array, width: int, sharpness: float) -> jax.Array:
        def block(start: Any, size: int, out: jax.Array) -> jax.Array:
            values = sharpness * jax.random.normal(jax.random.fold_in(key, start), (size, width))
            return lax.dynamic_update_slice_in_dim(out, jax.nn.softmax(values), start, 0)

        size = min(1024, case.rows)
        full, rest = divmod(case.rows, size)
        out = lax.fori_loop(0, full, lambda i, out: block(i * size, size, out), jnp.zeros((case.rows, width)))
        return block(full * size, rest, out) if rest else out

    def assignments(key: jax.Array) -> Rows:
        if not case.top:
            return softmax_rows(key, case.anchors, 3.0)
        weights = softmax_rows(key, case.top, 1.0)
        # Distinct anchors in every row: an odd stride over a power of two, from a random start.
        starts = jax.random.randint(jax.random.fold_in(key, 1), (case.rows, 1), 0, case.anchors)
        strides = 2 * jax.random.randint(jax.random.fold_in(key, 2), (case.rows, 1), 0, case.anchors // 2) + 1
        indices = (starts + strides * jnp.arange(case.top)) % case.anchors
        return SparseRows(indices.astype(jnp.int32), weights, width=case.anchors)

    keys = jax.random.split(jax.random.key(0), 6)
    z = [jax.jit(assignments)(key) for key in keys[:2]]
    q = [jax.jit(softmax_rows, static_argnums=(1, 2))(key, case.evidence, 2.0) for key in keys[2:4]]
    pairs = [jax.random.permutation(key, case.rows)[:math.ceil(case.pairs * case.rows)] for key in keys[4:]]
    seeds = seed_edges(*pairs, num_images=case.rows, num_reports=case.rows)
    return jax.block_until_ready((seeds, *z, *q))


def factored(inputs: tuple[Any, ...], order: int) -> tuple[Callable[[], Any], int]:
    """(what makes ((targets, confidence) of the images, (targets, confidence) of the reports), temporary bytes).

    Three programs, as a training loop would call them. In one, XLA shares the zeros that both results start from, and
    copies them.
    """
    import jax

    from lgdea_jax.relations.anchors import AnchorGraph, anchor_graph
    from lgdea_jax.relations.graph import image_targets, report_targets

    seeds, z_i, z_r, q_i, q_r = inputs
    make = jax.jit(lambda *parts: anchor_graph(*parts, alpha=ALPHA, order=order).factor)
    make = make.lower(seeds, z_i, z_r).compile()
    factor = jax.ShapeDtypeStruct((z_i.shape[1], z_r.shape[1]), q_i.dtype)
    graph = AnchorGraph(seeds, z_i, z_r, factor, jax.numpy.asarray(ALPHA, float))
    images = image_targets.lower(graph, q_r).compile()
    reports = report_targets.lower(graph, q_i).compile()

    def run() -> Any:
        with_factor = dataclasses.replace(graph, factor=make(seeds, z_i, z_r))
        return images(with_factor, q_r), reports(with_factor, q_i)

    return run, max(program.memory_analysis().temp_size_in_bytes for program in (make, images, reports))


def both_directions(seeds: Any, z_i: Any, z_r: Any, q_i: Any, q_r: Any, *, order: int) -> Any:
    """The same in one program, to look at its arrays."""
    from lgdea_jax.relations.anchors import anchor_graph
    from lgdea_jax.relations.graph import image_targets, report_targets

    graph = anchor_graph(seeds, z_i, z_r, alpha=ALPHA, order=order)
    return image_targets(graph, q_r), report_targets(graph, q_i)


def dense_both_directions(seeds: Any, z_i: Any, z_r: Any, q_i: Any, q_r: Any, *, order: int) -> Any:
    """The same with W_I and W_R as matrices."""
    import jax.numpy as jnp

    w_i, w_r = (jnp.matmul(z / jnp.sum(z, axis=0), z.T, precision="highest") for z in (z_i, z_r))

    def one(seeds: Any, w_to: Any, w_from: Any, q: Any) -> Any:
        values, stops = jnp.concatenate([q, jnp.sum(q, axis=1, keepdims=True)], axis=1), []
        for step in range(order + 1):
            values = jnp.matmul(w_from, values, precision="highest") if step else values
            stops.append(seeds.weights[:, None] * values[seeds.reports])
        total = jnp.zeros((w_to.shape[0], values.shape[1])).at[seeds.images].add(stops[-1])
        for stop in reversed(stops[:-1]):
            total = (ALPHA * jnp.matmul(w_to, total, precision="highest")).at[seeds.images].add(stop)
        return total[:, :-1] / total[:, -1:], (1 - ALPHA) * total[:, -1]

    return one(seeds, w_i, w_r, q_r), one(seeds._replace(images=seeds.reports, reports=seeds.images), w_r, w_i, q_i)


def largest_array(function: Callable[..., Any], *arguments: Any) -> int:
    """The most elements that any array in the traced program has, loops and calls included."""
    import jax
    import jax.extend.core

    largest = 0

    def visit(jaxpr: Any) -> None:
        nonlocal largest
        for equation in jaxpr.eqns:
            for variable in equation.outvars:
                largest = max(largest, math.prod(variable.aval.shape))
            for inner in jax.extend.core.jaxprs_in_params(equation.params):
                visit(getattr(inner, "jaxpr", inner))

    visit(jax.make_jaxpr(function)(*arguments).jaxpr)
    return largest


def measure(case: Case) -> dict[str, Any]:
    """Runs one case in this process, which must not have done anything else."""
    import functools

    import jax
    import numpy as np

    jax.block_until_ready(jax.numpy.zeros(8))
    start = current_bytes()
    inputs = make_inputs(case)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(inputs[1:]))

    def timed(run: Callable[[], Any]) -> tuple[Any, float, float]:
        begun, used = time.perf_counter(), time.process_time()
        result = jax.block_until_ready(run())
        return result, time.perf_counter() - begun, time.process_time() - used

    begun = time.perf_counter()
    run, temporary = factored(inputs, case.order)
    row = dataclasses.asdict(case) | {
        "input_bytes": size, "start_bytes": start, "temporary_bytes": temporary,
        "compile_seconds": time.perf_counter() - begun,
        "largest_array": largest_array(functools.partial(both_directions, order=case.order), *inputs)}
    rival = None
    if case.dense:
        program = jax.jit(functools.partial(dense_both_directions, order=case.order)).lower(*inputs).compile()
        rival = functools.partial(program, *inputs)
    seconds, process, rival_seconds, rival_process, difference = [], [], [], [], 0.0
    for _ in range(case.repeats):
        result, wall, used = timed(run)
        seconds.append(wall)
        process.append(used)
        if rival is None:
            del result  # Or the next repeat has two results in memory.
            continue
        expected, wall, used = timed(rival)
        rival_seconds.append(wall)
        rival_process.append(used)
        difference = max(difference, *(float(np.max(np.abs(np.asarray(a) - np.asarray(b)))) for a, b in
                                       zip(jax.tree.leaves(result), jax.tree.leaves(expected), strict=True)))
        del result, expected
    row |= {"seconds": seconds, "process_seconds": process, "peak_bytes": peak_bytes()}
    if rival is not None:
        if difference > 1e-5:
            raise AssertionError(f"anchors and the dense form differ by {difference}")
        row |= {"dense_seconds": rival_seconds, "dense_process_seconds": rival_process, "difference": difference}
    return row


def in_fresh_process(case: Case) -> dict[str, Any]:
    """`measure(case)` in a process of its own.

    Raises:
      UserError: it failed; its last line is named.
    """
    command = [sys.executable, "-m", "benchmarks.speed.relations", f"--case={json.dumps(dataclasses.asdict(case))}"]
    environment = {**os.environ, "JAX_PLATFORMS": os.environ.get("JAX_PLATFORMS", "cpu"),
                   "PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).parents[2]),
                                                               os.environ.get("PYTHONPATH", "")]))}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines() or ["nothing was printed"]
    if done.returncode:
        raise UserError(f"{case} ended with {done.returncode}: {lines[-1]}")
    return json.loads(lines[-1])


def exponent(rows: Sequence[dict[str, Any]], key: str) -> float:
    """Slope of log time over log rows, by least squares; the fastest repeat of each size."""
    x = [math.log(row["rows"]) for row in rows]
    y = [math.log(min(row[key])) for row in rows]
    return statistics.linear_regression(x, y).slope


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The measurements as Markdown."""
    lines = ["| assignments | rows a side | seconds: median (worst) | processor | MB: inputs | above | start | peak |",
             "|---|---|---|---|---|---|---|---|"]
    for row in rows:
        above = row["peak_bytes"] - row["input_bytes"]
        sizes = (row["input_bytes"], above, row["start_bytes"], row["peak_bytes"])
        memory = [f"{size / _MEGA:,.0f}" for size in sizes]
        name = f"top {row['top']}" if row["top"] else "arrays"
        if row["dense"]:  # The peak is that of the rival.
            name, memory = f"{name}; dense: {statistics.median(row['dense_seconds']):.2f} s", [""] * len(memory)
        seconds = [f"{statistics.median(row['seconds']):.2f} ({max(row['seconds']):.2f})",
                   f"{statistics.median(row['process_seconds']):.2f}"]
        lines.append(f"| {' | '.join([name, format(row['rows'], ','), *seconds, *memory])} |")
    return "\n".join(lines)


def goals(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What is asked for at 200,000 rows and 1,024 anchors on two cores, beside what was measured here."""
    out: dict[str, dict[str, Any]] = {}

    def goal(name: str, value: float, limit: float, *, at_least: bool = False) -> None:
        out[name] = {"value": value, "limit": limit, "met": value >= limit if at_least else value <= limit}

    for top, seconds in ((0, 20.0), (max(row["top"] for row in rows), 10.0)):
        series = [row for row in rows if row["top"] == top and not row["dense"]]
        if not series:
            continue
        last, name = series[-1], f"top {top}" if top else "arrays"
        goal(f"{name}: seconds, both directions, worst", max(last["seconds"]), seconds)
        if top:
            goal(f"{name}: GB in all", last["peak_bytes"] / 1e9, 1.5)
        else:
            above = last["peak_bytes"] - last["input_bytes"]
            goal(f"{name}: GB above the inputs", above / 1e9, 0.5)
            # Easier, and no substitute: without what Python and JAX hold before anything is computed.
            goal(f"{name}: GB above the inputs and the started process", (above - last["start_bytes"]) / 1e9, 0.5)
        goal(f"{name}: largest array made / (images x reports)", last["largest_array"] / last["rows"]**2, 0.1)
        if len(series) > 1:
            # Beside the clock, processor time: on a shared machine the clock tells how much of it the others took.
            for key, what in (("seconds", "time"), ("process_seconds", "processor time")):
                goal(f"{name}: exponent of {what} over {len(series) - 1} doublings", exponent(series, key), 1.05)
    for row in rows:
        if row["dense"]:
            ratio = statistics.median(row["dense_seconds"]) / statistics.median(row["seconds"])
            goal(f"times faster than dense at {row['rows']:,}", ratio, 20.0, at_least=True)
    return out


def main(argv: list[str]) -> int:
    """The command line; returns the exit status."""
    parser = cli.Parser(prog="python -m benchmarks.speed.relations", description=__doc__)
    parser.add_argument("--out", type=Path, help="folder for relations.json and table.md")
    parser.add_argument("--rows", type=int, default=200_000, help="images, and as many reports (default: 200,000)")
    parser.add_argument("--anchors", type=int, default=1024, help="a power of two (default: 1,024)")
    parser.add_argument("--evidence", type=int, default=64, help="evidence prototypes (default: 64)")
    parser.add_argument("--pairs", type=float, default=0.01, help="share of rows with a seed (default: 0.01)")
    parser.add_argument("--order", type=int, default=3, help="steps on each side (default: 3)")
    parser.add_argument("--top", type=int, default=32, help="entries a row of the sparse form, 0 leaves it out")
    parser.add_argument("--doublings", type=int, default=4, help="smaller sizes, each half of the next (default: 4)")
    parser.add_argument("--dense", type=int, default=20_000, help="rows of the dense comparison, 0 leaves it out")
    parser.add_argument("--repeats", type=int, default=3, help="of each measurement (default: 3)")
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.case is not None:
        print(json.dumps(measure(Case(**arguments.case))))
        return cli.OK
    if arguments.out is None:
        raise UserError("--out=FOLDER is needed")
    if arguments.anchors & (arguments.anchors - 1) or not 0 <= arguments.top <= arguments.anchors:
        raise UserError(f"--anchors={arguments.anchors}: a power of two; --top={arguments.top}: at most that")
    base = Case(**{name: getattr(arguments, name) for name in ("rows", "anchors", "evidence", "pairs", "order", "top",
                                                               "repeats")})
    cases = [dataclasses.replace(base, top=top, rows=arguments.rows >> halvings)
             for top in dict.fromkeys((0, arguments.top)) for halvings in range(arguments.doublings, -1, -1)]
    if arguments.dense:
        cases.append(dataclasses.replace(base, top=0, rows=arguments.dense, dense=True))
    rows = []
    for case in cases:
        rows.append(in_fresh_process(case))
        print(f"{case.rows} rows, top {case.top}: {rows[-1]['seconds']} s", file=sys.stderr, flush=True)
    checked = goals(rows)
    text = "\n".join([table(rows), "", "| goal on two cores | measured | limit | |", "|---|---|---|---|",
                      *(f"| {name} | {goal['value']:.3g} | {goal['limit']:g} | {'met' if goal['met'] else 'missed'} |"
                        for name, goal in checked.items())])
    arguments.out.mkdir(parents=True, exist_ok=True)
    import jax

    machine = {"cores": len(os.sched_getaffinity(0)), "processor": platform.processor() or platform.machine(),
               "jax": jax.__version__, "platform": os.environ.get("JAX_PLATFORMS", "cpu")}
    (arguments.out / "relations.json").write_text(json.dumps(
        {"command": f"python -m benchmarks.speed.relations {' '.join(argv)}", "machine": machine, "goals": checked,
         "measurements": rows}, indent=1) + "\n", encoding="utf-8")
    (arguments.out / "table.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
