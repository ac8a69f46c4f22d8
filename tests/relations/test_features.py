"""Landmarks, assignments and nearest neighbours of instance features; graphs by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from lgdea_jax.relations.anchors import assign_to_landmarks, landmarks
from lgdea_jax.relations.graph import GRAPHS, image_targets, relation_graph, relations_between, report_targets
from lgdea_jax.relations.neighbours import find_neighbours
from lgdea_jax.relations.rows import dense_rows
from lgdea_jax.relations.seeds import seed_edges
from tests.relations import dense

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


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), k=st.sampled_from([1, 4]), masked=st.booleans())
def test_nearest_neighbours_are_exact(seed, k, masked):
    x = features(seed)
    mask = np.random.default_rng(seed).random(N) < 0.7 if masked else np.ones(N, bool)
    indices, cosines = find_neighbours(x, k=k, mask=mask, block=16)
    kept = np.flatnonzero(mask)
    expected, values = dense.nearest(x[kept], k)
    np.testing.assert_array_equal(np.asarray(indices)[kept], kept[expected])
    np.testing.assert_allclose(np.asarray(cosines)[kept], values, atol=1e-5)
    assert np.all(np.asarray(cosines)[~mask] == -np.inf)


def test_equal_neighbours_come_by_index():
    x = np.ones((9, 2), np.float32)
    indices, _ = find_neighbours(x, k=3, block=2)
    np.testing.assert_array_equal(indices, [[j for j in range(9) if j != i][:3] for i in range(9)])


def targets(kind, images, reports, pairs, evidence, **options):
    """(targets, confidences) of the images and of the reports."""
    seeds = seed_edges(pairs, pairs, num_images=len(images), num_reports=len(reports))
    graph = relation_graph(kind, seeds, images, reports, key=jax.random.key(0), alpha=0.7, order=3,
                                     **{"temperature": 0.1, "num_landmarks": 24, "top": 4, "neighbours": 6, **options})
    return image_targets(graph, evidence), report_targets(graph, evidence)


def assert_alike(one, other, rows=slice(None)):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(np.asarray(a)[rows], b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", GRAPHS)
@pytest.mark.parametrize("seed", range(3))
def test_rounding_does_not_choose_between_equal_rows(kind, seed):
    """Every row five times, as reports without a finding are: with landmarks, places and neighbours that tie."""
    rng = np.random.default_rng(seed)
    sides = [unit(np.repeat(features(seed + side, 12), 5, axis=0)[rng.permutation(60)]) for side in (0, 1)]
    evidence = rng.dirichlet(np.ones(4), size=60).astype(np.float32)
    pairs = np.arange(10)
    expected = targets(kind, *sides, pairs, evidence)
    for _ in range(3):
        rounded = [side + 2e-7 * rng.normal(size=side.shape).astype(np.float32) for side in sides]
        assert_alike(targets(kind, *rounded, pairs, evidence), expected)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), rows=st.sampled_from([1, 7]), top=st.sampled_from([None, 4]))
def test_padding_is_no_landmark(seed, rows, top):
    """With a landmark for every row the draw does not matter; those that only padding could be drawn for are zeros."""
    images, reports = features(seed, rows), features(seed + 1, rows)
    evidence = np.random.default_rng(seed).dirichlet(np.ones(4), size=rows).astype(np.float32)
    pairs = np.arange(min(3, rows))
    top = top and min(top, rows)
    expected = targets("anchors", images, reports, pairs, evidence, top=top)
    padded = [np.concatenate([part, np.repeat(part[-1:], 12, axis=0)]) for part in (images, reports, evidence)]
    there = np.arange(rows + 12) < rows
    found = np.asarray(landmarks(jax.random.key(0), padded[0], rows + 4, mask=there))
    assert np.sum(np.any(found != 0, axis=1)) == rows
    given = np.where(there[:, None], padded[2], 0)
    got = targets("anchors", *padded[:2], pairs, given, top=top, image_mask=there, report_mask=there)
    assert_alike(got, expected, slice(rows))
    assert not any(np.any(np.asarray(part)[rows:]) for part in jax.tree.leaves(got))


@pytest.mark.parametrize("kind", GRAPHS)
def test_graphs_by_name_relate_alike(kind):
    rng = np.random.default_rng(0)
    groups, directions = 4, unit(features(5, 4))
    sides = [np.repeat(directions, 30, axis=0) + 0.1 * rng.normal(size=(120, D)).astype(np.float32) for _ in range(2)]
    group = np.repeat(np.arange(groups), 30)
    pairs = np.arange(0, 120, 6)
    seeds = seed_edges(pairs, pairs, num_images=120, num_reports=120)
    evidence = np.eye(groups, dtype=np.float32)[group]
    graph = relation_graph(kind, seeds, *sides, key=jax.random.key(0), alpha=0.7, order=4, temperature=0.05,
                                     num_landmarks=16, top=4, neighbours=8)
    for ask in (image_targets, report_targets):
        target, confidence = ask(graph, evidence)
        assert np.average(np.argmax(target, axis=1) == group, weights=np.minimum(confidence / 0.1, 1)) > 0.95
        assert 0.02 < np.median(confidence) < 1
    between = np.asarray(relations_between(graph, jnp.arange(120), jnp.arange(120)))
    same = group[:, None] == group
    assert between[same].mean() > 20 * between[~same].mean()


def test_what_is_refused():
    x, key = features(0), jax.random.key(0)
    seeds = seed_edges([0], [0], num_images=N, num_reports=N)
    with pytest.raises(ValueError, match="58 landmarks cannot be drawn from 57 rows"):
        landmarks(key, x, N + 1)
    with pytest.raises(ValueError, match="top=6 of 5 landmarks"):
        assign_to_landmarks(x, x[:5], temperature=1.0, top=6)
    with pytest.raises(ValueError, match="57 rows do not divide into 4 shards"):
        assign_to_landmarks(x, x[:5], temperature=1.0, shards=4)
    with pytest.raises(ValueError, match="k=57 neighbours of 57 rows"):
        find_neighbours(x, k=N)
    with pytest.raises(ValueError, match="unknown graph 'knnn'; known: anchors, knn"):
        relation_graph("knnn", seeds, x, x, alpha=0.5, order=1)
    with pytest.raises(ValueError, match="need a key"):
        relation_graph("anchors", seeds, x, x, alpha=0.5, order=1)
