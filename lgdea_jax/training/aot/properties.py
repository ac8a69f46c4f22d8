"""What a compiled step should not hold: host callbacks, needless collectives, attention's scores, transposes."""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lgdea_jax.training.aot.costs import Row
from lgdea_jax.training.aot.hlo import Array, Computation, Instruction, Program

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute",
               "collective-broadcast", "ragged-all-to-all")
_CALLBACK = re.compile(r"callback|HostCompute|host_callback", re.IGNORECASE)
_FUSED_ATTENTION = re.compile(r"__cudnn\$fmha|flash|splash", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Counted:
    """So many runs of something in a step, and the bytes of their results on a device."""

    count: int
    bytes: int


def add(found: Iterable[tuple[str, int, int]]) -> dict[str, Counted]:
    """(name, runs, bytes) added up by name, the most bytes first."""
    total: dict[str, list[int]] = collections.defaultdict(lambda: [0, 0])
    for name, count, size in found:
        total[name][0] += count
        total[name][1] += size
    return {name: Counted(*values) for name, values in sorted(total.items(), key=lambda pair: -pair[1][1])}


def collective_kind(item: Instruction) -> str:
    """The name of a collective, also of one that runs in the background; "" of anything else."""
    kind = item.opcode.removesuffix("-start")
    return kind if kind in COLLECTIVES else ""


def collectives(program: Program, rows: Sequence[Row]) -> dict[str, dict[str, Counted]]:
    """{kind: {source line: runs and bytes received}} of what devices send one another."""
    by_kind: dict[str, list[tuple[str, int, int]]] = collections.defaultdict(list)
    for row in rows:
        if kind := collective_kind(row.item):
            by_kind[kind].append((program.line(row.item, row.computation), row.times, row.times * received(row.item)))
    return {kind: add(found) for kind, found in sorted(by_kind.items())}


def received(item: Instruction) -> int:
    """Bytes of the result of a collective; one that runs in the background names its operands first."""
    started = item.opcode.endswith("-start") and len(item.shape) > len(item.operands)
    return sum(array.bytes for array in item.shape[len(item.operands) if started else 0:] if array.dims)


def host_callbacks(program: Program) -> dict[str, int]:
    """{target: number} of the calls and transfers to the host, wherever they stand."""
    found = collections.Counter(item.target for item in program.everywhere() if _CALLBACK.search(item.target))
    found.update(item.opcode for item in program.everywhere()
                 if item.opcode in ("infeed", "outfeed") or "is_host_transfer=true" in item.attributes)
    return dict(found)


def is_scores(array: Array, tokens: int, heads: int) -> bool:
    """Whether an array has the shape of attention's scores, [B, heads, T, T] in any order, flattened or padded.

    Args:
      tokens: T without class token, registers and padding, which make at most a third more.
    """
    sides = {size for size in array.dims if tokens <= size <= 4 * tokens // 3 and array.dims.count(size) > 1}
    return any((array.elements // size**2) % heads == 0 for size in sides)


def attention_scores(rows: Sequence[Row], towers: Mapping[str, tuple[int, int]]) -> dict[str, Counted]:
    """{"TOWER DTYPE": how many arrays of attention's scores are written to memory}.

    Args:
      towers: {name: (tokens, heads)}.
    """
    found = []
    for row in rows:
        for array in row.item.shape:
            tower = next((name for name, sizes in towers.items() if is_scores(array, *sizes)), None)
            if tower and not array.space:
                found.append((f"{tower} {array.dtype}", row.times, row.times * array.bytes))
    return add(found)


def fused_attention(rows: Sequence[Row]) -> int:
    """Runs of a kernel that computes attention without its scores in memory."""
    return sum(row.times for row in rows if row.item.opcode == "custom-call"
               and _FUSED_ATTENTION.search(f"{row.item.target} {row.item.op_name}"))


def _inside(program: Program, item: Instruction) -> Iterable[Instruction]:
    yield item
    for name in item.called if item.opcode == "fusion" else ():
        yield from program.computations[name].instructions.values()


def convolutions(program: Program, rows: Sequence[Row]) -> dict[str, int]:
    """{layout, e.g. b01f_01io->b01f: runs} of the convolutions with space; the compiler's order of dimensions."""
    found: collections.Counter[str] = collections.Counter()
    for row in rows:
        for item in _inside(program, row.item):
            labels = item.attribute("dim_labels")
            if re.search(r"\d", labels) and "conv" in item.opcode + item.target and "dot" not in item.op_name:
                found[labels] += row.times
    return dict(found.most_common())


def transposes(program: Program, rows: Sequence[Row]) -> Counted:
    """Instructions whose work is to change the order of an array in memory, and the bytes that they write."""
    found = []
    for row in rows:
        bodies = [program.computations[name] for name in row.item.called] if row.item.opcode == "fusion" else []
        if any(other.opcode in ("dot", "convolution", "reduce") for body in bodies
               for other in body.instructions.values()):
            continue
        if any(_moves(body, other) for body in bodies for other in body.instructions.values()) or (
                not bodies and _moves(program.computations[row.computation], row.item)):
            found.append(row)
    return Counted(sum(row.times for row in found),
                   sum(row.times * sum(array.bytes for array in row.item.shape) for row in found))


def _moves(computation: Computation, item: Instruction) -> bool:
    """Whether a transpose or a copy changes the order in memory; axes of length 1 may stand anywhere."""
    if item.opcode not in ("transpose", "copy") or not computation.shapes(item)[0]:
        return False
    source, result = computation.shapes(item)[0][0], item.shape[0]
    axes = item.numbers("dimensions") if item.opcode == "transpose" else range(len(result.dims))
    before = [axis for axis in reversed(source.order) if source.dims[axis] > 1]
    return before != [axes[axis] for axis in reversed(result.order) if result.dims[axis] > 1]


def summary(program: Program, rows: Sequence[Row], towers: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    """All of it as plain numbers, for JSON."""
    def plain(found: Mapping[str, Counted]) -> dict[str, dict[str, int]]:
        return {name: dataclasses.asdict(value) for name, value in found.items()}

    return {
        "collectives": {kind: plain(lines) for kind, lines in collectives(program, rows).items()},
        "host_callbacks": host_callbacks(program),
        "attention": {"fused": fused_attention(rows), "scores": plain(attention_scores(rows, towers))},
        "convolutions": convolutions(program, rows),
        "transposes": dataclasses.asdict(transposes(program, rows)),
    }
