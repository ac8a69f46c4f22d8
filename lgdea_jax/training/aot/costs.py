"""What the instructions of a compiled program cost on a device: operations, bytes, and the time that they bound."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

from lgdea_jax.runtime.devices import Device
from lgdea_jax.training.aot import flops
from lgdea_jax.training.aot.hlo import Array, Computation, Instruction, Program

# No work on the device: names for what is there already, or the ends of what was counted when it began.
FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id",
        "opt-barrier", "add-dependency", "domain", "get-dimension-size"}
# Read where they stand and write in place: only the part that is read or written moves.
READS_PART = {"dynamic-slice", "slice", "gather"}
UPDATES = {"dynamic-update-slice": 1, "scatter": 2}  # Which operand is the new part.


@dataclasses.dataclass(frozen=True)
class Row:
    """One instruction as often as it runs.

    Attributes:
      item: the instruction; computation: name of what it stands in; times: runs of it in a step.
      flops: {type of the operands: operations}; bytes: to and from the device's main memory; both of all runs.
      seconds: the larger of operations / peak and bytes / bandwidth.
    """

    item: Instruction
    computation: str
    times: int
    flops: Mapping[str, int]
    bytes: int
    seconds: float


def rows(program: Program, device: Device) -> list[Row]:
    """Every instruction that a step runs as a unit (a fusion is one), loops multiplied by their length.

    Of alternatives the dearest counts. A loop whose length the program does not state counts once, see `unknown_loops`.
    """
    return _rows(program, program.computations[program.entry], device, 1)


def _rows(program: Program, computation: Computation, device: Device, times: int) -> list[Row]:
    found = []
    for item in computation.instructions.values():
        if item.opcode in FREE or item.opcode.endswith(("-done", "-update")):
            continue
        called = [program.computations[name] for name in item.called if name in program.computations]
        if item.opcode == "while":
            length = loop_length(program, item) or 1
            for part in called:
                found += _rows(program, part, device, times * length)
        elif item.opcode in ("call", "async-start"):
            for part in called:
                found += _rows(program, part, device, times)
        elif item.opcode == "conditional":
            found += max((_rows(program, part, device, times) for part in called),
                         key=lambda some: sum(row.seconds for row in some))
        else:
            work = operations(program, computation, item)
            moved = traffic(computation, item, called[0] if item.opcode == "fusion" and called else None)
            slowest = max(sum(count / device.peak(kind) for kind, count in work.items()), moved / device.bandwidth)
            found.append(Row(item, computation.name, times, {kind: times * count for kind, count in work.items()},
                             times * moved, times * slowest))
    return found


def loop_length(program: Program, item: Instruction) -> int:
    """Runs of a while loop's body; 0 where the program does not state them."""
    stated = re.search(r'"known_trip_count":\s*\{"n":\s*"?(\d+)', item.attributes)
    if stated:
        return int(stated[1])
    condition = program.computations[item.attribute("condition")]
    limits = [int(other.text) for other in condition.instructions.values()
              if other.opcode == "constant" and other.text.isdigit()]
    return limits[0] if len(limits) == 1 and condition.root.attribute("direction") == "LT" else 0


def unknown_loops(program: Program) -> int:
    """Loops whose length is not known."""
    return sum(item.opcode == "while" and not loop_length(program, item) for item in program.everywhere())


def operations(program: Program, computation: Computation, item: Instruction) -> dict[str, int]:
    """{type of the operands: operations} of the products of an instruction and of what it calls."""
    total: dict[str, int] = {}
    if work := flops.of_instruction(item, computation.shapes(item)):
        total[work[0]] = work[1]
    elif item.opcode in ("fusion", "call"):
        for name in item.called:
            part = program.computations[name]
            for inner in part.instructions.values():
                for kind, count in operations(program, part, inner).items():
                    total[kind] = total.get(kind, 0) + count
    return total


def traffic(computation: Computation, item: Instruction, fused: Computation | None = None) -> int:
    """Bytes that an instruction reads from and writes to the device's main memory.

    Args:
      computation: that it stands in; fused: of a fusion, what it calls.
    """
    operands = computation.shapes(item)
    if item.opcode in ("copy-start", "slice-start", "dynamic-slice-start"):  # (result, operand, context)
        result = item.shape[:1]
        return _main(result) + (min(result[0].bytes, _main(operands[0])) if operands else 0)
    if item.opcode.endswith("-start"):  # A collective: what it sends and what it receives.
        result = item.shape[len(item.operands):] if len(item.shape) > len(item.operands) else item.shape
        return sum(map(_main, operands)) + sum(array.main_bytes for array in result if array.dims)
    if item.opcode in READS_PART:
        return 2 * _main(item.shape)
    if item.opcode in UPDATES:
        return 2 * _main(operands[UPDATES[item.opcode]])
    if fused is None:
        results = item.shape[:-1] if _has_workspace(item) else item.shape
        seen = dict(zip(item.operands, operands))  # An operand that is named twice is read once.
        return sum(map(_main, seen.values())) + _main(results)
    total = 0
    for name, parameter in dict(zip(item.operands, fused.parameters)).items():
        total += _read(fused, parameter, _main(computation.instructions[name].shape))
    return total + _written(fused, item.shape)


def _has_workspace(item: Instruction) -> bool:
    """Whether the last result of a library's call is room to work in, which it need not touch."""
    return item.opcode == "custom-call" and len(item.shape) > 1 and item.shape[-1].dtype in ("s8", "u8")


def _main(arrays: Sequence[Array]) -> int:
    return sum(array.main_bytes for array in arrays)


def _read(fused: Computation, parameter: Instruction, whole: int) -> int:
    """Bytes that a fusion reads of one of its operands, `whole` at most."""
    if not whole:
        return 0
    total, names = 0, [parameter.name]
    while names:
        name = names.pop()
        for user in fused.users.get(name, ()):
            if user.opcode == "bitcast":
                names.append(user.name)
            elif user.opcode in READS_PART and user.operands[0] == name:
                total += sum(array.bytes for array in user.shape)
            elif not (user.opcode in UPDATES and user.operands[0] == name):
                return whole
    return min(total, whole)


def _written(fused: Computation, shape: Sequence[Array]) -> int:
    """Bytes that a fusion writes: of an update in place only the new part."""
    root = fused.root
    results = [fused.instructions[name] for name in root.operands] if root.opcode == "tuple" else [root]
    if len(results) != len(shape):
        return _main(shape)
    total = 0
    for result, array in zip(results, shape):
        result = _behind_bitcasts(fused, result)
        part = array.bytes
        if result.opcode in UPDATES and _behind_bitcasts(
                fused, fused.instructions[result.operands[0]]).opcode == "parameter":
            new = fused.instructions[result.operands[UPDATES[result.opcode]]].shape
            part = sum(other.bytes for other in new)
        total += 0 if array.space else min(part, array.bytes)
    return total


def _behind_bitcasts(fused: Computation, item: Instruction) -> Instruction:
    while item.opcode == "bitcast" and item.operands:
        item = fused.instructions[item.operands[0]]
    return item
