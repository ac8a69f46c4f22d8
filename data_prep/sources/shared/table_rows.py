"""Rows, columns and cells of the `table` source's CSV files; see `table.py`."""

from __future__ import annotations

import codecs
import csv
import dataclasses
import difflib
import hashlib
import logging
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PureWindowsPath
from typing import BinaryIO

from lgdea_jax.errors import UserError, nearest
from lgdea_jax.findings.vocabulary import LABELLED, find_label
from lgdea_jax.io.dicom import parse_age as parse_dicom_age
from lgdea_jax.io.opening import file_kind
from lgdea_jax.records import MISSING, NEGATIVE, POSITIVE, TERMS, UNCERTAIN

REQUIRED = ("study_id", "subject_id", "split")
OPTIONAL = ("image_id", "view", "image", "report", "sex", "age", "modality", "language", "source", "licence", "terms")
LABEL = "label:"
DELIMITERS = (",", ";", "\t")
# How files begin that are called CSV and are something else, and what they are.
_NOT_CSV = (
    (codecs.BOM_UTF32_LE, "UTF-32 text"), (codecs.BOM_UTF16_LE, "UTF-16 text"), (codecs.BOM_UTF16_BE, "UTF-16 text"),
    (b"PK\x03\x04", "a spreadsheet or another zip archive"), (b"\xd0\xcf\x11\xe0", "a spreadsheet"),
    (b"\x1f\x8b", "compressed with gzip"), (b"{", "JSON"), (b"[", "JSON"))
_MISSING = ("", "na", "nan", "n/a")  # As R and pandas write it, too.
_SEX = {**dict.fromkeys((*_MISSING, "o", "other", "u", "unknown"), ""), "m": "M", "male": "M", "f": "F", "female": "F"}
# The first line of files that were written for Excel: it is no row.
_SEPARATOR = re.compile(rb'"?sep=(.)"?\r?\n', re.IGNORECASE)


def hash64(*parts: str) -> int:
    """A 64-bit hash of strings that may hold undecodable bytes."""
    data = "\0".join(parts).encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


@dataclasses.dataclass(frozen=True)
class Columns:
    """Where the columns of a table are.

    Attributes:
      names: all of them, in order.
      positions: known column -> position; labels: label name, where it can be one of the vocabulary -> position.
      delimiter: between cells.
    """

    names: tuple[str, ...]
    positions: dict[str, int]
    labels: dict[str, int]
    delimiter: str = ","

    def get(self, cells: list[str], name: str) -> str:
        """The stripped cell of the column `name`, "" where the table has no such column."""
        position = self.positions.get(name)
        return cells[position].strip() if position is not None else ""

    def label(self, cells: list[str], name: str) -> int:
        """The value of a label. See `parse_label`."""
        return parse_label(point(cells[self.labels[name]], self.delimiter), f"label:{name}")

    def age(self, cell: str) -> float:
        """Years, NaN for an empty cell. See `parse_age`."""
        return parse_age(point(cell, self.delimiter))


def find_delimiter(path: Path, known: Sequence[str]) -> str:
    """What separates the cells of a CSV file: that of DELIMITERS by which its header has the most columns of `known`.

    Raises:
      UserError: the file is something else, or its lines end in CR alone.
    """
    with open(path, "rb") as file:
        line = file.readline(1 << 20)
        if _SEPARATOR.match(line.removeprefix(codecs.BOM_UTF8)):
            line = file.readline(1 << 20)
    what = next((what for start, what in _NOT_CSV if line.startswith(start)), "")
    kind = file_kind(line)
    if what or kind not in ("", "a text file"):
        raise UserError(f"{path.name} is {what or kind}" + ("" if ":" in kind else ": save it as CSV in UTF-8"))
    if b"\0" in line:
        raise UserError(f"{path.name} is no text in UTF-8: save it as CSV in UTF-8")
    if b"\r" in line.rstrip(b"\r\n"):
        raise UserError(f"{path.name} has lines that end in CR alone: save it with the line ends of Windows or Unix")
    text = line.decode("utf-8-sig", "surrogateescape")

    def found(delimiter: str) -> int:
        try:
            return len({cell.strip() for cell in next(csv.reader([text], delimiter=delimiter), [])} & set(known))
        except csv.Error:
            return 0

    return max(DELIMITERS, key=found)


def point(cell: str, delimiter: str) -> str:
    """A cell with a number, with a decimal point: where commas do not separate cells, one may be the decimal sign."""
    return cell if delimiter == "," else cell.replace(",", ".")


def image_path(folder: Path, cell: str) -> str:
    r"""The path of an image that a table in `folder` names; `sub\a.png`, as Windows writes it, is `sub/a.png`.

    Raises:
      ValueError: a path on a drive or a server of Windows, which is none here.
    """
    path = os.path.join(folder, cell)
    if "\\" in cell or re.match("[A-Za-z]:/", cell):
        if PureWindowsPath(cell).drive or cell.startswith("\\"):
            raise ValueError("a path on a Windows drive: make it relative to the table")
        if not os.path.lexists(path):  # A backslash can be part of a name here.
            return os.path.join(folder, PureWindowsPath(cell).as_posix())
    return path


