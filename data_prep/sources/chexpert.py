"""CheXpert: 224,316 chest radiographs of 65,240 patients with 14 labels (Irvin et al., AAAI 2019), and CheXpert Plus.

    python -m data_prep.build --config=configs/data/chexpert.py --config.chexpert.path=CHEXPERT --out=DATA

CHEXPERT holds `train.csv` (labels of a program that read the reports: training split), `valid.csv` (radiologists:
validation) and, where there, `test_labels.csv` or `test.csv` (radiologists: test); and the images under `train/`,
`valid/` and `test/`. The small release (CheXpert-v1.0-small, JPEG of reduced size) and the full one differ in the
first folder of the `Path` column, which is ignored; the full one's archives unpack to `CheXpert-v1.0 batch 1
(validate & csv)` and so on, and are read as they lie. With `reports` naming the table of CheXpert Plus
(df_chexpert_plus_240401.csv) studies get findings and impression; its PNG files are found too (`images` names their
folder).

Frontal and lateral images are all read. The view is AP/PA for a frontal image (FRONTAL where that is empty), LATERAL
for the rest; test tables without these columns say it in the file's name. `views=frontal` leaves laterals out. An
image's id is its path in the release ("train/patient00001/study1/view1_frontal.jpg"), as in lists of the 5x200
benchmark; subject and study ids are the folders' names. Columns are read by name: the order of the labels differs
between the files.

An input row is a row of the tables.
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.sources.shared.official import Studies, group, image_folder, keep_view, open_folder
from data_prep.sources.shared.table_rows import hash64, table_rows
from data_prep.sources.shared.tables import (
    Packed,
    Row,
    compare_count,
    find_table,
    need_table,
    parse_label,
    parse_sex,
    parse_years,
    read_table,
)
from data_prep.study import ImageRef, Rejection, Study
from lgdea_jax.errors import UserError, choose
from lgdea_jax.findings.label_sets import LABEL_SETS

NAME, TERMS = "CheXpert", "credentialed"  # Given to registered users, who may not pass it on.
LICENCE = "Stanford University Dataset Research Use Agreement"
TABLES = {"train": ("train.csv",), "validation": ("valid.csv",), "test": ("test_labels.csv", "test.csv")}
BATCHES = "CheXpert-v1.0 batch *"  # How the archives of the full release unpack: patients without the folder train/.
RELEASES = ("CheXpert-v1.0-small", "CheXpert-v1.0", "CheXpert-v1.0 batch 1 (validate & csv)")
COUNTS = {"train": 223_414, "validation": 234, "test": 668}
SECTIONS = ("findings", "impression", "clinical_history", "history", "comparison", "technique", "narrative", "summary")
_LABELS = LABEL_SETS["chexpert14"]
_OPTIONAL = ("Sex", "Age", "Frontal/Lateral", "AP/PA")
_PATH = re.compile(r"(?:.*/)?((?:train|valid|test)/(patient\d+)/(study\d+)/[^/]+)")
_SUFFIXES = ("", ".jpg", ".png")  # As stated; then CheXpert's and CheXpert Plus's.


def open_source(config: Any, split: str) -> Studies:
    """One split; see `open_splits`."""
    return open_splits(config)[split]


def open_splits(config: Any) -> dict[str, Studies]:
    """Reads the tables; no image is opened.

    Args:
      config: its `chexpert` has `path`, `images` (folder with train/, "auto" or "none"), `reports` (CheXpert Plus's
        table or ""), `report_sections` (of SECTIONS), `views` ("all" or "frontal").

    Raises:
      UserError: a table, column or folder is missing, or a subject lies in two splits.
    """
    config = config.chexpert
    given = open_folder(config, "chexpert", "train.csv and valid.csv")
    folder = _release(given)
    for name in config.report_sections:
        choose("report section", name, SECTIONS)
    paths = {"train": need_table(folder, *TABLES["train"])}
    paths |= {split: found for split in ("validation", "test") if (found := find_table(folder, *TABLES[split]))}
    table = Packed(("Path", *_OPTIONAL, *_LABELS))
    keys: dict[str, list[str]] = {"study": [], "subject": [], "split": []}
    for split, path in paths.items():
        count, seen = 0, set()
        for row in read_table(path, ("Path", *_LABELS), _OPTIONAL):
            count += 1
            if row.fault or keep_view(_view(row), config.views):
                _add(row, split, table, keys, seen)
        compare_count(f"images in {path.name}", count, COUNTS[split])
    images = image_folder(folder, config.images, (".",))
    reports = _Reports.read(Path(config.reports), tuple(config.report_sections)) if config.reports else None
    roots = (images, *sorted(given.glob(BATCHES))) if images else ()
    return group(CheXpertReader(roots, reports), table, **keys, identity=_identity,
                 digest=[reports.digest] if reports else [])


def _release(folder: Path) -> Path:
    """The folder with train.csv: the one given, or the release's own in it."""
    return next((folder / name for name in ("", *RELEASES) if find_table(folder / name, *TABLES["train"])), folder)


