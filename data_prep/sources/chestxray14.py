"""ChestX-ray14 of the NIH Clinical Center: 112,120 frontal radiographs of 30,805 patients (Wang et al., CVPR 2017).

    python -m data_prep.build --config=configs/data/chestxray14.py --config.chestxray14.path=NIH --out=DATA

NIH holds `Data_Entry_2017.csv` (or Data_Entry_2017_v2020.csv), `train_val_list.txt`, `test_list.txt`, where wanted
`BBox_List_2017.csv`, and the PNG images in `images/` or in `images_001/images/`, ..., `images_012/images/` as the
archives unpack.

The test list is the official test split; of the other patients a share by hash (`validation`) is the validation
split. Labels were mined from reports by a program and are positive or negative; "No Finding" is one of the 15 names
here. Boxes are drawn by people, in pixels of the 1024 x 1024 images: an image of another size that has boxes is
refused. All images are frontal, PA or AP. Ages above 120 years, of which the table has some, count as unknown.

An input row is a row of Data_Entry; a faulty box refuses its image. Every image is a study of its own.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_prep.sources.shared.official import Studies, check_shares, group, open_folder, split_by_share
from data_prep.sources.shared.tables import Packed, Row, compare_count, need_table, parse_sex, parse_years, read_table
from data_prep.study import ImageRef, Study
from lgdea_jax.cli import UserError
from lgdea_jax.findings.label_sets import LABEL_SETS
from lgdea_jax.findings.vocabulary import NO_FINDING, find_label
from lgdea_jax.io.dicom import parse_age
from lgdea_jax.records import NEGATIVE, POSITIVE, Box

NAME, TERMS = "ChestX-ray14", "open"
LICENCE = "NIH Clinical Center: free use with acknowledgement and citation"
TABLES = ("Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv")
BOXES, SIZE = "BBox_List_2017.csv", (1024, 1024)
IMAGES = 112_120
_NEEDED, _OPTIONAL = ("Image Index", "Finding Labels"), ("Patient Age", "Patient Gender", "View Position")
_BOX_COLUMNS = ("Image Index", "Finding Label", "Bbox [x", "y", "w", "h]")
_NAME = re.compile(r"(\d{8})_\d{3}\.png")


def subject_of(image: str) -> str:
    """The patient of an image by its file name ("00000042_006.png"), "" where the name is none of the NIH's."""
    match = _NAME.fullmatch(image)
    return f"nih-{match[1]}" if match else ""


def open_source(config: Any, split: str) -> Studies:
    """One split; see `open_splits`."""
    return open_splits(config)[split]


def open_splits(config: Any) -> dict[str, Studies]:
    """Reads the tables; no image is opened.

    Args:
      config: its `chestxray14` has `path`, `images` ("auto" or a folder), `validation` (a share of the patients that
        are not in the test list) and `seed`.

    Raises:
      UserError: a table, list, column or image folder is missing, or a patient lies in two splits.
    """
    config = config.chestxray14
    folder = open_folder(config, "chestxray14", TABLES[0])
    check_shares(config, "chestxray14")
    lists = {name: _read_list(need_table(folder, name)) for name in ("train_val_list.txt", "test_list.txt")}
    both = set(lists["train_val_list.txt"]) & set(lists["test_list.txt"])
    if both:
        raise UserError(f"{len(both)} images are both in train_val_list.txt and in test_list.txt")
    boxes, faults = _read_boxes(folder / BOXES) if (folder / BOXES).is_file() else ({}, {})
    table, keys = Packed((*_NEEDED, *_OPTIONAL)), {"study": [], "subject": [], "split": []}
    seen: set[str] = set()
    for row in read_table(need_table(folder, *TABLES), _NEEDED, _OPTIONAL):
        image, fault, split = row["Image Index"], row.fault, "train"
        if not fault:
            fault = _fault(row) or faults.get(image, "") or ("the image occurs twice" if image in seen else "")
        if not fault and image in lists["test_list.txt"]:
            split = "test"
        elif not fault and image in lists["train_val_list.txt"]:
            split = split_by_share(subject_of(image), config)
        elif not fault:
            fault = "the image is in neither list of the official split"
        seen.add(image)
        table.append(Row(row.number, row.cells, fault))
        keys["study"].append("" if fault else image)
        keys["subject"].append("" if fault else subject_of(image))
        keys["split"].append(split)
    compare_count("images in Data_Entry", len(table), IMAGES)
    reader = ChestXray14Reader(find_images(folder, config.images), boxes)
    return group(reader, table, **keys, identity=_identity, digest=[repr(sorted(boxes.items())).encode()])


