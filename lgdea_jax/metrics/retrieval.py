"""Retrieval metrics in NumPy, exact with ties: the expected value when equal scores are ordered at random.

An argsort orders ties by position, which rewards a model that gives everything the same score whenever the right
answer happens to come first. Here a group of tied candidates shares its ranks, so a constant score gets what chance
gets, and the result does not depend on the order of the gallery (McSherry and Najork, ECIR 2008).

The functions work on blocks of queries: nothing of size queries x gallery need exist at once. `rank_profile` finds what
the first K ranks of each query hold; the metrics are functions of that profile. Recall@K needs less: `recall.py`.
"""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class RankProfile:
    """What the first K ranks of Q queries hold. A group is a set of candidates with equal scores.

    Attributes:
      first: int [Q, K], number of candidates that score strictly above the group at this rank.
      size: int [Q, K], candidates in the group.
      gain: float [Q, K], sum of the gains in the group (for binary gains, how many are relevant).
      before: float [Q, K], sum of the gains strictly above the group.
      total: float [Q], sum of the gains over the whole gallery.
    """

    first: np.ndarray
    size: np.ndarray
    gain: np.ndarray
    before: np.ndarray
    total: np.ndarray


def rank_profile(scores: np.ndarray, gains: np.ndarray, k: int) -> RankProfile:
    """The first `k` ranks of each query.

    Args:
      scores: float [Q, N]; a candidate that must not count (the query itself) has -inf and is never a neighbour.
      gains: float or bool [Q, N], what a candidate is worth: relevance, or a similarity of labels.
      k: 1 <= k <= the number of candidates of every query.

    Raises:
      ValueError: shapes differ, a score is NaN, or a query has fewer than k candidates.
    """
    scores, gains = np.asarray(scores), np.asarray(gains)
    if scores.ndim != 2 or scores.shape != gains.shape:
        raise ValueError(f"scores {scores.shape} and gains {gains.shape} must be [queries, candidates]")
    if np.isnan(scores).any():
        raise ValueError("scores must not be NaN")
    q, n = scores.shape
    if not 1 <= k <= n or (q and np.isneginf(scores).sum(1).max() > n - k):
        raise ValueError(f"k={k}, but a query has {n - int(np.isneginf(scores).sum(1).max(initial=0))} candidates")
    top = np.argpartition(scores, n - k, axis=1)[:, n - k:] if k < n else np.tile(np.arange(n), (q, 1))
    top = np.take_along_axis(top, np.argsort(-np.take_along_axis(scores, top, 1), axis=1, kind="stable"), 1)
    value = np.take_along_axis(scores, top, 1)
    top_gain = np.take_along_axis(gains, top, 1).astype(np.float64)
    # Rank of the first member of each rank's group, among the top k.
    new = np.ones((q, k), bool)
    new[:, 1:] = value[:, 1:] != value[:, :-1]
    first = np.maximum.accumulate(np.where(new, np.arange(k), 0), axis=1)
    same = first[:, :, None] == first[:, None, :] if k <= 128 else None
    if same is not None:
        size = same.sum(-1)
        gain = np.einsum("qij,qj->qi", same, top_gain)
    else:
        size, gain = np.empty((q, k), int), np.empty((q, k))
        for row in range(q):
            size[row] = np.bincount(first[row], minlength=k)[first[row]]
            gain[row] = np.bincount(first[row], top_gain[row], minlength=k)[first[row]]
    # Only the last group can reach beyond the top k: its members are counted over the whole gallery.
    last = first == first[:, -1:]
    tied = scores == value[:, -1:]
    size = np.where(last, tied.sum(1)[:, None], size)
    gain = np.where(last, (gains * tied).sum(1, dtype=np.float64)[:, None], gain)
    cumulated = np.concatenate([np.zeros((q, 1)), np.cumsum(top_gain, axis=1)], axis=1)
    before = np.take_along_axis(cumulated, first, 1)
    total = np.where(np.isneginf(scores), 0, gains).sum(1, dtype=np.float64)
    return RankProfile(first, size, gain, before, total)


def mean_gain_at_k(profile: RankProfile, k: int) -> np.ndarray:
    """Expected mean gain of the first `k` candidates, float64 [Q].

    With relevance as gain this is precision@K; with the Jaccard index of the label sets, jaccard@K (which the CT
    literature prints as "MAP@K", although it is no average precision). Precision@K cannot reach 1 when a query has
    fewer than K relevant candidates, and its chance level is the share of relevant ones: print both beside it.
    """
    return (profile.gain[:, :k] / profile.size[:, :k]).mean(1)


def average_precision_at_k(profile: RankProfile, k: int) -> np.ndarray:
    """Expected average precision of the first `k` ranks, divided by min(k, relevant): [Q], NaN without a relevant one.

    The mean over queries is a true mAP@K. Libraries differ in the divisor (relevant in all, relevant found, k); with
    this one a perfect ranking scores 1 for any k. Gains must be 0/1.
    """
    rank = np.arange(1, k + 1)
    first, size = profile.first[:, :k], profile.size[:, :k]
    gain, before = profile.gain[:, :k], profile.before[:, :k]
    # Given a relevant candidate at this rank, each of the earlier ranks of its group holds one with this chance.
    others = (gain - 1) / np.maximum(size - 1, 1)
    precision = (before + 1 + (rank - 1 - first) * others) / rank
    summed = (gain / size * np.where(gain > 0, precision, 0)).sum(1)
    possible = np.minimum(profile.total, k)
    return np.divide(summed, possible, out=np.full(len(summed), np.nan), where=possible > 0)


def jaccard(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Jaccard index of the rows of two 0/1 matrices [A, L] and [B, L]: float32 [A, B]; two empty sets give 0.

    It counts findings alike whether one in ten or one in a thousand has them, and a pair that shares one of one is
    worth more than one that shares three of four.
    """
    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    both = a @ b.T
    either = a.sum(1)[:, None] + b.sum(1)[None, :] - both
    return np.divide(both, either, out=np.zeros_like(both), where=either > 0)
