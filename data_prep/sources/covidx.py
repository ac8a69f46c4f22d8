"""COVIDx CXR: chest radiographs of open collections in three or two classes (Wang et al., Sci Rep 2020;10:19549).

    python -m data_prep.build --config=configs/data/covidx.py --config.covidx.path=COVIDX --config.covidx.version=8A \\
        --out=DATA

COVIDX holds `train.txt`, `test.txt` and, where there, `val.txt` (or the names with a version, train_COVIDx8A.txt):
lines of patient id, file name, class and collection, separated by spaces, without a header; and the images in
`train/`, `test/` and `val/`. Sizes, classes and members of the test set change from version to version: `version`
must be stated (in the name of the lists or in the config), and is kept with the data.

Classes are normal, pneumonia (another than COVID-19) and COVID-19; versions with two classes say positive and
negative, and a negative image is then of unknown class but not COVID-19. Splits are the official ones; where there is
no val.txt, a share by hash (`validation`) of the training patients is the validation split. Frontal and lateral are
not told apart, and views, sex and age not given; the authors mean to have frontal images only. A patient of the test
list is refused in the others.

An input row is a line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from data_prep.sources.shared.official import Studies, check_shares, group, image_folder, open_folder, split_by_share
from data_prep.sources.shared.tables import Packed, Row, read_table
from data_prep.study import ImageRef, Study
from lgdea_jax.cli import UserError
from lgdea_jax.findings.label_sets import LABEL_SETS
from lgdea_jax.records import MISSING, NEGATIVE, POSITIVE

NAME, TERMS = "COVIDx CXR", "open"
LICENCE = "that of each collection it is made of"
FILES = {"train": "train", "validation": "val", "test": "test"}
_HEADER = ("patient", "file", "class", "collection")
_COVID, _PNEUMONIA, _NORMAL = "COVID-19", "Pneumonia", "No Finding"
# Class -> labels; a binary "negative" is normal or another pneumonia.
CLASSES: Mapping[str, Mapping[str, int]] = MappingProxyType({
    "normal": {_NORMAL: POSITIVE, _PNEUMONIA: NEGATIVE, _COVID: NEGATIVE},
    "pneumonia": {_NORMAL: NEGATIVE, _PNEUMONIA: POSITIVE, _COVID: NEGATIVE},
    "covid-19": {_NORMAL: NEGATIVE, _PNEUMONIA: NEGATIVE, _COVID: POSITIVE},
    "positive": {_NORMAL: NEGATIVE, _PNEUMONIA: NEGATIVE, _COVID: POSITIVE},
    "negative": {_NORMAL: MISSING, _PNEUMONIA: MISSING, _COVID: NEGATIVE},
})


def open_source(config: Any, split: str) -> Studies:
    """One split; see `open_splits`."""
    return open_splits(config)[split]


def open_splits(config: Any) -> dict[str, Studies]:
    """Reads the lists; no image is opened.

    Args:
      config: its `covidx` has `path`, `version` (as its authors call it), `images` ("auto" or a folder for all images),
        `validation` and `seed`.

    Raises:
      UserError: no version, no list, no images, or a patient lies in two splits.
    """
    config = config.covidx
    folder = open_folder(config, "covidx", "train.txt and test.txt")
    check_shares(config, "covidx")
    version = config.version or _stated_version(folder)
    if not version:
        raise UserError("config.covidx.version is needed: results on different versions of COVIDx do not compare")
    lists = {split: found for split, name in FILES.items() if (found := _find_list(folder, name, version))}
    if "test" not in lists:
        raise UserError(f"no test.txt or test_COVIDx{version}.txt in {folder}")
    table, keys = Packed((*_HEADER, "part")), {"study": [], "subject": [], "split": []}
    images, seen, tested = {}, set(), set()
    for split in ("test", "validation", "train"):  # Patients of the first are then known to the others.
        if split not in lists:
            continue
        part, path = FILES[split], lists[split]
        images[part] = image_folder(folder, config.images, (part, f"data/{part}", "images"))
        for row in read_table(path, _HEADER, delimiter=" ", header=_HEADER):
            fault = row.fault and "not four words: patient id, file name, class, collection"
            if not fault and row["class"].lower() not in CLASSES:
                fault = f"unknown class {row['class']!r}"
            if not fault and row["file"] in seen:
                fault = "the file occurs twice"
            seen.add(row["file"])
            subject = _subject(row)
            if not fault and split != "test" and subject in tested:
                fault = "the patient is in the test list too"
            elif not fault and split == "test":
                tested.add(subject)
            home = split
            if split == "train" and "validation" not in lists and not fault:
                home = split_by_share(subject, config)
            table.append(Row(row.number, {**row.cells, "part": part}, fault))
            keys["study"].append("" if fault else row["file"])
            keys["subject"].append(subject if not fault else "")
            keys["split"].append(home)
    return group(CovidxReader(images, version), table, **keys, identity=_identity)


def _subject(row: Row) -> str:
    """Patients are numbered within their collection."""
    return f"covidx-{row['collection']}-{row['patient']}"


def _identity(row: Row) -> tuple[str, str]:
    return row["file"], row["file"]


def _stated_version(folder: Path) -> str:
    """The version in the name of the test list, "" where it has none."""
    found = sorted(folder.glob("test_COVIDx*.txt"))
    return found[0].stem.removeprefix("test_COVIDx") if len(found) == 1 else ""


def _find_list(folder: Path, name: str, version: str) -> Path | None:
    for file in (f"{name}.txt", f"{name}_COVIDx{version}.txt", f"labels/{name}_COVIDx{version}.txt"):
        if (folder / file).is_file():
            return folder / file
    other = sorted(folder.glob(f"{name}_COVIDx*.txt"))
    if other:
        stated = re.sub(rf"^{name}_COVIDx|\.txt$", "", other[0].name)
        raise UserError(f"{other[0].name} is of version {stated}, config.covidx.version says {version}")
    return None


class CovidxReader:
    """Lines -> studies. Picklable."""

    label_names = LABEL_SETS["covidx3"]

    def __init__(self, images: dict[str, Path | None], version: str) -> None:
        self._images, self._version = images, version

    def study(self, split: str, rows: Sequence[Row]) -> Study:
        """See `official.Reader`."""
        (row,) = rows
        image = ImageRef(row["file"], "", str(self._images[row["part"]] / row["file"]), row=row.number)
        return Study(row["file"], _subject(row), split, (image,), "", dict(CLASSES[row["class"].lower()]),
                     f"{NAME} {self._version} ({row['collection']})", LICENCE, TERMS)
