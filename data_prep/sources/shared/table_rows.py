"""Rows, columns and cells of the `table` source's CSV files; see `table.py`."""

from __future__ import annotations

import csv
import dataclasses
import difflib
import hashlib
import logging
import math
from collections.abc import Callable, Iterator
from typing import BinaryIO

from data_prep.study import SEXES
from lgdea_jax.errors import UserError
from lgdea_jax.records import MISSING, NEGATIVE, POSITIVE, TERMS, UNCERTAIN

REQUIRED = ("study_id", "subject_id", "split")
OPTIONAL = ("image_id", "view", "image", "report", "sex", "age", "modality", "language", "source", "licence", "terms")
LABEL = "label:"


def hash64(*parts: str) -> int:
    """A 64-bit hash of strings that may hold undecodable bytes."""
    data = "\0".join(parts).encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


@dataclasses.dataclass(frozen=True)
class Columns:
    """Where the columns of a table are.

    Attributes:
      names: all of them, in order.
      positions: known column -> position; labels: label name -> position.
    """

    names: tuple[str, ...]
    positions: dict[str, int]
    labels: dict[str, int]

    def get(self, cells: list[str], name: str) -> str:
        """The stripped cell of the column `name`, "" where the table has no such column."""
        position = self.positions.get(name)
        return cells[position].strip() if position is not None else ""


def read_columns(header: list[str], table: str) -> Columns:
    """Checks a header line; columns that are not ours are named in the log once and ignored.

    Raises:
      UserError: a required column is missing, one occurs twice, or one looks like a misspelling of ours.
    """
    names = tuple(name.strip() for name in header)
    twice = sorted({name for name in names if names.count(name) > 1 and name})
    if twice:
        raise UserError(f"{table} has the column {twice[0]!r} more than once")
    missing = [name for name in REQUIRED if name not in names]
    others = [name for name in names if name not in (*REQUIRED, *OPTIONAL) and not name.startswith(LABEL)]
    absent = [name for name in (*REQUIRED, *OPTIONAL) if name not in names]
    for name in others:
        close = difflib.get_close_matches(name.lower(), absent, n=1, cutoff=0.8)
        prefix, colon, rest = name.partition(":")
        if colon and difflib.SequenceMatcher(None, prefix.lower(), "label").ratio() >= 0.6:
            close = [LABEL + rest]
        if close:
            raise UserError(f"{table} has a column {name!r}: did you mean {close[0]!r}?")
    if missing:
        raise UserError(f"{table} has no column {missing[0]!r} (it has: {', '.join(names)})")
    if "image" not in names and "report" not in names:
        raise UserError(f"{table} has neither a column 'image' nor a column 'report'")
    labels = {name[len(LABEL):].strip(): position for position, name in enumerate(names) if name.startswith(LABEL)}
    if "" in labels:
        raise UserError(f"{table} has a column '{LABEL}' without a name after the colon")
    if others:
        logging.getLogger(__name__).warning("%s: columns that are not used: %s", table, ", ".join(others))
    return Columns(names, {name: names.index(name) for name in (*REQUIRED, *OPTIONAL) if name in names}, labels)


def table_rows(file: BinaryIO, table: str, seen: Callable[[bytes], object]) -> Iterator[tuple[int, int, list[str]]]:
    """The rows of an open CSV file, one at a time.

    Args:
      file: opened in binary mode at its start.
      table: its name, for errors.
      seen: called with every line's bytes.

    Yields:
      (row number, byte offset, cells); empty lines are passed over. Undecodable bytes become lone surrogates.

    Raises:
      UserError: the file is not CSV.
    """
    offset = 0

    def lines() -> Iterator[str]:
        nonlocal offset
        for line in file:
            seen(line)
            offset += len(line)
            yield line.decode("utf-8", "surrogateescape")

    reader, number, start = csv.reader(lines(), strict=True), 0, 0
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise UserError(f"{table} is not readable as CSV after row {number} (a quote that is not closed?): {error}"
                            ) from None
        if number == 0 and cells:
            cells[0] = cells[0].removeprefix("﻿")  # Spreadsheets write a byte order mark.
        if any(cells) or cells:
            number += 1
            yield number, start, cells
        start = offset


def cell_fault(columns: Columns, cells: list[str]) -> str:
    """Why a row cannot be used at all, or ""."""
    if len(cells) != len(columns.names):
        return f"{len(cells)} cells where the header has {len(columns.names)}"
    if any("\udc80" <= letter <= "\udcff" for cell in cells if not cell.isascii() for letter in cell):
        return "unreadable text: not UTF-8"
    for name in ("study_id", "subject_id"):
        if not columns.get(cells, name):
            return f"no {name}"
    return ""


def parse_label(cell: str, where: str) -> int:
    """1, 0, -1 (also as 1.0, ...) or empty -> POSITIVE, NEGATIVE, UNCERTAIN or MISSING."""
    cell = cell.strip()
    if not cell:
        return MISSING
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if value not in (POSITIVE, NEGATIVE, UNCERTAIN):
        raise UserError(f"{where} is {cell!r}; it must be 1, 0, -1 (uncertain) or empty (missing)")
    return int(value)


def parse_age(cell: str, where: str) -> float:
    """Years, or empty -> NaN."""
    if not cell:
        return math.nan
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not 0 <= value < 200:
        raise UserError(f"{where}: age must be years or empty")
    return value


def parse_sex(cell: str, where: str) -> str:
    """M, F or empty."""
    if cell not in SEXES:
        raise UserError(f"{where}: sex must be M, F or empty")
    return cell


def parse_terms(cell: str, where: str) -> str:
    """One of `records.TERMS`."""
    if cell not in TERMS:
        raise UserError(f"{where} is {cell!r}; it must be one of {', '.join(TERMS)}")
    return cell
