"""What `data_prep.score` compares: reports and their reference, from two tables or from a source.

Tables are anybody's: reports with a `uid`, a reference with a column per finding; a column `terms` in either states the
terms of use of a report. A source (`--config`) reads an official download or makes a phantom world, and has
a reference for its reports: the MeSH codes of Open-I, the drawn findings of a phantom, the label columns of a table.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import hashlib
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.extract import sections
from data_prep.extract.extractors import LLM_EXTRACTORS
from data_prep.extract.llm import data_use
from data_prep.sources.registry import open_sources
from data_prep.study import SPLITS, Attribute, Reference, Reject, Study
from lgdea_jax.data.dataset import DatasetMetadata
from lgdea_jax.data.source import open_records
from lgdea_jax.errors import UserError, choose, nearest
from lgdea_jax.findings.label_sets import LABEL_SETS, label_columns
from lgdea_jax.findings.vocabulary import canonical, find
from lgdea_jax.records import MISSING, TERMS, Record

VALUES = {"1": 1, "1.0": 1, "0": 0, "0.0": 0, "-1": -1, "-1.0": -1, "": MISSING}
ALL = "all"  # Of the splits of a data set.
SIDES = ("left", "right", "bilateral", "midline", "")


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Reports to score, with their reference.

    Attributes:
      uids, texts: of the n reports; origins: (file or source, row) of each, for the list of rejected ones.
      terms: of use, of `records.TERMS`: the strictest that source and rows state of each report.
      names: canonical findings; truth: int8 [n, findings], 1, 0, -1 (uncertain) or MISSING; only 1 and 0 are scored.
      attributes: sides and sites of the reports' findings, empty where the reference has none.
      ignored: columns of the reference that are not scored.
      without_report, without_reference: numbers of left-out rows: no text; without labels.
    """

    uids: tuple[str, ...]
    texts: tuple[str, ...]
    terms: tuple[str, ...]
    origins: tuple[tuple[str, int], ...]
    names: tuple[str, ...]
    truth: np.ndarray
    attributes: tuple[Attribute, ...]
    ignored: tuple[str, ...]
    without_report: int
    without_reference: int

    def only(self, kept: Sequence[int]) -> Inputs:
        """The inputs with the reports at indices `kept`."""
        def pick(values: Sequence[Any]) -> tuple[Any, ...]:
            return tuple(values[i] for i in kept)

        return dataclasses.replace(self, uids=pick(self.uids), texts=pick(self.texts), terms=pick(self.terms),
                                   origins=pick(self.origins), truth=self.truth[list(kept)])


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of a CSV."""

    number: int  # Of the file, the heading being 1 (as an editor counts, when no cell spans lines).
    cells: Mapping[str, str]


def read_table(path: str, needed: Iterable[str], rejected: list[dict]) -> tuple[list[Row], list[str]]:
    """Rows and column names of a CSV; rows with too many or too few cells are rejected and listed."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            columns = next(reader, [])
            rows = []
            for number, cells in enumerate(reader, 2):
                if len(cells) != len(columns):
                    if cells:
                        rejected.append({"file": Path(path).name, "row": number,
                                         "reason": f"{len(cells)} cells, {len(columns)} columns"})
                    continue
                rows.append(Row(number, dict(zip(columns, cells))))
    except FileNotFoundError:
        raise UserError(f"no file {path!r}") from None
    except (UnicodeDecodeError, csv.Error, IsADirectoryError, PermissionError) as error:
        raise UserError(f"{path}: not readable as CSV in UTF-8 ({type(error).__name__})") from None
    for name in needed:
        if name not in columns:
            raise UserError(f"{path}: no column {name!r}{nearest(name, columns)}; it has {', '.join(columns[:40])}")
    return rows, columns


def by_uid(rows: Sequence[Row], path: str, rejected: list[dict]) -> dict[str, Row]:
    """{uid: row} of a table; rows without one are rejected and listed. Raises UserError for a uid in two rows."""
    table: dict[str, Row] = {}
    for row in rows:
        uid = row.cells["uid"].strip()
        if not uid:
            rejected.append({"file": Path(path).name, "row": row.number, "reason": "no uid"})
        elif uid in table:
            raise UserError(f"{path}: duplicate uid in rows {table[uid].number} and {row.number}")
        else:
            table[uid] = row
    return table


def fold(text: str | None) -> Callable[[str], bool]:
    """Whether a uid lies in the part "I/K" of all uids; every one does without a text. Raises UserError."""
    if text is None:
        return lambda uid: True
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not int(match[1]) < int(match[2]):
        raise UserError(f"--fold={text}: it is I/K with I < K, for example 0/2")
    index, k = int(match[1]), int(match[2])
    return lambda uid: int(hashlib.sha256(uid.encode()).hexdigest()[:8], 16) % k == index


