"""Classification metrics against scikit-learn (which takes weights) and cases written out by hand."""

import numpy as np
import pytest
from sklearn import metrics as sk

from lgdea_jax.metrics import classification as c
from lgdea_jax.records import MISSING, UNCERTAIN


def _case(seed, n=300, levels=20):
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.3).astype(np.int8)
    scores = np.round(rng.normal(size=n) + labels, 1) if levels else rng.normal(size=n) + labels  # Rounding: ties.
    return rng, scores, labels


@pytest.mark.parametrize("levels", [0, 20])
@pytest.mark.parametrize("ours,theirs", [(c.auroc, sk.roc_auc_score),
                                         (c.average_precision, sk.average_precision_score)])
def test_ranking_metrics_equal_scikit_learn(ours, theirs, levels):
    rng, scores, labels = _case(0, levels=levels)
    assert ours(scores, labels) == pytest.approx(theirs(labels, scores), abs=1e-12)
    weights = rng.integers(0, 4, (7, len(labels)))
    for row, value in zip(weights, ours(scores, labels, weights), strict=True):
        keep = row > 0
        assert value == pytest.approx(theirs(labels[keep], scores[keep], sample_weight=row[keep]), abs=1e-9)
    assert np.array_equal(ours(scores, labels, weights.astype(np.uint8)), ours(scores, labels, weights))
    fractional = rng.random((3, len(labels)))
    expected = [theirs(labels, scores, sample_weight=row) for row in fractional]
    assert np.allclose(ours(scores, labels, fractional), expected, atol=1e-9)


def test_small_weights_do_not_overflow():
    n = 2000
    scores, labels = np.arange(n) % 7, np.arange(n) % 2
    weights = np.full((2, n), 200, np.uint8)
    assert c.auroc(scores, labels, weights)[1] == pytest.approx(sk.roc_auc_score(labels, scores), abs=1e-12)
    assert c.average_precision(scores, labels, weights)[0] == pytest.approx(
        sk.average_precision_score(labels, scores), abs=1e-12)


def test_auroc_by_hand():
    # Positives 2, 3; negatives 1, 2: pairs (2>1), (2=2), (3>1), (3>2) give 3.5 of 4.
    assert c.auroc(np.array([2.0, 3, 1, 2]), np.array([1, 1, 0, 0])) == 3.5 / 4
    assert c.auroc(np.zeros(5), np.array([1, 1, 0, 0, 0])) == 0.5


def test_uncertain_and_missing_are_left_out():
    scores, labels = np.array([0.9, 0.1, 0.5, 0.7]), np.array([1, 0, UNCERTAIN, MISSING])
    assert c.auroc(scores, labels) == 1.0
    assert c.average_precision(scores, labels) == 1.0
    assert c.auroc(np.array([0.9, 0.1, np.nan]), np.array([1, 0, MISSING])) == 1.0
    with pytest.raises(ValueError, match="finite"):
        c.auroc(np.array([np.nan, 0.1]), np.array([1, 0]))


def test_one_class_is_undefined():
    assert np.isnan(c.auroc(np.arange(4.0), np.ones(4)))
    assert np.isnan(c.auroc(np.arange(4.0), np.zeros(4)))
    assert np.isnan(c.average_precision(np.arange(4.0), np.zeros(4)))
    both = c.auroc(np.arange(3.0), np.array([0, 1, 1]), np.array([[1, 1, 1], [0, 1, 1]]))
    assert both[0] == 1.0 and np.isnan(both[1])


def test_confusion_metrics_equal_scikit_learn():
    rng = np.random.default_rng(3)
    truth, predicted = rng.integers(0, 5, 400), rng.integers(0, 5, 400)
    predicted = np.where(rng.random(400) < 0.5, truth, predicted)
    predicted[predicted == 3] = 2  # A class that is never predicted.
    weights = rng.integers(0, 3, (4, 400))
    matrix = c.confusion(truth, predicted, 6, weights)  # Class 5 never occurs.
    f1 = c.macro_precision_recall_f1(matrix)
    for b, row in enumerate(weights):
        keep = row > 0
        options = {"sample_weight": row[keep]}
        y, p = truth[keep], predicted[keep]
        assert c.accuracy(matrix)[b] == pytest.approx(sk.accuracy_score(y, p, **options), abs=1e-12)
        assert c.cohen_kappa(matrix)[b] == pytest.approx(sk.cohen_kappa_score(y, p, **options), abs=1e-12)
        assert c.mcc(matrix)[b] == pytest.approx(sk.matthews_corrcoef(y, p, **options), abs=1e-12)
        expected = sk.precision_recall_fscore_support(y, p, average="macro", zero_division=0, **options)[:3]
        assert [part[b] for part in f1] == pytest.approx(expected, abs=1e-12)
    single = c.confusion(truth, predicted, 5)
    assert single.shape == (5, 5) and single.sum() == 400
    assert float(c.mcc(single)) == pytest.approx(sk.matthews_corrcoef(truth, predicted), abs=1e-12)


