"""ReXGradient-160K: 273,004 radiographs with 160,000 reports of three US health systems (Zhang et al., 2025).

    python -m data_prep.build --config=configs/data/rexgradient.py --config.rexgradient.path=REXGRADIENT --out=DATA

REXGRADIENT is the release of huggingface.co/datasets/rajpurkarlab/ReXGradient-160K:
`metadata/{train,valid,test}_metadata_view_position.json`, {study: PatientID, StudyInstanceUid, PatientSex, PatientAge,
Indication, Comparison, Findings, Impression, ImagePath, ImageViewPosition}, and the PNG images in `deid_png/`, which
`deid_png.part*` give when they are joined and unpacked. The files may lie beside `deid_png/` too.

Splits are the official ones. Should a patient occur in several of them, the studies in training, then those in
validation, are refused: nobody is trained on and evaluated. The report has the sections of `report_sections` with
their headers. Views are ImageViewPosition (PA, AP, LATERAL, ...; POSTERO_ANTERIOR and ANTERO_POSTERIOR are PA and AP);
frontal and lateral images are all read, `views=frontal` keeps PA and AP. There are no labels but those that the build
derives from the reports.

An input row is an image; studies without images are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from data_prep.sources.shared.json_files import read_json
from data_prep.sources.shared.official import Studies, group, image_folder, keep_view, open_folder
from data_prep.sources.shared.tables import Packed, Row, compare_count, parse_sex
from data_prep.study import ImageRef, Study
from lgdea_jax.errors import choose
from lgdea_jax.io.dicom import parse_age

NAME, TERMS = "ReXGradient-160K", "credentialed"  # Access on agreement; no redistribution.
LICENCE = "ReXGradient-160K licence for non-commercial research of its authors"
FILES = {"train": "train", "validation": "valid", "test": "test"}
IMAGES = {"train": 238_968, "validation": 17_007, "test": 17_029}
SECTIONS = ("indication", "comparison", "findings", "impression")
VIEWS = {"POSTERO_ANTERIOR": "PA", "ANTERO_POSTERIOR": "AP", "AP AXIAL": "AP", "LL": "LATERAL", "RL": "LATERAL"}
_COLUMNS = ("study", "patient", "sex", "age", "report", "path", "view")


def open_source(config: Any, split: str) -> Studies:
    """One split; see `open_splits`."""
    return open_splits(config)[split]


def open_splits(config: Any) -> dict[str, Studies]:
    """Reads the metadata; no image is opened.

    Args:
      config: its `rexgradient` has `path`, `images` (folder, "auto" or "none"), `views` ("all" or "frontal"),
        `report_sections` (of SECTIONS).

    Raises:
      UserError: a file is missing or something else, or there are no images.
    """
    config = config.rexgradient
    folder = open_folder(config, "rexgradient", "metadata/")
    for name in config.report_sections:
        choose("report section", name, SECTIONS)
    tables = folder / "metadata" if (folder / "metadata").is_dir() else folder
    studies = {split: read_json(tables / f"{name}_metadata_view_position.json", dict, "list of studies")
               for split, name in FILES.items()}
    homes: dict[str, str] = {}
    for split in ("test", "validation", "train"):
        for item in studies[split].values():
            homes.setdefault(str(item.get("PatientID", "")) if isinstance(item, dict) else "", split)
    table, seen = Packed(_COLUMNS), set()
    keys: dict[str, list[str]] = {"study": [], "subject": [], "split": []}
    for split, items in studies.items():
        count = len(table)
        for name, item in items.items():
            for cells, fault in _read_study(name, item, tuple(config.report_sections)):
                if not fault and not keep_view(cells["view"], config.views):
                    continue
                if not fault and homes[cells["patient"]] != split:
                    fault = f"the patient lies in {homes[cells['patient']]} too"
                if not fault and cells["path"] in seen:
                    fault = "the image occurs twice"
                seen.add(cells["path"])
                table.append(Row(len(table) + 1, cells, fault))
                keys["study"].append("" if fault else cells["study"])
                keys["subject"].append("" if fault else cells["patient"])
                keys["split"].append(split)
        if config.views == "all":
            compare_count(f"images in {split}", len(table) - count, IMAGES[split])
    images = image_folder(folder, config.images, ("deid_png", "../deid_png"))
    return group(RexGradientReader(images), table, **keys, identity=_identity)


def _identity(row: Row) -> tuple[str, str]:
    return row["study"], PurePosixPath(row["path"]).stem


def _read_study(name: str, item: Any, sections: Sequence[str]) -> list[tuple[dict[str, str], str]]:
    """(cells, fault) of every image of a study."""
    blank = {**dict.fromkeys(_COLUMNS, ""), "study": name}
    if not isinstance(item, dict):
        return [(blank, "an entry that is no study")]
    paths, views = item.get("ImagePath") or [], item.get("ImageViewPosition") or []
    if not isinstance(paths, list) or not isinstance(views, list) or not all(isinstance(path, str) for path in paths):
        return [(blank, "paths or views that are not lists")]
    views = [*views, *[None] * (len(paths) - len(views))]
    cells = {**blank, "patient": _text(item, "PatientID"), "study": _text(item, "StudyInstanceUid") or name,
             "sex": _text(item, "PatientSex"), "age": _text(item, "PatientAge"), "report": _report(item, sections)}
    fault = "" if cells["patient"] else "no PatientID"
    out = []
    for path, view in zip(paths, views):
        parts = PurePosixPath(path).parts
        below = parts[parts.index("deid_png") + 1:] if "deid_png" in parts else parts
        wrong = "a path that leads out of the release" if ".." in below or path.startswith("/") else ""
        stated = str(view or "").strip().upper()
        out.append(({**cells, "path": "/".join(below), "view": VIEWS.get(stated, stated)}, fault or wrong))
    return out


def _text(item: Mapping[str, Any], key: str) -> str:
    value = item.get(key)
    text = "" if value is None else str(value).strip()
    return "" if text.lower() in ("none", "nan") else text


def _report(item: Mapping[str, Any], sections: Sequence[str]) -> str:
    texts = {name: " ".join(_text(item, name.capitalize()).split()) for name in sections}
    return "\n".join(f"{name.upper()}: {text}" for name, text in texts.items() if text)


class RexGradientReader:
    """Images of the metadata -> studies. Picklable."""

    label_names: tuple[str, ...] = ()

    def __init__(self, images: Path | None) -> None:
        self._images = images

    def study(self, split: str, rows: Sequence[Row]) -> Study:
        """See `official.Reader`."""
        first = rows[0]
        images = () if self._images is None else tuple(
            ImageRef(_identity(row)[1], row["view"], str(self._images / row["path"]), row=row.number) for row in rows)
        return Study(first["study"], f"rexgradient-{first['patient']}", split, images, first["report"], {}, NAME,
                     LICENCE, TERMS, sex=parse_sex(first["sex"]), age=parse_age(first["age"]))
