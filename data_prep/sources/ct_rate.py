"""CT-RATE: 25,692 chest CT scans of 21,304 patients, reports and 18 labels (Hamamci et al., 2024, arXiv 2403.17834).

    python -m data_prep.build --config=configs/data/ct_rate.py --config.ct_rate.path=CT_RATE --out=DATA

CT_RATE is the release of huggingface.co/datasets/ibrahimhamamci/CT-RATE (its `dataset` folder, or the folder above):
- `radiology_text_reports/{train,validation}_reports.csv`: VolumeName, Findings_EN, Impressions_EN;
- `multi_abnormality_labels/{train,valid}_predicted_labels.csv`: VolumeName and 18 columns;
- `metadata/{train,validation}_metadata.csv`: RescaleSlope, RescaleIntercept, XYSpacing, ZSpacing, PatientSex,
  PatientAge;
- `{train,valid}_fixed/valid_53/valid_53_a/valid_53_a_1.nii.gz`: patient 53, its scan a, reconstruction 1.

Volumes of the `_fixed` folders are in Hounsfield units with the right spacing in their headers: `headers=file`. Those
of `train` and `valid`, the first release, need slope, intercept and spacing from the metadata: `headers=metadata`.
Applying these to the fixed ones would rescale them twice, which is noticed and refused.

The official validation part is the test split here; a share of the training patients by hash (`validation`) is the
validation split. A scan is a study, its reconstructions are the study's images and share report and labels. Labels are
those of the authors' labeler, read from the reports by a program. "Not given." is no text. The report is what CT-CLIP's
scripts read (`text=plain`): findings, then impression, without headers, quotes and brackets; they are joined by a space
where the scripts have none, which makes no other tokens of a BERT's. `text=sections` keeps headers and signs. There are
no frontal or lateral views: a volume has every one, and the record's view is empty.

`metadata/no_chest_{train,valid}.txt` lists volumes without a chest, by path or name; `no_chest=leave_out` leaves them
out, `keep` has the pools of the literature.

An input row is a volume of the reports or the labels table.
"""

from __future__ import annotations

import ast
import csv
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from data_prep.sources.shared.official import Studies, check_shares, group, image_folder, open_folder, split_by_share
from data_prep.sources.shared.tables import (
    Packed,
    Row,
    compare_count,
    find_table,
    need_table,
    parse_label,
    parse_sex,
    read_table,
)
from data_prep.study import ImageRef, Rejection, Study
from lgdea_jax.errors import UserError, choose
from lgdea_jax.findings.label_sets import LABEL_SETS
from lgdea_jax.findings.vocabulary import find_label
from lgdea_jax.io.dicom import parse_age
from lgdea_jax.io.raw_volume import VolumeHeader
from lgdea_jax.records import MISSING

NAME, TERMS = "CT-RATE", "credentialed"
LICENCE = "CC BY-NC-SA 4.0, with the terms of access of its authors"
VOLUMES = {"train": 47_149, "valid": 3_039}
HEADERS = ("file", "metadata")
RECONSTRUCTIONS = ("all", "first")
NO_CHEST = ("keep", "leave_out")
TEXTS = ("plain", "sections")
_SIGNS = str.maketrans("", "", "\"'()")  # Those that the scripts take out.
_LABELS = LABEL_SETS["ct_rate18"]
_METADATA = ("RescaleSlope", "RescaleIntercept", "XYSpacing", "ZSpacing", "PatientSex", "PatientAge")
_COLUMNS = ("VolumeName", "Findings_EN", "Impressions_EN", "labels", *_METADATA)
_NAME = re.compile(r"((?:train|valid)_\d+)_([a-z]+)_(\d+)(?:\.nii(?:\.gz)?)?")


def open_source(config: Any, split: str) -> Studies:
    """One split; see `open_splits`."""
    return open_splits(config)[split]


