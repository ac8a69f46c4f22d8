"""VinDr-CXR: 18,000 frontal radiographs with 28 labels and boxes by radiologists (Nguyen et al., Sci Data 2022;9:429).

    python -m data_prep.build --config=configs/data/vindr_cxr.py --config.vindr_cxr.path=VINDR --out=DATA

VINDR is the PhysioNet release: `annotations/{image_labels,annotations}_{train,test}.csv` and the DICOM files
`train/*.dicom` and `test/*.dicom`.

Every training image was read by three radiologists: a label is positive where two or three of them gave it, uncertain
where one did, negative where none did; `votes` is the number that makes it positive. Their boxes are all kept, which
means up to three around one finding. Test labels and boxes are a consensus of five. Splits are the official ones; of
the training images a share by hash (`validation`) is the validation split. There are no patient ids: every image
counts as a patient of its own. All images are frontal (PA, as the authors state); sex and age come from the DICOM
files, where present.

An input row is an image; a faulty label or box refuses its image.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_prep.sources.shared import physionet
from data_prep.sources.shared.official import Studies, check_shares, group, image_folder, open_folder, split_by_share
from data_prep.sources.shared.tables import (
    Packed,
    Row,
    compare_count,
    find_table,
    need_table,
    parse_label,
    read_table,
)
from data_prep.study import ImageRef, Study
from lgdea_jax.errors import UserError
from lgdea_jax.findings.label_sets import LABEL_SETS
from lgdea_jax.findings.vocabulary import find_label
from lgdea_jax.records import MISSING, NEGATIVE, POSITIVE, UNCERTAIN, Box

NAME, TERMS = "VinDr-CXR", "credentialed"
LICENCE = "PhysioNet Credentialed Health Data License 1.5.0"
IMAGES = {"train": 15_000, "test": 3_000}
NO_BOX = "No finding"  # The class of rows of readers who drew nothing.
_LABELS = LABEL_SETS["vindr28"]
_COLUMNS = ("image", "labels", "boxes", "part")
_PLACE = ("x_min", "y_min", "x_max", "y_max")


def open_source(config: Any, split: str) -> Studies:
    """One split; see `open_splits`."""
    return open_splits(config)[split]


def open_splits(config: Any) -> dict[str, Studies]:
    """Reads the tables; no image is opened.

    Args:
      config: its `vindr_cxr` has `path`, `images` ("auto" or a folder with train/ and test/), `votes` (1 to 3),
        `validation`, `seed`, `verify`.

    Raises:
      UserError: a table, column or image folder is missing, or a checksum differs.
    """
    config = config.vindr_cxr
    folder = open_folder(config, "vindr_cxr", "annotations/, train/ and test/")
    check_shares(config, "vindr_cxr")
    if not 1 <= config.votes <= 3:
        raise UserError("config.vindr_cxr.votes must be 1, 2 or 3: every training image has three readers")
    tables = folder / "annotations" if (folder / "annotations").is_dir() else folder
    paths = {}
    for part in IMAGES:
        if part == "test" or find_table(tables, f"image_labels_{part}.csv"):
            paths[part] = tuple(need_table(tables, f"{kind}_{part}.csv") for kind in ("image_labels", "annotations"))
    physionet.verify(folder, [path for pair in paths.values() for path in pair], config.verify)
    root = image_folder(folder, config.images, (".",))
    if root is None:
        raise UserError("VinDr-CXR has no reports: images=none leaves nothing")
    table, keys = Packed(_COLUMNS), {"study": [], "subject": [], "split": []}
    for part, (labels_path, boxes_path) in paths.items():
        boxes, faults = _read_boxes(boxes_path)
        votes = config.votes if part == "train" else 1
        images = _read_labels(labels_path, votes)
        compare_count(f"images in {labels_path.name}", len(images), IMAGES[part])
        for name, (number, labels, fault) in images.items():
            fault = fault or faults.get(name, "")
            split = split_by_share(name, config) if part == "train" else "test"
            values = (name, json.dumps(labels), json.dumps(boxes.get(name, [])), part)
            table.append(Row(number, dict(zip(_COLUMNS, values, strict=True)), fault))
            keys["study"].append("" if fault else name)
            keys["subject"].append("" if fault else name)
            keys["split"].append(split)
    return group(VindrReader(root), table, **keys, identity=_identity)


def _identity(row: Row) -> tuple[str, str]:
    return row["image"], row["image"]


def _header(path: Path) -> list[str]:
    with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
        return [name.strip() for name in file.readline().rstrip("\r\n").split(",")]


def _read_labels(path: Path, votes: int) -> dict[str, tuple[int, list[int], str]]:
    """Image -> (row number, a value per name of the label set, fault); several rows of an image are several readers."""
    columns = {name: find_label(name) for name in _header(path) if find_label(name) in _LABELS}
    if not columns:
        raise UserError(f"{path.name} has no column that is a label of VinDr-CXR")
    readers: dict[str, list[Row]] = defaultdict(list)
    for row in read_table(path, ("image_id", *columns)):
        readers[row["image_id"]].append(row)
    found = {}
    for image, rows in readers.items():
        fault = next((row.fault for row in rows if row.fault), "") or ("" if image else "no image_id")
        values = []
        for name in _LABELS:
            given = [parse_label(row[column]) for row in rows for column, ours in columns.items() if ours == name]
            if not fault and any(value not in (POSITIVE, NEGATIVE) for value in given):
                fault = "a label is neither 0 nor 1"
            yes = sum(value == POSITIVE for value in given)
            values.append(MISSING if not given else POSITIVE if yes >= min(votes, len(rows)) else
                          UNCERTAIN if yes else NEGATIVE)
        found[image] = (rows[0].number, values, fault)
    return found


def _read_boxes(path: Path) -> tuple[dict[str, list[list[Any]]], dict[str, str]]:
    """(image -> [finding, x, y, w, h] of every box, image -> fault)."""
    boxes: dict[str, list[list[Any]]] = defaultdict(list)
    faults: dict[str, str] = {}
    for row in read_table(path, ("image_id", "class_name", *_PLACE)):
        image, finding = row["image_id"], find_label(row["class_name"])
        if not row.fault and row["class_name"].lower() == NO_BOX.lower():
            continue
        try:
            left, top, right, bottom = (float(row[name]) for name in _PLACE)
        except ValueError:
            left = top = right = bottom = math.nan
        if row.fault or finding not in _LABELS:
            faults[image] = row.fault or f"unknown class {row['class_name']!r}"
        elif not (math.isfinite(left + top + right + bottom) and right > left and bottom > top):
            faults[image] = "a box without extent, or whose position is not numbers"
        else:
            boxes[image].append([finding, left, top, right - left, bottom - top])
    return boxes, faults


class VindrReader:
    """Images -> studies. Picklable."""

    label_names = _LABELS

    def __init__(self, images: Path) -> None:
        self._images = images

    def study(self, split: str, rows: Sequence[Row]) -> Study:
        """See `official.Reader`."""
        (row,) = rows
        name = row["image"]
        boxes = tuple(Box(finding, "", x, y, w, h) for finding, x, y, w, h in json.loads(row["boxes"]))
        path = self._images / row["part"] / f"{name}.dicom"
        if not path.is_file() and path.with_suffix(".dcm").is_file():  # As converters rename them.
            path = path.with_suffix(".dcm")
        image = ImageRef(name, "PA", str(path), boxes=boxes, row=row.number)
        labels = dict(zip(_LABELS, json.loads(row["labels"]), strict=True))
        return Study(name, name, split, (image,), "", labels, NAME, LICENCE, TERMS, modality="DX",
                     label_source="radiologist")
