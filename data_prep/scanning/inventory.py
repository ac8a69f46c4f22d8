"""Reads everything in a folder with the code of the build, one item at a time, and counts what was found."""

from __future__ import annotations

import dataclasses
import random
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.scanning.find import Item
from data_prep.shards.plan import ShardSpec
from data_prep.shards.record_maker import RecordMaker
from data_prep.study import ImageRef
from lgdea_jax.io import UnreadableImage
from lgdea_jax.preprocess.image import resize
from lgdea_jax.preprocess.volume import projection

COLUMNS = ("item", "kind", "path", "files", "format", "modality", "view", "depth", "height", "width", "spacing_mm",
           "subject", "study", "series", "converted", "status", "reason")
IDENTIFIERS = ("patient_id", "study_uid", "series_uid")
READ, REFUSED, OTHER = "read", "refused", "other"
_THUMBNAIL = 160  # Pixels of the longer side.
_WINDOW = (-1000.0, 400.0)  # HU, of a slice on a thumbnail: lungs and soft tissue.


@dataclasses.dataclass(frozen=True, eq=False)
class Entry:
    """One item after reading.

    Attributes:
      number: from 1, in the order of the paths; item: what was found.
      status: READ, REFUSED or OTHER; reason: why it was refused.
      shape: (height, width), or (depth, height, width) of a volume; spacing: mm, in the same order, () where unknown.
      modality, view: as the file states them.
      converted: what had to be converted, as in a data set's metadata.
      subject, study, series: numbers that stand for DICOM's identifiers, 0 where there are none.
      thumbnail: uint8 [h, w], None of what was not read.
    """

    number: int
    item: Item
    status: str
    reason: str = ""
    shape: tuple[int, ...] = ()
    spacing: tuple[float, ...] = ()
    modality: str = ""
    view: str = ""
    converted: tuple[str, ...] = ()
    subject: int = 0
    study: int = 0
    series: int = 0
    thumbnail: np.ndarray | None = None

    @property
    def size(self) -> str:
        """"512 x 421"; "" of what was not read."""
        return " x ".join(map(str, self.shape))

    def cells(self, *, identifiers: bool) -> list[Any]:
        """The cells of the row of COLUMNS, and of IDENTIFIERS where asked for."""
        depth, height, width = ("", *self.shape) if len(self.shape) == 2 else self.shape or ("", "", "")
        item = self.item
        cells = [self.number, item.kind, item.path, item.files, item.format, self.modality or item.modality, self.view,
                 depth, height, width, " ".join(f"{mm:.4g}" for mm in self.spacing), self.subject or "",
                 self.study or "", self.series or "", "; ".join(self.converted), self.status, self.reason]
        return [*cells, item.patient, item.study, item.series] if identifiers else cells


def read_items(folder: Path, items: Sequence[Item]) -> Iterator[Entry]:
    """Reads items in order; the pixels of one are in memory at a time.

    Raises:
      UserError: an extra that reads such files is not installed.
    """
    common = {"out": None, "name": "scan", "label_names": (), "image_size": _THUMBNAIL, "image_encoding": "raw",
              "extractor": "none"}
    makers = {"image": RecordMaker(ShardSpec(**common)), "volume": RecordMaker(ShardSpec(**common, volume="native"))}
    known: dict[tuple[str, str], int] = {}
    counts: Counter[str] = Counter()

    def stand_in(kind: str, identifier: str) -> int:
        if identifier and (kind, identifier) not in known:
            counts[kind] += 1
            known[kind, identifier] = counts[kind]
        return known.get((kind, identifier), 0)

    for number, item in enumerate(items, start=1):
        if item.kind == "other":
            yield Entry(number, item, OTHER)
            continue
        numbers = {kind: stand_in(kind, identifier) for kind, identifier in (
            ("subject", item.patient), ("study", item.study), ("series", item.series))}
        converted: Counter[str] = Counter()
        try:
            _, shape, pixels, info, _ = makers[item.kind].image(ImageRef("", path=str(folder / item.path)), converted)
        except UnreadableImage as error:
            yield Entry(number, item, REFUSED, error.reason, **numbers)
            continue
        spacing = tuple(info.spacing) if any(info.spacing) else ()
        thumbnail = pixels if item.kind == "image" else _volume_thumbnail(pixels, info.spacing)
        yield Entry(number, item, READ, "", tuple(shape), spacing, info.modality, info.view, tuple(sorted(converted)),
                    thumbnail=thumbnail, **numbers)


