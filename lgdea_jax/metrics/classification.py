"""Classification metrics in NumPy: exact with ties, and over many weightings of the samples at once.

Every function takes optional `weights` of shape [B, N]: B weightings of the same N samples (in a bootstrap, how often
each sample was drawn). The scores are sorted once and each weighting costs one pass, so 1,000 resamples cost far less
than 1,000 calls; integer weights are counted exactly. Without weights a float comes back, with them float64 [B].

A metric that is not defined for a weighting (AUROC with one class, kappa without any disagreement expected) is NaN,
never 0 or 0.5: a number there would look like a measurement.
"""

from __future__ import annotations

import numpy as np

from lgdea_jax.records import NEGATIVE, POSITIVE

# Elements of the temporary arrays of one block of weightings: small enough for the processor's cache.
_BLOCK = 50_000


def _weights(weights: np.ndarray | None, n: int) -> np.ndarray:
    """`weights` as [B, N], or one row of ones."""
    if weights is None:
        return np.ones((1, n), np.int64)
    weights = np.asarray(weights)
    if weights.ndim != 2 or weights.shape[1] != n:
        raise ValueError(f"weights must be [B, {n}], not {weights.shape}")
    return weights


def _exact(weights: np.ndarray) -> type:
    """The type in which sums of such weights are exact (integers) or as good as they get (floats)."""
    return np.int64 if weights.dtype.kind in "iub" else np.float64


def _result(values: np.ndarray, weights: np.ndarray | None) -> float | np.ndarray:
    return float(values[0]) if weights is None else values


def _divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a / b with NaN where b is 0."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.divide(a, b, out=np.full(np.broadcast(a, b).shape, np.nan), where=b != 0)