def test_kappa_by_hand():
    # 35 of 50 agree; expected agreement (25*30 + 25*20) / 2500 = 0.5: kappa = (0.7 - 0.5) / 0.5.
    assert float(c.cohen_kappa(np.array([[20, 5], [10, 15]]))) == pytest.approx(0.4)
    assert np.isnan(c.cohen_kappa(np.array([[10, 0], [0, 0]])))


def test_confusion_refuses_classes_out_of_range():
    with pytest.raises(ValueError, match="class indices"):
        c.confusion(np.array([0, 3]), np.array([0, 0]), 3)


def test_calibration_error_by_hand():
    # Bins of width 0.5, one positive in each: gaps |0.6 - 1| / 2 and |1.9 - 1| / 2, of opposite signs.
    value = c.expected_calibration_error(np.array([0.2, 0.4, 0.9, 1.0]), np.array([1, 0, 1, 0]), bins=2)
    assert value == pytest.approx((abs(0.6 - 1) + abs(1.9 - 1)) / 4)
    weighted = c.expected_calibration_error(np.array([0.2, 0.4]), np.array([1, 0]), np.array([[1, 0], [1, 1]]), bins=2)
    assert weighted == pytest.approx([0.8, 0.2])
    with pytest.raises(ValueError, match="probabilities"):
        c.expected_calibration_error(np.array([1.2]), np.array([1]))


@pytest.mark.parametrize("levels", [0, 20])
def test_curve_equals_scikit_learn(levels):
    _, scores, labels = _case(1, levels=levels)
    theirs = sk.roc_curve(labels, scores, drop_intermediate=False)
    for ours, wanted in zip(c.roc_curve(scores, labels), theirs, strict=True):
        assert np.allclose(ours, wanted, atol=1e-12, rtol=0)
    assert all(len(part) == 0 for part in c.roc_curve(scores, np.ones(len(scores))))


@pytest.mark.parametrize("criterion,theirs", [("f1", sk.f1_score), ("mcc", sk.matthews_corrcoef)])
def test_best_thresholds_equal_a_search_with_scikit_learn(criterion, theirs):
    for seed in range(5):
        _, scores, labels = _case(seed, n=80)
        values = {t: theirs(labels, scores >= t) for t in np.unique(scores)}
        threshold, value = c.best_threshold(scores, labels, criterion)
        assert value == pytest.approx(max(values.values()), abs=1e-12)
        assert threshold == min(t for t, v in values.items() if v == pytest.approx(value, abs=1e-12))


def test_official_f1_is_the_public_scripts():
    """The argmax of 2PR / (P + R) over scikit-learn's curve, thresholds rising: the first, so the lowest, of equals."""
    scores, labels = np.array([0.9, 0.8, 0.7, 0.6, 0.5]), np.array([1, 0, 1, 0, 0])
    precision, recall, threshold = sk.precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / (precision + recall)
    assert c.best_threshold(scores, labels, "f1") == (threshold[np.argmax(f1)], pytest.approx(f1.max()))
    # By hand: 0.9 gives 2/3, 0.7 gives 4/5; with a tie between two thresholds the lower one is taken.
    assert c.best_threshold(scores, labels, "f1") == (0.7, pytest.approx(0.8))
    tied = c.best_threshold(np.array([4.0, 3, 2, 1]), np.array([1, 0, 0, 1]), "f1")
    assert tied == (1.0, pytest.approx(2 / 3))  # 4 gives 2 / (1 + 2) as well.


def test_threshold_metrics_by_hand():
    scores, labels = np.array([0.9, 0.8, 0.3, 0.2, 0.1]), np.array([1, 0, 1, 0, UNCERTAIN])
    matrix = c.at_threshold(scores, labels, 0.8)
    assert matrix.tolist() == [[1, 1], [1, 1]] and float(c.binary_f1(matrix)) == 0.5
    weights = np.array([[1, 1, 1, 1, 1], [2, 0, 1, 1, 5]])
    assert c.at_threshold(scores, labels, 0.8, weights)[1].tolist() == [[1, 0], [1, 2]]
    assert c.binary_f1(c.at_threshold(scores, labels, 0.8, weights)) == pytest.approx([0.5, 0.8])
    assert np.isnan(c.binary_f1(np.array([[5, 0], [0, 0]])))
    for criterion in ("f1", "mcc"):
        assert np.isnan(c.best_threshold(scores, np.zeros(5), criterion)).all()
    assert np.isnan(c.best_threshold(scores, np.ones(5), "mcc")).all()
    assert c.best_threshold(scores, np.ones(5), "f1") == (0.1, 1.0)
    with pytest.raises(ValueError, match="f1 or mcc"):
        c.best_threshold(scores, labels, "recall")


def test_reliability_by_hand():
    rows = c.reliability(np.array([0.2, 0.4, 0.9, 1.0, 0.3]), np.array([1, 0, 1, 1, MISSING]), bins=2)
    assert rows == [(pytest.approx(0.3), 0.5, 2), (pytest.approx(0.95), 1.0, 2)]
    gaps = sum(size * abs(mean - share) for mean, share, size in rows) / 4
    assert gaps == pytest.approx(c.expected_calibration_error(np.array([0.2, 0.4, 0.9, 1.0]), np.array([1, 0, 1, 1]),
                                                              bins=2))
