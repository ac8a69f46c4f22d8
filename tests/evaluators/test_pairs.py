"""Progression and similarity of sentences, against values worked out here."""

import dataclasses
import hashlib
import itertools

import numpy as np
import pytest
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from lgdea_jax.evaluators import progression, sentences
from lgdea_jax.evaluators.data import EvalData
from lgdea_jax.findings import prompts
from lgdea_jax.metrics import bootstrap

CHANGES = progression.CHANGES


def data(images, labels, names, subjects, scans, reports=(), report_labels=None):
    count = len(images)
    return EvalData(
        images=images, labels=labels, label_names=names, subjects=subjects,
        report_of=np.full(count, -1), boxes=((),) * count, original_shapes=np.ones((count, 3), np.int32),
        stored_shapes=np.ones((count, 3), np.int32), record_rows=np.arange(count), reports=reports,
        phrases=((),) * len(reports), scans=scans,
        report_labels=np.zeros((0, len(names)), np.int8) if report_labels is None else report_labels,
        report_subjects=np.array([f"s{i}" for i in range(len(reports))]))


class Model:
    """An image's embedding is its first row of pixels; a text's is drawn by its words."""

    grid, batch_size, reads_text = (1, 1), 4, True

    def images(self, images):
        return {"embedding": images[:, 0, :].astype(np.float32) / 255}

    def texts(self, texts, phrases):
        seeds = [int(hashlib.md5(text.encode()).hexdigest()[:8], 16) for text in texts]
        return {"embedding": np.stack([np.random.default_rng(seed).normal(size=4) for seed in seeds])}


