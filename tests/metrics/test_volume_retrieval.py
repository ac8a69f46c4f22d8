"""Retrieval of volumes: the public script written out, a case by hand, and the definition."""

import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, confusion_matrix

from lgdea_jax.metrics import volume_retrieval as metric


def published(embeddings, labels, ks):
    """The public script's steps: its names, its loops, its list that is never emptied."""
    def similarity(one, other):
        both = sum(a == 1 and b == 1 for a, b in zip(one, other))
        differ = sum(a != b for a, b in zip(one, other))
        return both / (both + differ)

    gallery = [k for k in range(len(embeddings)) if sum(labels[k]) != 0]
    printed, ratios_external = [], []
    for return_n in ks:
        for i in range(len(embeddings)):
            crosses = [np.dot(embeddings[i], embeddings[k])
                       / (np.linalg.norm(embeddings[i]) * np.linalg.norm(embeddings[k])) for k in gallery]
            best = [index for index, _ in sorted(enumerate(crosses), key=lambda x: x[1], reverse=True)[:return_n]]
            ratios_external.append(np.mean([similarity(labels[i], labels[gallery[index]]) for index in best]))
        printed.append(np.mean(ratios_external))
    return printed


def test_official_is_the_public_script():
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(40, 6))
    labels = (rng.random((40, 5)) < 0.3).astype(int)
    labels[3] = labels[17] = 0  # Queries, but not in the gallery.
    found = metric.jaccard_official(embeddings, labels)
    assert found.shape == (40, 4) and (found[3] == 0).all()
    np.testing.assert_allclose(found.mean(0), published(embeddings, labels, metric.KS), rtol=1e-7)


def test_a_case_by_hand():
    """Two scans of two reconstructions each, a lone volume, and one without a label; two findings.

    By angle: a1 0, a2 10, b1 50, b2 60, c 90, n 95 degrees. Labels: a = {1}, b = {1, 2}, c = {2}, n = {}.
    """
    angles = np.deg2rad([0, 10, 50, 60, 90, 95])
    embeddings = np.stack([np.cos(angles), np.sin(angles)], 1) * np.array([[1], [3], [1], [2], [1], [5]])
    labels = np.array([[1, 0], [1, 0], [1, 1], [1, 1], [0, 1], [0, 0]])
    scans = np.array(["a", "a", "b", "b", "c", "n"])
    # K = 1: every labelled volume finds itself (1), the unlabelled one finds c and shares nothing (0).
    at_1 = np.array([1, 1, 1, 1, 1, 0])
    # K = 2: itself and its sibling; c itself and b2 (1/2); n: c and b2, 0. Then the mean with K = 1, which stays in.
    at_2 = np.array([1, 1, 1, 1, 0.75, 0])
    found = metric.jaccard_official(embeddings, labels, (1, 2))
    np.testing.assert_allclose(found[:, 0], at_1)
    np.testing.assert_allclose(found[:, 1], (at_1 + at_2) / 2)
    assert found.mean(0) == pytest.approx([5 / 6, (5 / 6 + 4.75 / 6) / 2])
    # Clean: a1 -> b1 (1/2), b2 (1/2); a2 the same; b1 -> a2 (1/2; 40 degrees, as far as c: c is the nearer one at 40),
    # b2 -> c (1/2), then a2 (1/2); c -> b2, b1 (1/2 each); n asks nothing.
    gain, precision = metric.jaccard_clean(embeddings, labels, scans, (1, 2))
    np.testing.assert_allclose(gain[:5], 0.5)
    np.testing.assert_allclose(precision[:5], 1.0)  # All of them share a finding.
    assert np.isnan(gain[5]).all() and np.isnan(precision[5]).all()


def test_clean_is_the_definition():
    rng = np.random.default_rng(1)
    embeddings, labels = rng.normal(size=(30, 5)), (rng.random((30, 4)) < 0.35).astype(int)
    scans = np.arange(30) // 2
    gain, precision = metric.jaccard_clean(embeddings, labels, scans, (1, 5, 10))
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    for i in np.flatnonzero(labels.any(1)):
        others = np.array([k for k in range(30) if labels[k].any() and scans[k] != scans[i]])
        order = others[np.argsort(-(unit[others] @ unit[i]))]
        worth = np.array([(labels[i] & labels[k]).sum() / (labels[i] | labels[k]).sum() for k in order])
        for c, k in enumerate((1, 5, 10)):
            assert gain[i, c] == pytest.approx(worth[:k].mean())
        shared = worth > 0
        hits = shared[:10]
        expected = (np.cumsum(hits) / np.arange(1, 11) * hits).sum() / min(10, shared.sum()) if shared.any() else np.nan
        assert precision[i, 2] == pytest.approx(expected, nan_ok=True)
    i = int(np.flatnonzero(labels.any(1))[0])
    others = np.array([k for k in range(30) if labels[k].any() and scans[k] != scans[i]])
    full = metric.jaccard_clean(embeddings, labels, scans, (len(others) - 1,))[1]
    assert np.isfinite(full[i, 0])
    relevant = (labels[others] & labels[i]).any(1)
    if not relevant[np.argmin(unit[others] @ unit[i])]:  # Nothing is lost by leaving the last rank out.
        assert full[i, 0] == pytest.approx(average_precision_score(relevant, unit[others] @ unit[i]))


def test_a_gallery_that_is_too_small_is_undefined_in_clean():
    gain, _ = metric.jaccard_clean(np.eye(4), np.ones((4, 2), int), np.array([0, 0, 1, 1]), (2, 3))
    assert np.isfinite(gain[:, 0]).all() and np.isnan(gain[:, 1]).all()


def test_recall_official_counts_the_same_index_only():
    rng = np.random.default_rng(2)
    texts, volumes = rng.normal(size=(60, 4)), rng.normal(size=(60, 4))
    texts[10], volumes[10] = texts[11], volumes[11]  # Two reconstructions with one report: a tie.
    found = metric.recall_official(texts, volumes, (5, 50, 100))
    for i in range(60):
        crosses = [texts[i] @ volume for volume in volumes]
        ranked = [k for k, _ in sorted(enumerate(crosses), key=lambda x: x[1], reverse=True)]
        assert found[i, 0] == (i in ranked[:5]) and found[i, 1] == (i in ranked[:50])
    assert np.isnan(found[:, 2]).all()


@pytest.mark.parametrize("seed", range(3))
def test_corner_threshold_is_the_public_script(seed):
    rng = np.random.default_rng(seed)
    positive = rng.random(80) < 0.3
    chance = np.clip(rng.normal(0.45, 0.1, 80) + 0.1 * positive, 0, 1)
    best_threshold, best_roc = 0, 10000
    for threshold in np.linspace(0, 1, 100):
        (tn, fp), (fn, tp) = confusion_matrix(positive, (chance > threshold).astype(int), labels=[0, 1])
        current = math.sqrt((1 - tp / (tp + fn)) ** 2 + (fp / (fp + tn)) ** 2)
        if current <= best_roc:
            best_roc, best_threshold = current, threshold
    assert metric.corner_threshold(chance, positive) == best_threshold
    assert math.isnan(metric.corner_threshold(chance, np.ones(80, bool)))
