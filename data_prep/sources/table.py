"""Anybody's data: a table of studies (`studies.csv`), optionally with boxes (`boxes.csv`), and image files beside them.

    python -m data_prep.build --config=configs/data/table.py --config.table.path=studies.csv --out=DATA

`studies.csv` has one row per image: `study_id, subject_id, split`; optional `image_id` (the path in `image` when it is
empty), `view`, `image` (path relative to the table; empty: a report alone), `report` (in any row of the study; may be
empty), `label:NAME` (1, 0, -1 for uncertain, empty for missing), `sex`, `age`, `modality`, `language`, `source`,
`licence`, `terms` (the strictest of a study's rows and of the config counts). `boxes.csv` has `study_id, image_id,
finding, phrase, x, y, w, h` in pixels of the original image.

Cells are separated by commas, semicolons or tabs; with the latter two a comma may be the decimal sign. Text is UTF-8,
lines end as on Windows or Unix, and `sub\\a.png` is `sub/a.png`. A row with a label, an age or a sex that cannot be
read is rejected; where half of the rows have one, the table is. A label under another spelling of a finding
(`label:Effusion`) is that finding's. Without a column `split`, `--config.table.split=0.8,0.1,0.1` draws it: a subject
goes to train, validation or test by a hash of its id and `config.table.seed`, whatever else is in the table.

With `configs/data/table_ct.py` images are volumes: NIfTI files, folders with a DICOM series, .npz files. Their boxes
have `z` and `d` too, all in voxels of the canonical frame (x to the patient's left, y to the back, z to the head).

The table is read once, row by row, into a few numbers per row; reports and images are read when a study is asked for.
Row numbers are a spreadsheet's: the header is row 1.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import logging
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from data_prep.extract.llm.data_use import strictest
from data_prep.sources.shared.official import share
from data_prep.sources.shared.table_boxes import Boxes, read_boxes
from data_prep.sources.shared.table_rows import (
    OPTIONAL,
    REQUIRED,
    Columns,
    cell_fault,
    find_delimiter,
    hash64,
    image_path,
    parse_sex,
    parse_terms,
    read_columns,
    table_rows,
    value_fault,
)
from data_prep.study import SPLITS, ImageRef, Rejection, Study
from lgdea_jax.errors import UserError, nearest
from lgdea_jax.records import MISSING

BOXES_FILE = "boxes.csv"


def open_source(config: Any, split: str) -> TableSource:
    """One split of the table at `config.table.path`; see `open_splits`."""
    return open_splits(config)[split]


def open_splits(config: Any) -> dict[str, TableSource]:
    """Reads and checks the table once, for all splits.

    Args:
      config: its `table` has `path` (the CSV file, or a folder with studies.csv), `boxes` (relative to the table; the
        default boxes.csv may be absent), and what the columns of the same name replace: `source`, `licence`, `terms`,
        `language`, `modality`; `split` (shares of the subjects for train, validation and test, () where the table has
        a column) and its `seed`.

    Raises:
      UserError: no such file, a missing or misspelt column, shares that are none, or a fault of the whole table, with
        its row number.
    """
    config = config.table
    if not config.path:
        raise UserError("config.table.path is needed: the table (studies.csv) to read")
    path = Path(config.path)
    if path.is_dir():
        path = path / "studies.csv"
    if not path.is_file():
        raise UserError(f"no table at {path}{nearest(path.name, _names(path.parent))}")
    defaults = {key: str(config[key]) for key in ("source", "licence", "terms", "language", "modality")}
    parse_terms(defaults["terms"], "config.table.terms")
    table = _read_table(path, defaults, Draw.of(config.split, config.seed))
    boxes_path = path.parent / config.boxes
    if not boxes_path.is_file():
        if config.boxes != BOXES_FILE:
            raise UserError(f"no boxes at {boxes_path}")
        return {split: TableSource(table, split, None) for split in SPLITS}
    boxes = read_boxes(boxes_path, table.single_image, table.keys)
    return {split: TableSource(table, split, boxes) for split in SPLITS}


def _names(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir()] if folder.is_dir() else []


@dataclasses.dataclass(frozen=True)
class Draw:
    """Splits by subject: the shares of train, validation and test, and the seed."""

    shares: tuple[float, ...]
    seed: int

    @classmethod
    def of(cls, shares: Sequence[Any], seed: int) -> Draw | None:
        """None for ().

        Raises:
          UserError: not three shares that add up to 1, with some for training.
        """
        if not len(shares):
            return None
        try:
            values = tuple(float(value) for value in shares)
        except ValueError:
            values = ()
        if len(values) != 3 or min(values) < 0 or abs(sum(values) - 1) > 1e-6 or not values[0]:
            raise UserError(f"config.table.split={','.join(map(str, shares))}: three shares are needed, for train, "
                            "validation and test, that add up to 1, such as 0.8,0.1,0.1")
        return cls(values, seed)

    def split(self, subject: str) -> str:
        """That of a subject."""
        drawn, (_, validation, test) = share(subject, self.seed), self.shares
        return "test" if drawn < test else "validation" if drawn < test + validation else "train"


class _Table:
    """Where the rows of every study lie in the file. Picklable and small.

    Attributes:
      path, columns, defaults: of the table.
      offsets: int64 [rows], byte offset of each row, studies together and each study's rows in order.
      numbers: int32 [rows], the row numbers in the same order.
      studies: split -> int64 [n, 2], the range of rows of each study, in order of appearance.
      keys: sorted uint64 hashes of (study id, image id), for checking boxes; dropped when pickled.
      single_image: sorted uint64 hashes of study ids with one image -> its key, likewise.
      digest: SHA-256 of the file.
    """

    def __init__(self, path: Path, columns: Columns, defaults: dict[str, str], digest: str) -> None:
        self.path, self.columns, self.defaults, self.digest = path, columns, defaults, digest
        self.offsets = self.numbers = np.zeros(0, np.int64)
        self.studies: dict[str, np.ndarray] = {}
        self.keys = np.zeros(0, np.uint64)
        self.single_image: dict[int, int] = {}
        self._file: BinaryIO | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "keys": None, "single_image": None, "_file": None}

    def row(self, position: int) -> list[str]:
        """The cells of the row at `position` of `offsets`."""
        if self._file is None:
            self._file = open(self.path, "rb")  # noqa: SIM115 (kept open for the next rows)
        self._file.seek(int(self.offsets[position]))
        lines = (line.decode("utf-8", "surrogateescape") for line in self._file)
        return next(csv.reader(lines, delimiter=self.columns.delimiter))


def _read_table(path: Path, defaults: dict[str, str], draw: Draw | None) -> _Table:
    """One pass over the file: checks every row and notes where it is."""
    digest = hashlib.sha256()
    delimiter = find_delimiter(path, (*REQUIRED, *OPTIONAL))
    with open(path, "rb") as file:
        rows = table_rows(file, path.name, digest.update, delimiter)
        header = next(rows, None)
        if header is None:
            raise UserError(f"{path.name} is empty: it needs a header and at least one study")
        columns = read_columns(header[2], path.name, delimiter=delimiter, drawn=draw is not None)
        checker = _Checker(columns, path.name, defaults, draw)
        for number, offset, cells in rows:
            checker.add(number, offset, cells)
    table = _Table(path, columns, defaults, digest.hexdigest())
    checker.finish(table)
    if draw:
        wanted = [split for split, part in zip(SPLITS, draw.shares, strict=True) if part]
        if empty := [split for split in wanted if not len(table.studies[split])]:
            logging.getLogger(__name__).warning(
                "%s: no subject was drawn for %s: there are few; another config.table.seed draws others", path.name,
                " and ".join(empty))
    return table


class _Checker:
    """Collects a few numbers per row and finds what is wrong with the table as a whole."""

    def __init__(self, columns: Columns, name: str, defaults: dict[str, str], draw: Draw | None) -> None:
        self._columns, self._name, self._defaults, self._draw = columns, name, defaults, draw
        self._offset, self._number, self._split = array("q"), array("l"), array("b")
        self._study, self._subject, self._key, self._report = array("Q"), array("Q"), array("Q"), array("Q")
        self._good, self._has_image, self._labels = array("b"), array("b"), array("b")
        self._faults, self._fault = 0, ""  # Rows with a `value_fault`, and the first one.

    def add(self, number: int, offset: int, cells: list[str]) -> None:
        """Notes one row. Raises a UserError for what concerns the whole table."""
        get, where = self._columns.get, f"{self._name} row {number}"
        good = not cell_fault(self._columns, cells)
        if good and (fault := value_fault(self._columns, cells)):
            good = False
            self._faults += 1
            self._fault = self._fault or f"{where}: {fault}"
        split = get(cells, "split").lower() if len(cells) == len(self._columns.names) else SPLITS[0]
        if good and self._draw:
            split = self._draw.split(get(cells, "subject_id"))
        if good and split not in SPLITS:
            raise UserError(f"{where}: split {split!r} is none of {', '.join(SPLITS)}{nearest(split, SPLITS)}")
        self._offset.append(offset)
        self._number.append(number)
        self._good.append(good)
        # A row that cannot be used is a study of its own, so that it is counted and never spoils another one.
        self._split.append(SPLITS.index(split) if split in SPLITS else 0)
        if not good:
            for column in (self._study, self._subject, self._key):
                column.append(hash64("\0row", str(number)))
            self._report.append(0)
            self._has_image.append(0)
            self._labels.extend([MISSING] * len(self._columns.labels))
            return
        study = get(cells, "study_id")
        self._study.append(hash64(study))
        self._subject.append(hash64(get(cells, "subject_id")))
        self._key.append(hash64(study, image_id(self._columns, cells)))
        report = get(cells, "report")
        self._report.append(hash64(report) if report else 0)
        self._has_image.append(bool(get(cells, "image")))
        for name in self._columns.labels:
            self._labels.append(self._columns.label(cells, name))
        parse_terms(get(cells, "terms") or self._defaults["terms"], f"{where}: terms")

    def finish(self, table: _Table) -> None:
        """Checks rows against each other and fills `table`."""
        columns = (self._offset, self._number, self._split, self._study, self._subject, self._key, self._report,
                   self._good, self._has_image)
        offset, number, split, study, subject, key, report, good, has_image = (
            np.frombuffer(column, f"{column.typecode}") for column in columns)
        if not len(offset):
            raise UserError(f"{self._name} has a header and no rows")
        if self._fault and 2 * self._faults >= len(offset):
            raise UserError(self._fault)  # Not a slip in some row, but another way to write it.
        labels = np.frombuffer(self._labels, np.int8).reshape(len(offset), -1)
        good = good.astype(bool)
        self._check_same(key[good], None, number[good], "study_id and image_id are those of",
                         ": remove one of the two, or give every image of a study an image_id of its own")
        self._check_same(study[good], subject[good], number[good], "subject_id differs from that of the same study in")
        self._check_same(study[good], split[good], number[good], "split differs from that of the same study in")
        self._check_same(subject[good], split[good], number[good], "the subject is in another split in")
        stated = good & (report != 0)
        self._check_same(study[stated], report[stated], number[stated], "report differs from that of the same study in")
        for i, name in enumerate(self._columns.labels):
            stated = good & (labels[:, i] != MISSING)
            self._check_same(study[stated], labels[stated, i], number[stated],
                             f"label:{name} differs from that of the same study in")
        _, first, inverse = np.unique(study, return_index=True, return_inverse=True)
        order = np.argsort(first[inverse], kind="stable")  # Studies by first appearance, rows in order.
        table.offsets, table.numbers = offset[order].copy(), number[order].astype(np.int32)
        starts = np.flatnonzero(np.diff(first[inverse][order], prepend=-1))
        ranges = np.stack([starts, np.append(starts[1:], len(order))], axis=1)
        of = split[order][starts]
        table.studies = {name: ranges[of == i] for i, name in enumerate(SPLITS)}
        images = good & has_image.astype(bool)
        table.keys = np.sort(key[images])
        ids, at, count = np.unique(study[images], return_index=True, return_counts=True)
        table.single_image = dict(zip(ids[count == 1].tolist(), key[images][at[count == 1]].tolist(), strict=True))

    def _check_same(self, group: np.ndarray, value: np.ndarray | None, number: np.ndarray, what: str,
                    remedy: str = "") -> None:
        """Raises a UserError at the first row whose `value` is not that of its group's first row (None: any second)."""
        if len(np.unique(group)) == len(group):
            return
        _, first, inverse = np.unique(group, return_index=True, return_inverse=True)
        earlier = first[inverse]
        wrong = earlier != np.arange(len(group)) if value is None else value != value[earlier]
        if wrong.any():
            at = int(np.argmax(wrong))
            raise UserError(f"{self._name} row {number[at]}: {what} row {number[earlier[at]]}{remedy}")


