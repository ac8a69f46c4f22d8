"""Bootstrap: intervals with a known answer, coverage, resampling by subject."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from lgdea_jax.metrics import bootstrap as b
from lgdea_jax.metrics import classification


def _mean(values):
    def metrics(weights):
        if weights is None:
            return {"mean": float(values.mean())}
        w = weights.astype(float)
        return {"mean": (w @ values) / w.sum(1)}
    return metrics


def test_counts_are_resamples():
    counts = b.subject_counts(50, 400, seed=0)
    assert counts.shape == (400, 50) and (counts.sum(1) == 50).all()
    assert (counts == b.subject_counts(50, 400, seed=0)).all() and (counts != b.subject_counts(50, 400, seed=1)).any()
    assert (counts == 0).mean() == pytest.approx(np.exp(-1), abs=0.01)  # A subject is missed with chance 1/e.


def test_interval_of_a_mean_is_the_textbook_one():
    values = np.random.default_rng(0).normal(3, 2, 400)
    interval = b.intervals(_mean(values), np.arange(400), resamples=4000, seed=1)["mean"]
    half = 1.96 * values.std() / np.sqrt(400)
    assert interval.value == values.mean()
    assert interval.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_intervals_cover_the_truth_as_often_as_they_say():
    rng, hits, n = np.random.default_rng(5), 0, 300
    for trial in range(n):
        interval = b.intervals(_mean(rng.normal(size=60)), np.arange(60), resamples=300, seed=trial)["mean"]
        hits += interval.low <= 0 <= interval.high
    assert 0.90 <= hits / n <= 0.98


def test_images_of_a_subject_are_drawn_together():
    """Ten copies of each subject hold no more information than one."""
    values = np.random.default_rng(0).normal(size=80)
    once = b.intervals(_mean(values), np.arange(80), resamples=500, seed=3)["mean"]
    copies = b.intervals(_mean(np.repeat(values, 10)), np.repeat(np.arange(80), 10), resamples=500, seed=3)["mean"]
    assert (copies.low, copies.high) == pytest.approx((once.low, once.high))
    images = b.intervals(_mean(np.repeat(values, 10)), np.arange(800), resamples=500, seed=3)["mean"]
    assert images.high - images.low < 0.5 * (once.high - once.low)  # What resampling images would have claimed.


def test_auroc_interval_equals_a_plain_loop():
    rng = np.random.default_rng(2)
    labels = (rng.random(120) < 0.4).astype(int)
    scores = np.round(rng.normal(size=120) + labels, 1)
    subjects = np.array([f"p{i // 2}" for i in range(120)])

    def metrics(weights):
        return {"auroc": classification.auroc(scores, labels, weights)}

    ours = b.distribution(metrics, subjects, resamples=50, seed=4)["auroc"]
    names = np.unique(subjects)
    for value, counts in zip(ours, b.subject_counts(60, 50, seed=4)):
        rows = np.concatenate([np.repeat(np.flatnonzero(subjects == names[s]), c) for s, c in enumerate(counts)])
        assert value == pytest.approx(roc_auc_score(labels[rows], scores[rows]), abs=1e-9)


def test_blocks_do_not_change_the_draws(monkeypatch):
    values = np.random.default_rng(0).normal(size=30)
    whole = b.distribution(_mean(values), np.arange(30), resamples=100, seed=0)["mean"]
    monkeypatch.setattr(b, "_BLOCK", 210)  # Seven resamples at a time.
    blocks = b.distribution(_mean(values), np.arange(30), resamples=100, seed=0)["mean"]
    assert blocks == pytest.approx(whole, abs=1e-12)


def test_undefined_resamples_are_counted():
    labels = np.array([1] + [0] * 9)

    def metrics(weights):
        return {"auroc": classification.auroc(np.arange(10.0), labels, weights)}

    interval = b.intervals(metrics, np.arange(10), resamples=500, seed=0)["auroc"]
    assert interval.undefined == pytest.approx(0.9**10, abs=0.07)  # The only positive was not drawn.
    assert interval.value == 0.0
    nothing = b.intervals(lambda w: {"x": np.nan if w is None else np.full(len(w), np.nan)}, np.arange(3), resamples=9)
    assert np.isnan(nothing["x"].low) and nothing["x"].undefined == 1
