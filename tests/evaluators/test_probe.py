"""Linear probe: the fit against an optimisation of its own, and which labels it may use."""

import dataclasses
import sys

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.metrics import roc_auc_score

from lgdea_jax.errors import UserError
from lgdea_jax.eval.harness import output
from lgdea_jax.evaluators import tasks
from lgdea_jax.evaluators.data import EvalData, subject_key
from lgdea_jax.evaluators.encoder import Encoder
from lgdea_jax.evaluators.probe import Features, Probe, fit, log_odds, read_features, require_scikit_learn, share_rows
from lgdea_jax.records import MISSING, UNCERTAIN
from tests.evaluators.test_evaluators import METADATA
from tests.evaluators.world import LABELS, SIZE, Oracle, world


def _features(n=120, width=6, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, width))
    labels = (x @ rng.normal(size=(width, 3)) + rng.normal(size=(n, 3)) > 0).astype(np.int8)
    labels[rng.random((n, 3)) < 0.1] = MISSING
    labels[rng.random((n, 3)) < 0.1] = UNCERTAIN
    return x, labels


def test_fits_minimise_the_penalised_log_loss_of_the_known_labels():
    x, labels = _features()
    penalties = (0.01, 1.0, 30.0)
    for penalty, models in zip(penalties, fit(x, labels, penalties), strict=True):
        for f in range(3):
            known = labels[:, f] >= 0
            sign = 2.0 * labels[known, f] - 1

            def loss(w, c=penalty, x=x[known], sign=sign):
                return c * np.logaddexp(0, -sign * (x @ w[:-1] + w[-1])).sum() + (w[:-1] ** 2).sum() / 2

            best = minimize(loss, np.zeros(7), method="BFGS", options={"gtol": 1e-6}).x
            expected = x @ best[:-1] + best[-1]
            assert log_odds(models, x)[:, f] == pytest.approx(expected, abs=2e-3 * max(1, penalty))


def test_a_missing_scikit_learn_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(UserError, match=r'pip install -e "\.\[probe\]"'):
        require_scikit_learn()


def test_shares_are_of_subjects_seeded_and_nested():
    subjects = np.repeat([f"s{i}" for i in range(50)], 3)
    small, large = share_rows(subjects, 0.1, 0), share_rows(subjects, 0.5, 0)
    assert len(small) == 15 and len(large) == 75 and set(small) < set(large)
    assert len(np.unique(subjects[small])) == 5
    assert (share_rows(subjects, 0.1, 0) == small).all() and (share_rows(subjects, 0.1, 1) != small).any()
    assert len(share_rows(subjects, 1e-6, 0)) == 3 and len(share_rows(subjects, 1.0, 0)) == 150
    with pytest.raises(UserError, match=r"\(0, 1\]"):
        share_rows(subjects, 1.5, 0)


def _probe(test, train, validation, share=1.0, noise=0.15, **options):
    model = Oracle(noise)
    columns = np.arange(3)
    features = [None if rows is None else read_features(model, rows, SIZE, columns) for rows in (train, validation)]
    return Probe(EvalData.from_records(test, METADATA, SIZE), *features, share=share, **options).run(model)


def _worlds():
    rows = world(90, seed=3)
    return rows[:30], rows[30:70], rows[70:]


def test_a_probe_scores_the_test_images_and_survives_the_disk(tmp_path):
    test, train, validation = _worlds()
    samples = _probe(test, train, validation, groups={"pair": LABELS[:2]})
    values, sizes = samples.metrics(), samples.sizes()
    assert samples.key == "probe@1" and set(sizes) == set(values)
    labels = np.stack([record.labels for record in test])
    expected = [roc_auc_score(labels[:, c], samples.arrays["scores"][:, c]) for c in range(3)]
    assert [values[f"probe@1/auroc/{name}"] for name in LABELS] == pytest.approx(expected, abs=1e-9)
    assert values["probe@1/auroc@pair"] == pytest.approx(np.mean(expected[:2])) and min(expected) > 0.8
    assert samples.info["penalty_from"] == "validation" and samples.info["train_images"] == 40
    output.save_samples(tmp_path / "s.npz", {"clean": [samples, _probe(test, train, validation, share=0.5)]})
    loaded = tasks.load_samples(tmp_path / "s.npz")
    assert set(loaded) == {"probe@1", "probe@0.5"} and loaded["probe@1"].metrics() == values


def test_nothing_is_fitted_to_the_test_images():
    test, train, validation = _worlds()
    flipped = [dataclasses.replace(record, labels=(1 - record.labels).astype(np.int8)) for record in test]
    one, other = (_probe(rows, train, validation).arrays["scores"] for rows in (test, flipped))
    assert np.array_equal(one, other)
    # Nor to its features. Without noise, which differs from batch to batch.
    part, whole = (_probe(rows, train, validation, noise=0.0).arrays["scores"] for rows in (test[:7], test))
    assert np.allclose(part, whole[:7])
    few = _probe(test, train, None, share=0.2)
    assert few.info["penalty"] == 1.0 and few.info["penalty_from"] == "fixed"
    assert few.info["train_subjects"] == round(0.2 * len({record.subject_id for record in train}))


def test_what_cannot_be_learned_is_left_out():
    test, train, _ = _worlds()
    blind = [dataclasses.replace(r, labels=np.array([1, *r.labels[1:]], np.int8)) for r in train]
    samples = _probe(test, blind, None)
    assert samples.names["findings"] == LABELS[1:] and samples.info["left_out"] == [LABELS[0]]
    empty = [dataclasses.replace(r, labels=np.full(3, MISSING, np.int8)) for r in train]
    assert np.isnan(_probe(test, empty, None).metrics()["probe@1/auroc"])


def test_features_are_read_in_batches_of_one_size():
    rows = world(23)
    model = Oracle()
    rows[4] = dataclasses.replace(rows[4], image=b"broken")
    rows[9] = dataclasses.replace(rows[9], has_image=False)
    model.batch_size = 8
    found = read_features(model, rows, SIZE, np.array([2, 0]))
    assert model.batches == [("images", 8)] * 3 and isinstance(found, Features)
    kept = [record for i, record in enumerate(rows) if i not in (4, 9)]
    assert found.labels.tolist() == [[int(r.labels[2]), int(r.labels[0])] for r in kept]
    assert found.subjects.tolist() == [subject_key(record.subject_id) for record in kept]
    data = EvalData.from_records(kept, METADATA, SIZE)
    assert np.allclose(found.x, Encoder(Oracle(), data).features())
    with pytest.raises(UserError, match="no image"):
        read_features(model, [rows[9]], SIZE, np.array([0]))
