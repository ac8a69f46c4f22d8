"""Recall@K in NumPy, exact with ties, by counting: how many candidates score above the best right one.

No ranking is needed: a query's hit depends on three counts only (strictly above, tied, right among the tied), so a pass
over blocks of scores gives recall in both directions at once, and nothing of size queries x gallery is ever held. Tied
candidates share their ranks, as in `retrieval.py`: a constant score gets what chance gets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

# Rows of one block of scores. At most 255: hits of a block are then summed in one byte each.
_ROWS = 240


def hit_chance(above: np.ndarray, tied: np.ndarray, right: np.ndarray, k: int) -> np.ndarray:
    """Chance that a right candidate stands among the first `k` when tied candidates are ordered at random.

    Args:
      above: [Q], candidates that score strictly above the best right one.
      tied: [Q], candidates with exactly its score, the right ones among them.
      right: [Q], right candidates with that score; 0 where a query has none.
      k: ranks that count.

    Returns:
      float64 [Q] in [0, 1].
    """
    above, tied, right = (np.asarray(part, np.float64) for part in (above, tied, right))
    drawn = np.clip(k - above, 0, tied)
    missed = np.ones(len(above))
    for i in range(int(drawn.max(initial=0))):  # Without replacement: none of `drawn` from the tied is right.
        factor = np.clip(tied - right - i, 0, None) / np.maximum(tied - i, 1)
        missed = np.where(i < drawn, missed * factor, missed)
    return np.where(right > 0, 1 - missed, 0.0)


def recall_at_k(scores: np.ndarray, relevant: np.ndarray, ks: Sequence[int]) -> np.ndarray:
    """Chance of a hit in the first K, float64 [Q, len(ks)], from scores that are at hand.

    This is recall@K when each query has one right candidate. With several it is easier than recall (one of five
    suffices), and it falls as the gallery grows: values from galleries of other sizes do not compare.

    Args:
      scores: float [Q, N]; a candidate that must not count has -inf.
      relevant: bool [Q, N].

    Raises:
      ValueError: shapes differ, or a score is NaN.
    """
    scores, relevant = np.asarray(scores), np.asarray(relevant, bool)
    if scores.ndim != 2 or scores.shape != relevant.shape:
        raise ValueError(f"scores {scores.shape} and relevant {relevant.shape} must be [queries, candidates]")
    if np.isnan(scores).any():
        raise ValueError("scores must not be NaN")
    best = np.where(relevant, scores, -np.inf).max(1, initial=-np.inf)[:, None]
    level = (scores == best) & ~np.isneginf(best)
    counts = (scores > best).sum(1), level.sum(1), (level & relevant).sum(1)
    return np.stack([hit_chance(*counts, k) for k in ks], axis=1)


def recall_both_ways(images: np.ndarray, texts: np.ndarray, image_group: np.ndarray, text_group: np.ndarray,
                     ks: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Recall@K from embeddings, image -> text and text -> image, in one pass over blocks of their dot products.

    A candidate is right when its group is the query's: with the study as group only the own pair counts; with equal
    numbers for equal texts, any report of the same words does. See `recall_at_k` for what the value means.

    Candidates with equal embeddings tie exactly, wherever they stand: a matrix product alone does not promise that
    (equal rows may round differently in different places), so each distinct row is multiplied once and counted with
    its multiplicity.

    Args:
      images: float32 [I, E]; texts: float32 [T, E]. Scores are their dot products.
      image_group: int [I]; text_group: int [T].
      ks: ranks.

    Returns:
      float64 [I, len(ks)] and [T, len(ks)]; 0 for a query without a right candidate.

    Raises:
      ValueError: shapes that do not go together, or embeddings that are not finite.
    """
    images, texts = np.asarray(images, np.float32), np.asarray(texts, np.float32)
    if images.ndim != 2 or texts.ndim != 2 or images.shape[1] != texts.shape[1]:
        raise ValueError(f"images {images.shape} and texts {texts.shape} must be [number, width] of one width")
    if len(image_group) != len(images) or len(text_group) != len(texts):
        raise ValueError("one group per image and per text is needed")
    if not np.isfinite(images).all() or not np.isfinite(texts).all():
        raise ValueError("embeddings must be finite")
    if not len(images) or not len(texts):
        return np.zeros((len(images), len(ks))), np.zeros((len(texts), len(ks)))
    row_side, column_side = _Side(images, image_group), _Side(texts, text_group)
    rows, columns = _pairs(row_side.group, column_side.group)
    value = np.einsum("pe,pe->p", row_side.vectors[row_side.row[rows]], column_side.vectors[column_side.row[columns]])
    row_side.aim(rows, value)
    column_side.aim(columns, value)
    seen = _count(row_side, column_side, rows, columns)
    row_side.correct(rows, seen, value, column_side, columns)
    column_side.correct(columns, seen, value, row_side, rows)
    return row_side.recall(ks), column_side.recall(ks)


