"""Landmarks of instance features, assignments to them, and what is related through them."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from lgdea_jax.relations.anchors import assign_to_landmarks, landmarks
from lgdea_jax.relations.rows import dense_rows
from lgdea_jax.relations.seeds import seed_edges
from tests.relations import test_anchors

N, D, K = 57, 6, 5


def features(seed, rows=N):
    return np.random.default_rng(seed).normal(size=(rows, D)).astype(np.float32)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_landmarks_are_drawn_rows_and_then_kmeans():
    x, key = features(0), jax.random.key(1)
    drawn = np.asarray(landmarks(key, x, K, steps=0))
    rows = np.argmax(drawn @ unit(x).T, axis=1)
    assert len(set(rows)) == K
    np.testing.assert_allclose(drawn, unit(x)[rows], atol=1e-6)
    centres = drawn
    for steps in (1, 2, 3):
        nearest = np.argmax(unit(x) @ centres.T, axis=1)
        centres = unit(np.stack([unit(x)[nearest == k].sum(0) for k in range(K)]))
        np.testing.assert_allclose(landmarks(key, x, K, steps=steps, block=16), centres, atol=1e-5)
    assert not np.allclose(drawn, np.asarray(landmarks(jax.random.key(2), x, K, steps=0)))


def test_landmarks_find_clusters_and_leave_out_padding():
    rng = np.random.default_rng(3)
    centres = np.eye(D, dtype=np.float32)[:3]
    x = np.repeat(centres, 20, axis=0) + 0.05 * rng.normal(size=(60, D)).astype(np.float32)
    mask = np.arange(60) < 40  # The third cluster is padding.
    found = np.asarray(landmarks(jax.random.key(0), x, 2, mask=mask, steps=10, block=16))
    assert np.abs(found[:, 2]).max() < 0.1
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)


def test_landmarks_of_nobody_stay():
    x = np.zeros((4, D), np.float32)
    x[:, 0] = 1  # All rows alike: every row goes to the first landmark.
    np.testing.assert_allclose(landmarks(jax.random.key(0), x, 3, steps=2), x[:3])


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), temperature=st.floats(0.02, 2.0), top=st.sampled_from([None, 3]))
def test_assignments(seed, temperature, top):
    x, centres = features(seed), features(seed + 1, K)
    mask = np.arange(N) % 7 != 0
    z = assign_to_landmarks(x, centres, temperature=temperature, top=top, mask=mask, block=16)
    scores = unit(x) @ unit(centres).T / temperature
    if top is not None:
        assert z.indices.shape == z.weights.shape == (N, top) and z.shape == (N, K)
        scores = np.where(scores >= np.sort(scores, axis=1)[:, -top, None], scores, -np.inf)
    expected = softmax(scores, axis=1) * mask[:, None]
    np.testing.assert_allclose(dense_rows(z), expected, rtol=2e-3, atol=1e-5)


def targets(images, reports, pairs, evidence, *, num=24, top=4, temperature=0.1, order=3, masks=(None, None)):
    """(targets, confidences) of the images and of the reports, with landmarks drawn from the key 0."""
    seeds = seed_edges(pairs, pairs, num_images=len(images), num_reports=len(reports))
    assigned = []
    for key, side, mask in zip(jax.random.split(jax.random.key(0)), (images, reports), masks, strict=True):
        centres = landmarks(key, side, min(num, len(side)), mask=mask)
        assigned.append(assign_to_landmarks(
            side, centres, temperature=temperature, top=top and min(top, len(centres)), mask=mask))
    options = {"alpha": 0.7, "order": order}
    return (test_anchors.image_targets(*assigned, seeds, evidence, **options),
            test_anchors.report_targets(*assigned, seeds, evidence, **options))


def assert_alike(one, other, rows=slice(None)):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(np.asarray(a)[rows], b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_rounding_does_not_choose_between_equal_rows(seed):
    """Every row five times, as reports without a finding are: landmarks tie."""
    rng = np.random.default_rng(seed)
    sides = [unit(np.repeat(features(seed + side, 12), 5, axis=0)[rng.permutation(60)]) for side in (0, 1)]
    evidence = rng.dirichlet(np.ones(4), size=60).astype(np.float32)
    pairs = np.arange(10)
    expected = targets(*sides, pairs, evidence)
    for _ in range(3):
        rounded = [side + 2e-7 * rng.normal(size=side.shape).astype(np.float32) for side in sides]
        assert_alike(targets(*rounded, pairs, evidence), expected)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), rows=st.sampled_from([1, 7]), top=st.sampled_from([None, 4]))
def test_padding_is_no_landmark(seed, rows, top):
    """With a landmark for every row the draw does not matter; those that only padding could be drawn for are zeros."""
    images, reports = features(seed, rows), features(seed + 1, rows)
    evidence = np.random.default_rng(seed).dirichlet(np.ones(4), size=rows).astype(np.float32)
    pairs = np.arange(min(3, rows))
    top = top and min(top, rows)
    expected = targets(images, reports, pairs, evidence, top=top)
    padded = [np.concatenate([part, np.repeat(part[-1:], 12, axis=0)]) for part in (images, reports, evidence)]
    there = np.arange(rows + 12) < rows
    found = np.asarray(landmarks(jax.random.key(0), padded[0], rows + 4, mask=there))
    assert np.sum(np.any(found != 0, axis=1)) == rows
    given = np.where(there[:, None], padded[2], 0)
    got = targets(*padded[:2], pairs, given, top=top, masks=(there, there))
    assert_alike(got, expected, slice(rows))
    assert not any(np.any(np.asarray(part)[rows:]) for part in jax.tree.leaves(got))


def test_items_of_one_group_inherit_its_evidence():
    rng = np.random.default_rng(0)
    groups, directions = 4, unit(features(5, 4))
    sides = [np.repeat(directions, 30, axis=0) + 0.1 * rng.normal(size=(120, D)).astype(np.float32) for _ in range(2)]
    group = np.repeat(np.arange(groups), 30)
    evidence = np.eye(groups, dtype=np.float32)[group]
    for target, confidence in targets(*sides, np.arange(0, 120, 6), evidence, num=16, temperature=0.05, order=4):
        assert np.average(np.argmax(target, axis=1) == group, weights=np.minimum(confidence / 0.1, 1)) > 0.95
        assert 0.02 < np.median(confidence) < 1


def test_what_is_refused():
    x, key = features(0), jax.random.key(0)
    with pytest.raises(ValueError, match="58 landmarks cannot be drawn from 57 rows"):
        landmarks(key, x, N + 1)
    with pytest.raises(ValueError, match="top=6 of 5 landmarks"):
        assign_to_landmarks(x, x[:5], temperature=1.0, top=6)
    with pytest.raises(ValueError, match="57 rows do not divide into 4 shards"):
        assign_to_landmarks(x, x[:5], temperature=1.0, shards=4)