def _selection(args: argparse.Namespace) -> Callable[[str], bool]:
    """Whether a report of that uid is asked for by --fold and --uids."""
    inside = fold(args.fold)
    if not args.uids:
        return inside
    try:
        listed = frozenset(Path(args.uids).read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError):
        raise UserError(f"no readable file {args.uids!r}") from None
    return lambda uid: uid in listed and inside(uid)


def _where(filters: Sequence[str], *columns: Sequence[str]) -> list[tuple[str, str]]:
    pairs = []
    for text in filters:
        name, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--where={text}: it is COLUMN=VALUE")
        if not any(name in known for known in columns):
            raise UserError(f"--where: no column {name!r}{nearest(name, [c for known in columns for c in known])}")
        pairs.append((name, value))
    return pairs


def _mapping(args: argparse.Namespace, columns: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Finding -> column of the reference, in the label set's order, and the columns that are ignored."""
    if args.mapping:
        wanted = {canonical(name): column for name, column in _read_mapping(args.mapping).items()}
        for column in wanted.values():
            if column not in columns:
                raise UserError(f"{args.mapping}: the reference has no column {column!r}{nearest(column, columns)}")
    else:
        wanted = {}
        for column in columns:
            name = find(column)
            if name is not None:
                if name in wanted:
                    raise UserError(f"columns {wanted[name]!r} and {column!r} both mean {name!r}: choose one with "
                                    "--mapping")
                wanted[name] = column
    if args.label_set != "reference":
        names = LABEL_SETS[choose("label set", args.label_set, [*LABEL_SETS, "reference"])]
        wanted = {name: wanted[name] for name in names if name in wanted}
    if not wanted:
        raise UserError("no column of the reference is a known finding: name them with --mapping")
    return wanted, [column for column in columns if column not in wanted.values() and column != "uid"]


def _read_mapping(path: str) -> dict[str, str]:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise UserError(f"no readable file {path!r}") from None
    if text.lstrip().startswith("{"):
        try:
            table = json.loads(text)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}: not JSON (line {error.lineno})") from None
        if not all(isinstance(value, str) for value in table.values()):
            raise UserError(f"{path}: every finding names one column, as text")
        return table
    rows, _ = read_table(path, ("finding", "column"), [])
    return {row.cells["finding"]: row.cells["column"] for row in rows}


def reports_of(data_dir: str | Path, metadata: DatasetMetadata, split: str, limit: int) -> list[Record]:
    """The records with a report of a split, or of ALL splits, one per study; at most `limit` (0: no limit).

    Raises:
      UserError: no such split.
    """
    choose("split", split, (*metadata.splits, ALL))
    names = metadata.splits if split == ALL else (split,)
    records = itertools.chain.from_iterable(open_records(data_dir, name) for name in names)
    return list(_distinct_reports(records, limit))


def _distinct_reports(records: Iterable[Record], limit: int) -> Iterator[Record]:
    studies: set[str] = set()
    for record in records:
        if record.has_report and record.study_id not in studies:
            studies.add(record.study_id)
            yield record
            if len(studies) == limit:
                return


def report_text(cells: Mapping[str, str], columns: Sequence[str]) -> str:
    """The text columns as one report, under their headings where the column is named after a section."""
    parts = [f"{name.upper()}:\n{cells[name]}" if sections.heading_name(name) else cells[name]
             for name in columns if cells[name].strip()]
    return "\n\n".join(parts)


def _truth(reference: Sequence[Row], mapping: Mapping[str, str], args: argparse.Namespace,
           rejected: list[dict]) -> tuple[np.ndarray, list[int]]:
    """Reference values int8 [n, findings] and the indices of the rows that could be read."""
    truth, kept = [], []
    for i, row in enumerate(reference):
        values = [VALUES.get(row.cells[column].strip()) for column in mapping.values()]
        if None in values:
            column = list(mapping.values())[values.index(None)]
            rejected.append({"file": Path(args.reference).name, "row": row.number,
                             "reason": f"column {column!r} is not 1, 0, -1 or empty"})
            continue
        if args.leave_out:
            hidden = {find(name) for name in row.cells[args.leave_out].split(";") if name.strip()}
            values = [MISSING if name in hidden else value for name, value in zip(mapping, values)]
        truth.append(values)
        kept.append(i)
    return np.array(truth, np.int8).reshape(-1, len(mapping)), kept


def _terms(rows: Iterable[Row]) -> str | None:
    """The strictest in the column `terms` of a report's rows in both tables; None where a cell holds no terms."""
    cells = {row.cells.get("terms", "").strip() for row in rows} - {""}
    return data_use.strictest(cells) if cells <= set(TERMS) else None


