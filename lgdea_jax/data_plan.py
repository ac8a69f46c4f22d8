"""Which rows of which data set feed which stream of training, decided once from the seed before anything is read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lgdea_jax import leakage, record_source
from lgdea_jax.cli import UserError

STREAMS = ("pairs", "images", "reports")


@dataclasses.dataclass(frozen=True)
class Plan:
    """Rows by stream.

    Attributes:
      rows: stream -> [(directory, split, row numbers, study hashes)].
    """

    rows: Mapping[str, Sequence[tuple[str, str, np.ndarray, np.ndarray]]]

    def count(self, stream: str) -> int:
        """Number of items in `stream`."""
        return sum(len(rows) for _, _, rows, _ in self.rows[stream])


def parse_weights(text: Sequence[str]) -> list[tuple[str, float]]:
    """("DIR", "DIR:2.5") to [(directory, weight)]."""
    result = []
    for entry in text:
        directory, colon, weight = entry.rpartition(":")
        try:
            result.append((directory, float(weight)) if colon else (entry, 1.0))
        except ValueError:
            result.append((entry, 1.0))
    return result


def split_pairs(
    subjects: np.ndarray, studies: np.ndarray, *, pairs: float, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keeps some studies paired and makes the rest into disjoint unpaired images and unpaired reports, by subject.

    Args:
      subjects, studies: uint64 [N] hashes of every row that has an image and a report.
      pairs: share of the studies that stay paired (<= 1), or their number (> 1).
      seed: of the draw.

    Returns:
      (paired, image only, report only): row numbers, sorted. No subject is in two of them. The number of paired studies
      is exact unless the last subject has several studies.

    Raises:
      UserError: `pairs` is not positive, or more than there are.
    """
    unique_studies = np.unique(studies)
    wanted = round(pairs * len(unique_studies)) if pairs <= 1 else int(pairs)
    if pairs <= 0 or wanted < 1 or wanted > len(unique_studies):
        raise UserError(f"data.pairs={pairs} asks for {wanted} of {len(unique_studies)} paired studies")
    if wanted == len(unique_studies):
        return np.arange(len(studies)), np.zeros(0, int), np.zeros(0, int)
    order = np.unique(subjects)
    np.random.default_rng([seed, 0x9A125]).shuffle(order)
    rank = np.argsort(order, kind="stable")
    position = rank[np.searchsorted(np.sort(order), subjects)]  # Position of each row's subject in the drawn order.
    _, first_row = np.unique(studies, return_index=True)
    studies_by_position = np.bincount(position[first_row], minlength=len(order))
    paired_subjects = int(np.searchsorted(np.cumsum(studies_by_position), wanted)) + 1
    middle = paired_subjects + (len(order) - paired_subjects + 1) // 2
    return (np.flatnonzero(position < paired_subjects),
            np.flatnonzero((position >= paired_subjects) & (position < middle)),
            np.flatnonzero(position >= middle))


def make_plan(data: Any, *, seed: int) -> Plan:
    """Decides which rows feed which stream.

    Args:
      data: `config.data`: `dir`, or `pairs_from`, `images_from`, `reports_from`; `pairs`; `split`; `equal_reports`;
        `held_out_from`.
      seed: of the split into pairs and unpaired items.

    Raises:
      UserError: no data set, or a leak between what is trained on and what is evaluated on.
    """
    sources = {
        "pairs": parse_weights([data.dir] if data.dir else data.pairs_from),
        "images": parse_weights(data.images_from),
        "reports": parse_weights(data.reports_from),
    }
    if data.dir and data.pairs_from:
        raise UserError("data.dir and data.pairs_from exclude each other")
    if not any(sources.values()):
        raise UserError("no training data: give --config.data.dir=DATA, written by python -m data_prep.build")
    rows: dict[str, list] = {stream: [] for stream in STREAMS}

    def add(stream: str, directory: str, index: Mapping[str, np.ndarray], chosen: np.ndarray) -> None:
        if len(chosen):
            rows[stream].append((directory, data.split, chosen, index["study"][chosen]))

    indexes = {directory: record_source.load_index(directory, data.split)
               for parts in sources.values() for directory, _ in parts}
    allowed = leakage.allowed_rows(indexes, data)
    for directory, _ in sources["pairs"]:
        index, keep = indexes[directory], allowed[directory]
        both = np.flatnonzero(index["has_image"] & index["has_report"] & keep)
        if len(both):
            paired, image_only, report_only = split_pairs(
                index["subject"][both], index["study"][both], pairs=data.pairs, seed=seed)
            add("pairs", directory, index, both[paired])
            add("images", directory, index, both[image_only])
            add("reports", directory, index, _one_per_study(index["study"], both[report_only]))
        add("images", directory, index, np.flatnonzero(index["has_image"] & ~index["has_report"] & keep))
        add("reports", directory, index, np.flatnonzero(~index["has_image"] & index["has_report"] & keep))
    for stream, feature in (("images", "has_image"), ("reports", "has_report")):
        for directory, _ in sources[stream]:
            index = indexes[directory]
            chosen = np.flatnonzero(index[feature] & allowed[directory])
            add(stream, directory, index, _one_per_study(index["study"], chosen) if stream == "reports" else chosen)
    return Plan(rows)


def _one_per_study(studies: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The first of the rows of each study: a report that two views share counts once."""
    return rows[np.sort(np.unique(studies[rows], return_index=True)[1])]
