"""Keeps what is evaluated on out of training: subjects, near-duplicate images and equal reports in common."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from lgdea_jax import record_source
from lgdea_jax.cli import UserError, choose

# Of the 256 bits of the difference hash: re-encoding or rescaling an image flips a few, another image half of them.
NEAR_BITS = 7


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
    found = []
    for word in range(8):
        order = np.argsort(words_other[:, word], kind="stable")
        column = words_other[order, word]
        first = np.searchsorted(column, words_one[:, word], side="left")
        count = np.searchsorted(column, words_one[:, word], side="right") - first
        left = np.repeat(np.arange(len(count)), count)
        offset = np.arange(len(left)) - np.repeat(np.cumsum(count) - count, count)
        right = order[np.repeat(first, count) + offset]
        bits = np.bitwise_count(words_one[left] ^ words_other[right]).sum(axis=1)
        near = bits <= max_bits
        found.append(np.stack([rows_one[left[near]], rows_other[right[near]]], axis=1))
    return np.unique(np.concatenate(found), axis=0) if found else np.zeros([0, 2], np.int64)


def allowed_rows(indexes: Mapping[str, Mapping[str, np.ndarray]], data: Any) -> dict[str, np.ndarray]:
    """Checks training rows against every evaluation split of the same data sets and of `data.held_out_from`.

    Subjects and near-duplicate images in common are refused. Equal reports are handled as `data.equal_reports` says:
    "refuse" stops, "drop" leaves the training rows out, "allow" keeps them (templated normal reports are equal in good
    faith in many hospitals).

    Returns:
      For each data set, bool [N]: rows that may be trained on.
    """
    choose("data.equal_reports", data.equal_reports, ("refuse", "drop", "allow"))
    held_out = []
    for directory in dict.fromkeys([*indexes, *data.held_out_from]):
        splits = record_source.load_metadata(directory).counts
        held_out += [(directory, split, record_source.load_index(directory, split))
                     for split in splits if split != data.split or directory not in indexes]
    allowed = {}
    for directory, index in indexes.items():
        keep = np.ones(len(index["subject"]), bool)
        for other, split, evaluation in held_out:
            where = f"{directory} ({data.split}) and {other} ({split})"
            shared = np.isin(index["subject"], evaluation["subject"])
            if shared.any():
                count = len(np.unique(index["subject"][shared]))
                hint = "" if other == directory else "; give the ids a prefix if equal ids are other people"
                raise UserError(f"split leak: {count} subjects in both {where}{hint}")
            twins = near_duplicates(index["image_hash"], evaluation["image_hash"])
            if len(twins):
                raise UserError(f"split leak: {len(twins)} near-duplicate images in both {where}, "
                                f"the first in training row {int(twins[0][0])}")
            equal = np.isin(index["report_hash"], evaluation["report_hash"]) & (index["report_hash"] != 0)
            if equal.any() and data.equal_reports == "refuse":
                raise UserError(f"split leak: {int(equal.sum())} equal reports in both {where} "
                                "(--config.data.equal_reports=drop leaves them out of training)")
            if data.equal_reports == "drop":
                keep &= ~equal
        if not keep.all():
            logging.getLogger("lgdea_jax").info(
                "%d rows of %s left out of training: their reports equal one that is evaluated on",
                (~keep).sum(), directory)
        allowed[directory] = keep
    return allowed