def from_tables(args: argparse.Namespace, rejected: list[dict]) -> Inputs:
    """Reads `args.reports`, `args.reference` and `args.attributes`; rows that cannot be read go to `rejected`.

    Raises:
      UserError: a missing file, column or report, or flags that do not fit the tables.
    """
    columns = [name for name in args.columns.split(",") if name]
    report_rows, report_columns = read_table(args.reports, ("uid", *columns), rejected)
    reference_rows, reference_columns = read_table(
        args.reference, ("uid", *([args.leave_out] if args.leave_out else ())), rejected)
    mapping, ignored = _mapping(args, reference_columns)
    filters, inside = _where(args.where, reference_columns, report_columns), _selection(args)
    reports = by_uid(report_rows, args.reports, rejected)
    chosen, unmatched = [], 0
    for uid, row in by_uid(reference_rows, args.reference, rejected).items():
        cells = {**(reports[uid].cells if uid in reports else {}), **row.cells}
        if inside(uid) and all(cells.get(name) == value for name, value in filters):
            if uid not in reports:
                unmatched += 1
                continue
            # What is not sent has no need of terms: a column of that name may then hold anything.
            terms = _terms((reports[uid], row)) if args.extractor in LLM_EXTRACTORS else "unstated"
            if terms is None:
                rejected.append({"file": Path(args.reports).name, "row": reports[uid].number,
                                 "reason": f"terms are not one of {', '.join(TERMS)}"})
            else:
                chosen.append((uid, row, terms))
    truth, kept = _truth([row for _, row, _ in chosen], mapping, args, rejected)
    uids = tuple(chosen[i][0] for i in kept)
    if not uids:
        raise UserError("no report is left to score: the uids of the two tables, --where, --fold and --uids leave none")
    return Inputs(uids, tuple(report_text(reports[uid].cells, columns) for uid in uids),
                  tuple(chosen[i][2] for i in kept),
                  tuple((Path(args.reports).name, reports[uid].number) for uid in uids), tuple(mapping), truth,
                  _read_attributes(args.attributes, rejected) if args.attributes else (), tuple(ignored), unmatched, 0)


def _read_attributes(path: str, rejected: list[dict]) -> tuple[Attribute, ...]:
    """Rows of a CSV with uid, findings, laterality and location (";" between several)."""
    found = []
    for row in read_table(path, ("uid", "findings", "laterality", "location"), rejected)[0]:
        side = row.cells["laterality"].strip().lower()
        if side not in SIDES:
            rejected.append({"file": Path(path).name, "row": row.number, "reason": "laterality is not a side"})
            continue
        sites = tuple(site.strip().lower() for site in row.cells["location"].split(";") if site.strip())
        names = {find(text) for text in row.cells["findings"].split(";")} - {None}
        found += [Attribute(row.cells["uid"].strip(), name, side, sites) for name in sorted(names)]
    return tuple(found)


def from_source(config: Any, args: argparse.Namespace, rejected: list[dict]) -> Inputs:
    """Reads the reports of the source that `config` names and what it knows of them.

    A source may have `reference(index) -> Reference`; of others a study's labels are the reference.

    Raises:
      UserError: what the source finds wrong with its files, or no report is left.
    """
    sources, inside = open_sources(config), _selection(args)
    if args.split != "all":
        sources = {choose("split", args.split, (*SPLITS, "all")): sources.get(args.split, ())}
    names = tuple(label_columns(tuple(dict.fromkeys(
        name for source in sources.values() if len(source) for name in source.label_names))))
    if args.label_set != "reference":
        wanted = LABEL_SETS[choose("label set", args.label_set, [*LABEL_SETS, "reference"])]
        names = tuple(name for name in wanted if name in names)
    items: list[tuple[Reference, str, int]] = []
    without_report = without_reference = 0
    for split, source in sources.items():
        for index in range(len(source)):
            try:
                item = _reference(source, index)
            except Reject as reject:
                rejected.append({"file": f"{config.source} {split}", "row": index, "reason": reject.reason})
                continue
            if not inside(item.uid):
                continue
            if not item.report.strip():
                without_report += 1
            elif all(item.labels.get(name, MISSING) == MISSING for name in names):
                without_reference += 1
            else:
                items.append((item, split, index))
    if not items:
        raise UserError(f"no report is left to score: --split={args.split} of the {config.source} source, --fold, "
                        "--uids and --label_set leave none")
    truth = np.array([[item.labels.get(name, MISSING) for name in names] for item, _, _ in items], np.int8)
    return Inputs(tuple(item.uid for item, _, _ in items), tuple(item.report for item, _, _ in items),
                  tuple(item.terms for item, _, _ in items),
                  tuple((f"{config.source} {split}", index) for _, split, index in items), names, truth,
                  tuple(attribute for item, _, _ in items for attribute in item.attributes), (), without_report,
                  without_reference)


def _reference(source: Any, index: int) -> Reference:
    if hasattr(source, "reference"):
        return source.reference(index)
    study: Study = source[index]
    return Reference(study.study_id, study.report, study.labels, terms=study.terms)
