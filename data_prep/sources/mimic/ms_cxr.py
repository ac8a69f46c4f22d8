"""MS-CXR: phrases of chest X-ray reports with boxes, on images of MIMIC-CXR (Boecking et al., ECCV 2022).

    python -m data_prep.build --config=configs/data/ms_cxr.py --config.ms_cxr.path=MS_CXR \\
        --config.ms_cxr.images=MIMIC_CXR_JPG --out=DATA

MS_CXR holds `MS_CXR_Local_Alignment_v1.x.y.csv`, a row per box, or the same as COCO JSON (`.json`); with both the CSV
is read (`annotations` names another file). The images are MIMIC-CXR-JPG's or MIMIC-CXR's own files, never resized
ones: boxes are in original pixels, and an image of another size than the annotation states is refused.

One record is one image with all its boxes; each box has its category and its phrase (`label_text`), and the boxes of
one phrase are one sample of the benchmark. Everything is in the test split: the subjects must not be in pretraining,
and have the same ids here as in MIMIC-CXR's records, so that the leakage guard finds them. `splits=official` takes
the split column that version 1.1.0 added. Labels say which categories the image has a box of; they are positive or
missing, since nobody stated that the others are absent. All images are frontal; the table gives no views and no
reports.

An input row is an image; one faulty box refuses its image.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from data_prep.sources.shared import mimic_files, physionet
from data_prep.sources.shared.official import Studies, group, open_folder
from data_prep.sources.shared.tables import Packed, Row, compare_count, read_table
from data_prep.study import ImageRef, Study
from lgdea_jax.errors import UserError, choose
from lgdea_jax.findings.label_sets import LABEL_SETS
from lgdea_jax.findings.vocabulary import find_label
from lgdea_jax.records import POSITIVE, Box

NAME = "MS-CXR"
PATTERN = "MS_CXR_Local_Alignment_v*"
PAIRS = 1162  # Image-phrase pairs.
SPLITS = {"train": "train", "val": "validation", "validate": "validation", "validation": "validation", "test": "test"}
_NUMBERS = ("x", "y", "w", "h", "image_width", "image_height")
_COLUMNS = ("stem", "subject", "study", "image", "boxes", "size")


def open_source(config: Any, split: str) -> Studies:
    """One split; see `open_splits`."""
    return open_splits(config)[split]


def open_splits(config: Any) -> dict[str, Studies]:
    """Reads the boxes; no image is opened.

    Args:
      config: its `ms_cxr` has `path`, `annotations` ("auto" or a file in it), `images` (the folder with MIMIC-CXR's
        files/), `image_format` ("auto", "jpg" or "dicom"), `splits` ("test" or "official"), `verify`.

    Raises:
      UserError: no annotations or no images, a missing column, or a checksum that differs.
    """
    config = config.ms_cxr
    folder = open_folder(config, "ms_cxr", f"{PATTERN}.csv or .json")
    path = _annotations(folder, config.annotations)
    physionet.verify(folder, [path], config.verify)
    rows = _read_json(path) if path.suffix == ".json" else _read_csv(path)
    table, keys = _merge(rows, choose("splits", config.splits, ("test", "official")), path.name)
    images = mimic_files.images_below(folder, config.images, "ms_cxr")
    good = [table[i]["stem"] for i in range(len(table)) if not table[i].fault]
    reader = MsCxrReader(images, mimic_files.image_suffix(images, good, config.image_format))
    return group(reader, table, **keys, identity=_identity)


def _identity(row: Row) -> tuple[str, str]:
    return row["study"], row["image"]


def _annotations(folder: Path, choice: str) -> Path:
    if choice != "auto":
        if not (folder / choice).is_file():
            raise UserError(f"no annotations at {folder / choice}")
        return folder / choice
    for suffix in (".csv", ".json"):
        found = sorted(folder.glob(PATTERN + suffix))
        if found:
            return found[-1]  # The newest version.
    raise UserError(f"no {PATTERN}.csv or .json in {folder}")


def _read_csv(path: Path) -> Iterator[Row]:
    yield from read_table(path, ("category_name", "label_text", "path", *_NUMBERS), ("split",))


def _read_json(path: Path) -> Iterator[Row]:
    """The boxes of the COCO file as rows of the CSV; a row's number is its position among the annotations, from 1."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        images = {image["id"]: image for image in values["images"]}
        categories = {category["id"]: category["name"] for category in values["categories"]}
        for number, item in enumerate(values["annotations"], start=1):
            image = images[item["image_id"]]
            box = dict(zip(("x", "y", "w", "h"), map(str, item["bbox"]), strict=True))
            yield Row(number, {
                "category_name": categories[item["category_id"]], "label_text": item["label_text"].strip(),
                "path": image["path"], "image_width": str(image["width"]), "image_height": str(image["height"]),
                "split": str(image.get("split", item.get("split", ""))), **box})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path.name} is no COCO file of MS-CXR ({type(error).__name__}: {error})") from None