def read_columns(header: list[str], table: str, *, delimiter: str = ",", drawn: bool = False) -> Columns:
    """Checks a header line; columns that are not ours are named in the log once and ignored.

    Args:
      header: its cells; table: its name, for errors.
      delimiter: between cells.
      drawn: whether splits are drawn, so that the table states none.

    Raises:
      UserError: a required column is missing, one occurs twice, or one looks like a misspelling of ours.
    """
    names = tuple(name.strip() for name in header)
    twice = sorted({name for name in names if names.count(name) > 1 and name})
    if twice:
        raise UserError(f"{table} has the column {twice[0]!r} more than once")
    if drawn and "split" in names:
        raise UserError(f"{table} has a column 'split', and config.table.split would draw others: leave one out")
    missing = [name for name in REQUIRED if name not in names and not (drawn and name == "split")]
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
        hints = ["; in the header line, give these names to yours"] if set(missing) - {"split"} else []
        hints += ["; --config.table.split=0.8,0.1,0.1 draws one by subject"] if "split" in missing else []
        raise UserError(f"{table} has no column {', '.join(map(repr, missing))} (it has: {', '.join(names)})"
                        + "".join(hints))
    if "image" not in names and "report" not in names:
        raise UserError(f"{table} has neither a column 'image' nor a column 'report'")
    if others:
        logging.getLogger(__name__).warning("%s: columns that are not used: %s", table, ", ".join(others))
    return Columns(names, {name: names.index(name) for name in (*REQUIRED, *OPTIONAL) if name in names},
                   _labels(names, table), delimiter)


def _labels(names: Sequence[str], table: str) -> dict[str, int]:
    """Label name -> position of its column; another spelling of a finding becomes its name in the vocabulary."""
    labels: dict[str, int] = {}
    for position, column in enumerate(names):
        if not column.startswith(LABEL):
            continue
        given = column.removeprefix(LABEL).strip()
        if not given:
            raise UserError(f"{table} has a column '{LABEL}' without a name after the colon")
        name = find_label(given) or given
        if name in labels:
            raise UserError(f"{table} has the columns {names[labels[name]]!r} and {column!r}, which are both {name!r}")
        labels[name] = position
        if name not in LABELLED:
            logging.getLogger(__name__).warning(
                "%s: label:%s is no finding of the vocabulary%s: kept under this name, and no prompt is known for it",
                table, given, nearest(given, LABELLED))
        elif name != given:
            logging.getLogger(__name__).info("%s: label:%s is read as %s", table, given, name)
    return labels


def table_rows(file: BinaryIO, table: str, seen: Callable[[bytes], object],
               delimiter: str = ",") -> Iterator[tuple[int, int, list[str]]]:
    """The rows of an open CSV file, one at a time.

    Args:
      file: opened in binary mode at its start.
      table: its name, for errors.
      delimiter: between cells.
      seen: called with every line's bytes.

    Yields:
      (row number, byte offset, cells); empty rows are passed over. Undecodable bytes become lone surrogates.

    Raises:
      UserError: the file is not CSV.
    """
    offset = 0

    def lines() -> Iterator[str]:
        nonlocal offset
        for line in file:
            seen(line)
            # Spreadsheets write a byte order mark, also before a quote.
            text = line.removeprefix(codecs.BOM_UTF8) if offset == 0 else line
            text = b"\n" if offset == 0 and _SEPARATOR.match(text) else text
            offset += len(line)
            yield text.decode("utf-8", "surrogateescape")

    reader, number, start = csv.reader(lines(), strict=True, delimiter=delimiter), 0, 0
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise UserError(f"{table} is not readable as CSV after row {number} (a quote that is not closed?): {error}"
                            ) from None
        # Spreadsheets leave rows of separators at the end, old editors Ctrl-Z, and full disks zeros.
        if any(cell.strip(" \t\r\n\xa0\x1a\0") for cell in cells):
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


def value_fault(columns: Columns, cells: list[str]) -> str:
    """Why the labels, the age or the sex of a row without `cell_fault` cannot be used, or ""."""
    try:
        for name in columns.labels:
            columns.label(cells, name)
        columns.age(columns.get(cells, "age"))
        parse_sex(columns.get(cells, "sex"))
    except ValueError as error:
        return str(error)
    return ""


def parse_label(cell: str, name: str) -> int:
    """1, 0, -1 (also as 1.0, ...) or empty (also NA or NaN) -> POSITIVE, NEGATIVE, UNCERTAIN or MISSING.

    Raises:
      ValueError: anything else; the message begins with `name`.
    """
    cell = cell.strip()
    if cell.lower() in _MISSING:
        return MISSING
    try:
        value = float(cell.replace("\u2212", "-"))  # A minus sign that word processors make.
    except ValueError:
        value = math.nan
    if value not in (POSITIVE, NEGATIVE, UNCERTAIN):
        raise ValueError(f"{name} is {cell[:12]!r}; it must be 1, 0, -1 (uncertain) or empty (missing)")
    return int(value)


def parse_age(cell: str) -> float:
    """Years, also as DICOM has them ("058Y"), or empty (also NA or NaN) -> NaN. Raises ValueError for anything else."""
    if cell.lower() in _MISSING:
        return math.nan
    try:
        value = float(cell)
    except ValueError:
        value = parse_dicom_age(cell)
    if not 0 <= value < 200:
        raise ValueError(f"age is {cell[:12]!r}; it must be years or empty")
    return value


def parse_sex(cell: str) -> str:
    """"M", "F" or "" of those letters or words, of what DICOM has for others (O), or of an empty cell (also NA).

    Raises:
      ValueError: anything else.
    """
    sex = _SEX.get(cell.lower())
    if sex is None:
        raise ValueError(f"sex is {cell[:12]!r}; it must be M, F or empty")
    return sex


def parse_terms(cell: str, where: str) -> str:
    """One of `records.TERMS`."""
    if cell not in TERMS:
        raise UserError(f"{where} is {cell!r}; it must be one of {', '.join(TERMS)}")
    return cell
