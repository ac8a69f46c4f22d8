"""The text of a compiled program, read: computations, their instructions, array shapes and source lines.

`jax.stages.Compiled.as_text()` gives the program of one device after all of the compiler's passes, in XLA's HLO
(https://openxla.org/xla/operation_semantics). Everything here is a function of that text.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping

# Bits of an element; types that hold no data (token, opaque) are absent and count as 0.
BITS = {"pred": 8, "s4": 4, "u4": 4, "s8": 8, "u8": 8, "s16": 16, "u16": 16, "s32": 32, "u32": 32, "s64": 64, "u64": 64,
        "f16": 16, "bf16": 16, "f32": 32, "f64": 64, "c64": 64, "c128": 128}
_ARRAY = re.compile(r"\b([a-z][a-z0-9]*)\[([0-9,<=]*)\](?:\{([^}]*)\})?")
_START = re.compile(r"^\s*(ROOT )?%([\w.\-]+) = ")
_HEAD = re.compile(r"^(ENTRY )?%([\w.\-]+) \(.*\{$")
_FILE = re.compile(r'^(\d+) "(.*)"$')
_LOCATION = re.compile(r"^(\d+) \{file_name_id=(\d+) .*?\bline=(\d+)")
_FRAME = re.compile(r"^(\d+) \{file_location_id=(\d+)(?: parent_frame_id=(\d+))?")
OURS = "lgdea_jax/"


@dataclasses.dataclass(frozen=True)
class Array:
    """The shape of one array in the program.

    Attributes:
      dtype: XLA's name, e.g. bf16; dims: of its logical shape.
      order: dimensions from the fastest to the slowest in memory.
      tile: of the fastest dimensions, slowest first, which TPUs pad to whole tiles; () without.
      space: 0 is the device's main memory; others are on the chip.
    """

    dtype: str
    dims: tuple[int, ...]
    order: tuple[int, ...] = ()
    tile: tuple[int, ...] = ()
    space: int = 0

    @property
    def elements(self) -> int:
        """Their number, padding left out."""
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        """In memory, tiles padded."""
        bits = BITS.get(self.dtype, 8 if self.dtype.startswith("f8") else 0)
        physical = [self.dims[axis] for axis in reversed(self.order)] if self.order else list(self.dims)
        for place, size in enumerate(reversed(self.tile), start=1):
            if place <= len(physical):
                physical[-place] = -(-physical[-place] // size) * size
        return -(-math.prod(physical) * bits // 8)

    @property
    def main_bytes(self) -> int:
        """`bytes` of an array in the device's main memory, 0 of one on the chip."""
        return 0 if self.space else self.bytes


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
      name, opcode: of XLA; root: whether it is what the computation returns.
      shape: arrays of the result, those of a tuple one after the other.
      operands: names of instructions of the same computation; text: what stands between the brackets.
      attributes: the rest of the line.
    """

    name: str
    opcode: str
    root: bool
    shape: tuple[Array, ...]
    operands: tuple[str, ...]
    text: str
    attributes: str

    def attribute(self, name: str) -> str:
        """The value of `name=VALUE`, brackets and quotes off; "" without."""
        found = re.search(rf'\b{name}=(?:"([^"]*)"|\{{([^{{}}]*)\}}|%?([^\s,{{}}]+))', self.attributes)
        return next((value for value in found.groups() if value is not None), "") if found else ""

    def numbers(self, name: str) -> tuple[int, ...]:
        """An attribute that is a list of numbers."""
        return tuple(int(part) for part in self.attribute(name).split(",") if part)

    @property
    def called(self) -> tuple[str, ...]:
        """Computations that it runs: a fusion's, a call's, a loop's condition and body, the branches of a choice."""
        names = [self.attribute(name) for name in ("calls", "condition", "body", "true_computation",
                                                   "false_computation")]
        if self.opcode in ("call", "async-start"):
            names.append(self.attribute("to_apply"))
        branches = re.findall(r"[\w.\-]+", self.attribute("branch_computations"))
        return tuple(dict.fromkeys(name for name in (*names, *branches) if name))

    @property
    def target(self) -> str:
        """Of a custom call; "" of anything else."""
        return self.attribute("custom_call_target")

    @property
    def op_name(self) -> str:
        """The path of JAX's operations, e.g. jit(step)/jvp(ViT)/dot_general."""
        return self.attribute("op_name")


@dataclasses.dataclass(frozen=True)
class Computation:
    """Instructions in the order of their execution, by name."""

    name: str
    instructions: Mapping[str, Instruction]

    @functools.cached_property
    def root(self) -> Instruction:
        """What it returns."""
        return next(item for item in reversed(self.instructions.values()) if item.root)

    @functools.cached_property
    def parameters(self) -> tuple[Instruction, ...]:
        """In their order."""
        return tuple(sorted((item for item in self.instructions.values() if item.opcode == "parameter"),
                            key=lambda item: int(item.text)))

    @functools.cached_property
    def users(self) -> Mapping[str, tuple[Instruction, ...]]:
        """{name: the instructions that read it}."""
        found: dict[str, list[Instruction]] = {}
        for item in self.instructions.values():
            for name in dict.fromkeys(item.operands):
                found.setdefault(name, []).append(item)
        return {name: tuple(items) for name, items in found.items()}

    def shapes(self, item: Instruction) -> list[tuple[Array, ...]]:
        """Of the operands of `item`."""
        return [self.instructions[name].shape if name in self.instructions else () for name in item.operands]


