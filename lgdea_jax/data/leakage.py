"""Keeps what is evaluated on out of training: subjects, near-duplicate images and equal reports in common."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lgdea_jax.data import dataset, source
from lgdea_jax.errors import UserError, choose
from lgdea_jax.io import decode_image, decode_volume
from lgdea_jax.io.encoded_volume import FORMAT as VOLUME_FORMAT
from lgdea_jax.preprocess.image import resize
from lgdea_jax.records import Record

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
    """uint8 [h, w], or int16 [n], some voxels of a volume: few enough to be kept for thousands of candidates."""
    if record.image_format == VOLUME_FORMAT:
        volume = decode_volume(record.image)
        return volume.ravel()[::max(1, volume.size // _VOXELS)]
    return decode_image(record.image, record.image_format)


def _confirmed(candidates: np.ndarray, one: Any, other: Any, *, enough: int = 1000) -> list[tuple[int, int]]:
    """Candidates (rows of the record sources `one` and `other`) that are one picture; stops at `enough`."""
    found: list[tuple[int, int]] = []
    kept: dict[tuple[int, int], np.ndarray | None] = {}

    def picture(side: int, row: int) -> np.ndarray | None:
        if (side, row) in kept:
            return kept[side, row]
        record = (one, other)[side][row]
        try:
            image = _picture(record)
        except ValueError:  # Not to be read: neither trained nor evaluated on.
            image = None
        if record.image_format == VOLUME_FORMAT:
            kept[side, row] = image
        return image

    for row, twin in candidates.tolist():
        images = picture(0, row), picture(1, twin)
        if images[0] is None or images[1] is None:
            continue
        if (same_picture if images[0].ndim == 2 else same_volume)(*images):
            found.append((row, twin))
            if len(found) == enough:
                break
    return found


def allowed_rows(
    indexes: Mapping[str, Mapping[str, np.ndarray]], *, split: str, held_out: Sequence[str], equal_reports: str
) -> dict[str, np.ndarray]:
    """Checks training rows against every other split of the same data sets and all splits of those held out.

    Subjects and near-duplicate images in common are refused.

    Args:
      indexes: training data set -> index of its split `split` (`dataset.load_index`).
      split: the split that is trained on.
      held_out: data sets that are evaluated on only.
      equal_reports: what happens to reports in common: "refuse" stops, "drop" leaves the training rows out, "allow"
        keeps them (templated normal reports are equal in good faith in many hospitals).

    Returns:
      For each data set, bool [N]: rows that may be trained on.

    Raises:
      UserError: a leak.
    """
    choose("data.equal_reports", equal_reports, ("refuse", "drop", "allow"))
    evaluated = []
    for directory in dict.fromkeys([*indexes, *held_out]):
        evaluated += [(directory, name, dataset.load_index(directory, name))
                      for name in dataset.load_metadata(directory).splits
                      if name != split or directory not in indexes]
    allowed = {}
    for directory, index in indexes.items():
        keep = np.ones(len(index["subject"]), bool)
        for other, name, evaluation in evaluated:
            where = f"{directory} ({split}) and {other} ({name})"
            _refuse_subjects(index, evaluation, where, hint="" if other == directory else
                             "; give the ids a prefix if equal ids are other people")
            candidates = near_duplicates(index["image_hash"], evaluation["image_hash"])
            if len(candidates):
                twins = _confirmed(candidates, source.open_records(directory, split),
                                   source.open_records(other, name))
                if twins:
                    raise UserError(f"split leak: {len(twins)} near-duplicate images in both {where}, the first in "
                                    f"rows {twins[0][0]} and {twins[0][1]}")
            equal = np.isin(index["report_hash"], evaluation["report_hash"]) & (index["report_hash"] != 0)
            if equal.any() and equal_reports == "refuse":
                raise UserError(f"split leak: {int(equal.sum())} equal reports in both {where} "
                                "(--config.data.equal_reports=drop leaves them out of training)")
            if equal_reports == "drop":
                keep &= ~equal
        if not keep.all():
            logging.getLogger("lgdea_jax").info(
                "%d rows of %s left out of training: their reports equal one that is evaluated on",
                (~keep).sum(), directory)
        allowed[directory] = keep
    return allowed


def _refuse_subjects(index: Mapping[str, np.ndarray], evaluation: Mapping[str, np.ndarray], where: str, *,
                     hint: str) -> None:
    shared = np.isin(index["subject"], evaluation["subject"])
    if shared.any():
        raise UserError(f"split leak: {len(np.unique(index['subject'][shared]))} subjects in both {where}{hint}")
