"""CXR-LT: labels of frequent and rare findings on MIMIC-CXR's images (Holste et al., 2024; Lin et al., 2025).

    python -m data_prep.build --config=configs/data/cxr_lt.py --config.cxr_lt.path=CXR_LT \\
        --config.cxr_lt.images=MIMIC_CXR_JPG --config.cxr_lt.task=2 --out=DATA

CXR_LT is the PhysioNet release, or its folder of one challenge (`release`):
- 2023, in `cxr-lt-2023`: `train.csv`, `development.csv`, `test.csv` with 26 labels;
- 2024, in `cxr-lt-2024`: `train_labeled.csv`, `development_labeled_taskN.csv`, `test_labeled_taskN.csv`; task 1 has 40
  labels, task 2 26 of them with a test set that people labelled, task 3 five that the training table does not have
  (its training rows are those of `labels.csv`).
Tables of training and development may be missing.

Splits are the challenge's. Labels are 1 or 0, by a program that read the reports; those of task 2's test set are by
people who read them. Names that our vocabulary knows are ours (Normal is No Finding), the others the challenge's.
Subjects have the same ids as in MIMIC-CXR's records, whose splits are others: a model that was trained on MIMIC-CXR's
training split has learned from some of these test images, which the leakage guard finds. The view is ViewPosition where
the table has it; `views=frontal` keeps PA and AP. There are no reports here.

An input row is a row of a table, the tables in the order above.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_prep.sources.shared import mimic_files, physionet
from data_prep.sources.shared.official import Studies, group, keep_view, open_folder
from data_prep.sources.shared.tables import Packed, Row, find_table, need_table, parse_label, read_table
from data_prep.study import ImageRef, Study
from lgdea_jax.errors import choose
from lgdea_jax.findings.vocabulary import find_label

NAME = "CXR-LT"
RELEASES, TASKS = ("2024", "2023"), ("1", "2", "3")
_BOTH = ("Atelectasis", "Calcification of the Aorta", "Cardiomegaly", "Consolidation", "Edema", "Emphysema",
         "Enlarged Cardiomediastinum", "Fibrosis", "Fracture", "Hernia", "Infiltration", "Lung Lesion", "Lung Opacity",
         "Mass", "Nodule", "Pleural Effusion", "Pleural Other", "Pleural Thickening", "Pneumomediastinum", "Pneumonia",
         "Pneumoperitoneum", "Pneumothorax", "Subcutaneous Emphysema", "Support Devices", "Tortuous Aorta")
_MORE = ("Adenopathy", "Azygos Lobe", "Clavicle Fracture", "Fissure", "Granuloma", "Hydropneumothorax", "Infarction",
         "Kyphosis", "Lobar Atelectasis", "Pulmonary Embolism", "Pulmonary Hypertension", "Rib Fracture",
         "Round(ed) Atelectasis", "Tuberculosis")
# (release, task) -> columns of labels.
LABELS = {("2023", ""): (*_BOTH, "No Finding"), ("2024", "1"): (*_BOTH, *_MORE, "Normal"),
          ("2024", "2"): (*_BOTH, "Normal"),
          ("2024", "3"): ("Bulla", "Cardiomyopathy", "Hilum", "Osteopenia", "Scoliosis")}
_SHARED = ("image", "view", "path", "labels", "source")


def open_source(config: Any, split: str) -> Studies:
    """One split; see `open_splits`."""
    return open_splits(config)[split]


def open_splits(config: Any) -> dict[str, Studies]:
    """Reads the tables; no image is opened.

    Args:
      config: its `cxr_lt` has `path`, `images` (the folder with MIMIC-CXR's files/), `image_format` ("auto", "jpg" or
        "dicom"), `release` (of RELEASES), `task` (of TASKS, for 2024), `views` ("all" or "frontal"), `verify` (see
        `physionet.verify`).

    Raises:
      UserError: the table of the test split or a column is missing, there are no images, a checksum differs, or a
        subject lies in two splits.
    """
    config = config.cxr_lt
    folder = open_folder(config, "cxr_lt", "cxr-lt-2023/ or cxr-lt-2024/")
    release = choose("release", str(config.release), RELEASES)
    task = choose("task", str(config.task), TASKS) if release == "2024" else ""
    below = folder / f"cxr-lt-{release}"
    tables = _tables(below if below.is_dir() else folder, release, task)
    physionet.verify(folder, tables.values(), config.verify)
    columns = LABELS[release, task]
    table, seen = Packed(_SHARED), set()
    keys: dict[str, list[str]] = {"study": [], "subject": [], "split": []}
    number = 0
    for split, path in tables.items():
        for row in read_table(path, ("dicom_id", *columns), ("fpath", "path", "ViewPosition", "split")):
            if path.name.startswith("labels.csv") and row["split"].lower() != "train":
                continue
            number += 1
            if not row.fault and not keep_view(row["ViewPosition"], config.views):
                continue
            where = mimic_files.parse_path(row["fpath"] or row["path"])
            labels = [parse_label(row[name]) for name in columns]
            fault = row.fault or _fault(where, row["dicom_id"], labels, seen)
            seen.add(row["dicom_id"])
            human = release == "2024" and task == "2" and split == "test"
            table.append(Row(number, {
                "image": row["dicom_id"], "view": row["ViewPosition"].upper(), "path": where[0] if where else "",
                "labels": " ".join(map(str, labels)), "source": "report_human" if human else "report_program"}, fault))
            keys["study"].append("" if fault else where[2])
            keys["subject"].append("" if fault else where[1])
            keys["split"].append(split)
    images = mimic_files.images_below(folder, config.images, "cxr_lt")
    good = itertools.islice((row["path"] for row in map(table.__getitem__, range(len(table))) if not row.fault), 1000)
    reader = CxrLtReader(images, mimic_files.image_suffix(images, good, config.image_format), names(columns))
    return group(reader, table, **keys, identity=_identity, digest=["\n".join(columns).encode()])


def names(columns: Sequence[str]) -> tuple[str, ...]:
    """The labels of columns: our name where the vocabulary has one that no earlier column took, else the column's."""
    out: list[str] = []
    for column in columns:
        found = find_label(column) or column
        out.append(column if found in out else found)
    return tuple(out)