def open_splits(config: Any) -> dict[str, Studies]:
    """Reads the tables; no volume is opened.

    Args:
      config: its `ct_rate` has `path`, `images` ("auto", "none" or the folder with the folders of both parts),
        `headers` (one of HEADERS), `reconstructions` ("all", or "first": the others are left out and counted nowhere),
        `no_chest` (of NO_CHEST; likewise), `text` (of TEXTS), `validation` and `seed`.

    Raises:
      UserError: a table, column or folder of volumes is missing, or the list of volumes without a chest.
    """
    config = config.ct_rate
    folder = open_folder(config, "ct_rate", "radiology_text_reports/ and multi_abnormality_labels/")
    folder = folder / "dataset" if (folder / "dataset").is_dir() else folder
    check_shares(config, "ct_rate")
    choose("config.ct_rate.headers", config.headers, HEADERS)
    choose("config.ct_rate.reconstructions", config.reconstructions, RECONSTRUCTIONS)
    choose("config.ct_rate.no_chest", config.no_chest, NO_CHEST)
    choose("config.ct_rate.text", config.text, TEXTS)
    table, keys = Packed(_COLUMNS), {"study": [], "subject": [], "split": []}
    roots: dict[str, Path | None] = {}
    for part, long in (("train", "train"), ("valid", "validation")):
        labels = find_table(folder / "multi_abnormality_labels", f"{part}_predicted_labels.csv",
                            f"{long}_predicted_labels.csv")
        reports = find_table(folder / "radiology_text_reports", f"{long}_reports.csv", f"{part}_reports.csv")
        if part == "train" and labels is None and reports is None:
            continue  # Many have the validation part only.
        for name, found in (("multi_abnormality_labels", labels), ("radiology_text_reports", reports)):
            if found is None:
                need_table(folder / name, f"{part}_predicted_labels.csv" if "labels" in name else f"{long}_reports.csv")
        names = (f"{part}_fixed", part) if config.headers == "file" else (part, f"{part}_fixed")
        given = config.images if config.images in ("auto", "none") else ""
        roots[part] = image_folder(folder if given else Path(config.images), given or "auto", names)
        count = 0
        chestless = _read_no_chest(folder / "metadata", part) if config.no_chest == "leave_out" else set()
        for row in _rows(reports, labels, _read_metadata(folder / "metadata", long, part, config.headers)):
            match = _NAME.fullmatch(row["VolumeName"])
            if match and config.reconstructions == "first" and match[3] != "1":
                continue
            if _stem(row["VolumeName"]) in chestless:
                continue
            count += 1
            fault = row.fault or ("" if match else f"no volume of CT-RATE is called {row['VolumeName']!r}")
            table.append(Row(row.number, row.cells, fault))
            keys["study"].append(f"{match[1]}_{match[2]}" if match and not fault else "")
            keys["subject"].append(match[1] if match and not fault else "")
            home = "test" if part == "valid" else split_by_share(match[1] if match else "", config)
            keys["split"].append(home)
        if config.reconstructions == "all" and not chestless:
            compare_count(f"volumes of the part {part}", count, VOLUMES[part])
    digest = [f"{config.headers} {config.reconstructions} {config.text} {sorted(roots)}".encode()]
    return group(CtRateReader(roots, config.headers, config.text), table, **keys, identity=_identity, digest=digest)


def _identity(row: Row) -> tuple[str, str]:
    match = _NAME.fullmatch(row["VolumeName"])
    return (f"{match[1]}_{match[2]}", _stem(row["VolumeName"])) if match else (row["VolumeName"], "")


def _stem(name: str) -> str:
    return name.removesuffix(".gz").removesuffix(".nii")


def _read_no_chest(folder: Path, part: str) -> set[str]:
    """Names, without suffix, of the volumes that the release lists as without a chest; one a line, by any path."""
    path = folder / f"no_chest_{part}.txt"
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"config.ct_rate.no_chest=leave_out needs {path} ({type(error).__name__})") from None
    return {_stem(line.strip().rsplit("/", 1)[-1]) for line in lines if line.strip()}


def _header(path: Path) -> list[str]:
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        return [name.strip() for name in next(csv.reader(file), [])]


def _read_metadata(folder: Path, long: str, part: str, headers: str) -> dict[str, dict[str, str]]:
    """Volume -> its cells of _METADATA."""
    path = find_table(folder, f"{long}_metadata.csv", f"{part}_metadata.csv")
    if path is None:
        if headers == "metadata":
            raise UserError(f"config.ct_rate.headers=metadata needs {folder / f'{long}_metadata.csv'}")
        return {}
    needed = ("VolumeName", *_METADATA[:4]) if headers == "metadata" else ("VolumeName",)
    rows = read_table(path, needed, tuple(name for name in _METADATA if name not in needed))
    return {_stem(row["VolumeName"]): {name: row[name] for name in _METADATA} for row in rows if not row.fault}