class _Side:
    """Images or texts. An entry is a distinct (embedding, group): what a query's result depends on.

    Attributes:
      vectors: [D, E], distinct embeddings; size: [D], how many candidates have each.
      row: [entries] into `vectors`, ascending; group: [entries]; members: [entries], how many candidates are alike.
      of: [N], the entry of each image or text.
      target: [entries], score of the best right candidate, -inf without one.
      above, tied, right: [entries], see `hit_chance`.
    """

    def __init__(self, vectors: np.ndarray, group: np.ndarray) -> None:
        vectors = np.ascontiguousarray(vectors) + np.float32(0)  # -0.0 and 0.0 are one number, but not the same bytes.
        number: dict[bytes, int] = {}
        keys = (hashlib.blake2b(vector, digest_size=16).digest() for vector in vectors)
        row = np.array([number.setdefault(key, len(number)) for key in keys], np.int64)
        first = np.unique(row, return_index=True)[1]
        self.vectors, self.size = vectors[first], np.bincount(row, minlength=len(number)).astype(np.float32)
        keys = np.stack([row, np.asarray(group, np.int64)], axis=1)
        entries, self.of, members = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
        self.of = self.of.reshape(-1)
        self.row, self.group, self.members = entries[:, 0], entries[:, 1], members.astype(np.float64)
        self.above, self.tied, self.right = (np.zeros(len(entries)) for _ in range(3))
        self.target = np.full(len(entries), -np.inf, np.float32)

    def aim(self, pairs: np.ndarray, value: np.ndarray) -> None:
        """Sets the targets from the scores `value` of right pairs, whose entries here are `pairs`."""
        np.maximum.at(self.target, pairs, value)

    def correct(self, pairs: np.ndarray, seen: np.ndarray, value: np.ndarray, other: _Side, others: np.ndarray) -> None:
        """Takes the right pairs out of the counts by the scores `seen` in the pass, and puts them in by `value`.

        The two differ in the last bit at times: a candidate must not stand above itself for that.
        """
        size, members = other.size[other.row[others]], other.members[others]
        goal = self.target[pairs]
        self.above -= np.bincount(pairs, size * (seen > goal), minlength=len(self.above))
        self.tied -= np.bincount(pairs, size * (seen == goal), minlength=len(self.tied))
        self.tied += np.bincount(pairs, size * (value == goal), minlength=len(self.tied))
        self.right += np.bincount(pairs, members * (value == goal), minlength=len(self.right))

    def recall(self, ks: Sequence[int]) -> np.ndarray:
        """float64 [N, len(ks)]."""
        return np.stack([hit_chance(self.above, self.tied, self.right, k) for k in ks], axis=1)[self.of]


def _pairs(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of positions (in `left`, in `right`) with equal values, ordered by the first."""
    order = np.argsort(right, kind="stable")
    start = np.searchsorted(right[order], left, side="left")
    count = np.searchsorted(right[order], left, side="right") - start
    first = np.repeat(np.arange(len(left)), count)
    offset = np.arange(len(first)) - np.repeat(np.cumsum(count) - count, count)
    return first, order[np.repeat(start, count) + offset]


def _count(rows: _Side, columns: _Side, pair_rows: np.ndarray, pair_columns: np.ndarray) -> np.ndarray:
    """Fills the counts of both sides over all candidates; returns the scores of the pairs as this pass saw them."""
    seen = np.empty(len(pair_rows), np.float32)
    transposed = columns.vectors.T
    wide = len(columns.row) != len(columns.vectors)
    ends = np.searchsorted(rows.row, np.arange(len(rows.vectors)), side="right")
    for start in range(0, len(rows.vectors), _ROWS):
        stop = min(start + _ROWS, len(rows.vectors))
        scores = rows.vectors[start:stop] @ transposed
        goal, size = columns.target[None, :], rows.size[start:stop]
        by_column = scores[:, columns.row] if wide else scores
        columns.above += _sum_rows(by_column > goal, size)
        columns.tied += _sum_rows(by_column == goal, size)
        first, last = (ends[start - 1] if start else 0), ends[stop - 1]
        for begin in range(first, last, _ROWS):  # One step, unless an image has many copies in other groups.
            part = slice(begin, min(begin + _ROWS, last))
            local = rows.row[part] - start
            by_row = scores if len(local) == len(scores) and (local == np.arange(len(scores))).all() else scores[local]
            rows.above[part] = _sum_columns(by_row > rows.target[part, None], columns.size)
            rows.tied[part] = _sum_columns(by_row == rows.target[part, None], columns.size)
        part = slice(*np.searchsorted(pair_rows, [first, last]))
        seen[part] = scores[rows.row[pair_rows[part]] - start, columns.row[pair_columns[part]]]
    return seen


def _sum_rows(flags: np.ndarray, size: np.ndarray) -> np.ndarray:
    if (size == 1).all():
        return flags.view(np.uint8).sum(0, dtype=np.uint8)
    return size @ flags.astype(np.float32)


def _sum_columns(flags: np.ndarray, size: np.ndarray) -> np.ndarray:
    if (size == 1).all():
        return np.count_nonzero(flags, axis=1)
    return flags.astype(np.float32) @ size
