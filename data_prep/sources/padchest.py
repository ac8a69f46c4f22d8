"""PadChest: chest radiographs of one hospital with Spanish reports and 193 labels (Bustos et al., Med Image Anal 2020).

    python -m data_prep.build --config=configs/data/padchest.py --config.padchest.path=PADCHEST --out=DATA

PADCHEST holds the table `PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv` (or .csv.gz) and the 16-bit PNG
images, in folders named after the column ImageDir (0, 1, ..., as the archives unpack) or all in one (`images` names
it).

Labels are those of the table: people wrote them for 27% of the reports (MethodLabel Physician), a network for the
others; `Record.label_source` tells. Names that our vocabulary knows are ours, all others stay the table's. A label
that is not given is negative; "normal" is No Finding; labels about the examination itself (exclude, unchanged,
suboptimal study) are not labels here. The label set is what occurs in the table, in alphabetical order. With
`protocol_labels` all labels as the table spells them stand beside these, as the set "protocol": public protocols ask
for 192 or 193 of them.

There is no official split. By default the patients with a physician-labelled report make the test set
(`manual_test`), as zero-shot evaluations use these; the rest is split by a hash of the patient. Views are the column
Projection (PA, L as LATERAL, AP, AP_horizontal, COSTAL): frontal and lateral images are all read, `views=frontal`
keeps PA, AP and AP_horizontal; images that the authors marked EXCLUDE are refused. Reports are in Spanish, in lower
case and without accents: the default rules read English only, so that the config extracts nothing from them.

An input row is a row of the table.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_prep.sources.shared.official import (
    Studies,
    check_shares,
    group,
    image_folder,
    keep_view,
    open_folder,
    split_by_share,
)
from data_prep.sources.shared.tables import Packed, Row, parse_sex, parse_years, read_table
from data_prep.study import ImageRef, Study
from lgdea_jax.errors import UserError
from lgdea_jax.findings.label_sets import LABEL_PREFIX
from lgdea_jax.findings.vocabulary import NO_FINDING, find_label
from lgdea_jax.records import NEGATIVE, POSITIVE

NAME, TERMS = "PadChest", "credentialed"  # Given to registered users, who may not pass it on.
LICENCE = "PadChest Dataset Research Use Agreement"
TABLE = "PADCHEST_chest_x_ray_images_labels_160K_*.csv"
NOT_FINDINGS = frozenset({"exclude", "unchanged", "suboptimal study"})
_VIEWS = {"L": "LATERAL"}
_NEEDED = ("ImageID", "StudyID", "PatientID", "Projection", "MethodLabel", "Labels")
_OPTIONAL = ("ImageDir", "StudyDate_DICOM", "PatientBirth", "PatientSex_DICOM", "Report")
_PHYSICIAN = "physician"
_PROTOCOL = LABEL_PREFIX.format("protocol") + "{}"


def open_source(config: Any, split: str) -> Studies:
    """One split; see `open_splits`."""
    return open_splits(config)[split]


def open_splits(config: Any) -> dict[str, Studies]:
    """Reads the table; no image is opened.

    Args:
      config: its `padchest` has `path`, `images` (folder, "auto" or "none"), `views` ("all" or "frontal"),
        `manual_test` (whether physician-labelled patients are the test set), `validation` and `test` (shares of the
        others), `seed`, `protocol_labels`.

    Raises:
      UserError: no table, a missing column, or no images.
    """
    config = config.padchest
    folder = open_folder(config, "padchest", TABLE)
    check_shares(config, "padchest")
    found = sorted([*folder.glob(TABLE), *folder.glob(f"{TABLE}.gz")])
    if not found:
        raise UserError(f"no {TABLE} (or .csv.gz) in {folder}")
    table, names = Packed((*_NEEDED, *_OPTIONAL)), set()
    manual: set[str] = set()
    seen: set[str] = set()
    for row in read_table(found[-1], _NEEDED, _OPTIONAL):
        view = _view(row)
        if not row.fault and not keep_view(view, config.views):
            continue
        labels, fault = _labels(row, protocol=config.protocol_labels)
        names |= labels
        if not fault and row["MethodLabel"].lower() == _PHYSICIAN:
            manual.add(row["PatientID"])
        if not fault and row["ImageID"] in seen:
            fault = "the image occurs twice"
        seen.add(row["ImageID"])
        table.append(Row(row.number, row.cells, fault))
    keys: dict[str, list[str]] = {"study": [], "subject": [], "split": []}
    for position in range(len(table)):
        row = table[position]
        patient = "" if row.fault else row["PatientID"]
        keys["study"].append("" if row.fault else row["StudyID"])
        keys["subject"].append(patient)
        keys["split"].append("test" if config.manual_test and patient in manual else split_by_share(patient, config))
    reader = PadChestReader(image_folder(folder, config.images, (".",)), tuple(sorted(names | {NO_FINDING})))
    return group(reader, table, **keys, identity=_identity)


def _identity(row: Row) -> tuple[str, str]:
    return f"padchest-{row['StudyID']}", row["ImageID"]


def _view(row: Row) -> str:
    return _VIEWS.get(row["Projection"].upper(), row["Projection"].upper())


def _labels(row: Row, *, protocol: bool) -> tuple[set[str], str]:
    """(the names of the labels given, with those of the set "protocol" if wanted; fault)."""
    if row.fault:
        return set(), row.fault
    if not row["ImageID"] or not row["StudyID"] or not row["PatientID"]:
        return set(), "no ImageID, StudyID or PatientID"
    if row["Projection"].upper() == "EXCLUDE":
        return set(), "marked EXCLUDE by the authors: not a usable chest radiograph"
    names = _list(row["Labels"])
    if names is None:
        return set(), "the labels are not a list"
    names = {name for text in names if (name := " ".join(text.lower().split()))}
    return {*(find_label(name) or name for name in names - NOT_FINDINGS),
            *(map(_PROTOCOL.format, names) if protocol else ())}, ""


def _list(cell: str) -> list[str] | None:
    """A list as Python prints it, "['normal', ' scoliosis']"; empty for an empty cell; None for anything else."""
    if cell in ("", "nan"):
        return []
    try:
        value = ast.literal_eval(re.sub(r"\bnan\b", "''", cell))
    except (ValueError, SyntaxError):
        return None
    return value if isinstance(value, list) and all(isinstance(item, str) for item in value) else None


class PadChestReader:
    """Rows of the table -> studies. Picklable."""

    def __init__(self, images: Path | None, label_names: tuple[str, ...]) -> None:
        self._images, self.label_names = images, label_names

    def study(self, split: str, rows: Sequence[Row]) -> Study:
        """See `official.Reader`. Labels, report and the patient's data are the same in all rows of a study."""
        first = rows[0]
        positive = _labels(first, protocol=True)[0]
        labels = {name: POSITIVE if name in positive else NEGATIVE for name in self.label_names}
        images = () if not self._images else tuple(
            ImageRef(row["ImageID"], _view(row), self._file(row), row=row.number) for row in rows)
        born, date = first["PatientBirth"].removesuffix(".0"), first["StudyDate_DICOM"]
        age = str(int(date[:4]) - int(born[:4])) if born[:4].isdecimal() and date[:4].isdecimal() else ""
        manual = first["MethodLabel"].lower() == _PHYSICIAN
        report = "" if first["Report"] == "nan" else first["Report"]
        return Study(
            f"padchest-{first['StudyID']}", f"padchest-{first['PatientID']}", split, images, report, labels, NAME,
            LICENCE, TERMS, "es", parse_sex(first["PatientSex_DICOM"]), parse_years(age),
            label_source="report_human" if manual else "report_program")

    def _file(self, row: Row) -> str:
        """Below its ImageDir, or beside all others."""
        below = self._images / row["ImageDir"].removesuffix(".0") / row["ImageID"]
        return str(below if below.is_file() else self._images / row["ImageID"])