@pytest.fixture(scope="module")
def pairs():
    """24 pairs of 12 subjects: the edema of pair i is CHANGES[i % 3]; one examination has a single image."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (49, 4, 4), np.uint8)
    labels = np.full((49, 3), -2, np.int8)
    for i in range(24):
        labels[2 * i:2 * i + 2] = [int(k == i % 3) for k in range(3)]
    labels[46:48] = -2  # Nobody judged the last pair.
    subjects = np.array([f"p{i // 4}" for i in range(48)] + ["p99"])
    scans = np.array([f"scan{i // 2}" for i in range(48)] + ["alone"])
    return data(images, labels, tuple(f"Edema {change}" for change in CHANGES), subjects, scans)


def test_pairs_and_findings(pairs):
    found = progression.image_pairs(pairs)
    assert found.shape == (24, 2) and found[3].tolist() == [6, 7]
    assert progression.judged_findings(pairs) == ("Edema",)
    samples = progression.Progression(pairs).run(Model())
    assert samples.arrays["truth"].tolist() == [i % 3 for i in range(23)]
    assert samples.arrays["image"].tolist() == list(range(0, 46, 2))
    assert samples.sizes()["progression/auroc"] == sum(i % 3 != 1 for i in range(23))


def test_the_classifier_never_sees_the_subject_it_judges(pairs):
    samples = progression.Progression(pairs, seed=3).run(Model())
    x = pairs.images[:48, 0].reshape(24, 8)[:23].astype(np.float32) / 255
    truth, subjects = samples.arrays["truth"], pairs.subjects[:46:2]
    names = np.unique(subjects)
    order = np.random.default_rng(3).permutation(len(names))
    fold_of = {names[name]: place % 10 for place, name in enumerate(order)}
    fold = np.array([fold_of[name] for name in subjects])
    expected = np.empty(23, np.int64)
    for one in range(10):
        train = fold != one
        scaler = StandardScaler().fit(x[train].astype(np.float64))
        fit = LogisticRegression(max_iter=5000).fit(scaler.transform(x[train]), truth[train])
        expected[~train] = fit.predict(scaler.transform(x[~train]))
    assert samples.arrays["predicted"].tolist() == expected.tolist()
    recalls = [np.mean(expected[truth == k] == k) for k in range(3)]
    assert samples.metrics()["progression/accuracy/Edema"] == pytest.approx(np.mean(recalls))
    assert samples.metrics()["progression/accuracy"] == pytest.approx(np.mean(recalls))


def test_the_rise_of_the_score_orders_worsening_above_improving(pairs):
    samples = progression.Progression(pairs).run(Model())
    rise, truth = samples.arrays["rise"], samples.arrays["truth"]
    positive, negative = (Model().texts(texts, texts)["embedding"].mean(0) for texts in (
        prompts.positive_prompts("Edema"), prompts.negative_prompts("Edema")))
    current, previous = (pairs.images[side:46:2, 0].astype(np.float64) / 255 for side in (0, 1))
    assert np.allclose(rise, (current - previous) @ (positive - negative), atol=1e-5)
    moved = truth != 1
    ranks, positive = rankdata(rise[moved]), truth[moved] == 2
    n, m = positive.sum(), (~positive).sum()
    expected = (ranks[positive].sum() - n * (n + 1) / 2) / (n * m)
    assert samples.metrics()["progression/auroc"] == pytest.approx(expected)
    # The same pairs seen backwards: every rise is a fall, improving is not swapped, so that AUROC is mirrored.
    flipped = dataclasses.replace(samples, arrays={**samples.arrays, "rise": -rise})
    assert flipped.metrics()["progression/auroc"] == pytest.approx(1 - expected)


def test_weights_count_pairs(pairs):
    samples = progression.Progression(pairs).run(Model())
    weights = np.random.default_rng(1).integers(0, 3, (5, 23))
    many = samples.metrics(weights)
    for row in range(5):
        doubled = samples.only(np.repeat(np.arange(23), weights[row])).metrics()
        assert {name: values[row] for name, values in many.items()} == pytest.approx(doubled, nan_ok=True)
    assert set(bootstrap.intervals(samples.metrics, samples.subjects, resamples=5, seed=0)) == set(samples.metrics())


NAMES = ("Paraphrase (RadGraph)", "Paraphrase (swaps)")


@pytest.fixture(scope="module")
def written():
    reports = (*(f"effusion {i}\ngrown effusion {i}" for i in range(40)), "one line", "a\nb\nc")
    labels = np.full((42, 2), -2, np.int8)
    for i in range(42):
        labels[i, i % 2] = int(i % 4 < 2)
    return data(np.zeros((0, 4, 4), np.uint8), np.zeros((0, 2), np.int8), NAMES, np.zeros(0, "U1"), np.zeros(0, "U1"),
                reports, labels)


def test_sentences_are_scored_by_their_cosine(written):
    samples = sentences.SentenceSimilarity(written).run(Model())
    assert len(samples.subjects) == 40 and samples.names["subsets"] == ("RadGraph", "swaps")
    first, second = (Model().texts([text], [()])["embedding"][0] for text in ("effusion 7", "grown effusion 7"))
    cosine = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
    assert samples.arrays["score"][7] == pytest.approx(cosine, abs=1e-6)
    assert samples.sizes()["sentences/auroc"] == 40 and samples.sizes()["sentences/accuracy/swaps"] == 20
    assert (samples.image_rows() == -1).all()


def test_sentences_are_judged_by_the_others(written):
    samples = sentences.SentenceSimilarity(written, seed=5).run(Model())
    for subset in range(2):
        rows = np.arange(subset, 40, 2)
        score, truth = samples.arrays["score"][rows], (rows % 4 < 2).astype(int)
        fold = np.random.default_rng(5).permutation(20) % 10
        for one in range(10):
            train = fold != one
            best, threshold = -1, None
            known = sorted(score[train])
            for candidate in [-9.0, *((a + b) / 2 for a, b in itertools.pairwise(known)), 9.0]:
                right = np.sum((score[train] >= candidate) == truth[train])
                if right > best:
                    best, threshold = right, candidate
            expected = (score[~train] >= threshold).astype(int)
            assert samples.arrays["predicted"][rows][~train].tolist() == expected.tolist()


def test_sentence_metrics(written):
    samples = sentences.SentenceSimilarity(written).run(Model())
    right = samples.arrays["truth"] == samples.arrays["predicted"]
    metrics = samples.metrics()
    assert metrics["sentences/accuracy"] == pytest.approx(right.mean())
    assert metrics["sentences/accuracy/RadGraph"] == pytest.approx(right[::2].mean())
    weights = np.random.default_rng(2).integers(0, 3, (4, 40))
    many = samples.metrics(weights)
    for row in range(4):
        doubled = samples.only(np.repeat(np.arange(40), weights[row])).metrics()
        assert {name: values[row] for name, values in many.items()} == pytest.approx(doubled)


def test_no_pairs_are_undefined_numbers(written):
    empty = dataclasses.replace(written, reports=(), phrases=(), report_labels=np.zeros((0, 2), np.int8),
                                report_subjects=np.zeros(0, "U2"))
    samples = sentences.SentenceSimilarity(empty).run(Model())
    assert all(np.isnan(value) for value in samples.metrics().values()) and set(samples.sizes().values()) == {0}
    assert sentences.best_threshold(np.array([0.1, 0.4, 0.9]), np.array([0, 1, 1])) == pytest.approx(0.25)
