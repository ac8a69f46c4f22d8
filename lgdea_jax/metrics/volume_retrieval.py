"""Retrieval of CT volumes as CT-CLIP's scripts do it (Hamamci et al., 2024, arXiv 2403.17834), and as it is defined.

The literature prints "MAP@K" of volume -> volume retrieval: it is the mean Jaccard index of the positive labels over
the K nearest volumes by cosine, no average precision. The public script has three quirks that raise or blur it:

1. The query is in the gallery and finds itself first, with Jaccard 1 (K=1 prints little else); so do the other
   reconstructions of its scan, which show the same patient and have the same labels.
2. The list that is averaged is not emptied between K = 1, 5, 10, 50: the value printed for 50 averages the four.
3. The gallery leaves volumes without a positive label out, the queries do not: theirs are always 0.

`jaccard_official` keeps them, `jaccard_clean` has none. RadFinder's "MAP@K" is another quantity again: an average
precision whose divisor is K, see `average_precision_over_k`. NumPy only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lgdea_jax.metrics import retrieval

KS = (1, 5, 10, 50)
RECALL_KS = (1, 5, 10, 50, 100)
_ROWS = 256  # Queries of one block.


def unit(rows: np.ndarray) -> np.ndarray:
    """The rows of [N, E] with norm 1, float64; a zero row stays."""
    rows = np.asarray(rows, np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300)


def cosines(queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """Cosine similarities float64 [Q, G] of the rows of [Q, E] and [G, E]; of a zero row they are 0."""
    return unit(queries) @ unit(gallery).T


def jaccard_official(embeddings: np.ndarray, positive: np.ndarray, ks: Sequence[int] = KS) -> np.ndarray:
    """What the public script averages for each K, for every volume as a query: float64 [N, len(ks)].

    The mean of a column is the printed "MAP@K". Ties keep the order of the gallery, and a gallery of fewer than K
    volumes is taken whole, as Python's `sorted(...)[:k]` does.

    Args:
      embeddings: [N, E]; positive: bool [N, L].
      ks: ascending, in the order in which the script goes through them.

    Returns:
      NaN where no volume has a positive label.
    """
    positive = np.asarray(positive, bool)
    gallery = np.flatnonzero(positive.any(1))
    out = np.full((len(embeddings), len(ks)), np.nan)
    if not len(gallery):
        return out
    for start in range(0, len(embeddings), _ROWS):
        rows = slice(start, start + _ROWS)
        order = np.argsort(-cosines(embeddings[rows], embeddings[gallery]), axis=1, kind="stable")[:, :max(ks)]
        worth = np.take_along_axis(retrieval.jaccard(positive[rows], positive[gallery]), order, 1).astype(np.float64)
        out[rows] = np.stack([worth[:, :k].mean(1) for k in ks], 1)
    return np.cumsum(out, axis=1) / np.arange(1, len(ks) + 1)


def jaccard_clean(embeddings: np.ndarray, positive: np.ndarray, scans: np.ndarray,
                  ks: Sequence[int] = KS) -> tuple[np.ndarray, np.ndarray]:
    """(jaccard@K, average precision@K), float64 [N, len(ks)] each, without the query's own scan in the gallery.

    Relevant for the average precision are volumes that share a positive label. Ties share their ranks.

    Args:
      embeddings: [N, E]; positive: bool [N, L].
      scans: [N], equal for reconstructions of one scan.
      ks: ranks.

    Returns:
      NaN for volumes without a positive label, which can share none, and where the gallery is smaller than K.
    """
    positive = np.asarray(positive, bool)
    labelled = np.flatnonzero(positive.any(1))
    gain, precision = (np.full((len(embeddings), len(ks)), np.nan) for _ in range(2))
    for start in range(0, len(labelled), _ROWS):
        rows = labelled[start:start + _ROWS]
        own = scans[rows][:, None] == scans[labelled][None, :]
        scores = np.where(own, -np.inf, cosines(embeddings[rows], embeddings[labelled]))
        worth = retrieval.jaccard(positive[rows], positive[labelled])
        most = int((~own).sum(1).min())
        usable = [k for k in ks if k <= most]
        if not usable:
            continue
        by_jaccard = retrieval.rank_profile(scores, worth, max(usable))
        by_sharing = retrieval.rank_profile(scores, worth > 0, max(usable))
        for c, k in enumerate(usable):
            gain[rows, c] = retrieval.mean_gain_at_k(by_jaccard, k)
            precision[rows, c] = retrieval.average_precision_at_k(by_sharing, k)
    return gain, precision


def average_precision_over_k(embeddings: np.ndarray, positive: np.ndarray, ks: Sequence[int] = KS) -> np.ndarray:
    """What RadFinder's script averages as "MAP@K": the sum of precisions at the relevant ranks up to K, divided by K.

    Relevant is a volume that shares a positive label; queries and gallery are the volumes that have one, without the
    query itself (other reconstructions stay). The divisor is K even if fewer are relevant. float64 [N, len(ks)]; NaN
    for volumes without a positive label, and where the gallery is smaller than K. Arguments as of `jaccard_official`.
    """
    positive = np.asarray(positive, bool)
    labelled = np.flatnonzero(positive.any(1))
    out = np.full((len(embeddings), len(ks)), np.nan)
    usable = [c for c, k in enumerate(ks) if k < len(labelled)]
    for start in range(0, len(labelled) if usable else 0, _ROWS):
        rows = labelled[start:start + _ROWS]
        scores = np.where(rows[:, None] == labelled, -np.inf, cosines(embeddings[rows], embeddings[labelled]))
        most = max(ks[c] for c in usable)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :most]
        relevant = np.take_along_axis(retrieval.jaccard(positive[rows], positive[labelled]) > 0, order, 1)
        precision = np.cumsum(relevant, axis=1) / np.arange(1, most + 1) * relevant
        for c in usable:
            out[rows, c] = precision[:, :ks[c]].sum(1) / ks[c]
    return out


def recall_official(texts: np.ndarray, volumes: np.ndarray, ks: Sequence[int] = RECALL_KS) -> np.ndarray:
    """Whether volume i is among the K best for text i by dot product: float64 [N, len(ks)] of 0 and 1.

    As the public scripts, whose embeddings are normalised: only the same index is a hit, although other reconstructions
    have the same report, and ties keep the order of the gallery. NaN for K above N.

    Args:
      texts, volumes: [N, E], row i of one belonging to row i of the other.
    """
    texts, volumes = np.asarray(texts, np.float64), np.asarray(volumes, np.float64)
    out = np.full((len(texts), len(ks)), np.nan)
    for start in range(0, len(texts), _ROWS):
        rows = np.arange(start, min(start + _ROWS, len(texts)))
        scores = texts[rows] @ volumes.T
        own = scores[np.arange(len(rows)), rows][:, None]
        earlier = np.arange(len(volumes))[None, :] < rows[:, None]
        before = (scores > own).sum(1) + ((scores == own) & earlier).sum(1)
        for c, k in enumerate(ks):
            if k <= len(volumes):
                out[rows, c] = before < k
    return out


def corner_threshold(probabilities: np.ndarray, positive: np.ndarray) -> float:
    """The operating point of the public script: the last of linspace(0, 1, 100) that comes nearest to the ROC's corner.

    The corner is (false positive rate, true positive rate) = (0, 1); "positive" is a probability above the threshold.
    Chosen on the images that it is then used for, it flatters.

    Args:
      probabilities: float [N] in [0, 1]; positive: bool [N].

    Returns:
      NaN where one class is absent.
    """
    probabilities, positive = np.asarray(probabilities, np.float64), np.asarray(positive, bool)
    if not positive.any() or positive.all():
        return float("nan")
    grid = np.linspace(0, 1, 100)
    called = probabilities[None, :] > grid[:, None]
    hit = (called & positive).sum(1) / positive.sum()
    false = (called & ~positive).sum(1) / (~positive).sum()
    distance = np.sqrt((1 - hit) ** 2 + false**2)
    return float(grid[len(grid) - 1 - int(np.argmin(distance[::-1]))])
