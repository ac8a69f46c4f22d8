"""Evidence as a table that people read and correct: `evidence.csv`, its lines, and the reading of a corrected one.

A line is a statement about a study. A report that states normality has the line "No Finding, present", which needs no
quote; a report without any statement has a line with nothing but the study, so that every report is in the table. A
build writes such a table and takes a corrected one (`--config.evidence=FILE`); the page of `data_prep.audit` saves one.

The table quotes reports: it is as private as they are.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.extract.schema import Extraction, problems
from lgdea_jax.errors import UserError, nearest
from lgdea_jax.findings.vocabulary import NO_FINDING, find
from lgdea_jax.records import CERTAINTIES, LATERALITIES, SEVERITIES, TEMPORALITIES, Evidence, hash64
from lgdea_jax.runtime.files import plain_cell

FILE = "evidence.csv"
STATEMENT = ("finding", "certainty", "side", "place", "severity", "change", "quote", "start", "end")
COLUMNS = ("study", *STATEMENT, "extractor", "verified", "votes")  # votes: of a model's passes, "2/3"; not read.
NEEDED = ("study", "finding", "certainty", "quote")
VERIFIED = "yes"
CORRECTED = "corrected"  # In place of an extractor's name: what a person has changed.

Line = tuple[str, ...]  # The cells of STATEMENT.
NORMAL: Line = (NO_FINDING, "present", *[""] * (len(STATEMENT) - 2))
NOTHING: Line = ("",) * len(STATEMENT)
_YES_NO = {"": False, "no": False, "0": False, "false": False, "yes": True, "1": True, "true": True}
_VALUES = {"certainty": CERTAINTIES, "side": LATERALITIES, "severity": SEVERITIES, "change": TEMPORALITIES}


class Faulty(Exception):
    """Lines of a study that do not fit its report; `reason` names their numbers and holds no words of the report."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclasses.dataclass(frozen=True)
class Reading:
    """What a table says of one report.

    Attributes:
      extraction: well formed; verified: the lines of it that a person has confirmed.
    """

    extraction: Extraction
    verified: frozenset[Line]

    @property
    def complete(self) -> bool:
        """Whether a person has confirmed every line."""
        return self.verified == frozenset(lines(self.extraction))


def lines(extraction: Extraction) -> list[Line]:
    """The lines of a report's evidence, at least one."""
    found = [(item.finding, item.certainty, item.laterality, item.anatomy, item.severity, item.temporality, item.phrase,
              str(item.start), str(item.end)) for item in extraction.evidence]
    return [*found, *([NORMAL] if extraction.normal else [])] or [NOTHING]