def _identity(row: Row) -> tuple[str, str]:
    match = _PATH.fullmatch(row["Path"])
    return (f"{match[2]}/{match[3]}", match[1]) if match else ("", row["Path"])


def _add(row: Row, split: str, table: Packed, keys: dict[str, list[str]], seen: set[str]) -> None:
    match, fault = _PATH.fullmatch(row["Path"]), row.fault
    if not fault and not match:
        fault = "the path is not like train/patient00001/study1/view1_frontal.jpg"
    if not fault and any(parse_label(row[name]) is None for name in _LABELS):
        fault = "a label is none of 1, 0, -1 and empty"
    if not fault and match[1] in seen:
        fault = "the image occurs twice"
    seen.add(match[1] if match else "")
    table.append(Row(row.number, row.cells, fault))
    keys["study"].append("" if fault else f"{match[2]}/{match[3]}")
    keys["subject"].append("" if fault else match[2])
    keys["split"].append(split)


def _view(row: Row) -> str:
    frontal = row["Frontal/Lateral"] or os.path.basename(row["Path"])
    if "lateral" in frontal.lower():
        return "LATERAL"
    return row["AP/PA"].upper() or ("FRONTAL" if "frontal" in frontal.lower() else "")


class _Reports:
    """The reports of CheXpert Plus, found by study; they stay in the file. Picklable."""

    def __init__(self, path: Path, sections: tuple[str, ...], keys: np.ndarray, offsets: np.ndarray,
                 columns: dict[str, int], digest: bytes) -> None:
        self._path, self._sections, self._keys, self._offsets = path, sections, keys, offsets
        self._columns, self.digest = columns, digest

    @classmethod
    def read(cls, path: Path, sections: tuple[str, ...]) -> _Reports:
        """Notes where every study's first row is."""
        if not path.is_file():
            raise UserError(f"no table of reports at {path}")
        digest, first = hashlib.sha256(repr(sections).encode()), {}
        with open(path, "rb") as file:
            rows = table_rows(file, path.name, digest.update)
            header = [name.strip() for name in next(rows, (0, 0, []))[2]]
            columns = {}
            for name in ("path_to_image", *(f"section_{name}" for name in sections)):
                if name not in header:
                    raise UserError(f"{path.name} has no column {name!r} (it has: {', '.join(header)})")
                columns[name] = header.index(name)
            for _, offset, cells in rows:
                if len(cells) != len(header):
                    continue  # Its study keeps its images; a report cannot be told from such a row.
                match = _PATH.fullmatch(cells[columns["path_to_image"]].strip())
                if match:
                    first.setdefault(hash64(f"{match[2]}/{match[3]}"), offset)
        keys = np.fromiter(first, np.uint64, len(first))
        order = np.argsort(keys)
        offsets = np.fromiter(first.values(), np.int64, len(first))
        return cls(path, sections, keys[order], offsets[order], columns, digest.digest())

    def of(self, study: str) -> str:
        """The report's wanted sections under their headings; "" for a study without one."""
        key = np.uint64(hash64(study))
        at = int(np.searchsorted(self._keys, key))
        if at == len(self._keys) or self._keys[at] != key:
            return ""
        with open(self._path, "rb") as file:
            file.seek(int(self._offsets[at]))
            cells = next(csv.reader(line.decode("utf-8", "replace") for line in file))
        texts = [(name, " ".join(cells[self._columns[f"section_{name}"]].split())) for name in self._sections]
        return "\n".join(f"{name.upper().replace('_', ' ')}: {text}" for name, text in texts if text)


class CheXpertReader:
    """Rows of the label tables -> studies. Picklable."""

    label_names = _LABELS

    def __init__(self, images: Sequence[Path], reports: _Reports | None) -> None:
        self._images, self._reports = images, reports

    def study(self, split: str, rows: Sequence[Row]) -> Study:
        """See `official.Reader`."""
        study, _ = _identity(rows[0])
        labels = {name: parse_label(rows[0][name]) for name in _LABELS}
        images, refused = [], []
        for row in rows:
            name = _identity(row)[1]
            if {label: parse_label(row[label]) for label in _LABELS} != labels:
                reason = "its labels are not those of the study's first image"
                refused.append(Rejection(study, name, row.number, reason))
            elif self._images:
                images.append(ImageRef(name, _view(row), self._file(name), row=row.number))
        report = self._reports.of(study) if self._reports else ""
        if not report and not self._images:
            refused = [Rejection(study, _identity(row)[1], row.number, "no report and no image") for row in rows]
        return Study(
            study, study.split("/")[0], split, tuple(images), report, labels, NAME, LICENCE, TERMS,
            sex=parse_sex(rows[0]["Sex"]), age=parse_years(rows[0]["Age"]), rejections=tuple(refused),
            label_source="report_program" if split == "train" else "radiologist")

    def _file(self, name: str) -> str:
        stems = [root / part for root in self._images for part in (name, name.partition("/")[2])]
        for stem in stems:
            for suffix in _SUFFIXES:
                path = stem.with_suffix(suffix) if suffix else stem
                if path.is_file():
                    return str(path)
        return str(stems[0])  # Refused when it is opened.
