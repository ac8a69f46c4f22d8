"""Chest ImaGenome: anatomical regions with boxes and what reports say of them (Wu et al., NeurIPS 2021 Datasets).

    python -m data_prep.build --config=configs/data/chest_imagenome.py --config.chest_imagenome.path=IMAGENOME \\
        --config.chest_imagenome.images=MIMIC_CXR_JPG --out=DATA

IMAGENOME is the PhysioNet release: `silver_dataset/splits/{train,valid,test}.csv` and `images_to_avoid.csv`, and the
scene graphs of `silver_dataset/scene_graph.zip`, unpacked in `silver_dataset/scene_graph/` (with or without another
folder of that name in it): `DICOM_ID_SceneGraph.json` with `objects` (regions with boxes in original pixels) and
`attributes` (for each region the sentences of the report about it, and the findings that each sentence states).

A program made all of it. One box here is a region with one finding that a sentence says it has; its phrase is the
sentence. Labels are the eight findings that MS-CXR has too: positive where any region has it, negative where the report
denies it somewhere, otherwise missing. Findings have our names where the vocabulary knows them, else the release's.
Regions without a finding give no box. A scene graph without objects or attributes leaves an image without boxes.

Splits are the official ones. `images_to_avoid.csv` lists the gold standard's patients, which are left out unless
`gold=keep`. Subjects have the same ids as in MIMIC-CXR's records. The view is ViewPosition; all images are frontal.
Reports are not read here: they are MIMIC-CXR's.

An input row is a row of the tables of splits, training first; a faulty box refuses its image.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep.sources.shared import mimic_files, physionet
from data_prep.sources.shared.official import Studies, group, keep_view, open_folder
from data_prep.sources.shared.tables import Packed, Row, need_table, read_table
from data_prep.study import ImageRef, Rejection, Study
from lgdea_jax.errors import UserError, choose
from lgdea_jax.findings.label_sets import LABEL_SETS
from lgdea_jax.findings.vocabulary import find_label
from lgdea_jax.records import NEGATIVE, POSITIVE, Box

NAME = "Chest ImaGenome"
SPLITS = {"train": "train", "valid": "validation", "test": "test"}
GOLD = ("leave_out", "keep")
GRAPHS = ("silver_dataset/scene_graph/scene_graph", "silver_dataset/scene_graph")
KINDS = ("anatomicalfinding", "disease")  # Of attributes; the others are about the image, lines and devices.
# Names of the release that the vocabulary does not know.
OURS = {"enlarged cardiac silhouette": "Cardiomegaly", "pulmonary edema/hazy opacity": "Edema"}
_COLUMNS = ("dicom_id", "path", "view")


def open_source(config: Any, split: str) -> Studies:
    """One split; see `open_splits`."""
    return open_splits(config)[split]


def open_splits(config: Any) -> dict[str, Studies]:
    """Reads the tables of splits; no image and no scene graph is opened.

    Args:
      config: its `chest_imagenome` has `path`, `images` (the folder with MIMIC-CXR's files/), `image_format` ("auto",
        "jpg" or "dicom"), `gold` (of GOLD), `verify` (see `physionet.verify`).

    Raises:
      UserError: a table, column or folder is missing, a checksum differs, or a subject lies in two splits.
    """
    config = config.chest_imagenome
    folder = open_folder(config, "chest_imagenome", "silver_dataset/")
    tables = folder / "silver_dataset" / "splits"
    paths = {name: need_table(tables, f"{name}.csv") for name in (*SPLITS, "images_to_avoid")}
    physionet.verify(folder, paths.values(), config.verify)
    graphs = next((folder / name for name in GRAPHS if any((folder / name).glob("*_SceneGraph.json"))), None)
    if graphs is None:
        raise UserError(f"no scene graphs in {folder / GRAPHS[-1]}: unpack silver_dataset/scene_graph.zip there")
    avoid = set() if choose("gold", config.gold, GOLD) == "keep" else {
        row["dicom_id"] for row in read_table(paths["images_to_avoid"], ("dicom_id",))}
    table, seen, number = Packed(_COLUMNS), set(), 0
    keys: dict[str, list[str]] = {"study": [], "subject": [], "split": []}
    for name, split in SPLITS.items():
        for row in read_table(paths[name], ("dicom_id", "path"), ("ViewPosition",)):
            if row["dicom_id"] in avoid or not keep_view(row["ViewPosition"] or "FRONTAL", "frontal"):
                continue
            number += 1
            where = mimic_files.parse_path(row["path"])
            fault = row.fault
            if not fault and (where is None or where[3] != row["dicom_id"]):
                fault = "the path is not that of this image of MIMIC-CXR"
            if not fault and row["dicom_id"] in seen:
                fault = "the image occurs twice"
            seen.add(row["dicom_id"])
            table.append(Row(number, {"dicom_id": row["dicom_id"], "path": where[0] if where else "",
                                      "view": row["ViewPosition"].upper() or "FRONTAL"}, fault))
            keys["study"].append("" if fault else where[2])
            keys["subject"].append("" if fault else where[1])
            keys["split"].append(split)
    images = mimic_files.images_below(folder, config.images, "chest_imagenome")
    good = itertools.islice((row["path"] for row in map(table.__getitem__, range(len(table))) if not row.fault), 1000)
    return group(ImaGenomeReader(images, mimic_files.image_suffix(images, good, config.image_format), graphs), table,
                 **keys, identity=_identity)


def _identity(row: Row) -> tuple[str, str]:
    where = mimic_files.parse_path(row["path"])
    return where[2] if where else "", row["dicom_id"]


def read_graph(path: Path) -> tuple[list[Box], dict[str, int], str]:
    """(boxes of findings, {finding: POSITIVE or NEGATIVE}, fault) of a scene graph."""
    try:
        graph = json.loads(path.read_text(encoding="utf-8"))
        regions = {item["bbox_name"]: _corners(item) for item in graph.get("objects", ())}
        stated = list(_stated(graph.get("attributes", ())))
    except FileNotFoundError:
        return [], {}, "no scene graph of this image"
    except (ValueError, KeyError, TypeError, AttributeError):
        return [], {}, "its scene graph cannot be read"
    boxes, labels = [], {}
    for region, finding, present, sentence in stated:
        if present or finding not in labels:
            labels[finding] = POSITIVE if present else NEGATIVE
        if present and region in regions:
            box = Box(finding, sentence, *regions[region])
            if box.w <= 0 or box.h <= 0:
                return [], {}, "a box without extent"
            if box not in boxes:
                boxes.append(box)
    return boxes, labels, ""


def _corners(item: Mapping[str, Any]) -> tuple[float, float, float, float]:
    left, top, right, bottom = (float(item[f"original_{name}"]) for name in ("x1", "y1", "x2", "y2"))
    if not all(map(math.isfinite, (left, top, right, bottom))):
        raise ValueError("a box whose position is not numbers")
    return left, top, right - left, bottom - top


def _stated(attributes: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str, bool, str]]:
    """(region, finding, whether it is there, sentence) of everything that sentences say of regions."""
    for item in attributes:
        for sentence, found in zip(item["phrases"], item["attributes"], strict=True):
            for attribute in found:
                kind, state, name = attribute.split("|")
                if kind in KINDS and state in ("yes", "no"):
                    name = name.strip().lower()
                    yield (item["bbox_name"], OURS.get(name) or find_label(name) or name, state == "yes",
                           " ".join(sentence.split()))


class ImaGenomeReader:
    """Rows of the tables of splits -> studies. Picklable."""

    label_names = LABEL_SETS["ms_cxr8"]

    def __init__(self, images: Path, suffix: str, graphs: Path) -> None:
        self._images, self._suffix, self._graphs = images, suffix, graphs

    def study(self, split: str, rows: Sequence[Row]) -> Study:
        """See `official.Reader`. Labels are those of all scene graphs of the study: they are of one report."""
        _, subject, study, _ = mimic_files.parse_path(rows[0]["path"])
        images, rejections, labels = [], [], {}
        for row in rows:
            boxes, found, fault = read_graph(self._graphs / f"{row['dicom_id']}_SceneGraph.json")
            if fault:
                rejections.append(Rejection(study, row["dicom_id"], row.number, fault))
                continue
            labels |= {name: value for name, value in found.items()
                       if name in self.label_names and labels.get(name) != POSITIVE}
            images.append(ImageRef(row["dicom_id"], row["view"], str(self._images / f"{row['path']}{self._suffix}"),
                                   boxes=tuple(boxes), row=row.number))
        return Study(study, subject, split, tuple(images), "", labels, NAME, mimic_files.LICENCE, mimic_files.TERMS,
                     rejections=tuple(rejections), label_source="report_program")