def _binary(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores, labels = np.asarray(scores), np.asarray(labels)
    if scores.ndim != 1 or scores.shape != labels.shape:
        raise ValueError(f"scores {scores.shape} and labels {labels.shape} must be [N]")
    known = (labels == POSITIVE) | (labels == NEGATIVE)
    if not np.isfinite(scores[known]).all():
        raise ValueError("scores must be finite")
    return scores, labels


def auroc(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> float | np.ndarray:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties counting one half.

    It misleads when positives are rare (a high AUROC with a precision of a few percent), says nothing about
    calibration or a threshold, and from hard 0/1 scores it is the balanced accuracy.

    Args:
      scores: float [N], any scale.
      labels: int [N] of POSITIVE, NEGATIVE; uncertain and missing ones are left out.
      weights: [B, N], or None.

    Returns:
      Values in [0, 1], NaN where one class is absent.
    """
    scores, labels = _binary(scores, labels)
    rows = _weights(weights, len(scores))
    exact = _exact(rows)
    positive, negative = np.flatnonzero(labels == POSITIVE), np.flatnonzero(labels == NEGATIVE)
    # Negatives in the order of their scores; a positive beats those left of `below` and ties with those up to `upto`.
    negative = negative[np.argsort(scores[negative], kind="stable")]
    below = np.searchsorted(scores[negative], scores[positive], side="left")
    upto = np.searchsorted(scores[negative], scores[positive], side="right")
    out = np.empty(len(rows))
    step = max(1, _BLOCK // max(1, len(scores)))
    for start in range(0, len(rows), step):
        block = rows[start:start + step]
        cumulated = np.zeros((len(block), len(negative) + 1), exact)
        np.cumsum(np.take(block, negative, axis=1), axis=1, out=cumulated[:, 1:], dtype=exact)
        of_positive = np.take(block, positive, axis=1).astype(exact)
        wins = (of_positive * (np.take(cumulated, below, axis=1) + np.take(cumulated, upto, axis=1))).sum(1)
        out[start:start + step] = _divide(wins, 2 * of_positive.sum(1) * cumulated[:, -1].astype(np.float64))
    return _result(out, weights)


def average_precision(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> float | np.ndarray:
    """Average precision: the sum over distinct thresholds of (recall gained) x (precision there).

    Its chance level is the share of positives, so values of findings or data sets with other prevalences do not
    compare; and it is not the trapezoid under the precision-recall curve (which is optimistic).

    Arguments and return value as of `auroc`; NaN without a positive.
    """
    scores, labels = _binary(scores, labels)
    rows = _weights(weights, len(scores))
    exact = _exact(rows)
    known = np.flatnonzero((labels == POSITIVE) | (labels == NEGATIVE))
    order = known[np.argsort(-scores[known], kind="stable")]
    is_positive = labels[order] == POSITIVE
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True)) if len(order) else np.zeros(0, int)
    out = np.empty(len(rows))
    step = max(1, _BLOCK // max(1, len(scores)))
    for start in range(0, len(rows), step):
        block = np.take(rows[start:start + step], order, axis=1)
        taken = np.cumsum(block, axis=1, dtype=exact)[:, ends]
        hits = np.cumsum(block * is_positive, axis=1, dtype=exact)[:, ends]
        gained = np.diff(hits, axis=1, prepend=0)
        precision = np.nan_to_num(_divide(hits, taken))
        total = hits[:, -1] if len(ends) else np.zeros(len(block))
        out[start:start + step] = _divide((gained * precision).sum(1), total)
    return _result(out, weights)


def roc_curve(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The ROC curve at every distinct score: (false positive rate, true positive rate, threshold), from (0, 0) on.

    A point calls everything positive that scores at least its threshold; the first threshold is infinite. Empty arrays
    where one class is absent. Arguments as of `auroc`.
    """
    threshold, hits, taken, positives, total = _cuts(scores, labels)
    if not 0 < positives < total:
        return np.zeros(0), np.zeros(0), np.zeros(0)
    hits, false = np.append(0, hits), np.append(0, taken - hits)
    return false / (total - positives), hits / positives, np.append(np.inf, threshold)


def best_threshold(scores: np.ndarray, labels: np.ndarray, criterion: str) -> tuple[float, float]:
    """The threshold with the greatest F1 or MCC, and that value; "positive" is a score of at least the threshold.

    Chosen on the data that it is then reported for, the value is optimistic, the more so the fewer the positives; F1
    also grows with the prevalence. Choose on other data, or say so.

    Args:
      scores, labels: as of `auroc`.
      criterion: "f1" or "mcc".

    Returns:
      (threshold, value); of equally good thresholds the lowest. NaN where undefined: no positive, or for MCC one class.
    """
    if criterion not in ("f1", "mcc"):
        raise ValueError(f"criterion must be f1 or mcc, not {criterion!r}")
    threshold, hits, taken, positives, total = _cuts(scores, labels)
    if not positives or (criterion == "mcc" and positives == total):
        return float("nan"), float("nan")
    matrix = np.stack([total - positives - taken + hits, taken - hits, positives - hits, hits], -1).reshape(-1, 2, 2)
    # Taking everything (or all of one class by a constant) leaves the MCC undefined: such a cut is never the best.
    values = binary_f1(matrix) if criterion == "f1" else np.nan_to_num(mcc(matrix), nan=0.0)
    best = len(values) - 1 - int(np.argmax(values[::-1]))
    return float(threshold[best]), float(values[best])


def binary_f1(matrix: np.ndarray) -> np.ndarray:
    """F1 of the positive class of confusion matrices [..., 2, 2]; NaN when nothing is or is called positive.

    It ignores true negatives and depends on the prevalence: F1 of sets with other shares of positives do not compare.
    """
    return _divide(2 * matrix[..., 1, 1], matrix[..., 1, :].sum(-1) + matrix[..., :, 1].sum(-1))


def at_threshold(scores: np.ndarray, labels: np.ndarray, threshold: float,
                 weights: np.ndarray | None = None) -> np.ndarray:
    """Confusion matrix [2, 2], or [B, 2, 2] with weights, of calling scores of at least `threshold` positive.

    Arguments as of `auroc`.
    """
    scores, labels = _binary(scores, labels)
    known = np.flatnonzero((labels == POSITIVE) | (labels == NEGATIVE))
    part = None if weights is None else np.take(_weights(weights, len(labels)), known, axis=1)
    return confusion(labels[known] == POSITIVE, scores[known] >= threshold, 2, part)


def _cuts(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, int, int]:
    """Distinct scores falling, positives and samples at or above each, positives and samples in all."""
    scores, labels = _binary(scores, labels)
    known = np.flatnonzero((labels == POSITIVE) | (labels == NEGATIVE))
    order = known[np.argsort(-scores[known], kind="stable")]
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True)) if len(order) else np.zeros(0, int)
    hits = np.cumsum(labels[order] == POSITIVE)
    return scores[order][ends], hits[ends], ends + 1, int(hits[-1]) if len(order) else 0, len(order)


def confusion(truth: np.ndarray, predicted: np.ndarray, n_classes: int,
              weights: np.ndarray | None = None) -> np.ndarray:
    """Confusion matrices [B, C, C] (rows: truth, columns: prediction) of class indices [N]; [C, C] without weights."""
    truth, predicted = np.asarray(truth, np.int64), np.asarray(predicted, np.int64)
    if truth.shape != predicted.shape or truth.ndim != 1:
        raise ValueError(f"truth {truth.shape} and predicted {predicted.shape} must be [N]")
    if len(truth) and (min(truth.min(), predicted.min()) < 0 or max(truth.max(), predicted.max()) >= n_classes):
        raise ValueError(f"class indices must lie in 0..{n_classes - 1}")
    rows = _weights(weights, len(truth))
    cell = truth * n_classes + predicted
    used, column = np.unique(cell, return_inverse=True)
    indicator = np.zeros((len(cell), len(used)))
    indicator[np.arange(len(cell)), column] = 1
    out = np.zeros((len(rows), n_classes * n_classes))
    out[:, used] = rows.astype(np.float64) @ indicator
    out = out.reshape(len(rows), n_classes, n_classes)
    return out[0] if weights is None else out


