"""RSNA Pneumonia Detection Challenge: 26,684 frontal radiographs with boxes of opacities (Shih et al., Radiol AI 2019).

    python -m data_prep.build --config=configs/data/rsna_pneumonia.py --config.rsna_pneumonia.path=RSNA --out=DATA

RSNA holds `stage_2_train_labels.csv` (a row per box; several rows of a patient), `stage_2_train_images/*.dcm` and,
where wanted, `stage_2_detailed_class_info.csv` (Normal, No Lung Opacity / Not Normal, Lung Opacity). The challenge's
test images have no labels and are not read.

Splits are those of the field's code (GLoRIA): patients in alphabetical order, 70/15/15 with scikit-learn's
`train_test_split(random_state=0)`; `splits=hash` draws by a hash of the patient instead. "Pneumonia" is Target; "No
Finding" is the detailed class (missing without that table: Target 0 is not normal). All images are frontal; view (PA,
AP), sex and age come from the DICOM files.

An input row is a patient, who has one image; a faulty row of the table refuses the patient.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_prep.sources.shared.official import (
    Studies,
    check_shares,
    group,
    image_folder,
    open_folder,
    permuted_split,
    split_by_share,
)
from data_prep.sources.shared.tables import Packed, Row, compare_count, find_table, need_table, read_table
from data_prep.study import ImageRef, Study
from lgdea_jax.errors import UserError, choose
from lgdea_jax.findings.vocabulary import NO_FINDING
from lgdea_jax.records import MISSING, NEGATIVE, POSITIVE, Box

NAME, TERMS = "RSNA Pneumonia Detection Challenge", "open"
LICENCE = "competition rules: academic and non-commercial use; images: NIH Clinical Center"
LABELS, CLASSES, IMAGES = "stage_2_train_labels.csv", "stage_2_detailed_class_info.csv", "stage_2_train_images"
FINDING = "Pneumonia"
PATIENTS = 26_684
_CLASS = {"Normal": POSITIVE, "No Lung Opacity / Not Normal": NEGATIVE, "Lung Opacity": NEGATIVE}
_PLACE = ("x", "y", "width", "height")
_COLUMNS = ("patient", "target", "normal", "boxes")


def open_source(config: Any, split: str) -> Studies:
    """One split; see `open_splits`."""
    return open_splits(config)[split]


def open_splits(config: Any) -> dict[str, Studies]:
    """Reads the tables; no image is opened.

    Args:
      config: its `rsna_pneumonia` has `path`, `images` ("auto" or a folder), `splits` ("official" or "hash"),
        `validation`, `test` and `seed` (for "hash").

    Raises:
      UserError: a table, column or the images are missing.
    """
    config = config.rsna_pneumonia
    folder = open_folder(config, "rsna_pneumonia", LABELS)
    check_shares(config, "rsna_pneumonia")
    patients = _read_labels(need_table(folder, LABELS))
    classes = _read_classes(folder)
    images = image_folder(folder, config.images, (IMAGES,))
    if images is None:
        raise UserError("the RSNA data set has no reports: images=none leaves nothing")
    compare_count(f"patients in {LABELS}", len(patients), PATIENTS)
    names = sorted(patients)
    if choose("splits", config.splits, ("official", "hash")) == "official":
        splits = permuted_split(len(names), held_out=0.3)
    else:
        splits = [split_by_share(name, config) for name in names]
    table = Packed(_COLUMNS)
    for name in names:
        number, target, boxes, fault = patients[name]
        values = (name, target, str(classes.get(name, MISSING)), json.dumps(boxes))
        table.append(Row(number, dict(zip(_COLUMNS, values, strict=True)), fault))
    keys = ["" if patients[name][3] else name for name in names]
    return group(RsnaReader(images), table, study=keys, subject=keys, split=splits, identity=_identity)


def _identity(row: Row) -> tuple[str, str]:
    return row["patient"], row["patient"]


def _read_labels(path: Path) -> dict[str, tuple[int, str, list[list[float]], str]]:
    """Patient -> (row number, target, boxes, fault)."""
    found: dict[str, tuple[int, str, list[list[float]], str]] = {}
    for row in read_table(path, ("patientId", *_PLACE, "Target")):
        number, target, boxes, fault = found.get(row["patientId"], (row.number, row["Target"], [], ""))
        fault = fault or row.fault or _fault(row, target)
        if not fault and target == "1":
            boxes = [*boxes, [float(row[name]) for name in _PLACE]]
        found[row["patientId"]] = (number, target, boxes, fault)
    return found


def _fault(row: Row, target: str) -> str:
    if not row["patientId"]:
        return "no patientId"
    if row["Target"] not in ("0", "1"):
        return "Target is neither 0 nor 1"
    if row["Target"] != target:
        return "the patient's rows have different Targets"
    if target == "0":
        return "" if not any(row[name] for name in _PLACE) else "a box where Target is 0"
    try:
        values = [float(row[name]) for name in _PLACE]
    except ValueError:
        return "a box whose position is not numbers"
    return "" if all(map(math.isfinite, values)) and min(values[2:]) > 0 else "a box without extent"


def _read_classes(folder: Path) -> dict[str, int]:
    """Patient -> the label "No Finding"; a class that the table should not have is MISSING."""
    path = find_table(folder, CLASSES)
    if path is None:
        return {}
    return {row["patientId"]: _CLASS.get(row["class"], MISSING) for row in read_table(path, ("patientId", "class"))
            if not row.fault}


class RsnaReader:
    """Patients -> studies. Picklable."""

    label_names = (FINDING, NO_FINDING)

    def __init__(self, images: Path) -> None:
        self._images = images

    def study(self, split: str, rows: Sequence[Row]) -> Study:
        """See `official.Reader`."""
        (row,) = rows
        patient = row["patient"]
        boxes = tuple(Box(FINDING, "", *box) for box in json.loads(row["boxes"]))
        image = ImageRef(patient, "", str(self._images / f"{patient}.dcm"), boxes=boxes, row=row.number)
        labels = {FINDING: int(row["target"]), NO_FINDING: int(row["normal"])}
        return Study(patient, patient, split, (image,), "", labels, NAME, LICENCE, TERMS, label_source="radiologist")