class EvidenceTable:
    """The lines of a file by study. Picklable; of the file only hashes and byte offsets are kept in memory.

    Attributes:
      path: of the file; sha256: hexadecimal, of its content.
      any_verified: whether a person has confirmed any line.

    Raises:
      UserError: it cannot be read as CSV, or its columns are not those of the table.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self._size = self.path.stat().st_size
            with open(self.path, "rb") as file:
                self.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            rows = self._rows(0)
            self.columns = tuple(next(rows, (0, []))[1])
            self._check_columns()
            study, self.any_verified = self.columns.index("study"), False
            verified = self.columns.index("verified") if "verified" in self.columns else None
            hashes, offsets = [], []
            for offset, cells in rows:
                hashes.append(hash64(cells[study] if study < len(cells) else ""))
                offsets.append(offset)
                if verified is not None and verified < len(cells) and _YES_NO.get(cells[verified].strip().lower()):
                    self.any_verified = True
        except FileNotFoundError:
            raise UserError(f"no file {str(self.path)!r}") from None
        except (UnicodeDecodeError, csv.Error, IsADirectoryError, NotADirectoryError, PermissionError) as error:
            raise UserError(f"{self.path}: not readable as CSV in UTF-8 ({type(error).__name__})") from None
        order = np.argsort(np.array(hashes, np.uint64), kind="stable")
        self._hashes = np.array(hashes, np.uint64)[order]
        self._offsets = np.array(offsets, np.int64)[order]
        self._numbers = order + 2  # As an editor counts, the heading being 1.

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_file"}

    def __len__(self) -> int:
        return len(self._hashes)

    def count(self, study: str) -> int:
        """The number of lines of a study."""
        return len(self._found(study))

    def cells(self, study: str) -> list[dict[str, str]]:
        """The lines of a study as they stand in the file, column -> cell."""
        return [self._cells(row) for row in self._found(study)]

    def others(self, studies: Iterable[int]) -> Iterator[tuple[str, int]]:
        """(study, number) of the lines of studies that are not among these.

        Args:
          studies: their `records.hash64`.
        """
        rows = np.flatnonzero(~np.isin(self._hashes, np.fromiter(studies, np.uint64)))
        for row in rows[np.argsort(self._numbers[rows])]:
            yield self._cells(row).get("study", ""), int(self._numbers[row])

    def read(self, study: str, report: str) -> Reading | None:
        """What the table says of a report, or None where it has no line of the study.

        Args:
          study: id; report: as it is stored, outer white space removed.

        Raises:
          Faulty: a line does not fit the report.
        """
        rows = self._found(study)
        if not len(rows):
            return None
        found: dict[Line, bool] = {}
        faults = []
        for row in rows:
            number = int(self._numbers[row])
            try:
                line, verified = self._line(self._cells(row), report)
                if line in found:
                    raise ValueError("the same as a line before")
                found[line] = verified
            except ValueError as fault:
                faults.append(f"line {number} of the evidence: {fault}")
        if len(found) > 1 and not faults:
            found.pop(NOTHING, None)
        evidence = [Evidence(finding, place, side, severity, certainty, change, quote, int(start), int(end))
                    for finding, certainty, side, place, severity, change, quote, start, end in found
                    if finding and finding != NO_FINDING]
        evidence.sort(key=lambda item: item.start)  # Those that begin at the same place stay in the order of the file.
        extraction = Extraction(tuple(evidence), NORMAL in found)
        if not faults:
            faults = [f"the lines of the study: {fault}" for fault in problems(extraction, report)]
        if faults:
            more = f" (and {len(faults) - 3} more)" if len(faults) > 3 else ""
            raise Faulty("; ".join(faults[:3]) + more)
        return Reading(extraction, frozenset(line for line, verified in found.items() if verified))

    def _check_columns(self) -> None:
        for name in NEEDED:
            if name not in self.columns:
                raise UserError(f"{self.path}: no column {name!r}{nearest(name, self.columns)}; a table of evidence "
                                f"has {', '.join(COLUMNS)}")
        for name in self.columns:
            if name not in COLUMNS or self.columns.count(name) > 1:
                raise UserError(f"{self.path}: unknown column or one twice, {name!r}{nearest(name, COLUMNS)}; a table "
                                f"of evidence has {', '.join(COLUMNS)}")

    def _found(self, study: str) -> np.ndarray:
        """Indices of the lines of a study, in the order of the file."""
        key = np.uint64(hash64(study))
        return np.arange(*(np.searchsorted(self._hashes, key, side) for side in ("left", "right")))

    def _cells(self, row: int) -> dict[str, str]:
        cells = next(self._rows(int(self._offsets[row])))[1]
        wrong = {} if len(cells) == len(self.columns) else {"": f"{len(cells)} cells, not {len(self.columns)}"}
        return dict(zip(self.columns, cells)) | wrong

    @functools.cached_property
    def _file(self) -> Any:
        file = open(self.path, "rb")  # noqa: SIM115 (kept for the process)
        if self.path.stat().st_size != self._size:
            raise UserError(f"{self.path} has changed since the build began: run the same command again")
        return file

    def _rows(self, offset: int) -> Iterator[tuple[int, list[str]]]:
        """(byte offset, cells) of the rows from an offset on; blank lines are passed over."""
        file, at = self._file, offset

        def text() -> Iterator[str]:
            nonlocal at
            while True:
                file.seek(at)  # Others read the file, too.
                line = file.readline()
                if not line:
                    return
                decoded = line.decode("utf-8-sig" if at == 0 else "utf-8")
                at += len(line)
                yield decoded

        reader = csv.reader(text(), strict=True)
        while True:
            start = at
            cells = next(reader, None)
            if cells is None:
                return
            if cells:
                yield start, [plain_cell(cell) for cell in cells]

    def _line(self, cells: Mapping[str, str], report: str) -> tuple[Line, bool]:
        """(the line, whether it is verified). Raises ValueError with what is wrong, in words that may be shown."""
        if "" in cells:
            raise ValueError(cells[""])
        values = {name: cells.get(name, "").strip() for name in COLUMNS} | {"quote": cells["quote"]}
        verified = _YES_NO.get(values["verified"].lower())
        if verified is None:
            raise ValueError("verified is not yes or no")
        if not values["finding"]:
            if any(values[name] for name in STATEMENT):
                raise ValueError("no finding")
            return NOTHING, verified
        finding = find(values["finding"])
        if finding is None:
            raise ValueError("unknown finding")
        for name, known in _VALUES.items():
            values[name] = values[name].lower()
            if values[name] not in known:
                raise ValueError(f"{name} is not one of {', '.join(filter(None, known))}")
        if finding == NO_FINDING:
            if values["certainty"] != "present":
                raise ValueError(f"{NO_FINDING} is stated as present or not at all")
            return NORMAL, verified
        start, end = _span(values["quote"], values["start"], values["end"], report)
        return (finding, *(values[name] for name in STATEMENT[1:6]), report[start:end], str(start), str(end)), verified


def _span(quote: str, start: str, end: str, report: str) -> tuple[int, int]:
    """Where the quote stands: at the stated place, or at the only or the nearest one.

    Spreadsheets change line breaks: any white space stands for any other. Raises ValueError where it is not there.
    """
    if start.isdigit() and end.isdigit() and quote and report[int(start):int(end)] == quote:
        return int(start), int(end)
    if not quote.strip():
        raise ValueError("no quote")
    found = [match.span() for match in re.finditer(r"\s+".join(map(re.escape, quote.split())), report)]
    if not found:
        raise ValueError("its quote is not in the report")
    if len(found) > 1 and not start.isdigit():
        raise ValueError(f"its quote stands {len(found)} times in the report: state start and end")
    return min(found, key=lambda span: abs(span[0] - int(start or 0))) if len(found) > 1 else found[0]
