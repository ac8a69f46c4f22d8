"""Keeps what is evaluated on out of training: subjects, near-duplicate images and equal reports in common."""

from __future__ import annotations

import dataclasses
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lgdea_jax.data import dataset, source
from lgdea_jax.errors import UserError, choose
from lgdea_jax.io import decode_image, decode_volume
from lgdea_jax.io.encoded_volume import FORMAT as VOLUME_FORMAT
from lgdea_jax.preprocess.image import resize
from lgdea_jax.records import Record
from lgdea_jax.runtime.files import TableWriter, write_atomically

_LOG = logging.getLogger("lgdea_jax")
POLICIES = ("refuse", "drop", "allow")
PAIRS_FILE = "near_duplicates.csv"
# Of that file: first the record that is trained on, then the one that is evaluated on; rows count from 0.
PAIR_COLUMNS = ("data_set", "split", "row", "study_id", "image_id",
                "other_data_set", "other_split", "other_row", "other_study_id", "other_image_id")
# Of the 256 bits of the difference hash. Copies that were encoded again or rescaled differ in 0 to 7 bits (99% of them,
# radiographs of 512 px). Two different radiographs differ in 31 or more, but two smooth 64 px phantoms may differ in 8:
# in large sets some different ones come nearer. So the hash finds candidates, and the pixels decide.
NEAR_BITS = 7
# Correlation of two images at 32 x 32: copies (JPEG 50, half the size, gamma 0.9, noise) 0.9989 and more, the 300
# nearest of 6 million pairs of different 64 px phantoms 0.979 and less.
SAME_CORRELATION = 0.995
_THUMBNAIL = 32
# Volumes of one geometry: copies that were compressed or resampled on the way differ by some HU from voxel to voxel,
# two scans by tens (noise and vessels), although their projections may be alike (two smooth phantoms).
SAME_HU = 5.0
_VOXELS = 20_000  # Of each volume, evenly spread, that are compared.
_BLOCK = 2**22  # Candidates that are compared at a time.
_KEPT = 20_000  # Thumbnails, or parts of volumes, that are kept at a time.


def near_duplicates(one: np.ndarray, other: np.ndarray, *, max_bits: int = NEAR_BITS) -> np.ndarray:
    """Pairs of images whose 256-bit difference hashes differ in at most `max_bits` bits.

    Args:
      one, other: uint64 [N, 4] and [M, 4] (`preprocess.image.difference_hash`); rows of zeros are no images.
      max_bits: at most 7: of eight 32-bit words at least one is then equal, which is how candidates are found.

    Returns:
      int64 [pairs, 2], row numbers in `one` and `other`, sorted.
    """
    if not 0 <= max_bits <= 7:
        raise ValueError(f"max_bits={max_bits}: 0 to 7")
    rows_one, rows_other = np.flatnonzero(one.any(axis=1)), np.flatnonzero(other.any(axis=1))
    words_one, words_other = (np.ascontiguousarray(part).view(np.uint32) for part in (one[rows_one], other[rows_other]))
    found = [np.zeros([0, 2], np.int64)]
    for word in range(8):
        order = np.argsort(words_other[:, word], kind="stable")
        column = words_other[order, word]
        first = np.searchsorted(column, words_one[:, word], side="left")
        count = np.searchsorted(column, words_one[:, word], side="right") - first
        # A word that very many share (black borders) gives very many candidates: never all of them at once.
        block = np.cumsum(count) // _BLOCK
        for number in np.unique(block):
            rows = np.flatnonzero((block == number) & (count > 0))
            left = np.repeat(rows, count[rows])
            offset = np.arange(len(left)) - np.repeat(np.cumsum(count[rows]) - count[rows], count[rows])
            right = order[np.repeat(first[rows], count[rows]) + offset]
            near = np.bitwise_count(words_one[left] ^ words_other[right]).sum(axis=1) <= max_bits
            found.append(np.stack([rows_one[left[near]], rows_other[right[near]]], axis=1))
    return np.unique(np.concatenate(found), axis=0)


