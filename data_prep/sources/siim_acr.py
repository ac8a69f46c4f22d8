"""SIIM-ACR Pneumothorax Segmentation: frontal radiographs with masks of pneumothoraces (challenge of 2019).

    python -m data_prep.build --config=configs/data/siim_acr.py --config.siim_acr.path=SIIM --out=DATA

SIIM holds `train-rle.csv` with the columns ImageId and EncodedPixels (whose name begins with a space; "-1" is negative;
several rows of an image are several masks) and the DICOM files in folders of any depth below `dicom-images-train/`.

A mask is kept as its bounding box, in pixels of the 1024 x 1024 image; an image of another size that has masks is
refused. Splits are those of the field's code (GLoRIA), 70/15/15 with scikit-learn's
`train_test_split(random_state=0)`, with one difference: that code splits rows, so that masks of one image can lie in
several splits. Here an image goes whole, to the split that its first row has there; `splits=hash` draws by a hash of
the image. There are no patient ids: every image counts as a patient of its own. All images are frontal; view (PA,
AP), sex and age come from the DICOM files.

An input row is an image of the table; a faulty mask refuses its image.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.sources.shared.official import (
    Studies,
    check_shares,
    group,
    image_folder,
    open_folder,
    permuted_split,
    split_by_share,
)
from data_prep.sources.shared.tables import Packed, Row, need_table, read_table
from data_prep.study import ImageRef, Study
from lgdea_jax.errors import UserError, choose
from lgdea_jax.records import NEGATIVE, POSITIVE, Box

NAME, TERMS = "SIIM-ACR Pneumothorax Segmentation", "open"
LICENCE = "competition rules: academic and non-commercial use; images: NIH Clinical Center"
TABLE, IMAGES = "train-rle.csv", ("dicom-images-train", "siim/dicom-images-train", ".")
FINDING, SIZE = "Pneumothorax", (1024, 1024)
_COLUMNS = ("image", "boxes", "path")


def open_source(config: Any, split: str) -> Studies:
    """One split; see `open_splits`."""
    return open_splits(config)[split]


def open_splits(config: Any) -> dict[str, Studies]:
    """Reads the table and lists the images; none is opened.

    Args:
      config: its `siim_acr` has `path`, `images` ("auto" or a folder), `splits` ("official" or "hash"), `validation`,
        `test` and `seed` (for "hash").

    Raises:
      UserError: the table, a column or the images are missing.
    """
    config = config.siim_acr
    folder = open_folder(config, "siim_acr", TABLE)
    check_shares(config, "siim_acr")
    rows = list(read_table(need_table(folder, TABLE, "stage_2_train.csv"), ("ImageId", "EncodedPixels")))
    images = image_folder(folder, config.images, IMAGES)
    if images is None:
        raise UserError("the SIIM-ACR data set has no reports: images=none leaves nothing")
    paths = {Path(name).stem: os.path.relpath(os.path.join(parent, name), images)
              for parent, _, names in os.walk(images) for name in names if name.endswith(".dcm")}
    official = choose("splits", config.splits, ("official", "hash")) == "official"
    drawn = permuted_split(len(rows), held_out=0.3) if official else []
    found: dict[str, dict[str, Any]] = {}
    for index, row in enumerate(rows):
        name = row["ImageId"]
        split = drawn[index] if official else split_by_share(name, config)
        image = found.setdefault(name, {"number": row.number, "boxes": [], "negative": False, "fault": "",
                                        "split": split})
        if row["EncodedPixels"] == "-1":
            image["negative"] = True
            continue
        box, fault = _box(row)
        image["fault"] = image["fault"] or fault
        image["boxes"].append(box)
    table, keys = Packed(_COLUMNS), {"study": [], "subject": [], "split": []}
    for name, image in found.items():
        fault = image["fault"] or ("" if name else "no ImageId")
        if not fault and image["negative"] and image["boxes"]:
            fault = "both a mask and -1 (none)"
        values = (name, json.dumps(image["boxes"]), paths.get(name, f"{name}.dcm"))
        table.append(Row(image["number"], dict(zip(_COLUMNS, values, strict=True)), fault))
        key = "" if fault else name
        keys["study"].append(key)
        keys["subject"].append(key)
        keys["split"].append(image["split"])
    return group(SiimReader(images), table, **keys, identity=_identity)


def _identity(row: Row) -> tuple[str, str]:
    return row["image"], row["image"]


def _box(row: Row) -> tuple[list[float], str]:
    """([x, y, w, h] around a mask, fault)."""
    try:
        runs = [int(number) for number in row["EncodedPixels"].split()]
    except ValueError:
        return [], row.fault or "a mask that is not whole numbers"
    if row.fault:
        return [], row.fault
    if not runs or len(runs) % 2 or min(runs) < 0 or min(runs[1::2]) == 0:
        return [], "a mask that is not pairs of gap and length"
    box = box_of_runs(np.array(runs, np.int64).reshape(-1, 2), SIZE)
    return (box, "") if box else ([], "a mask that leaves the image")


def box_of_runs(runs: np.ndarray, size: tuple[int, int]) -> list[float] | None:
    """The box around a mask in the challenge's encoding.

    Args:
      runs: int [n, 2], (gap since the end of the run before, length), over the pixels column by column from the top
        left.
      size: (height, width) of the image.

    Returns:
      [x, y, w, h], None where the mask leaves the image.
    """
    height, width = size
    ends = np.cumsum(runs.ravel())[1::2]
    starts, last = ends - runs[:, 1], ends - 1
    if last[-1] >= height * width:
        return None
    left, right = starts[0] // height, last[-1] // height
    # A run that goes on in the next column touches the bottom of its own and the top of the next.
    turns = starts // height != last // height
    top = 0 if turns.any() else int((starts % height).min())
    bottom = height - 1 if turns.any() else int((last % height).max())
    return [float(left), float(top), float(right - left + 1), float(bottom - top + 1)]


class SiimReader:
    """Images of the table -> studies. Picklable."""

    label_names = (FINDING,)

    def __init__(self, images: Path) -> None:
        self._images = images

    def study(self, split: str, rows: Sequence[Row]) -> Study:
        """See `official.Reader`."""
        (row,) = rows
        name = row["image"]
        boxes = tuple(Box(FINDING, "", *box) for box in json.loads(row["boxes"]))
        image = ImageRef(name, "", str(self._images / row["path"]), boxes=boxes, row=row.number,
                         size=SIZE if boxes else (0, 0))
        return Study(name, name, split, (image,), "", {FINDING: POSITIVE if boxes else NEGATIVE}, NAME, LICENCE, TERMS,
                     label_source="radiologist")