def _tables(folder: Path, release: str, task: str) -> dict[str, Path]:
    """Split -> its table; training and development only where they are there."""
    if release == "2023":
        known = {"train": "train.csv", "validation": "development.csv", "test": "test.csv"}
    else:
        known = {"train": "labels.csv" if task == "3" else "train_labeled.csv",
                 "validation": f"development_labeled_task{task}.csv", "test": f"test_labeled_task{task}.csv"}
    found = {split: find_table(folder, name) for split, name in known.items()}
    return {split: path for split, path in found.items() if path} | {"test": need_table(folder, known["test"])}


def _fault(where: tuple[str, str, str, str] | None, image: str, labels: Sequence[int | None], seen: set[str]) -> str:
    if where is None or where[3] != image:
        return "the path is not that of this image of MIMIC-CXR"
    if None in labels:
        return "a label is none of 1, 0, -1 and empty"
    return "the image occurs twice" if image in seen else ""


def _identity(row: Row) -> tuple[str, str]:
    where = mimic_files.parse_path(row["path"])
    return where[2] if where else "", row["image"]


class CxrLtReader:
    """Rows of the tables -> studies. Picklable."""

    def __init__(self, images: Path, suffix: str, label_names: tuple[str, ...]) -> None:
        self._images, self._suffix, self.label_names = images, suffix, label_names

    def study(self, split: str, rows: Sequence[Row]) -> Study:
        """See `official.Reader`. Labels are of the report: those of the study's first image."""
        _, subject, study, _ = mimic_files.parse_path(rows[0]["path"])
        images = tuple(ImageRef(row["image"], row["view"], str(self._images / f"{row['path']}{self._suffix}"),
                                row=row.number) for row in rows)
        labels = dict(zip(self.label_names, map(int, rows[0]["labels"].split()), strict=True))
        return Study(study, subject, split, images, "", labels, NAME, mimic_files.LICENCE, mimic_files.TERMS,
                     label_source=rows[0]["source"])
