"""The measures against scikit-learn, and against numbers worked out by hand."""

import numpy as np
import pytest
from sklearn import metrics

from data_prep.scoring import measures


def _sample(seed, n=120, findings=3):
    rng = np.random.default_rng(seed)
    truth = rng.choice([1, 0, -1, -2], size=(n, findings), p=[0.3, 0.5, 0.1, 0.1]).astype(np.int8)
    levels = np.where(truth == 1, rng.choice(5, truth.shape, p=[0.1, 0.1, 0.1, 0.2, 0.5]),
                     rng.choice(5, truth.shape, p=[0.4, 0.3, 0.1, 0.1, 0.1])).astype(np.int8)
    return truth, levels


@pytest.mark.parametrize("uncertain", ["likely", "positive", "negative", "drop"])
def test_every_measure_agrees_with_scikit_learn(uncertain):
    truth, levels = _sample(0)
    ones = np.ones((1, len(truth)), np.float32)
    found = measures.measures(measures.histograms(truth, levels, ones), uncertain)
    for i in range(truth.shape[1]):
        hedged = np.isin(levels[:, i], (measures.POSSIBLE, measures.LIKELY))
        keep = np.isin(truth[:, i], (0, 1)) & (~hedged | (uncertain != "drop"))
        y, level = truth[keep, i], levels[keep, i]
        lowest = {"likely": measures.LIKELY, "positive": measures.POSSIBLE}.get(uncertain, measures.PRESENT)
        called = level >= lowest
        expected = {
            "auc": metrics.roc_auc_score(y, np.array(measures.LEVELS)[level]), "f1": metrics.f1_score(y, called),
            "precision": metrics.precision_score(y, called), "sensitivity": metrics.recall_score(y, called),
            "specificity": metrics.recall_score(1 - y, ~called), "kappa": metrics.cohen_kappa_score(y, called)}
        assert {key: found[key][0, i] for key in found} == pytest.approx(expected)


def test_resampling_equals_scoring_the_drawn_reports():
    truth, levels = _sample(1)
    weights = measures.resample_weights(len(truth), 3, seed=5)
    found = measures.measures(measures.histograms(truth, levels, weights), "positive")
    for b, row in enumerate(weights):
        drawn = np.repeat(np.arange(len(truth)), row.astype(int))
        counts = measures.histograms(truth[drawn], levels[drawn], np.ones((1, len(drawn)), np.float32))
        again = measures.measures(counts, "positive")
        for key in measures.METRICS:
            np.testing.assert_allclose(found[key][b], again[key][0])


def test_weights_begin_with_the_sample_and_depend_on_the_seed_only():
    weights = measures.resample_weights(50, 20, seed=3)
    assert (weights[0] == 1).all() and (weights.sum(1) == 50).all()
    np.testing.assert_array_equal(weights, measures.resample_weights(50, 20, seed=3))
    assert (weights != measures.resample_weights(50, 20, seed=4)).any()


def test_the_undefined_is_null_and_stays_out_of_means():
    truth, levels = np.array([[0, 1], [0, 0]], np.int8), np.array([[0, 4], [0, 0]], np.int8)
    found = measures.measures(measures.histograms(truth, levels, np.ones((1, 2), np.float32)), "positive")
    assert np.isnan(found["auc"][0, 0]) and found["auc"][0, 1] == 1
    assert measures.mean_over(found["auc"], np.array([True, True]))[0] == 1
    assert measures.estimate(found["auc"][:, 0]).as_json() == {"value": None, "low": None, "high": None}


def test_wilson_interval():
    # 8 of 10: centre (0.8 + 1.92073/10) / (1 + 0.384146) = 0.71674; half-width 0.22659.
    found = measures.share(8, 10)
    assert found == {"value": 0.8, "low": pytest.approx(0.49016, abs=2e-4), "high": pytest.approx(0.94332, abs=2e-4),
                     "n": 10}
    assert measures.share(0, 0)["value"] is None


def test_retrieved_counts_elements():
    found = measures.retrieved([{1, 2}, {3}, set()], [{1}, {3, 4}, {5}], resamples=50, seed=0)
    assert found["n"] == 3
    values = [found[key]["value"] for key in ("recall", "precision", "f1")]
    assert values == pytest.approx([2 / 3, 2 / 4, 4 / 7], abs=1e-4)
