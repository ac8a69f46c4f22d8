"""PadChest-GR: 4,555 frontal radiographs of PadChest with sentences and boxes (Castro et al., NEJM AI 2025;2:7).

    python -m data_prep.build --config=configs/data/padchest_gr.py --config.padchest_gr.path=PADCHEST_GR --out=DATA

PADCHEST_GR holds `grounded_reports_*.json`, `master_table.csv` (unpacked) and the 16-bit PNG images, in
`Padchest_GR_files/PadChest_GR/`, `Padchest_GR_files/` or `PadChest_GR/` (`images` names another folder).

A report is the list of its sentences, in English or Spanish (`language`), joined by spaces. A sentence about something
abnormal has labels and, where it can be shown, boxes in parts of the image's width and height; they become pixels here.
The boxes of a sentence are one sample of grounding, under the first of its labels. `extra_boxes`, a second set, are not
read. A label is positive where an abnormal sentence has it, otherwise negative: the sentences are whole reports. Names
that our vocabulary knows are ours, the others PadChest's; an image without an abnormal sentence is No Finding. Images
of earlier examinations are not read.

Splits are the official ones of the master table. Patients and studies have the same ids as in PadChest's records. All
images are frontal; the view is not stated beyond that.

An input row is an image; one faulty sentence or box refuses its image.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_prep.sources.padchest import LICENCE as PADCHEST_LICENCE
from data_prep.sources.padchest import TERMS
from data_prep.sources.shared.json_files import read_json
from data_prep.sources.shared.official import Studies, group, image_folder, open_folder
from data_prep.sources.shared.tables import Packed, Row, compare_count, need_table, parse_sex, read_table
from data_prep.study import ImageRef, Study
from lgdea_jax.errors import UserError, choose
from lgdea_jax.findings.vocabulary import NO_FINDING, find_label
from lgdea_jax.io.image_info import UnreadableImage
from lgdea_jax.io.opening import PNG, open_regular
from lgdea_jax.records import NEGATIVE, POSITIVE, Box

NAME = "PadChest-GR"
LICENCE = f"{PADCHEST_LICENCE}; PadChest-GR's of BIMCV"
REPORTS, TABLE = "grounded_reports_*.json", "master_table.csv"
IMAGE_FOLDERS = ("Padchest_GR_files/PadChest_GR", "Padchest_GR_files", "PadChest_GR")
LANGUAGES = ("en", "es")
SPLITS = {"train": "train", "validation": "validation", "valid": "validation", "test": "test"}
IMAGES = 4555
_ROUNDING = 1e-3  # How far a box may leave the image, in parts of its side.
_COLUMNS = ("image", "study", "patient", "sex", "report", "labels", "boxes")


def open_source(config: Any, split: str) -> Studies:
    """One split; see `open_splits`."""
    return open_splits(config)[split]


def open_splits(config: Any) -> dict[str, Studies]:
    """Reads sentences, boxes and splits; no image is opened.

    Args:
      config: its `padchest_gr` has `path`, `images` (a folder or "auto") and `language` (of LANGUAGES).

    Raises:
      UserError: a file or column is missing, or there are no images.
    """
    config = config.padchest_gr
    folder = open_folder(config, "padchest_gr", REPORTS)
    language = choose("language", config.language, LANGUAGES)
    found = sorted(folder.glob(REPORTS))
    if not found:
        raise UserError(f"no {REPORTS} in {folder}")
    homes = _read_homes(need_table(folder, TABLE))
    table, names, seen = Packed(_COLUMNS), {NO_FINDING}, set()
    keys: dict[str, list[str]] = {"study": [], "subject": [], "split": []}
    for number, item in enumerate(read_json(found[-1], list, "list of reports"), start=1):
        cells, split, fault = _read_item(item, homes, language)
        if not fault and cells["image"] in seen:
            fault = "the image occurs twice"
        seen.add(cells["image"])
        if not fault:
            names.update(json.loads(cells["labels"]))
        table.append(Row(number, cells, fault))
        keys["study"].append("" if fault else cells["study"])
        keys["subject"].append("" if fault else cells["patient"])
        keys["split"].append(split)
    compare_count(f"images in {found[-1].name}", len(table), IMAGES)
    images = image_folder(folder, config.images, IMAGE_FOLDERS)
    if images is None:
        raise UserError("boxes need their images: give the folder as config.padchest_gr.images=...")
    return group(GroundedReader(images, tuple(sorted(names)), language), table, **keys, identity=_identity,
                 digest=[language.encode()])


def _identity(row: Row) -> tuple[str, str]:
    return f"padchest-{row['study']}", row["image"]


def _read_homes(path: Path) -> dict[str, tuple[str, str, str]]:
    """Study -> (patient, split, sex); the table has a row for each label of a study."""
    homes: dict[str, tuple[str, str, str]] = {}
    for row in read_table(path, ("StudyID", "PatientID", "split"), ("PatientSex_DICOM",)):
        if not row.fault:
            split = SPLITS.get(row["split"].lower(), "")
            homes.setdefault(row["StudyID"], (row["PatientID"], split, row["PatientSex_DICOM"]))
    return homes


def _read_item(item: Any, homes: dict[str, tuple[str, str, str]], language: str) -> tuple[dict[str, str], str, str]:
    """(cells, split, fault) of one report."""
    blank = dict.fromkeys(_COLUMNS, "")
    if not isinstance(item, dict) or not isinstance(item.get("findings"), list):
        return blank, "train", "no list of findings"
    image, study = str(item.get("ImageID", "")), str(item.get("StudyID", ""))
    cells = {**blank, "image": image, "study": study}
    if not image or not study:
        return cells, "train", "no ImageID or StudyID"
    patient, split, sex = homes.get(study, ("", "", ""))
    if not patient or not split:
        return cells, "train", "the study has no patient or no split in the master table"
    sentences, labels, boxes = [], [], []
    for sentence in item["findings"]:
        text, given, corners, fault = _read_sentence(sentence, language)
        if fault:
            return cells, split, fault
        sentences.append(text)
        labels += given
        boxes += [[given[0] if given else "", text, *corner] for corner in corners]
    return {**cells, "patient": patient, "sex": sex, "report": " ".join(sentences),
            "labels": json.dumps(sorted(set(labels)) or [NO_FINDING]), "boxes": json.dumps(boxes)}, split, ""


def _read_sentence(item: Any, language: str) -> tuple[str, list[str], list[list[float]], str]:
    """(sentence, labels of something abnormal, boxes [left, top, right, bottom] in parts of the image, fault)."""
    text = item.get(f"sentence_{language}") if isinstance(item, dict) else None
    if not isinstance(text, str) or not text.strip():
        return "", [], [], f"a finding without a sentence in {language}"
    names, corners = item.get("labels") or [], item.get("boxes") or []
    if not isinstance(names, list) or not isinstance(corners, list):
        return "", [], [], "labels or boxes that are not lists"
    names = [" ".join(str(name).lower().split()) for name in names] if item.get("abnormal") else []
    labels = [find_label(name) or name for name in names if name and name != "normal"]
    boxes = []
    for corner in corners:
        try:
            values = [float(value) for value in corner]
        except (TypeError, ValueError):
            values = []
        if len(values) != 4 or not all(map(math.isfinite, values)):
            return "", [], [], "a box whose position is not four numbers"
        if min(values) < -_ROUNDING or max(values) > 1 + _ROUNDING:
            return "", [], [], "a box lies outside the image"
        left, top, right, bottom = (min(1.0, max(0.0, value)) for value in values)
        if right <= left or bottom <= top:
            return "", [], [], "a box without extent"
        boxes.append([left, top, right, bottom])
    return " ".join(text.split()), labels, boxes, ""


def png_size(path: Path) -> tuple[int, int]:
    """(height, width) of a PNG file, from its header.

    Raises:
      UnreadableImage: no such file, or not a PNG file.
    """
    with open_regular(path) as (file, _):
        head = file.read(24)
    if not head.startswith(PNG) or len(head) < 24:
        raise UnreadableImage("not a PNG file")
    width, height = struct.unpack(">II", head[16:24])
    return height, width


class GroundedReader:
    """Rows of `open_splits` -> studies. Picklable."""

    def __init__(self, images: Path, label_names: tuple[str, ...], language: str) -> None:
        self._images, self.label_names, self._language = images, label_names, language

    def study(self, split: str, rows: Sequence[Row]) -> Study:
        """See `official.Reader`. Report and labels are those of the study's first image."""
        images = []
        for row in rows:
            path, boxes = self._images / row["image"], json.loads(row["boxes"])
            try:
                height, width = png_size(path) if boxes else (0, 0)
            except UnreadableImage:  # The build says what is wrong with it.
                boxes, height, width = [], 0, 0
            placed = tuple(Box(finding, text, left * width, top * height, (right - left) * width,
                               (bottom - top) * height) for finding, text, left, top, right, bottom in boxes)
            images.append(ImageRef(row["image"], "FRONTAL", str(path), boxes=placed, row=row.number,
                                   size=(height, width)))
        first = rows[0]
        positive = set(json.loads(first["labels"]))
        labels = {name: POSITIVE if name in positive else NEGATIVE for name in self.label_names}
        return Study(_identity(first)[0], f"padchest-{first['patient']}", split, tuple(images), first["report"], labels,
                     NAME, LICENCE, TERMS, self._language, parse_sex(first["sex"]), label_source="radiologist")
