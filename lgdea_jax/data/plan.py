"""Which rows of which data set feed which stream of training, decided once from the seed before anything is read."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lgdea_jax.data import dataset, leakage
from lgdea_jax.data.batch import STREAMS
from lgdea_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Part:
    """Rows of one split of one data set."""

    directory: str
    split: str
    rows: np.ndarray


@dataclasses.dataclass(frozen=True)
class Plan:
    """The parts of each stream."""

    parts: Mapping[str, Sequence[Part]]

    def count(self, stream: str) -> int:
        """Number of items in `stream`."""
        return sum(len(part.rows) for part in self.parts[stream])


def parse_weights(entries: Sequence[str]) -> list[tuple[str, float | None]]:
    """("DIR", "DIR:2.5") to [(directory, weight)]; None where no weight is given.

    Raises:
      UserError: a weight that is not positive.
    """
    result: list[tuple[str, float | None]] = []
    for entry in entries:
        directory, colon, text = entry.rpartition(":")
        try:
            weight = float(text) if colon else None
        except ValueError:  # A colon of the path.
            weight = None
        if weight is not None and not (0 < weight < math.inf):
            raise UserError(f"{entry}: the weight of a data set must be positive")
        result.append((entry, None) if weight is None else (directory, weight))
    return result


def pair_directories(data: Any) -> list[str]:
    """The data sets that the pairs come from.

    Raises:
      UserError: both ways of naming them are used.
    """
    if data.dir and data.pairs_from:
        raise UserError("data.dir and data.pairs_from exclude each other")
    return [data.dir] if data.dir else [directory for directory, _ in parse_weights(data.pairs_from)]


def all_directories(data: Any) -> list[str]:
    """The data sets that are trained on and those that are held out of them, each once.

    Raises:
      UserError: as of `pair_directories`.
    """
    unpaired = [directory for stream in ("images", "reports") for directory, _ in parse_weights(data[f"{stream}_from"])]
    return list(dict.fromkeys([*pair_directories(data), *unpaired, *data.held_out_from]))


def number_of(stream: str, wanted: float, available: int) -> int:
    """How many of `available` items `data.STREAM` keeps: a share (<= 1) or a number (> 1).

    Raises:
      UserError: not positive, not whole, or more than there are.
    """
    what = {"pairs": "paired studies", "images": "unpaired images", "reports": "unpaired reports"}[stream]
    if not wanted > 0:
        raise UserError(f"data.{stream}={wanted}: a share in (0, 1] or a number above 1")
    if wanted > 1 and wanted != round(wanted):
        raise UserError(f"data.{stream}={wanted} is not a whole number of {what}")
    count = round(wanted * available) if wanted <= 1 else round(wanted)
    if not 1 <= count <= available:
        raise UserError(f"data.{stream}={wanted:g} asks for {count} {what}; there are {available}")
    return count


def split_pairs(
    subjects: np.ndarray, studies: np.ndarray, *, pairs: float, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keeps some studies paired and makes the rest into disjoint unpaired images and unpaired reports, by subject.

    Subjects are drawn in a random order, and stay paired as long as their studies fit into the number that is left.
    The others are halved in that order.

    Args:
      subjects, studies: uint64 [N] hashes of every row that has an image and a report.
      pairs: share of the studies that stay paired (<= 1), or their number (> 1).
      seed: of the draw.

    Returns:
      (paired, image only, report only): row numbers, ascending. No subject is in two of them. The number of paired
      studies is exact; only where no subject has few enough studies to fill it, some studies of one more subject are
      paired and the rest of that subject's are left out of everything.

    Raises:
      UserError: see `number_of`.
    """
    unique_studies, first_row, study = np.unique(studies, return_index=True, return_inverse=True)
    wanted = number_of("pairs", pairs, len(unique_studies))
    if wanted == len(unique_studies):
        return np.arange(len(studies)), np.zeros(0, int), np.zeros(0, int)
    order = np.unique(subjects)
    np.random.default_rng([seed, 0x9A125]).shuffle(order)
    sorter = np.argsort(order, kind="stable")
    position = sorter[np.searchsorted(order, subjects, sorter=sorter)]  # Of each row's subject in the drawn order.
    sizes = np.bincount(position[first_row], minlength=len(order))
    chosen, left = np.zeros(len(order), bool), wanted
    for subject, size in enumerate(sizes):
        if size <= left:
            chosen[subject], left = True, left - size
        if not left:
            break
    others = np.flatnonzero(~chosen)
    keep = np.ones(len(studies), bool)
    if left:
        partly, others = others[0], others[1:]
        own = np.unique(study[position == partly])
        keep = ~np.isin(study, own[left:])
        chosen[partly] = True
    images = np.zeros(len(order), bool)
    images[others[: (len(others) + 1) // 2]] = True
    return (np.flatnonzero(chosen[position] & keep), np.flatnonzero(images[position]),
            np.flatnonzero(~chosen[position] & ~images[position]))


def make_plan(data: Any, *, seed: int, held_out: Sequence[str] = (), pairs_file: Path | None = None) -> Plan:
    """Decides which rows feed which stream.

    Args:
      data: `config.data`: `dir`, or `pairs_from`, `images_from`, `reports_from`; `pairs`, `images`, `reports`;
        `split`; `equal_reports`; `near_duplicates`; `held_out_from`.
      seed: of the split into pairs and unpaired items, and of the draw from those.
      held_out: more data sets that are evaluated on.
      pairs_file: where near-duplicates are listed (`leakage.allowed_rows`).

    Raises:
      UserError: no data set, or a leak between what is trained on and what is evaluated on.
    """
    paired = pair_directories(data)
    unpaired = {stream: [directory for directory, _ in parse_weights(data[f"{stream}_from"])]
                for stream in ("images", "reports")}
    directories = list(dict.fromkeys([*paired, *unpaired["images"], *unpaired["reports"]]))
    if not directories:
        raise UserError("no training data: give --config.data.dir=DATA, written by python -m data_prep.build "
                        "--config=configs/data/NAME.py --out=DATA")
    indexes = {directory: dataset.load_index(directory, data.split) for directory in directories}
    allowed = leakage.allowed_rows(
        indexes, split=data.split, held_out=[*data.held_out_from, *held_out], equal_reports=data.equal_reports,
        duplicates=data.near_duplicates, pairs_file=pairs_file)
    parts: dict[str, list[Part]] = {stream: [] for stream in STREAMS}

    def add(stream: str, directory: str, rows: np.ndarray) -> None:
        if stream == "reports":
            rows = _one_per_study(indexes[directory]["study"], rows)
        if len(rows):
            parts[stream].append(Part(directory, data.split, rows))

    for directory, rows in _split_all(paired, indexes, allowed, pairs=data.pairs, seed=seed):
        index, keep = indexes[directory], allowed[directory]
        only_image = np.flatnonzero(index["has_image"] & ~index["has_report"] & keep)
        only_report = np.flatnonzero(~index["has_image"] & index["has_report"] & keep)
        for stream, chosen in zip(STREAMS, rows, strict=True):
            add(stream, directory, chosen)
        add("images", directory, only_image)
        add("reports", directory, only_report)
    for stream, feature in (("images", "has_image"), ("reports", "has_report")):
        for directory in unpaired[stream]:
            add(stream, directory, np.flatnonzero(indexes[directory][feature] & allowed[directory]))
    for number, stream in enumerate(("images", "reports")):
        if data[stream] != 1:
            parts[stream] = _draw(stream, parts[stream], data[stream], np.random.default_rng([seed, 0x5A3, number]))
    return Plan(parts)


def _draw(stream: str, parts: Sequence[Part], wanted: float, rng: np.random.Generator) -> list[Part]:
    """Some rows of the parts, in the order that they had; with the same generator a smaller draw is part of a larger.

    Raises:
      UserError: see `number_of`.
    """
    total = sum(len(part.rows) for part in parts)
    drawn = np.zeros(total, bool)
    drawn[rng.permutation(total)[:number_of(stream, wanted, total)]] = True
    kept = np.split(drawn, np.cumsum([len(part.rows) for part in parts])[:-1])
    return [dataclasses.replace(part, rows=part.rows[keep]) for part, keep in zip(parts, kept) if keep.any()]


def _split_all(
    directories: Sequence[str], indexes: Mapping[str, Mapping[str, np.ndarray]], allowed: Mapping[str, np.ndarray],
    *, pairs: float, seed: int,
) -> list[tuple[str, list[np.ndarray]]]:
    """`split_pairs` over the rows of all data sets together: [(directory, rows of each stream)]."""
    both = [np.flatnonzero(indexes[d]["has_image"] & indexes[d]["has_report"] & allowed[d]) for d in directories]
    if not sum(map(len, both)):
        return [(directory, [np.zeros(0, int)] * 3) for directory in directories]
    subjects = np.concatenate([indexes[d]["subject"][rows] for d, rows in zip(directories, both, strict=True)])
    # Equal ids in two data sets may be one person (so they stay together), but are not one study.
    studies = np.concatenate([indexes[d]["study"][rows] ^ np.uint64(number)
                              for number, (d, rows) in enumerate(zip(directories, both, strict=True))])
    split = split_pairs(subjects, studies, pairs=pairs, seed=seed)
    ends = np.cumsum([len(rows) for rows in both])
    return [(directory, [rows[part[(part >= end - len(rows)) & (part < end)] - (end - len(rows))] for part in split])
            for directory, rows, end in zip(directories, both, ends, strict=True)]


def _one_per_study(studies: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The first of the rows of each study: a report that two views share counts once."""
    return rows[np.sort(np.unique(studies[rows], return_index=True)[1])]