def _merge(rows: Iterator[Row], splits: str, name: str) -> tuple[Packed, dict[str, list[str]]]:
    """(a row per image with its boxes as JSON, its keys)."""
    images: dict[str, dict[str, Any]] = {}
    for row in rows:
        image = images.setdefault(row["path"], {"number": row.number, "boxes": [], "fault": "", "size": set(),
                                                "split": set()})
        fault, box = _read_box(row)
        image["fault"] = image["fault"] or fault
        image["boxes"].append(box)
        image["size"].add((row["image_height"], row["image_width"]))
        image["split"].add(SPLITS.get(row["split"].lower(), "") if splits == "official" else "test")
    table, keys = Packed(_COLUMNS), {"study": [], "subject": [], "split": []}
    for path, image in images.items():
        match = mimic_files.parse_path(path)
        fault = image["fault"]
        if not fault and not match:
            fault = "the path is not that of an image of MIMIC-CXR"
        if not fault and len(image["size"]) > 1:
            fault = "boxes of one image state different sizes of it"
        if image["split"] == {""}:
            raise UserError(f"{name} row {image['number']}: no split (train, val or test): splits=official needs "
                            "version 1.1.0")
        if len(image["split"]) > 1:
            raise UserError(f"{name} row {image['number']}: the image lies in two splits")
        stem, subject, study, identifier = match or ("", "", "", path)
        size = "x".join(min(image["size"]))
        table.append(Row(image["number"], dict(zip(
            _COLUMNS, (stem, subject, study, identifier, json.dumps(image["boxes"]), size), strict=True)), fault))
        keys["study"].append("" if fault else study)
        keys["subject"].append("" if fault else subject)
        keys["split"].append(min(image["split"]))
    pairs = {(path, box[1]) for path, image in images.items() for box in image["boxes"] if box}
    compare_count(f"image-phrase pairs in {name}", len(pairs), PAIRS)
    return table, keys


def _read_box(row: Row) -> tuple[str, list[Any]]:
    """(fault, [finding, phrase, x, y, w, h])."""
    if row.fault:
        return row.fault, []
    finding = find_label(row["category_name"])
    if finding is None:
        return f"unknown category {row['category_name']!r}", []
    if not row["label_text"]:
        return "a box without a phrase", []
    try:
        x, y, w, h, width, height = (float(row[name]) for name in _NUMBERS)
    except ValueError:
        return "a box whose position is not numbers", []
    if not all(map(math.isfinite, (x, y, w, h, width, height))) or w <= 0 or h <= 0:
        return "a box without extent", []
    if x < 0 or y < 0 or x + w > width or y + h > height:
        return "a box lies outside the image", []
    return "", [finding, row["label_text"], x, y, w, h]


class MsCxrReader:
    """Rows of `_merge` -> studies. Picklable."""

    label_names = LABEL_SETS["ms_cxr8"]

    def __init__(self, images: Path, suffix: str) -> None:
        self._images, self._suffix = images, suffix

    def study(self, split: str, rows: Sequence[Row]) -> Study:
        """See `official.Reader`."""
        images, found = [], set()
        for row in rows:
            boxes = tuple(Box(*values) for values in json.loads(row["boxes"]))
            found.update(box.finding for box in boxes)
            height, width = (int(float(side)) for side in row["size"].split("x"))
            images.append(ImageRef(row["image"], "FRONTAL", str(self._images / f"{row['stem']}{self._suffix}"),
                                   boxes=boxes, row=row.number, size=(height, width)))
        labels = {name: POSITIVE for name in self.label_names if name in found}
        return Study(rows[0]["study"], rows[0]["subject"], split, tuple(images), "", labels, NAME, mimic_files.LICENCE,
                     mimic_files.TERMS, label_source="radiologist")