def _rows(reports: Path, labels: Path, metadata: dict[str, dict[str, str]]) -> Iterator[Row]:
    """The volumes of both tables, those of the reports first; labels are joined as "1,0,..." in the set's order."""
    columns = {name: find_label(name) for name in _header(labels) if find_label(name) in _LABELS}
    lacking = sorted(set(_LABELS) - set(columns.values()))
    if lacking:
        raise UserError(f"{labels.name} has no column for {', '.join(lacking)}")
    known: dict[str, tuple[str, str]] = {}
    numbers: dict[str, int] = {}
    for row in read_table(labels, ("VolumeName", *columns)):
        values = {ours: parse_label(row[theirs]) for theirs, ours in columns.items()} if not row.fault else {}
        fault = row.fault
        if not fault and all(value == MISSING for value in values.values()):
            fault = "its row of labels is empty"
        elif not fault and any(value not in (0, 1) for value in values.values()):
            fault = "a label is neither 0 nor 1"
        name = _stem(row["VolumeName"])
        if name in known:
            fault = "the volume occurs twice in the table of labels"
        known[name] = (",".join(str(values[name]) for name in _LABELS) if not fault else "", fault)
        numbers.setdefault(name, row.number)
    blank = dict.fromkeys(_METADATA, "")
    seen = set()
    for row in read_table(reports, ("VolumeName", "Findings_EN", "Impressions_EN")):
        name = _stem(row["VolumeName"])
        values, fault = known.get(name, ("", ""))
        fault = row.fault or ("the volume occurs twice in the table of reports" if name in seen else fault)
        seen.add(name)
        yield Row(row.number, {**row.cells, "labels": values, **metadata.get(name, blank)}, fault)
    for name, (values, fault) in known.items():
        if name not in seen:
            cells = {"VolumeName": name, "Findings_EN": "", "Impressions_EN": "", "labels": values}
            yield Row(numbers[name], {**cells, **metadata.get(name, blank)}, fault)


def report_of(findings: str, impressions: str, text: str = "plain") -> str:
    """The report of its two columns; "Not given." is no text.

    Args:
      text: of TEXTS: as CT-CLIP's scripts read it, or each column with its header.
    """
    parts = []
    for head, words in (("FINDINGS", findings), ("IMPRESSION", impressions)):
        words = " ".join(words.split())
        if words and words.lower().rstrip(".") != "not given":
            parts.append(words if text == "plain" else f"{head}: {words}")
    return " ".join(parts).translate(_SIGNS) if text == "plain" else "\n".join(parts)


def parse_header(row: Row) -> VolumeHeader:
    """Slope, intercept and spacing of a row of the metadata.

    Raises:
      ValueError: one is missing or no number.
    """
    slope, intercept = float(row["RescaleSlope"]), float(row["RescaleIntercept"])
    xy = ast.literal_eval(row["XYSpacing"])
    rows, columns = (float(value) for value in xy)
    spacing = (float(row["ZSpacing"]), rows, columns)
    if not all(math.isfinite(value) and value > 0 for value in spacing):
        raise ValueError("a spacing that is not positive")
    return VolumeHeader(slope, intercept, spacing)


class CtRateReader:
    """Volumes of a scan -> a study. Picklable."""

    label_names = _LABELS

    def __init__(self, roots: dict[str, Path | None], headers: str, text: str = "plain") -> None:
        self._roots, self._headers, self._text = roots, headers, text

    def study(self, split: str, rows: Sequence[Row]) -> Study:
        """See `official.Reader`."""
        study_id, _ = _identity(rows[0])
        subject = study_id.rpartition("_")[0]
        images, rejections, labels = [], [], ""
        root = self._roots[subject.partition("_")[0]]
        for row in rows:
            name = _stem(row["VolumeName"])
            if labels and row["labels"] and row["labels"] != labels:
                rejections.append(Rejection(study_id, name, row.number, "labels that differ from those of the scan"))
                continue
            labels = labels or row["labels"]
            if root is None:
                continue
            header = VolumeHeader()
            if self._headers == "metadata":
                try:
                    header = parse_header(row)
                except (ValueError, SyntaxError, TypeError):
                    rejections.append(Rejection(study_id, name, row.number, "no slope, intercept or spacing for it in "
                                                "the metadata"))
                    continue
            path = root / subject / study_id / f"{name}.nii.gz"
            if not path.is_file() and path.with_suffix("").is_file():  # Unpacked.
                path = path.with_suffix("")
            images.append(ImageRef(name, "", str(path), row=row.number, header=header))
        first = rows[0]
        reports = [report_of(row["Findings_EN"], row["Impressions_EN"], self._text) for row in rows]
        values = dict(zip(_LABELS, map(int, labels.split(",")), strict=True)) if labels else {}
        return Study(
            study_id, subject, split, tuple(images), next(filter(None, reports), ""), values, NAME, LICENCE, TERMS,
            sex=parse_sex(first["PatientSex"]), age=parse_age(first["PatientAge"]), modality="CT",
            rejections=tuple(rejections), label_source="report_program" if values else "")