@dataclasses.dataclass(frozen=True)
class Program:
    """A whole program.

    Attributes:
      computations: by name; entry: name of the first one.
      frames: {frame: (file, line, the frame that called it or 0)}.
    """

    computations: Mapping[str, Computation]
    entry: str
    frames: Mapping[int, tuple[str, int, int]]

    def line(self, item: Instruction, computation: str) -> str:
        """The source line of an instruction, `FILE:LINE`: the innermost one of this project, or else the innermost.

        What the compiler made without one has that of what it calls, or of what reads it.

        Args:
          computation: name of what `item` stands in.
        """
        place, readers, seen = self.computations[computation], [item], set()
        while readers and len(seen) < 50:
            reader = readers.pop(0)
            seen.add(reader.name)
            inside = [self.computations[name].root for name in reader.called if name in self.computations]
            for other in (reader, *inside):
                if found := self._line(int(other.attribute("stack_frame_id") or 0)):
                    return found
            readers += [user for user in place.users.get(reader.name, ()) if user.name not in seen]
        return "no source line"

    def _line(self, number: int) -> str:
        innermost = ""
        while number in self.frames:
            file, line, number = self.frames[number]
            if OURS in file:
                return f"{file[file.rindex(OURS):]}:{line}"
            innermost = innermost or f"{file.rsplit('/', 1)[-1]}:{line}"
        return innermost

    def everywhere(self) -> Iterator[Instruction]:
        """All instructions, whether they are run or not."""
        for computation in self.computations.values():
            yield from computation.instructions.values()


def read_array(text: str) -> tuple[Array, ...]:
    """The arrays of a shape's text, those of a tuple in their order."""
    arrays = []
    for dtype, dims, layout in _ARRAY.findall(text):
        order, _, rest = layout.partition(":")
        tile = re.match(r"T\(([\d,]+)\)", rest)
        space = re.search(r"S\((\d+)\)", rest)
        arrays.append(Array(
            dtype, tuple(int(part.lstrip("<=")) for part in dims.split(",") if part),
            tuple(int(part) for part in order.split(",") if part),
            tuple(int(part) for part in tile[1].split(",")) if tile else (), int(space[1]) if space else 0))
    return tuple(arrays)


def _closing(text: str, start: int) -> int:
    """The place behind the bracket that closes the one at `start`; quoted text is skipped."""
    depth, quoted = 0, False
    for place in range(start, len(text)):
        letter = text[place]
        if letter == '"':
            quoted = not quoted
        elif not quoted and letter in "([{":
            depth += 1
        elif not quoted and letter in ")]}":
            depth -= 1
            if not depth:
                return place + 1
    raise ValueError(f"a bracket is not closed: {text[start:start + 80]}")


def read_instruction(line: str) -> Instruction | None:
    """One line of a computation; None of any other line."""
    found = _START.match(line)
    if not found:
        return None
    start = found.end()
    end = _closing(line, start) if line[start] == "(" else line.index(" ", start)
    opcode = re.compile(r"\s*([\w\-]+)").match(line, end)
    if not opcode:
        return None
    stop = _closing(line, opcode.end())
    text = line[opcode.end() + 1:stop - 1]
    return Instruction(found[2], opcode[1], bool(found[1]), read_array(line[start:end]),
                       tuple(re.findall(r"%([\w.\-]+)", text)), text, line[stop:])


def read_program(text: str) -> Program:
    """A program from `Compiled.as_text()`."""
    files: dict[int, str] = {}
    locations: dict[int, tuple[str, int]] = {}
    frames: dict[int, tuple[str, int, int]] = {}
    computations: dict[str, Computation] = {}
    entry, section, items = "", "", None
    for line in text.splitlines():
        if items is not None:
            if line.startswith("}"):
                items = None
            elif item := read_instruction(line):
                items[item.name] = item
        elif head := _HEAD.match(line):
            items = {}
            computations[head[2]] = Computation(head[2], items)
            entry = head[2] if head[1] else entry
        elif line in ("FileNames", "FunctionNames", "FileLocations", "StackFrames"):
            section = line
        elif section == "FileNames" and (found := _FILE.match(line)):
            files[int(found[1])] = found[2]
        elif section == "FileLocations" and (found := _LOCATION.match(line)):
            locations[int(found[1])] = (files.get(int(found[2]), ""), int(found[3]))
        elif section == "StackFrames" and (found := _FRAME.match(line)):
            number, parent = int(found[1]), int(found[3] or 0)
            frames[number] = (*locations.get(int(found[2]), ("", 0)), max(0, parent - 1))  # XLA writes the next one.
    return Program(computations, entry, frames)
