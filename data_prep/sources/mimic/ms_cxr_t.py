"""MS-CXR-T: how findings change between two radiographs, and pairs of sentences (Bannur et al., CVPR 2023).

    python -m data_prep.build --config=configs/data/ms_cxr_t.py --config.ms_cxr_t.path=MS_CXR_T \\
        --config.ms_cxr_t.images=MIMIC_CXR_JPG --out=DATA

MS_CXR_T holds `MS_CXR_T_temporal_image_classification_v1.x.y.csv`, a row per pair of images of MIMIC-CXR with
improving, stable or worsening for up to five findings, and `MS_CXR_T_temporal_sentence_similarity_v1.x.y.csv`, a row
per pair of sentences that is a paraphrase or a contradiction.

A pair of images is one study: two records, first the current image, then the previous one. Its labels are "FINDING
improving", "FINDING stable" and "FINDING worsening": the one that experts gave is positive, the other two negative, all
missing where a finding was not judged. Subjects have the same ids as in MIMIC-CXR's records. All images are frontal.
A pair of sentences is a report of two lines with the label "Paraphrase (SUBSET)", positive or negative; the patients
behind the sentences are not stated, so that every pair counts as a subject. Everything is in the test split.

An input row is one of the two images of a pair, or a pair of sentences; numbers are those of the table's rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_prep.sources.shared import mimic_files, physionet
from data_prep.sources.shared.official import Studies, group, open_folder
from data_prep.sources.shared.tables import Packed, Row, read_table
from data_prep.study import ImageRef, Study
from lgdea_jax.errors import UserError
from lgdea_jax.records import NEGATIVE, POSITIVE

NAME = "MS-CXR-T"
PAIRS = "MS_CXR_T_temporal_image_classification_v*.csv"
SENTENCES = "MS_CXR_T_temporal_sentence_similarity_v*.csv"
FINDINGS = {"consolidation": "Consolidation", "edema": "Edema", "pleural_effusion": "Pleural Effusion",
            "pneumonia": "Pneumonia", "pneumothorax": "Pneumothorax"}
CHANGES = ("improving", "stable", "worsening")
SUBSETS = ("RadGraph", "swaps")
CATEGORIES = {"paraphrase": POSITIVE, "contradiction": NEGATIVE}
CHANGE, PARAPHRASE = "{} {}", "Paraphrase ({})"
_PAIR = ("dicom_id", "previous_dicom_id", *(f"{name}_progression" for name in FINDINGS))
_SENTENCES = ("sentence_1", "sentence_2", "category", "subset_name")


def open_source(config: Any, split: str) -> Studies:
    """One split; see `open_splits`."""
    return open_splits(config)[split]


def open_splits(config: Any) -> dict[str, Studies]:
    """Reads the tables; no image is opened.

    Args:
      config: its `ms_cxr_t` has `path`, `images` (the folder with MIMIC-CXR's files/), `image_format` ("auto", "jpg" or
        "dicom"), `verify` (see `physionet.verify`).

    Raises:
      UserError: a table or column is missing, there are no images, or a checksum differs.
    """
    config = config.ms_cxr_t
    folder = open_folder(config, "ms_cxr_t", PAIRS)
    paths = [_newest(folder, pattern) for pattern in (PAIRS, SENTENCES)]
    physionet.verify(folder, paths, config.verify)
    table = Packed(("image", *_PAIR, *_SENTENCES))
    keys: dict[str, list[str]] = {"study": [], "subject": [], "split": []}
    for row in _pairs(paths[0]):
        for column in _PAIR[:2]:
            _append(table, keys, row, row[column])
    for row in _sentences(paths[1]):
        _append(table, keys, row, "")
    images = mimic_files.images_below(folder, config.images, "ms_cxr_t")
    good = [row["dicom_id"] for row in map(table.__getitem__, range(len(table))) if row["dicom_id"] and not row.fault]
    return group(MsCxrTReader(images, mimic_files.image_suffix(images, good, config.image_format)), table, **keys,
                 identity=_identity)


def _append(table: Packed, keys: dict[str, list[str]], row: Row, image: str) -> None:
    """Adds one image of a pair, or, without `image`, a pair of sentences."""
    path = mimic_files.parse_path(image)
    table.append(Row(row.number, {**dict.fromkeys(table.columns, ""), **row.cells, "image": image}, row.fault))
    keys["study"].append("" if row.fault else f"{'pair' if image else 'sentences'} {row.number}")
    keys["subject"].append("" if row.fault or not path else path[1])
    keys["split"].append("test")


def _newest(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if not found:
        raise UserError(f"no {pattern} in {folder}")
    return found[-1]


def _identity(row: Row) -> tuple[str, str]:
    path = mimic_files.parse_path(row["image"])
    return (path[2], path[3]) if path else ("", "")


def _pairs(path: Path) -> list[Row]:
    out = []
    for row in read_table(path, _PAIR):
        fault = row.fault
        paths = [mimic_files.parse_path(row[name]) for name in _PAIR[:2]]
        if not fault and None in paths:
            fault = "the path is not that of an image of MIMIC-CXR"
        if not fault and paths[0][1] != paths[1][1]:
            fault = "the two images are of different subjects"
        values = [row[name].lower() for name in _PAIR[2:]]
        if not fault and any(value not in (*CHANGES, "", "nan") for value in values):
            fault = f"a progression that is none of {', '.join(CHANGES)}"
        out.append(Row(row.number, row.cells, fault))
    return out


def _sentences(path: Path) -> list[Row]:
    out = []
    for row in read_table(path, _SENTENCES):
        fault = row.fault
        if not fault and not (row["sentence_1"] and row["sentence_2"]):
            fault = "a pair without two sentences"
        if not fault and row["category"].lower() not in CATEGORIES:
            fault = f"a category that is none of {', '.join(CATEGORIES)}"
        if not fault and row["subset_name"] not in SUBSETS:
            fault = f"a subset that is none of {', '.join(SUBSETS)}"
        out.append(Row(row.number, row.cells, fault))
    return out


class MsCxrTReader:
    """Rows of both tables -> studies. Picklable."""

    label_names = (*(CHANGE.format(finding, change) for finding in FINDINGS.values() for change in CHANGES),
                   *map(PARAPHRASE.format, SUBSETS))

    def __init__(self, images: Path, suffix: str) -> None:
        self._images, self._suffix = images, suffix

    def study(self, split: str, rows: Sequence[Row]) -> Study:
        """See `official.Reader`."""
        row = rows[0]
        common = {"source": NAME, "licence": mimic_files.LICENCE, "terms": mimic_files.TERMS,
                  "label_source": "radiologist"}
        if not row["dicom_id"]:
            name = f"ms-cxr-t-sentences-{row.number}"
            report = "\n".join(" ".join(row[column].split()) for column in _SENTENCES[:2])
            labels = {PARAPHRASE.format(row["subset_name"]): CATEGORIES[row["category"].lower()]}
            return Study(name, name, split, report=report, labels=labels, **common)
        images, names = [], []
        for one in rows:  # The current image is before the previous one.
            stem, subject, study, image = mimic_files.parse_path(one["image"])
            names.append(f"{study}-{image}")
            images.append(ImageRef(image, "FRONTAL", str(self._images / f"{stem}{self._suffix}"), row=one.number))
        labels = {}
        for column, finding in FINDINGS.items():
            given = row[f"{column}_progression"].lower()
            if given in CHANGES:
                labels |= {CHANGE.format(finding, change): POSITIVE if change == given else NEGATIVE
                           for change in CHANGES}
        return Study("-after-".join(names), subject, split, tuple(images), labels=labels, **common)
