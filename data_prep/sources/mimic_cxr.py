"""MIMIC-CXR: 377,110 chest radiographs of 227,835 studies with free-text reports (Johnson et al., Sci Data 2019;6:317).

    python -m data_prep.build --config=configs/data/mimic_cxr.py --config.mimic_cxr.path=MIMIC --out=DATA

MIMIC holds the tables of MIMIC-CXR-JPG, `mimic-cxr-2.0.0-{split,metadata,chexpert}.csv.gz`; in it or elsewhere
(`images`, `reports`) lie
- the images: `files/p10/p10000032/s50414267/*.jpg` (MIMIC-CXR-JPG) or the same with `.dcm` (MIMIC-CXR), and
- the reports: `p10/p10000032/s50414267.txt` (mimic-cxr-reports.zip, unpacked; looked for in mimic-cxr-reports/files,
  reports/files, reports and files).
MIMIC may also be the folder that PhysioNet's own download made (`physionet.org`). Images and reports are looked for in
the release of MIMIC-CXR beside that of MIMIC-CXR-JPG too (`shared/mimic_files.py`).

Splits are the official ones. Labels are the CheXpert labeler's (or NegBio's) from the report: the same for all images
of a study. Frontal and lateral images are all read; the view is ViewPosition of the metadata (PA, AP, LATERAL, LL, ...
or empty); `views=frontal` keeps PA and AP only, and images of unknown view are left out then. Sex and age come from
MIMIC-IV's patients.csv.gz where `patients` names it: the age at the study is anchor_age + its year - anchor_year.

An input row is a row of the metadata table. A study whose report is missing or has none of the wanted sections gives
unpaired images.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.sources.shared import mimic_files, mimic_report, physionet
from data_prep.sources.shared.official import Studies, group, image_folder, keep_view, open_folder
from data_prep.sources.shared.tables import (
    Packed,
    Row,
    compare_count,
    need_table,
    parse_label,
    parse_sex,
    parse_years,
    read_table,
)
from data_prep.study import ImageRef, Rejection, Study
from lgdea_jax.errors import UserError, choose
from lgdea_jax.findings.label_sets import LABEL_SETS
from lgdea_jax.records import MISSING

NAME = "MIMIC-CXR"
SPLITS = {"train": "train", "validate": "validation", "test": "test"}
LABELERS = ("chexpert", "negbio", "none")
SECTIONS = ("findings", "impression", "indication", "history", "comparison", "technique", "examination",
            mimic_report.LAST_PARAGRAPH)
REPORT_FOLDERS = ("mimic-cxr-reports/files", "reports/files", "reports", "files")
ZIP = "mimic-cxr-reports.zip"
IMAGES = 377_110
_NEEDED, _OPTIONAL = ("dicom_id", "subject_id", "study_id", "ViewPosition"), ("StudyDate",)


def open_source(config: Any, split: str) -> Studies:
    """One split; see `open_splits`."""
    return open_splits(config)[split]


def open_splits(config: Any) -> dict[str, Studies]:
    """Reads the tables; no image and no report is opened.

    Args:
      config: its `mimic_cxr` has `path`, `images` and `reports` (folder, "auto" or "none"), `image_format` ("auto",
        "jpg" or "dicom"), `labels` (of LABELERS), `patients` (MIMIC-IV's table or ""), `views` ("all" or "frontal"),
        `report_sections` (of SECTIONS), `verify` (see `physionet.verify`).

    Raises:
      UserError: a table, column or folder is missing, no report is found and `reports` is not "none", a checksum
        differs, or a subject lies in two splits.
    """
    config = config.mimic_cxr
    folder = open_folder(config, "mimic_cxr", "mimic-cxr-2.0.0-split.csv.gz")
    folder = mimic_files.find_release(folder, "mimic-cxr-2.0.0-split.csv.gz")
    for name in config.report_sections:
        choose("report section", name, SECTIONS)
    paths = {name: need_table(folder, f"mimic-cxr-2.0.0-{name}.csv.gz") for name in ("split", "metadata")}
    if choose("labels", config.labels, LABELERS) != "none":
        paths["labels"] = need_table(folder, f"mimic-cxr-2.0.0-{config.labels}.csv.gz")
    physionet.verify(folder, paths.values(), config.verify)
    table, keys = _read_metadata(paths["metadata"], _read_splits(paths["split"]), config.views)
    labels = _Labels.read(paths["labels"]) if "labels" in paths else None
    patients = _Patients.read(Path(config.patients)) if config.patients else None
    studies = [mimic_files.study_path(row["subject_id"], row["study_id"]) for row in _first(table)]
    reader = MimicReader(_images(folder, config, table), _reports(folder, config.reports, studies), labels, patients,
                         tuple(config.report_sections))
    return group(reader, table, **keys, identity=_identity, digest=[path.read_bytes() for path in paths.values()])


def _first(table: Packed) -> list[Row]:
    rows = (table[i] for i in range(len(table)))
    return list(itertools.islice((row for row in rows if not row.fault), 1000))


def _identity(row: Row) -> tuple[str, str]:
    return mimic_files.study_id(row["study_id"]), row["dicom_id"]


def _read_splits(path: Path) -> dict[str, str]:
    """Image -> our split; "" for one that the release does not have."""
    return {row["dicom_id"]: SPLITS.get(row["split"], "") for row in read_table(path, ("dicom_id", "split"))
            if not row.fault}


def _read_metadata(path: Path, splits: dict[str, str], views: str) -> tuple[Packed, dict[str, list[str]]]:
    """(the wanted rows, the "study", "subject" and "split" of each)."""
    table, count = Packed((*_NEEDED, *_OPTIONAL)), 0
    keys: dict[str, list[str]] = {"study": [], "subject": [], "split": []}
    seen: set[str] = set()
    for row in read_table(path, _NEEDED, _OPTIONAL):
        count += 1
        if not row.fault and not keep_view(row["ViewPosition"], views):
            continue
        fault = row.fault
        if not fault and not (row["subject_id"].isdecimal() and row["study_id"].isdecimal() and row["dicom_id"]):
            fault = "no subject_id, study_id or dicom_id"
        if not fault and row["dicom_id"] not in splits:
            fault = "the image is not in the table of splits"
        if not fault and not splits[row["dicom_id"]]:
            fault = f"its split is none of {', '.join(SPLITS)}"
        if not fault and row["dicom_id"] in seen:
            fault = "the image occurs twice"
        seen.add(row["dicom_id"])
        table.append(Row(row.number, row.cells, fault))
        keys["study"].append("" if fault else row["study_id"])
        keys["subject"].append("" if fault else row["subject_id"])
        keys["split"].append("train" if fault else splits[row["dicom_id"]])
    compare_count(f"images in {path.name}", count, IMAGES)
    return table, keys


def _images(folder: Path, config: Any, table: Packed) -> tuple[Path, str] | None:
    """(folder that holds p10/, suffix), None without images."""
    beside = [str(release / "files") for release in mimic_files.neighbours(folder)]
    images = image_folder(folder, config.images, ("files", *beside))
    if images is None:
        return None
    if (images / "files").is_dir():  # The root of a release was given.
        images = images / "files"
    stems = (f"{mimic_files.study_path(row['subject_id'], row['study_id'])}/{row['dicom_id']}" for row in _first(table))
    return images, mimic_files.image_suffix(images, stems, config.image_format)


def _reports(folder: Path, choice: str, studies: Sequence[str]) -> Path | None:
    """The folder that holds p10/p10000032/s50414267.txt, None without reports."""
    if choice == "none":
        return None
    releases = [folder, *mimic_files.neighbours(folder)] if choice == "auto" else [folder / choice]
    places = [release / name for release in releases for name in REPORT_FOLDERS]
    if choice != "auto":
        places.insert(0, folder / choice)
    for place in places:
        if any((place / f"{study}.txt").is_file() for study in studies):
            return place
    packed = next((release / ZIP for release in releases if (release / ZIP).is_file()), None)
    raise UserError(
        f"no reports (p10/p10000032/s50414267.txt and the like) in {', '.join(map(str, releases))}: "
        + (f"unpack {packed}, or " if packed else "")
        + "give their folder as config.mimic_cxr.reports=..., or config.mimic_cxr.reports=none for images alone")


class _Labels:
    """Labels by study number: a row of int8 per study."""

    def __init__(self, studies: np.ndarray, values: np.ndarray, faults: dict[str, str]) -> None:
        self._studies, self._values, self.faults = studies, values, faults

    @classmethod
    def read(cls, path: Path) -> _Labels:
        """`faults` says of which studies the labels cannot be read, and why."""
        names = MimicReader.label_names
        studies: list[int] = []
        values: list[list[int]] = []
        faults: dict[str, str] = {}
        for row in read_table(path, ("study_id", *names)):
            found = [parse_label(row[name]) for name in names]
            if row.fault or None in found:
                faults[row["study_id"]] = row.fault or "a label is none of 1, 0, -1 and empty"
            elif row["study_id"].isdecimal():
                studies.append(int(row["study_id"]))
                values.append(found)
        order = np.argsort(studies, kind="stable")
        return cls(np.array(studies, np.int64)[order], np.array(values, np.int8).reshape(-1, len(names))[order], faults)

    def of(self, study: str) -> dict[str, int]:
        """Label name -> value; all MISSING for a study that the table does not have."""
        names, number = MimicReader.label_names, int(study)
        at = int(np.searchsorted(self._studies, number))
        if at == len(self._studies) or self._studies[at] != number:
            return dict.fromkeys(names, MISSING)
        return dict(zip(names, self._values[at].tolist(), strict=True))


class _Patients:
    """Sex and anchors of MIMIC-IV's patients by subject number."""

    def __init__(self, subjects: np.ndarray, values: np.ndarray) -> None:
        self._subjects, self._values = subjects, values

    @classmethod
    def read(cls, path: Path) -> _Patients:
        if not path.is_file():
            raise UserError(f"no table of patients at {path}")
        rows = []
        for row in read_table(path, ("subject_id", "gender", "anchor_age", "anchor_year")):
            if not row.fault and row["subject_id"].isdecimal() and row["anchor_year"].isdecimal():
                sex = {"": 0, "M": 1, "F": 2}[parse_sex(row["gender"])]
                rows.append((int(row["subject_id"]), sex, parse_years(row["anchor_age"]), int(row["anchor_year"])))
        values = np.array(rows, np.float64).reshape(-1, 4)
        values = values[np.argsort(values[:, 0], kind="stable")]
        return cls(values[:, 0].astype(np.int64), values[:, 1:])

    def of(self, subject: str, date: str) -> tuple[str, float]:
        """(sex, age) at a study's date (YYYYMMDD); ("", NaN) for a subject who is not among them."""
        at = int(np.searchsorted(self._subjects, int(subject)))
        if at == len(self._subjects) or self._subjects[at] != int(subject):
            return "", float("nan")
        sex, age, year = self._values[at]
        at_study = age + int(date[:4]) - year if date[:4].isdecimal() else float("nan")
        return ("", "M", "F")[int(sex)], parse_years(str(at_study))


class MimicReader:
    """Rows of the metadata -> studies. Picklable."""

    label_names = LABEL_SETS["chexpert14"]

    def __init__(self, images: tuple[Path, str] | None, reports: Path | None, labels: _Labels | None,
                 patients: _Patients | None, sections: tuple[str, ...]) -> None:
        self._images, self._reports, self._sections = images, reports, sections
        self._labels, self._patients = labels, patients

    def study(self, split: str, rows: Sequence[Row]) -> Study:
        """See `official.Reader`."""
        subject, study = rows[0]["subject_id"], rows[0]["study_id"]
        path = mimic_files.study_path(subject, study)
        report, fault = self._report(path)
        fault = fault or (self._labels.faults.get(study, "") if self._labels else "")
        refused = [(row, fault) for row in rows] if fault else []
        if not fault and not report and not self._images:
            refused = [(row, "no report with the wanted sections, and no image") for row in rows]
        images = () if refused or not self._images else tuple(
            ImageRef(row["dicom_id"], row["ViewPosition"].upper(),
                     str(self._images[0] / path / f"{row['dicom_id']}{self._images[1]}"), row=row.number)
            for row in rows)
        sex, age = self._patients.of(subject, rows[0]["StudyDate"]) if self._patients else ("", float("nan"))
        return Study(
            mimic_files.study_id(study), mimic_files.subject_id(subject), split, images, "" if refused else report,
            self._labels.of(study) if self._labels else {}, NAME, mimic_files.LICENCE, mimic_files.TERMS, sex=sex,
            age=age, rejections=tuple(Rejection(*_identity(row), row.number, reason) for row, reason in refused),
            label_source="report_program" if self._labels else "")

    def _report(self, path: str) -> tuple[str, str]:
        """(text, fault)."""
        if self._reports is None:
            return "", ""
        try:
            text = (self._reports / f"{path}.txt").read_bytes().decode("utf-8")
        except FileNotFoundError:
            return "", ""
        except UnicodeDecodeError:
            return "", "unreadable report: not UTF-8"
        return mimic_report.read_report(text, self._sections), ""