def image_id(columns: Columns, cells: list[str]) -> str:
    """The row's image id: the column's, or the image path where that is empty; "" for a report alone."""
    return columns.get(cells, "image_id") or columns.get(cells, "image")


class TableSource:
    """The studies of one split. Picklable; the file is opened again in each process."""

    def __init__(self, table: _Table, split: str, boxes: Boxes | None) -> None:
        self._table, self._split, self._ranges, self._boxes = table, split, table.studies[split], boxes
        self.label_names = tuple(table.columns.labels)
        self.fingerprint = table.digest + (boxes.digest if boxes else "")

    def __len__(self) -> int:
        return len(self._ranges)

    def __getitem__(self, index: int) -> Study:
        """The study at `index`; rows that cannot be used are in its `rejections`."""
        table, get = self._table, self._table.columns.get
        start, stop = (int(value) for value in self._ranges[index])
        study_id, images, rejections, reports, good = "", [], [], [], []
        for position in range(start, stop):
            cells, number = table.row(position), int(table.numbers[position])
            fault = cell_fault(table.columns, cells) or value_fault(table.columns, cells)
            name = image_id(table.columns, cells) if len(cells) == len(table.columns.names) else ""
            if not fault and not get(cells, "image") and not get(cells, "report"):
                fault = "neither an image nor a report"
            if fault:
                shown = get(cells, "study_id") if len(cells) == len(table.columns.names) else ""
                rejections.append(Rejection(shown, name, number, fault))
                continue
            study_id = get(cells, "study_id")
            if get(cells, "report"):
                reports.append(get(cells, "report"))
            try:
                path = image_path(table.path.parent, get(cells, "image")) if get(cells, "image") else ""
            except ValueError as error:
                rejections.append(Rejection(study_id, name, number, str(error)))
                continue
            good.append(cells)
            if path:
                boxes = self._boxes.of(hash64(study_id, name)) if self._boxes else ()
                images.append(ImageRef(name, get(cells, "view"), path, boxes=boxes, row=number))
        first = int(table.numbers[start])
        if not good:
            return Study(rejections[0].study_id, "", self._split, row=first, rows=stop - start,
                         rejections=tuple(rejections))
        return self._study(study_id, good, images, reports, first, tuple(rejections))

    def _study(self, study_id: str, rows: list[list[str]], images: list[ImageRef], reports: list[str], number: int,
               rejections: tuple[Rejection, ...]) -> Study:
        columns, defaults = self._table.columns, self._table.defaults

        def first(name: str) -> str:
            return next((columns.get(cells, name) for cells in rows if columns.get(cells, name)), "")

        labels = {}
        for name in columns.labels:
            values = [columns.label(cells, name) for cells in rows]
            labels[name] = next((value for value in values if value != MISSING), MISSING)
        return Study(
            study_id, first("subject_id"), self._split, tuple(images), reports[0] if reports else "", labels,
            sex=parse_sex(first("sex")), age=columns.age(first("age")), row=number,
            rows=len(rows) + len(rejections), rejections=rejections,
            **{**{key: first(key) or default for key, default in defaults.items()},
               "terms": strictest([defaults["terms"], *(columns.get(cells, "terms") for cells in rows)])})
