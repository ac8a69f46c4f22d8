"""ChestX-Det10: 3,543 radiographs of ChestX-ray14 with boxes of ten findings (Liu et al., arXiv 2006.10550).

    python -m data_prep.build --config=configs/data/chestx_det10.py --config.chestx_det10.path=DET10 --out=DATA

DET10 holds `test.json` and, where wanted, `train.json`: lists of `{"file_name", "syms", "boxes"}` with a category and
a box [left, top, right, bottom] each. Images are in `test_data/` and `train_data/` (or, all of them, in the folder
`images`).

Splits are the official ones. An image with a box of a finding is positive for it and negative for the other findings:
radiologists looked for all ten. An image without boxes is a normal one among these. All images are frontal; views,
sex and age are not given. Files named as in ChestX-ray14 carry that data set's patient; others count as a patient
each, which is then a patient of ChestX-ray14 unseen: keep ChestX-ray14 out of pretraining.

An input row is an image of the lists; its number is its position in its list, from 1.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_prep.sources.chestxray14 import subject_of
from data_prep.sources.shared.official import Studies, group, image_folder, open_folder
from data_prep.sources.shared.tables import Packed, Row, compare_count
from data_prep.study import ImageRef, Study
from lgdea_jax.errors import UserError
from lgdea_jax.findings.label_sets import LABEL_SETS
from lgdea_jax.findings.vocabulary import find_label
from lgdea_jax.records import NEGATIVE, POSITIVE, Box

NAME, TERMS = "ChestX-Det10", "open"
LICENCE = "images: NIH Clinical Center, free use with acknowledgement; annotations: see the release"
FILES = {"train": "train.json", "test": "test.json"}
IMAGES = 3543
_COLUMNS = ("image", "boxes", "split")


def open_source(config: Any, split: str) -> Studies:
    """One split; see `open_splits`."""
    return open_splits(config)[split]


def open_splits(config: Any) -> dict[str, Studies]:
    """Reads the lists; no image is opened.

    Args:
      config: its `chestx_det10` has `path` and `images` ("auto" or a folder for all images).

    Raises:
      UserError: no test.json, or it is not such a list; no images.
    """
    config = config.chestx_det10
    folder = open_folder(config, "chestx_det10", "test.json")
    if not (folder / FILES["test"]).is_file():
        raise UserError(f"no {FILES['test']} in {folder}")
    table, keys = Packed(_COLUMNS), {"study": [], "subject": [], "split": []}
    images, seen = {}, set()
    for split, name in FILES.items():
        if not (folder / name).is_file():
            continue
        images[split] = image_folder(folder, config.images, (f"{split}_data", "images"))
        for number, item in enumerate(_read(folder / name), start=1):
            image, boxes, fault = _item(item)
            if not fault and image in seen:
                fault = "the image occurs twice"
            seen.add(image)
            table.append(Row(number, {"image": image, "boxes": json.dumps(boxes), "split": split}, fault))
            keys["study"].append("" if fault else image)
            keys["subject"].append("" if fault else _subject(image))
            keys["split"].append(split)
    if len(images) == len(FILES):
        compare_count("images in train.json and test.json", len(table), IMAGES)
    return group(Det10Reader(images), table, **keys, identity=_identity)


def _identity(row: Row) -> tuple[str, str]:
    return row["image"], row["image"]


def _subject(image: str) -> str:
    return subject_of(image) or f"det10-{image}"


def _read(path: Path) -> list[Any]:
    try:
        items = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        items = None
    if not isinstance(items, list):
        raise UserError(f"{path.name} is no list of images: download it again")
    return items


def _item(item: Any) -> tuple[str, list[list[Any]], str]:
    """(file name, [finding, x, y, w, h] of every box, fault)."""
    if not isinstance(item, dict) or not isinstance(item.get("file_name"), str):
        return "", [], "no file_name"
    image, names, corners = item["file_name"], item.get("syms"), item.get("boxes")
    if not isinstance(names, list) or not isinstance(corners, list) or len(names) != len(corners):
        return image, [], "syms and boxes are not lists of the same length"
    boxes = []
    for name, corner in zip(names, corners, strict=True):
        finding = find_label(str(name))
        if finding not in Det10Reader.label_names:
            return image, [], f"unknown category {name!r}"
        try:
            left, top, right, bottom = (float(value) for value in corner)
        except (TypeError, ValueError):
            return image, [], "a box whose position is not four numbers"
        if not all(map(math.isfinite, (left, top, right, bottom))) or right <= left or bottom <= top:
            return image, [], "a box without extent"
        boxes.append([finding, left, top, right - left, bottom - top])
    return image, boxes, ""


class Det10Reader:
    """Items of the lists -> studies. Picklable."""

    label_names = LABEL_SETS["chestxdet10"]

    def __init__(self, images: dict[str, Path | None]) -> None:
        self._images = images

    def study(self, split: str, rows: Sequence[Row]) -> Study:
        """See `official.Reader`."""
        (row,) = rows
        image = row["image"]
        boxes = tuple(Box(finding, "", x, y, w, h) for finding, x, y, w, h in json.loads(row["boxes"]))
        found = {box.finding for box in boxes}
        labels = {name: POSITIVE if name in found else NEGATIVE for name in self.label_names}
        return Study(image, _subject(image), split,
                     (ImageRef(image, "FRONTAL", str(self._images[split] / image), boxes=boxes, row=row.number),), "",
                     labels, NAME, LICENCE, TERMS, label_source="radiologist")