def accuracy(matrix: np.ndarray) -> np.ndarray:
    """Share on the diagonal of confusion matrices [..., C, C].

    It misleads when classes are unequal: always naming the largest class scores its share.
    """
    return _divide(np.trace(matrix, axis1=-2, axis2=-1), matrix.sum((-2, -1)))


def macro_precision_recall_f1(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unweighted means over classes of precision, recall and F1, from confusion matrices [..., C, C].

    Classes that neither occur nor are predicted are left out; one that is never predicted has precision 0, one that
    never occurs recall 0. A macro mean gives a class of three samples the weight of one of three thousand.
    """
    hit = np.diagonal(matrix, axis1=-2, axis2=-1)
    predicted, actual = matrix.sum(-2), matrix.sum(-1)
    seen = (predicted + actual) > 0
    count = seen.sum(-1)
    parts = (np.nan_to_num(_divide(hit, predicted)), np.nan_to_num(_divide(hit, actual)),
             np.nan_to_num(_divide(2 * hit, predicted + actual)))
    return tuple(_divide((part * seen).sum(-1), count) for part in parts)


def cohen_kappa(matrix: np.ndarray) -> np.ndarray:
    """Cohen's kappa of confusion matrices [..., C, C]: agreement beyond what the two margins give by chance.

    NaN when chance already agrees fully (one class only). It falls with skewed margins although the accuracy stays,
    so kappas of sets with other class shares do not compare.
    """
    total = matrix.sum((-2, -1))
    observed = accuracy(matrix)
    expected = _divide((matrix.sum(-1) * matrix.sum(-2)).sum(-1), total**2)
    return _divide(observed - expected, 1 - expected)


def mcc(matrix: np.ndarray) -> np.ndarray:
    """Matthews correlation coefficient of confusion matrices [..., C, C] (Gorodkin's form for many classes).

    NaN (scikit-learn: 0) when truth or prediction knows one class only. For more than two classes the minimum is
    not -1, so "as bad as can be" has no fixed value.
    """
    actual, predicted = matrix.sum(-1), matrix.sum(-2)
    total = matrix.sum((-2, -1))
    covariance = np.trace(matrix, axis1=-2, axis2=-1) * total - (actual * predicted).sum(-1)
    spread = (total**2 - (actual**2).sum(-1)) * (total**2 - (predicted**2).sum(-1))
    return _divide(covariance, np.sqrt(spread))


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None, *,
                               bins: int = 15) -> float | np.ndarray:
    """Mean gap between predicted probability and observed share over `bins` equal-width bins, weighted by their size.

    It depends on the binning, is biased upwards for few samples, and is 0 for a model that always predicts the
    prevalence: it says nothing about discrimination.

    Args:
      probabilities: float [N] in [0, 1], of the positive class.
      labels, weights: as of `auroc`.
      bins: number of bins; the last one includes 1.
    """
    probabilities, labels = _binary(probabilities, labels)
    known = np.flatnonzero((labels == POSITIVE) | (labels == NEGATIVE))
    if len(known) and (probabilities[known].min() < 0 or probabilities[known].max() > 1):
        raise ValueError("probabilities must lie in [0, 1]")
    rows = np.take(_weights(weights, len(labels)), known, axis=1).astype(np.float64)
    index = np.minimum((probabilities[known] * bins).astype(int), bins - 1)
    gap = np.zeros((len(known), bins))
    gap[np.arange(len(known)), index] = probabilities[known] - (labels[known] == POSITIVE)
    return _result(_divide(np.abs(rows @ gap).sum(1), rows.sum(1)), weights)


def reliability(probabilities: np.ndarray, labels: np.ndarray, *, bins: int = 15) -> list[tuple[float, float, int]]:
    """(mean probability, share of positives, samples) of each bin of `expected_calibration_error` that has any."""
    probabilities, labels = _binary(probabilities, labels)
    known = np.flatnonzero((labels == POSITIVE) | (labels == NEGATIVE))
    index = np.minimum((probabilities[known] * bins).astype(int), bins - 1)
    size = np.bincount(index, minlength=bins)
    mean = np.bincount(index, probabilities[known], minlength=bins)
    share = np.bincount(index, labels[known] == POSITIVE, minlength=bins)
    return [(float(mean[b] / size[b]), float(share[b] / size[b]), int(size[b])) for b in np.flatnonzero(size)]
