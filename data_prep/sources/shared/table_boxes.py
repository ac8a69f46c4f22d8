"""Boxes of the `table` source (`boxes.csv`), held as arrays; see `table.py`."""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from data_prep.sources.shared.table_rows import find_delimiter, hash64, point, table_rows
from lgdea_jax.errors import UserError
from lgdea_jax.findings.vocabulary import find_label
from lgdea_jax.records import Box

COLUMNS = ("study_id", "image_id", "finding", "phrase", "x", "y", "w", "h")
VOLUME_COLUMNS = ("z", "d")  # Of boxes in volumes; both or neither.


class Boxes:
    """All boxes of a table, found by the key of their image. Picklable and small."""

    def __init__(self, keys: np.ndarray, names: np.ndarray, numbers: np.ndarray, texts: list[str], digest: str) -> None:
        order = np.argsort(keys, kind="stable")
        self._keys, self._names, self._numbers = keys[order], names[order], numbers[order]
        self._texts = texts
        self.digest = digest

    def of(self, key: int) -> tuple[Box, ...]:
        """The boxes of the image with this key, in the order of the file."""
        low, high = (int(np.searchsorted(self._keys, np.uint64(key), side)) for side in ("left", "right"))
        return tuple(Box(self._texts[self._names[i, 0]], self._texts[self._names[i, 1]], *self._numbers[i].tolist())
                     for i in range(low, high))


def read_boxes(path: Path, single_image: Mapping[int, int], keys: np.ndarray) -> Boxes:
    """Reads and checks the boxes of a table.

    Args:
      path: boxes.csv.
      single_image: hash of a study id -> key of its image, for studies with one image: their boxes may leave `image_id`
        empty.
      keys: uint64, sorted: the keys of all images in the table.

    Raises:
      UserError: a missing column, a box of an image that is not in the table, or bad numbers, with the row number.
    """
    digest = hashlib.sha256()
    found, names, numbers = array("Q"), array("l"), array("d")
    texts: dict[str, int] = {}
    delimiter = find_delimiter(path, COLUMNS)
    with open(path, "rb") as file:
        rows = table_rows(file, path.name, digest.update, delimiter)
        _, _, header = next(rows, (0, 0, []))
        header = [name.strip() for name in header]
        missing = [name for name in COLUMNS if name not in header]
        if missing:
            raise UserError(f"{path.name} has no column {missing[0]!r} (it needs: {', '.join(COLUMNS)})")
        flat = [name for name in VOLUME_COLUMNS if name not in header]
        if len(flat) == 1:
            raise UserError(f"{path.name} has no column {flat[0]!r}: boxes in volumes need z and d")
        positions = [header.index(name) for name in (*COLUMNS, *(() if flat else VOLUME_COLUMNS))]
        for number, _, cells in rows:
            where = f"{path.name} row {number}"
            if len(cells) != len(header):
                raise UserError(f"{where} has {len(cells)} cells where the header has {len(header)}")
            study, image, finding, phrase, *position = (cells[i].strip() for i in positions)
            key = hash64(study, image) if image else single_image.get(hash64(study))
            at = int(np.searchsorted(keys, np.uint64(key))) if key is not None else len(keys)
            if at == len(keys) or int(keys[at]) != key:
                raise UserError(f"{where}: the table has no image with this study_id and image_id")
            if not finding:
                raise UserError(f"{where} has no finding")
            found.append(key)
            finding = find_label(finding) or finding
            names.extend((texts.setdefault(finding, len(texts)), texts.setdefault(phrase, len(texts))))
            numbers.extend(_numbers([point(cell, delimiter) for cell in position], where))
    return Boxes(np.array(found, np.uint64), np.array(names, np.int32).reshape(-1, 2),
                 np.array(numbers, np.float64).reshape(-1, 6), list(texts), digest.hexdigest())


def _numbers(cells: list[str], where: str) -> list[float]:
    try:
        values = [float(cell) for cell in cells]
    except ValueError:
        values = [math.nan]
    if not all(map(math.isfinite, values)) or min(values[2], values[3], *values[5:]) <= 0:
        raise UserError(f"{where}: x, y, w and h (z and d in volumes) must be numbers, w, h and d above 0")
    return values if len(values) == 6 else [*values, 0.0, 1.0]
