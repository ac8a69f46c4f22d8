"""RAD-ChestCT: 3,630 chest CT volumes, abnormality x location labels (Draelos et al., Med Image Anal 2021;67:101857).

    python -m data_prep.build --config=configs/data/rad_chestct.py --config.rad_chestct.path=RAD --out=DATA

RAD is the release (zenodo.org/records/6406114): `img{train,valid,test}_Abnormality_and_Location_Labels.csv`, with
`NoteAcc_DEID` and a column per `abnormality*location`, and the volumes `trn00001.npz`, ... (key `ct`, [slices, rows,
columns], Hounsfield units clipped to +-1000), beside the tables or in a folder of their own (`images`).

An abnormality is positive where it is at any location. Names are mapped to CT-RATE's as its authors do when they
evaluate on this data set: `calcification` is both classes of calcification, of which there is no telling apart here.
The 16 labels that the literature prints (`findings/protocol_labels.py`) stand beside them, as the set "protocol".
Spacing is that of the release, 0.8 mm (`spacing`); where the arrays' axes grow to is not in the files: `axes` says it,
by default IPL: slices from the head to the feet, rows to the back, columns to the patient's left.
Splits are the official ones. There are no reports, no patient ids (every volume is a patient of its own), no sex and
age, and no frontal or lateral views: a volume has every one.

An input row is a row of the tables.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from data_prep.sources.shared.official import Studies, group, image_folder, open_folder
from data_prep.sources.shared.tables import Packed, Row, compare_count, find_table, parse_label, read_table
from data_prep.study import ImageRef, Study
from lgdea_jax.errors import UserError
from lgdea_jax.findings.label_sets import LABEL_PREFIX, LABEL_SETS
from lgdea_jax.findings.protocol_labels import RAD_CHESTCT16
from lgdea_jax.io.raw_volume import VolumeHeader
from lgdea_jax.records import MISSING, NEGATIVE, POSITIVE

NAME, TERMS = "RAD-ChestCT", "open"
LICENCE = "CC BY-NC-ND 4.0"
FILES = {"train": "imgtrain", "validation": "imgvalid", "test": "imgtest"}
VOLUMES = 3_630
# Abnormality of the release -> the labels that it is.
MAPPING: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "calcification": ("Arterial Wall Calcification", "Coronary Artery Wall Calcification"),
    "cardiomegaly": ("Cardiomegaly",), "pericardial_effusion": ("Pericardial Effusion",), "hernia": ("Hernia",),
    "emphysema": ("Emphysema",), "atelectasis": ("Atelectasis",), "nodule": ("Nodule",), "opacity": ("Lung Opacity",),
    "fibrosis": ("Pulmonary Fibrotic Sequela",), "pleural_effusion": ("Pleural Effusion",),
    "bronchial_wall_thickening": ("Peribronchial Thickening",), "consolidation": ("Consolidation",),
    "bronchiectasis": ("Bronchiectasis",), "septal_thickening": ("Interlobular Septal Thickening",)})
_MAPPED = {label for labels in MAPPING.values() for label in labels}
LABELS = tuple(name for name in LABEL_SETS["ct_rate18"] if name in _MAPPED)
PROTOCOL = {LABEL_PREFIX.format("protocol") + name: kinds for name, kinds in RAD_CHESTCT16.items()}
_ID = "NoteAcc_DEID"


def open_source(config: Any, split: str) -> Studies:
    """One split; see `open_splits`."""
    return open_splits(config)[split]


def open_splits(config: Any) -> dict[str, Studies]:
    """Reads the tables; no volume is opened.

    Args:
      config: its `rad_chestct` has `path`, `images` ("auto" or the folder with the .npz files), `spacing` (mm: z, y, x)
        and `axes` (see `io.volumes.VolumeHeader`).

    Raises:
      UserError: no table, an abnormality that has no column, or no folder of volumes.
    """
    config = config.rad_chestct
    folder = open_folder(config, "rad_chestct", "img*_Abnormality_and_Location_Labels.csv and the .npz files")
    spacing = tuple(float(mm) for mm in config.spacing)
    if len(spacing) != 3 or min(spacing) <= 0:
        raise UserError(f"config.rad_chestct.spacing={config.spacing}: three lengths in mm (z, y, x)")
    table, keys = Packed((_ID, "labels")), {"study": [], "subject": [], "split": []}
    seen: set[str] = set()
    for split, name in FILES.items():
        path = find_table(folder, f"{name}_Abnormality_and_Location_Labels.csv")
        if path is None:
            continue
        for row in _read_labels(path):
            fault = row.fault or ("the volume occurs twice" if row[_ID] in seen else "")
            seen.add(row[_ID])
            table.append(Row(row.number, row.cells, fault))
            keys["study"].append("" if fault else row[_ID])
            keys["subject"].append("" if fault else row[_ID])
            keys["split"].append(split)
    if not len(table):
        raise UserError(f"no imgtrain_Abnormality_and_Location_Labels.csv or the like in {folder}")
    compare_count("rows of RAD-ChestCT", len(table), VOLUMES)
    root = image_folder(folder, config.images, ("images", "volumes", "npz", "."))
    if root is None:
        raise UserError("RAD-ChestCT has no reports: images=none leaves nothing")
    digest = [f"{spacing} {config.axes}".encode()]
    return group(RadChestCtReader(root, VolumeHeader(spacing=spacing, axes=config.axes)), table, **keys,
                 identity=_identity, digest=digest)


def _identity(row: Row) -> tuple[str, str]:
    return row[_ID], row[_ID]


def _read_labels(path: Path) -> list[Row]:
    """Rows with `labels`, "1,0,..." in the order of LABELS, then of PROTOCOL.

    A label of PROTOCOL of which the table has no abnormality is missing; of several, those that it has count.
    """
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        header = [name.strip() for name in next(csv.reader(file), [])]
    wanted = dict.fromkeys((*MAPPING, *(kind for kinds in PROTOCOL.values() for kind in kinds)))
    columns = {kind: [name for name in header if name.partition("*")[0] == kind and "*" in name] for kind in wanted}
    lacking = [kind for kind in MAPPING if not columns[kind]]
    if lacking:
        raise UserError(f"{path.name} has no column {lacking[0]}*LOCATION")
    rows = []
    for row in read_table(path, (_ID, *(name for names in columns.values() for name in names))):
        values = dict.fromkeys(LABELS, NEGATIVE)
        fault = row.fault or ("" if row[_ID] else f"no {_ID}")
        found: dict[str, int] = {}
        for kind, names in columns.items():
            given = [parse_label(row[name]) for name in names] if not fault else []
            if any(value not in (POSITIVE, NEGATIVE) for value in given):
                fault = "a label is neither 0 nor 1"
            elif given:
                found[kind] = max(given)
            if found.get(kind) == POSITIVE:
                values |= dict.fromkeys(MAPPING.get(kind, ()), POSITIVE)
        values |= {name: max((found[kind] for kind in kinds if kind in found), default=MISSING)
                   for name, kinds in PROTOCOL.items()}
        cells = {_ID: row.cells.get(_ID, ""), "labels": ",".join(map(str, values.values()))}
        rows.append(Row(row.number, cells, fault))
    return rows


class RadChestCtReader:
    """Rows -> studies. Picklable."""

    label_names = (*LABELS, *PROTOCOL)

    def __init__(self, root: Path, header: VolumeHeader) -> None:
        self._root, self._header = root, header

    def study(self, split: str, rows: Sequence[Row]) -> Study:
        """See `official.Reader`."""
        (row,) = rows
        name = row[_ID]
        image = ImageRef(name, "", str(self._root / f"{name.removesuffix('.npz')}.npz"), row=row.number,
                         header=self._header)
        labels = dict(zip(self.label_names, map(int, row["labels"].split(",")), strict=True))
        return Study(name, name, split, (image,), "", labels, NAME, LICENCE, TERMS, modality="CT",
                     label_source="report_program")
