"""INSPECT: 23,248 CT pulmonary angiograms of 19,402 patients with impressions (Huang et al., NeurIPS 2023 Datasets).

    python -m data_prep.build --config=configs/data/inspect.py --config.inspect.path=INSPECT --out=DATA

INSPECT is the release of the Stanford AIMI Center (its `full` folder): `study_mapping_*.tsv` (impression_id, image_id,
person_id), `impressions_*.tsv` (impression_id, impressions), `labels_*.tsv` (impression_id, pe_positive_nlp and
outcomes), `splits_*.tsv` (impression_id, split), and the volumes `CTPA/IMAGE_ID.nii.gz` in Hounsfield units. The
patients' records (EHR) are not read.

Splits are the official ones (train, valid, test), by patient. The one label is Pulmonary Embolism: pe_positive_nlp, by
a program that read the impression; outcomes of the patient (death, readmission) are not what a scan shows and are not
labels here. The report is the impression, under its header. There are no frontal or lateral views: a volume has every
one, and the record's view is empty.

An input row is a row of the mapping.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_prep.sources.shared.official import Studies, group, image_folder, open_folder
from data_prep.sources.shared.tables import Packed, Row, compare_count, read_table
from data_prep.study import ImageRef, Study
from lgdea_jax.errors import UserError
from lgdea_jax.records import MISSING, NEGATIVE, POSITIVE

NAME, TERMS = "INSPECT", "credentialed"
LICENCE = "Stanford University Dataset Research Use Agreement"
TABLES = ("study_mapping", "impressions", "labels", "splits")
SPLITS = {"train": "train", "valid": "validation", "test": "test"}
LABEL = "Pulmonary Embolism"
SCANS = 23_248
_LABELS = {"true": POSITIVE, "1": POSITIVE, "1.0": POSITIVE, "false": NEGATIVE, "0": NEGATIVE, "0.0": NEGATIVE}
_COLUMNS = ("impression", "image", "person", "report", "label")


def open_source(config: Any, split: str) -> Studies:
    """One split; see `open_splits`."""
    return open_splits(config)[split]


def open_splits(config: Any) -> dict[str, Studies]:
    """Reads the tables; no volume is opened.

    Args:
      config: its `inspect` has `path` and `images` (folder, "auto" or "none").

    Raises:
      UserError: a table, a column or the folder of volumes is missing, or a patient lies in two splits.
    """
    config = config.inspect
    folder = open_folder(config, "inspect", "study_mapping_*.tsv")
    folder = folder / "full" if (folder / "full").is_dir() else folder
    paths = {name: _newest(folder, name) for name in TABLES}
    reports = _column(paths["impressions"], "impressions")
    labels = _column(paths["labels"], "pe_positive_nlp")
    splits = _column(paths["splits"], "split")
    table, seen = Packed(_COLUMNS), set()
    keys: dict[str, list[str]] = {"study": [], "subject": [], "split": []}
    for row in read_table(paths["study_mapping"], ("impression_id", "image_id", "person_id"), delimiter="\t"):
        number, image = row["impression_id"], row["image_id"].removesuffix(".nii.gz")
        split, fault = SPLITS.get(splits.get(number, "").lower(), ""), row.fault
        if not fault and not (number and image and row["person_id"]):
            fault = "no impression_id, image_id or person_id"
        if not fault and not split:
            fault = f"its split is none of {', '.join(SPLITS)}"
        if not fault and image in seen:
            fault = "the volume occurs twice"
        seen.add(image)
        label = _LABELS.get(labels.get(number, "").lower(), MISSING)
        table.append(Row(row.number, {"impression": number, "image": image, "person": row["person_id"],
                                      "report": reports.get(number, ""), "label": str(label)}, fault))
        keys["study"].append("" if fault else number)
        keys["subject"].append("" if fault else row["person_id"])
        keys["split"].append(split or "train")
    compare_count(f"scans in {paths['study_mapping'].name}", len(table), SCANS)
    return group(InspectReader(image_folder(folder, config.images, ("CTPA",))), table, **keys, identity=_identity)


def _newest(folder: Path, name: str) -> Path:
    found = sorted(folder.glob(f"{name}_*.tsv"))
    if not found:
        raise UserError(f"no {name}_*.tsv in {folder}")
    return found[-1]  # Names end in the date of the release.


def _column(path: Path, name: str) -> dict[str, str]:
    """impression_id -> the cell of a column."""
    rows = read_table(path, ("impression_id", name), delimiter="\t", quoted=True)
    return {row["impression_id"]: row[name] for row in rows if not row.fault}


def _identity(row: Row) -> tuple[str, str]:
    return f"inspect-{row['impression']}", row["image"]


class InspectReader:
    """Rows of the mapping -> studies. Picklable."""

    label_names = (LABEL,)

    def __init__(self, images: Path | None) -> None:
        self._images = images

    def study(self, split: str, rows: Sequence[Row]) -> Study:
        """See `official.Reader`."""
        first = rows[0]
        images = () if self._images is None else tuple(
            ImageRef(row["image"], "", str(self._images / f"{row['image']}.nii.gz"), row=row.number) for row in rows)
        words = " ".join(first["report"].split())
        return Study(f"inspect-{first['impression']}", f"inspect-{first['person']}", split, images,
                     f"IMPRESSION: {words}" if words else "", {LABEL: int(first["label"])}, NAME, LICENCE, TERMS,
                     modality="CT", label_source="report_program")