def _identity(row: Row) -> tuple[str, str]:
    return row["Image Index"].removesuffix(".png"), row["Image Index"]


def _fault(row: Row) -> str:
    if not subject_of(row["Image Index"]):
        return "the image's name is not like 00000001_000.png"
    unknown = [name for name in row["Finding Labels"].split("|")
               if find_label(name) not in ChestXray14Reader.label_names]
    return f"unknown label {unknown[0]!r}" if unknown else ""


def _read_list(path: Path) -> set[str]:
    return {line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()}


def _read_boxes(path: Path) -> tuple[dict[str, tuple[Box, ...]], dict[str, str]]:
    """(image -> its boxes, image -> why one of its boxes cannot be used)."""
    found: dict[str, tuple[Box, ...]] = {}
    faults: dict[str, str] = {}
    for row in read_table(path, _BOX_COLUMNS):
        try:
            x, y, w, h = (float(row[name]) for name in _BOX_COLUMNS[2:])
        except ValueError:
            x = math.nan
        finding = find_label(row["Finding Label"])
        if row.fault or finding is None or not all(map(math.isfinite, (x, y, w, h))) or w <= 0 or h <= 0:
            faults[row["Image Index"]] = row.fault or "a box with an unknown label or without extent"
            continue
        found[row["Image Index"]] = (*found.get(row["Image Index"], ()), Box(finding, "", x, y, w, h))
    return found, faults


def find_images(folder: Path, choice: str) -> dict[str, str]:
    """File name -> path of every PNG in the image folders.

    Args:
      folder: what the images are looked for in: `images`, `images_001/images` to `images_012/images`, and itself.
      choice: "auto", or one folder, relative to `folder`.

    Raises:
      UserError: there are none.
    """
    names = [choice] if choice != "auto" else ["images", *(f"images_{i:03d}/images" for i in range(1, 13)), "."]
    found = {}
    for name in names:
        if (folder / name).is_dir():
            found |= {entry.name: entry.path for entry in os.scandir(folder / name) if entry.name.endswith(".png")}
    if not found:
        raise UserError(f"no PNG images in {folder} ({', '.join(names[:2])}, ...): unpack the archives there, or give "
                        "the folder as images=...")
    return found


class ChestXray14Reader:
    """Rows of Data_Entry -> studies. Picklable."""

    label_names = (*LABEL_SETS["chestxray14"], NO_FINDING)

    def __init__(self, images: dict[str, str], boxes: dict[str, tuple[Box, ...]]) -> None:
        self._boxes = boxes
        self._folders = sorted({os.path.dirname(path) for path in images.values()})
        self._place = {name: self._folders.index(os.path.dirname(path)) for name, path in images.items()}

    def study(self, split: str, rows: Sequence[Row]) -> Study:
        """See `official.Reader`."""
        (row,) = rows
        study, image = _identity(row)
        positive = {find_label(name) for name in row["Finding Labels"].split("|")}
        labels = {name: POSITIVE if name in positive else NEGATIVE for name in self.label_names}
        boxes = self._boxes.get(image, ())
        path = os.path.join(self._folders[self._place.get(image, 0)], image)
        age = row["Patient Age"]
        return Study(
            study, subject_of(image), split,
            (ImageRef(image, row["View Position"].upper(), path, boxes=boxes, row=row.number,
                      size=SIZE if boxes else (0, 0)),),
            "", labels, NAME, LICENCE, TERMS, sex=parse_sex(row["Patient Gender"]),
            age=parse_age(age) if age[-1:] in ("Y", "M", "W", "D") else parse_years(age), label_source="report_program")