def same_picture(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two uint8 images [h, w] are one picture, up to encoding, size, brightness and contrast."""
    return float(_thumbnail(one) @ _thumbnail(other)) >= SAME_CORRELATION


def _thumbnail(image: np.ndarray) -> np.ndarray:
    """The image as a unit vector of zero mean."""
    small = resize(image, (_THUMBNAIL, _THUMBNAIL)).astype(np.float64).ravel()
    small -= small.mean()
    return small / max(float(np.sqrt(small @ small)), 1e-9)


def same_volume(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two stored volumes, int16 [z, y, x] or voxels of both at the same indices, are one scan."""
    if one.shape != other.shape:
        return False
    return float(np.abs(one.astype(np.float32) - other).mean()) <= SAME_HU


def _picture(record: Record) -> np.ndarray:
    """float32 [n], the thumbnail of an image, or int16 [n], some voxels of a volume: few enough to be kept."""
    if record.image_format == VOLUME_FORMAT:
        volume = decode_volume(record.image)
        return volume.ravel()[::max(1, volume.size // _VOXELS)]
    return _thumbnail(decode_image(record.image, record.image_format)).astype(np.float32)


def _alike(one: np.ndarray, other: np.ndarray) -> bool:
    """`same_picture` or `same_volume` of two values of `_picture`."""
    if one.dtype == np.int16:
        return same_volume(one, other)
    return float(one @ other) >= SAME_CORRELATION


def _confirmed(candidates: np.ndarray, one: Any, other: Any) -> list[tuple[int, int]]:
    """Candidates (rows of the record sources `one` and `other`) that are one picture."""
    found: list[tuple[int, int]] = []
    kept: dict[tuple[int, int], np.ndarray | None] = {}

    def picture(side: int, row: int) -> np.ndarray | None:
        if (side, row) not in kept:
            if len(kept) == _KEPT:
                kept.clear()
            try:
                kept[side, row] = _picture((one, other)[side][row])
            except ValueError:  # Not to be read: neither trained nor evaluated on.
                kept[side, row] = None
        return kept[side, row]

    for row, twin in candidates.tolist():
        images = picture(0, row), picture(1, twin)
        if images[0] is not None and images[1] is not None and _alike(*images):
            found.append((row, twin))
    return found


@dataclasses.dataclass(frozen=True)
class _Twins:
    """Near-duplicates in one split of a data set that is trained on and one that is evaluated on: pairs of rows."""

    directory: str
    split: str
    other: str
    other_split: str
    pairs: Sequence[tuple[int, int]]

    @property
    def where(self) -> str:
        return _where(self.directory, self.split, self.other, self.other_split)

    def lines(self) -> Iterator[tuple[Any, ...]]:
        """The lines of the CSV file, in the order of PAIR_COLUMNS."""
        sides = source.open_records(self.directory, self.split), source.open_records(self.other, self.other_split)
        for row, twin in self.pairs:
            one, other = sides[0][row], sides[1][twin]
            yield (self.directory, self.split, row, one.study_id, one.image_id,
                   self.other, self.other_split, twin, other.study_id, other.image_id)


def _where(directory: str, split: str, other: str, other_split: str) -> str:
    return f"{directory} ({split}) and {other} ({other_split})"


def allowed_rows(
    indexes: Mapping[str, Mapping[str, np.ndarray]], *, split: str, held_out: Sequence[str], equal_reports: str,
    duplicates: str = "refuse", pairs_file: Path | None = None
) -> dict[str, np.ndarray]:
    """Checks training rows against every other split of the same data sets and all splits of those held out.

    Subjects in common are refused.

    Args:
      indexes: training data set -> index of its split `split` (`dataset.load_index`).
      split: the split that is trained on.
      held_out: data sets that are evaluated on only.
      equal_reports: what happens to reports in common: "refuse" stops, "drop" leaves the training rows out, "allow"
        keeps them (templated normal reports are equal in good faith in many hospitals).
      duplicates: the same for near-duplicate images.
      pairs_file: where the pairs of near-duplicates are listed, whatever happens to them (PAIR_COLUMNS); None for
        nowhere. Without pairs it is removed.

    Returns:
      For each data set, bool [N]: rows that may be trained on.

    Raises:
      UserError: a leak.
    """
    choose("data.equal_reports", equal_reports, POLICIES)
    choose("data.near_duplicates", duplicates, POLICIES)
    evaluated = []
    for directory in dict.fromkeys([*indexes, *held_out]):
        evaluated += [(directory, name, dataset.load_index(directory, name))
                      for name in dataset.load_metadata(directory).splits
                      if name != split or directory not in indexes]
    for directory, index in indexes.items():
        for other, name, evaluation in evaluated:
            _refuse_subjects(index, evaluation, _where(directory, split, other, name), hint="" if other == directory
                             else "; give the ids a prefix if equal ids are other people")
    allowed = {directory: np.ones(len(index["subject"]), bool) for directory, index in indexes.items()}
    for twins in _near_duplicates(indexes, split, evaluated, duplicates, pairs_file):
        allowed[twins.directory][[row for row, _ in twins.pairs]] = False
    for directory, index in indexes.items():
        same = np.zeros(len(index["subject"]), bool)
        for other, name, evaluation in evaluated:
            equal = np.isin(index["report_hash"], evaluation["report_hash"]) & (index["report_hash"] != 0)
            if equal.any() and equal_reports == "refuse":
                raise UserError(f"split leak: {int(equal.sum())} equal reports in both "
                                f"{_where(directory, split, other, name)} (--config.data.equal_reports=drop leaves "
                                "them out of training)")
            same |= equal
        if equal_reports == "drop" and same.any():
            _LOG.info("%d rows of %s left out of training: their reports equal one that is evaluated on", same.sum(),
                      directory)
            allowed[directory] &= ~same
    return allowed


def _near_duplicates(indexes: Mapping[str, Mapping[str, np.ndarray]], split: str,
                     evaluated: Sequence[tuple[str, str, Mapping[str, np.ndarray]]], policy: str,
                     pairs_file: Path | None) -> list[_Twins]:
    """The near-duplicates to leave out of training; lists all of them in `pairs_file`. See `allowed_rows`."""
    found = []
    for directory, index in indexes.items():
        for other, name, evaluation in evaluated:
            candidates = near_duplicates(index["image_hash"], evaluation["image_hash"])
            pairs = _confirmed(candidates, source.open_records(directory, split),
                               source.open_records(other, name)) if len(candidates) else []
            if pairs:
                found.append(_Twins(directory, split, other, name, pairs))
    if pairs_file is not None:
        pairs_file.unlink(missing_ok=True)
    if not found:
        return []
    listed = ""
    if pairs_file is not None:
        text = io.StringIO()
        rows = TableWriter(text)
        for line in (PAIR_COLUMNS, *(line for twins in found for line in twins.lines())):
            rows.writerow(line)
        write_atomically(pairs_file, lambda file: file.write(text.getvalue().encode("utf-8", "backslashreplace")))
        listed = f"; the pairs are listed in {pairs_file}"
    what = ", ".join(f"{len(twins.pairs)} near-duplicate images in both {twins.where}" for twins in found) + listed
    if policy == "refuse":
        raise UserError(f"split leak: {what} (--config.data.near_duplicates=drop leaves them out of training)")
    _LOG.warning("%s: %s", what, "left out of training" if policy == "drop" else
                 "kept in training, so that the evaluation is too optimistic")
    return found if policy == "drop" else []


def _refuse_subjects(index: Mapping[str, np.ndarray], evaluation: Mapping[str, np.ndarray], where: str, *,
                     hint: str) -> None:
    shared = np.isin(index["subject"], evaluation["subject"])
    if shared.any():
        raise UserError(f"split leak: {len(np.unique(index['subject'][shared]))} subjects in both {where}{hint}")
