"""Open-I, the Indiana University chest X-ray collection: 3,955 reports with MeSH codes, 7,470 images in two views.

    python -m data_prep.build --config=configs/data/openi.py --config.openi.path=OPENI --out=DATA
    python -m data_prep.score --config=configs/data/openi.py --config.openi.path=OPENI --out=score.json

OPENI holds one of the two layouts in which the collection is given away:
- NLM's archives unpacked: `ecgen-radiology/*.xml` (NLMCXR_reports.tgz) and, if wanted, `NLMCXR_png/*.png`
  (NLMCXR_png.tgz) or `NLMCXR_dcm/1/*.dcm` (NLMCXR_dcm.tgz; `images` names the folder where both are there). The XML
  does not say which image is the lateral one; `indiana_projections.csv` beside it does, and some DICOM files do.
- the CSV pair: `indiana_reports.csv` and `indiana_projections.csv`, with `images/images_normalized/*.png` if wanted.

Reports are findings and impression; labels come from the human MeSH codes (`openi_mesh.py`). Beside them, as the set
"protocol", stand CARZero's 18, read from the automatic terms; the CSV pair lacks these. There are no patient ids:
every study counts as a patient of its own, and splits are drawn by a hash of its number.
(Demner-Fushman et al., JAMIA 2016;23(2):304-310. The reports carry a licence each: CC BY-NC-ND 4.0.)
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import logging
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep.sources.shared.official import check_shares, split_by_share
from data_prep.sources.shared.openi_mesh import (
    LABEL_NAMES,
    PROTOCOL_NAMES,
    attributes_from_mesh,
    labels_from_automatic,
    labels_from_mesh,
)
from data_prep.study import SPLITS, ImageRef, Reference, Reject, Study
from lgdea_jax.errors import UserError, choose

XML_FOLDER, REPORTS_CSV, PROJECTIONS_CSV = "ecgen-radiology", "indiana_reports.csv", "indiana_projections.csv"
IMAGE_FOLDERS = ("NLMCXR_png", "images/images_normalized", "images_normalized", "images", "NLMCXR_dcm")
SECTIONS = ("comparison", "indication", "findings", "impression")
NAME, LICENCE = "Open-I (Indiana University)", "CC BY-NC-ND 4.0"


def open_source(config: Any, split: str) -> OpenI:
    """One split of the collection; see `open_splits`."""
    return open_splits(config)[split]


def open_splits(config: Any) -> dict[str, OpenI]:
    """Finds out the layout and splits the studies.

    Args:
      config: its `openi` has `path`, `images` ("auto": one of IMAGE_FOLDERS, "none", or a folder relative to `path`),
        `report_sections` (of SECTIONS), `validation` and `test` (shares of the studies), `seed` of the splits.

    Raises:
      UserError: neither layout is there, or a CSV lacks a column.
    """
    config = config.openi
    if not config.path:
        raise UserError("config.openi.path is needed: the folder with ecgen-radiology or indiana_reports.csv")
    folder = Path(config.path)
    sections = tuple(choose("report section", name, SECTIONS) for name in config.report_sections)
    check_shares(config, "openi")
    images = _image_folder(folder, config.images)
    views = _read_projections(folder / PROJECTIONS_CSV) if (folder / PROJECTIONS_CSV).is_file() else {}
    if (folder / XML_FOLDER).is_dir():
        numbers = sorted((file.stem for file in (folder / XML_FOLDER).glob("*.xml")), key=_by_number)
        if not numbers:
            raise UserError(f"{folder / XML_FOLDER} holds no .xml files")
        reader: Any = _XmlReader(folder / XML_FOLDER, images, views, sections)
    elif (folder / REPORTS_CSV).is_file():
        if not views:
            raise UserError(f"{folder} has {REPORTS_CSV} but no {PROJECTIONS_CSV}")
        rows = _read_reports(folder / REPORTS_CSV)
        numbers = sorted({*rows, *(_number(name) for name in views)}, key=_by_number)
        reader = _CsvReader(rows, images, views, sections)
    else:
        raise UserError(f"{folder} holds neither {XML_FOLDER}/ nor {REPORTS_CSV}")
    parts: dict[str, list[str]] = {split: [] for split in SPLITS}
    for number in numbers:
        parts[split_by_share(number, config)].append(number)
    return {split: OpenI(split, tuple(part), reader) for split, part in parts.items()}


class OpenI:
    """The studies of one split. Picklable."""

    label_names = (*LABEL_NAMES, *PROTOCOL_NAMES)

    def __init__(self, split: str, numbers: tuple[str, ...], reader: _XmlReader | _CsvReader) -> None:
        self._split, self._numbers, self._reader = split, numbers, reader
        self.fingerprint = hashlib.sha256("\n".join((*numbers, reader.fingerprint)).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> Study:
        """The study at `index`. Raises `Reject` when it has neither text nor images, or cannot be read."""
        return self._reader.study(self._numbers[index], self._split)

    def reference(self, index: int) -> Reference:
        """The report at `index` under its number, with its codes. Raises `Reject` when it cannot be read."""
        return self._reader.reference(self._numbers[index])


@dataclasses.dataclass(frozen=True)
class _Row:
    """A study in either layout: section -> text, MeSH codes, (image id, file name) pairs, automatic terms or None."""

    texts: Mapping[str, str]
    mesh: Sequence[str]
    images: Sequence[tuple[str, str]]
    licence: str
    automatic: Sequence[str] | None = None


class _Reader:
    """What both layouts share; each has `_read(number) -> _Row`, which raises `Reject`."""

    fingerprint = ""

    def __init__(self, images: Path | None, views: Mapping[str, str], sections: Sequence[str]) -> None:
        self._images, self._views, self._sections = images, dict(views), tuple(sections)

    def _read(self, number: str) -> _Row:
        raise NotImplementedError

    def _report(self, row: _Row) -> str:
        return "\n".join(f"{name.upper()}: {row.texts[name]}" for name in self._sections if row.texts.get(name))

    def study(self, number: str, split: str) -> Study:
        """The study of that number; raises `Reject`."""
        row = self._read(number)
        report = self._report(row)
        refs = tuple(ImageRef(name, self._views.get(_key(name), ""), self._file(number, name, file))
                     for name, file in row.images) if self._images else ()
        if not report and not refs:
            raise Reject(f"no text in {' or '.join(self._sections)} and no image", study_id=f"CXR{number}")
        labels = labels_from_mesh(row.mesh) | labels_from_automatic(row.automatic)
        return Study(f"CXR{number}", f"CXR{number}", split, refs, report, labels, NAME, row.licence, "open",
                     label_source="report_human")

    def _file(self, number: str, image_id: str, png: str) -> str:
        """The PNG file, or the DICOM file where that alone is there: in a folder of the study, or with all others."""
        path = self._images / png
        if not path.is_file():
            for dicom in (f"{number}/{_key(image_id)}.dcm", f"{_key(image_id)}.dcm"):
                if (self._images / dicom).is_file():
                    return str(self._images / dicom)
        return str(path)

    def reference(self, number: str) -> Reference:
        """The report of that number and its codes; raises `Reject`."""
        row = self._read(number)
        return Reference(number, self._report(row), labels_from_mesh(row.mesh), attributes_from_mesh(number, row.mesh),
                         terms="open")


class _XmlReader(_Reader):
    def __init__(self, folder: Path, images: Path | None, views: Mapping[str, str], sections: Sequence[str]) -> None:
        super().__init__(images, views, sections)
        self._folder = folder

    def _read(self, number: str) -> _Row:
        study_id = f"CXR{number}"
        try:
            root = ElementTree.fromstring((self._folder / f"{number}.xml").read_bytes())
        except (ElementTree.ParseError, LookupError, ValueError):  # LookupError: an encoding that Python does not know.
            raise Reject("the XML file is truncated, damaged or empty", study_id=study_id) from None
        texts = {}
        for element in root.iter("AbstractText"):
            name, text = (element.get("Label") or "").strip().lower(), _clean("".join(element.itertext()))
            if name in SECTIONS and text:
                texts[name] = f"{texts[name]} {text}" if name in texts else text
        mesh, automatic = ([element.text or "" for element in root.iter(tag)] for tag in ("major", "automatic"))
        images = [element.get("id", "").strip() for element in root.iter("parentImage")]
        url, code = (root.findtext(f".//{tag}", "").strip() for tag in ("licenseURL", "ccLicense"))
        licence = LICENCE if code == "byncnd" else code or url or "unstated"
        return _Row(texts, mesh, [(name, f"{name}.png") for name in images if name], licence, automatic)


class _CsvReader(_Reader):
    def __init__(self, rows: Mapping[str, Mapping[str, str]], images: Path | None, views: Mapping[str, str],
                 sections: Sequence[str]) -> None:
        super().__init__(images, views, sections)
        self._rows = dict(rows)
        self._files: dict[str, list[str]] = {}
        for name in views:
            self._files.setdefault(_number(name), []).append(name)
        text = repr(sorted((number, sorted(row.items())) for number, row in rows.items()))
        self.fingerprint = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()

    def _read(self, number: str) -> _Row:
        row = self._rows.get(number, {})
        if any("\udc80" <= letter <= "\udcff" for cell in row.values() for letter in cell):
            raise Reject("unreadable text: not UTF-8", study_id=f"CXR{number}")
        images = [(f"CXR{name}", f"{name}.dcm.png") for name in self._files.get(number, [])]
        return _Row({name: _clean(row.get(name, "")) for name in SECTIONS}, row.get("mesh", "").split(";"), images,
                    LICENCE)


def _image_folder(folder: Path, choice: str) -> Path | None:
    if choice == "none":
        return None
    names = IMAGE_FOLDERS if choice == "auto" else (choice,)
    for name in names:
        if (folder / name).is_dir():
            return folder / name
    if choice != "auto":
        raise UserError(f"no image folder {folder / choice}")
    logging.getLogger(__name__).warning("no image folder in %s (%s): reports only", folder, ", ".join(names))
    return None


def _read_reports(path: Path) -> dict[str, dict[str, str]]:
    """indiana_reports.csv: number -> the sections and "mesh", lower-case names."""
    found: dict[str, dict[str, str]] = {}
    for row, cells in _rows(path, ("uid", "mesh", "findings", "impression")):
        if cells["uid"] in found:
            raise UserError(f"{path.name} row {row}: uid {cells['uid']} occurs twice")
        found[cells["uid"]] = {name: cells.get(name, "") for name in (*SECTIONS, "mesh")}
    return found


def _read_projections(path: Path) -> dict[str, str]:
    """indiana_projections.csv: "1_IM-0001-4001" -> "FRONTAL" or "LATERAL", in the order of the file."""
    found: dict[str, str] = {}
    for row, cells in _rows(path, ("uid", "filename", "projection")):
        name = cells["filename"].removesuffix(".png").removesuffix(".dcm")
        if name in found:
            raise UserError(f"{path.name} row {row}: the image occurs twice")
        if _number(name) != cells["uid"]:
            raise UserError(f"{path.name} row {row}: the file name does not begin with the uid")
        found[name] = cells["projection"].strip().upper()
    return found


def _rows(path: Path, needed: Sequence[str]) -> Any:
    """(row number, lower-case column -> cell) of a CSV; the header is row 1."""
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file)
        names = [name.strip().lower() for name in next(reader, [])]
        missing = [name for name in needed if name not in names]
        if missing:
            raise UserError(f"{path.name} has no column {missing[0]!r} (it has: {', '.join(names)})")
        for row, cells in enumerate(reader, start=2):
            if cells and len(cells) != len(names):
                raise UserError(f"{path.name} row {row} has {len(cells)} cells where the header has {len(names)}")
            if cells:
                yield row, dict(zip(names, (cell.strip() for cell in cells), strict=True))


def _key(image_id: str) -> str:
    """The image's name in indiana_projections.csv: "CXR1_1_IM-..." (XML) and "CXR1_IM-..." -> "1_IM-..."."""
    return re.sub(r"^CXR(\d+)_(?=\1_IM)|^CXR", "", image_id)


def _number(name: str) -> str:
    return name.split("_", 1)[0]


def _by_number(number: str) -> tuple[bool, int, str]:
    return (False, int(number), "") if number.isdecimal() else (True, 0, number)


def _clean(text: str) -> str:
    return " ".join(text.split())
