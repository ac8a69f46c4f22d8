"""Reading the tables of official releases: CSV and the like, by column name, plain or gzipped.

Columns are always found by their name: releases reorder them (CheXpert swaps two labels between its files). What is
wrong with a table as a whole stops the run; what is wrong with a row goes along with the row, and the reader of the
data set refuses it with that reason.
"""

from __future__ import annotations

import csv
import dataclasses
import gzip
import logging
import sys
import zlib
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lgdea_jax.errors import UserError, nearest
from lgdea_jax.records import MISSING, NEGATIVE, POSITIVE, UNCERTAIN

csv.field_size_limit(min(sys.maxsize, 1 << 27))  # Run-length masks and reports are longer than the default allows.

_SEX = {"m": "M", "male": "M", "f": "F", "female": "F"}
_LABELS = {"1": POSITIVE, "0": NEGATIVE, "-1": UNCERTAIN, "": MISSING, "nan": MISSING}
_LABELS |= {f"{cell}.0": _LABELS[cell] for cell in ("1", "0", "-1")}


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
      number: a spreadsheet's: the first line of the file is row 1.
      cells: column -> stripped text, for the columns asked for; "" for optional columns that the table lacks.
      fault: why the row cannot be used, "" where it can.
    """

    number: int
    cells: dict[str, str]
    fault: str = ""

    def __getitem__(self, column: str) -> str:
        return self.cells[column]


def find_table(folder: Path, *names: str) -> Path | None:
    """The first of `names` that is in the folder, each with or without .gz; None if none is."""
    for name in names:
        plain = name.removesuffix(".gz")
        for path in (folder / name, folder / plain, folder / f"{plain}.gz"):
            if path.is_file():
                return path
    return None


def need_table(folder: Path, *names: str) -> Path:
    """`find_table`, or a UserError that names the nearest file there is."""
    found = find_table(folder, *names)
    if found is None:
        there = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        raise UserError(f"no {names[0]} in {folder}{nearest(names[0], there)}")
    return found


def read_table(path: Path, needed: Sequence[str], optional: Sequence[str] = (), *, delimiter: str = ",",
               header: Sequence[str] = (), quoted: bool | None = None) -> Iterator[Row]:
    """The rows of a table.

    Args:
      path: the file; gzipped if its name ends in .gz.
      needed, optional: columns to give; names are compared without outer white space (SIIM-ACR has " EncodedPixels").
      delimiter: between cells.
      header: the columns' names where the file has no header line.
      quoted: whether cells may be in quotes; by default with "," only.

    Raises:
      UserError: not readable as such a table, or a needed column is missing or there twice.
    """
    number = 0
    opener: Any = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        quoting = csv.QUOTE_MINIMAL if (delimiter == "," if quoted is None else quoted) else csv.QUOTE_NONE
        reader = csv.reader(file, delimiter=delimiter, quoting=quoting)
        try:
            names = [name.strip() for name in (header or next(reader, []))]
            number = 0 if header else 1
            positions = _positions(path, names, needed, optional)
            width = max((i + 1 for i, name in enumerate(names) if name), default=0)
            for cells in reader:
                number += 1
                if cells:
                    yield _row(number, cells, positions, width, optional)
        except csv.Error as error:
            raise UserError(f"{path.name} is not readable as a table after row {number}: {error}") from None
        except (EOFError, gzip.BadGzipFile, zlib.error):
            raise UserError(f"{path.name} is truncated or damaged: download it again") from None


def _positions(path: Path, names: Sequence[str], needed: Sequence[str], optional: Sequence[str]) -> dict[str, int]:
    for name in needed:
        if name not in names:
            known = ", ".join(filter(None, names))
            raise UserError(f"{path.name} has no column {name!r} (it has: {known or 'nothing'})")
    for name in (*needed, *optional):
        if list(names).count(name) > 1:
            raise UserError(f"{path.name} has the column {name!r} more than once")
    return {name: list(names).index(name) for name in (*needed, *optional) if name in names}


def _row(number: int, cells: Sequence[str], positions: dict[str, int], width: int, optional: Sequence[str]) -> Row:
    """Empty cells after the last column are common in spreadsheets' exports; anything else there is a fault."""
    if len(cells) < width or any(cell.strip() for cell in cells[width:]):
        given = {name: cells[position].strip() if position < len(cells) else "" for name, position in positions.items()}
        return Row(number, dict.fromkeys(optional, "") | given, f"{len(cells)} cells where the header has {width}")
    given = {name: cells[position].strip() for name, position in positions.items()}
    for name in optional:
        given.setdefault(name, "")
    for cell in given.values():
        if not cell.isascii() and any("\udc80" <= letter <= "\udcff" for letter in cell):
            return Row(number, given, "unreadable text: not UTF-8")
    return Row(number, given)


class Packed:
    """Rows in one block of bytes: no larger than the file they come from, and quick to send to other processes."""

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = tuple(columns)
        self._block, self._ends = bytearray(), array("q", [0])
        self._numbers = array("l")

    def __len__(self) -> int:
        return len(self._numbers)

    def append(self, row: Row) -> None:
        """Adds a row; cells of other columns than `columns` are dropped."""
        text = "\x1f".join([row.fault, *(row.cells[name].replace("\x1f", " ") for name in self.columns)])
        self._block += text.encode("utf-8", "surrogateescape")
        self._ends.append(len(self._block))
        self._numbers.append(row.number)

    def __getitem__(self, index: int) -> Row:
        data = self._block[self._ends[index]:self._ends[index + 1]]
        fault, *cells = data.decode("utf-8", "surrogateescape").split("\x1f")
        return Row(self._numbers[index], dict(zip(self.columns, cells, strict=True)), fault)

    def digest_bytes(self) -> bytes:
        """All that identifies the content, for a fingerprint."""
        return bytes(self._block)


def parse_label(cell: str) -> int | None:
    """1, 0, -1 (also as 1.0, ...), empty or nan -> POSITIVE, NEGATIVE, UNCERTAIN, MISSING; None for anything else."""
    return _LABELS.get(cell.strip().lower())


def parse_sex(cell: str) -> str:
    """M, F, Male, Female in any case; "" for anything else."""
    return _SEX.get(cell.strip().lower(), "")


def parse_years(cell: str) -> float:
    """An age in years between 0 and 120; NaN for anything else (ChestX-ray14 has patients of 400 years)."""
    try:
        years = float(cell)
    except ValueError:
        return float("nan")
    return years if 0 <= years <= 120 else float("nan")


def compare_count(what: str, found: int, official: int) -> None:
    """A line in the log where a release does not have the number of items that its authors state."""
    if found != official:
        logging.getLogger(__name__).warning("%s: %s found, the official release has %s", what, f"{found:,}",
                                            f"{official:,}")