def _volume_thumbnail(volume: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """uint8 [h, w]: the axial slice in the middle, and beside it the mean from front to back, both in millimetres."""
    low, high = _WINDOW
    middle = np.clip((volume[len(volume) // 2] - low) / (high - low), 0, 1)
    depth, height, width = (size * mm for size, mm in zip(volume.shape, spacing, strict=True))
    scale = _THUMBNAIL / max(depth, height, 2 * width)
    shapes = [(max(1, round(scale * tall)), max(1, round(scale * width))) for tall in (height, depth)]
    parts = [resize(part, shape) for part, shape in zip(
        (np.rint(255 * middle).astype(np.uint8), projection(volume)), shapes, strict=True)]
    tall = max(part.shape[0] for part in parts)
    return np.concatenate([np.pad(part, ((0, tall - part.shape[0]), (0, 0))) for part in parts], axis=1)


class Summary:
    """Counts of the entries of a folder, and a sample of their thumbnails; its size does not grow with the pixels.

    Args:
      thumbnails: how many to keep, drawn at random with a fixed seed where there are more.

    Attributes:
      kinds: (kind, status) -> number; others: what -> number.
      groups: (kind, format, modality, view) -> number of those that were read; sizes: (kind, size) -> number.
      numbers: (kind, "height" and the like) -> pixels or mm of every one that was read.
      converted: conversion -> number.
      refused: (kind, reason) -> numbers of its entries, the first few; refused_counts: how many in all.
      studies: study -> (subject, its series, what it holds -> number).
      sample: entries with thumbnails; pictures: how many there were.
    """

    FIRST = 5

    def __init__(self, thumbnails: int) -> None:
        self._most, self._random = thumbnails, random.Random(0)
        self.kinds: Counter[tuple[str, str]] = Counter()
        self.others: Counter[str] = Counter()
        self.groups: Counter[tuple[str, str, str, str]] = Counter()
        self.sizes: Counter[tuple[str, str]] = Counter()
        self.numbers: dict[tuple[str, str], array] = {}
        self.converted: Counter[str] = Counter()
        self.refused: dict[tuple[str, str], list[int]] = {}
        self.refused_counts: Counter[tuple[str, str]] = Counter()
        self.studies: dict[int, tuple[int, set[int], Counter[str]]] = {}
        self.sample: list[Entry] = []
        self.pictures = 0

    def add(self, entry: Entry) -> None:
        """Counts an entry."""
        item = entry.item
        self.kinds[item.kind, entry.status] += 1
        if entry.status == OTHER:
            self.others[item.format] += 1
            return
        if entry.study:
            _, series, held = self.studies.setdefault(entry.study, (entry.subject, set(), Counter()))
            series.add(entry.series)
            held[f"{entry.modality or item.modality} {entry.view}".strip() or item.kind] += 1
        if entry.status == REFUSED:
            key = item.kind, entry.reason
            self.refused_counts[key] += 1
            if self.refused_counts[key] <= self.FIRST:
                self.refused.setdefault(key, []).append(entry.number)
            return
        self.groups[item.kind, item.format, entry.modality, entry.view] += 1
        self.sizes[item.kind, entry.size] += 1
        axes, unit = ("depth", "height", "width"), "pixel" if item.kind == "image" else "voxel"
        for label, values in (("{}", entry.shape), (f"mm per {unit}, {{}}", entry.spacing)):
            for axis, value in zip(axes[len(axes) - len(values):], values, strict=True):
                self.numbers.setdefault((item.kind, label.format(axis)), array("d")).append(value)
        self.converted.update(entry.converted)
        self._draw(entry)

    def _draw(self, entry: Entry) -> None:
        """Keeps the entry's thumbnail with equal chances for all (reservoir sampling, Vitter 1985)."""
        self.pictures += 1
        if len(self.sample) < self._most:
            self.sample.append(entry)
        elif (place := self._random.randrange(self.pictures)) < self._most:
            self.sample[place] = entry

    @property
    def rejected(self) -> int:
        """Images and volumes that would be refused."""
        return sum(self.refused_counts.values())

    def count(self, kind: str, status: str) -> int:
        """How many there are."""
        return self.kinds[kind, status]
