"""Propagation through anchors against the dense oracle: orders, empty anchors, padding, blocks, the mirror."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lgdea_jax.relations.anchors import landmark_evidence, related_evidence, relation_factor
from lgdea_jax.relations.rows import SparseRows, dense_rows
from lgdea_jax.relations.seeds import seed_edges
from tests.relations import dense

N_I, N_R, K_I, K_R, E, P = 41, 35, 7, 5, 4, 13
TOLERANCE = {"rtol": 0, "atol": 1e-5}


def assignments(rng, rows, anchors, *, empty=0, sharpness=1.0):
    """Soft assignments, rows sum to 1; the first `empty` anchors belong to nobody."""
    z = np.zeros((rows, anchors))
    z[:, empty:] = rng.dirichlet(np.full(anchors - empty, sharpness), size=rows)
    return z


def world(seed, *, empty=0, sharpness=1.0, one_to_one=True):
    """Assignments of both sides, seeds, and evidence of both sides, of which two reports have none."""
    rng = np.random.default_rng(seed)
    z_i = assignments(rng, N_I, K_I, empty=empty, sharpness=sharpness)
    z_r = assignments(rng, N_R, K_R, empty=empty, sharpness=sharpness)
    images, reports = rng.permutation(N_I)[:P], rng.permutation(N_R)[:P]
    if not one_to_one:
        images, reports = rng.integers(N_I, size=P), rng.integers(N_R, size=P)
        images[0] = -1
    seeds = seed_edges(images, reports, num_images=N_I, num_reports=N_R)
    q_i, q_r = (rng.dirichlet(np.full(E, 0.3), size=rows) for rows in (N_I, N_R))
    q_r[:2] = 0
    return z_i, z_r, seeds, q_i, q_r


def propagated(z_i, z_r, seeds, alpha, order):
    """The dense S - (1 - alpha) S0 through anchors: what items have without a seed of their own."""
    s0 = dense.seed_matrix(seeds, len(z_i), len(z_r))
    return dense.relations(dense.anchor_walk(z_i), s0, dense.anchor_walk(z_r), alpha, order) - (1 - alpha) * s0


def f32(*arrays):
    return [jnp.asarray(array, jnp.float32) for array in arrays]


def sparse(z, top):
    """The `top` largest entries of each row as `SparseRows`, and the same as an array; rows sum to 1."""
    indices = np.argsort(-z, axis=1)[:, :top]
    weights = np.take_along_axis(z, indices, 1)
    weights /= weights.sum(1, keepdims=True)
    full = np.zeros_like(z)
    np.put_along_axis(full, indices, weights, 1)
    return SparseRows(jnp.asarray(indices, jnp.int32), *f32(weights), width=z.shape[1]), full


def image_targets(z_i, z_r, seeds, q_r, *, alpha, order, **blocks):
    """(targets, confidence) of all images, each as if it had no seed of its own."""
    factor = relation_factor(seeds, z_i, z_r, alpha=alpha, order=order, **blocks)
    return related_evidence(z_i, landmark_evidence(factor, z_r, q_r, **blocks))


def report_targets(z_i, z_r, seeds, q_i, *, alpha, order, **blocks):
    """The mirror."""
    factor = relation_factor(seeds, z_i, z_r, alpha=alpha, order=order, **blocks)
    return related_evidence(z_r, landmark_evidence(factor.T, z_i, q_i, **blocks))


def check_everything(z_i, z_r, seeds, s, q_i, q_r, *, tolerance=TOLERANCE, **options):
    """Both directions are what S says."""
    for (target, confidence), expected in (
            (image_targets(z_i, z_r, seeds, *f32(q_r), **options), dense.targets(s, q_r)),
            (report_targets(z_i, z_r, seeds, *f32(q_i), **options), dense.targets(s.T, q_i))):
        np.testing.assert_allclose(confidence, expected[1], **tolerance)
        # A share of hardly anything is as uncertain as the little it is a share of.
        np.testing.assert_allclose(target * expected[1][:, None], expected[0] * expected[1][:, None], **tolerance)
        sure = expected[1] > 1e-3
        np.testing.assert_allclose(target[sure], expected[0][sure], **tolerance)
        np.testing.assert_allclose(np.sum(target[sure], axis=1), 1, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), order=st.sampled_from([0, 1, 4]), alpha=st.floats(0, 0.99), empty=st.integers(0, 3),
       sharpness=st.sampled_from([0.05, 0.3, 3.0]), one_to_one=st.booleans())
@example(seed=0, order=0, alpha=0.5, empty=2, sharpness=0.05, one_to_one=True)
@example(seed=1, order=4, alpha=0.9, empty=3, sharpness=0.05, one_to_one=False)
def test_factored_form_equals_the_dense_oracle(seed, order, alpha, empty, sharpness, one_to_one):
    z_i, z_r, seeds, q_i, q_r = world(seed, empty=empty, sharpness=sharpness, one_to_one=one_to_one)
    s = propagated(z_i, z_r, seeds, alpha, order)
    check_everything(*f32(z_i, z_r), seeds, s, q_i, q_r, alpha=alpha, order=order, block=16)


@pytest.mark.parametrize("order", [1, 3])
def test_double_precision_agrees_to_rounding(order):
    with jax.enable_x64(True):
        z_i, z_r, seeds, _, q_r = world(3, empty=1)
        s = propagated(z_i, z_r, seeds, 0.7, order)
        target, confidence = image_targets(*map(jnp.asarray, (z_i, z_r)), seeds, jnp.asarray(q_r), alpha=0.7,
                                           order=order)
        expected = dense.targets(s, q_r)
        np.testing.assert_allclose(target, expected[0], atol=1e-13)
        np.testing.assert_allclose(confidence, expected[1], atol=1e-14)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), order=st.sampled_from([1, 3]))
def test_sparse_assignments_are_the_same_matrix(seed, order):
    z_i, z_r, seeds, q_i, q_r = world(seed, sharpness=0.5)
    (sparse_i, z_i), (sparse_r, z_r) = sparse(z_i, 3), sparse(z_r, 2)
    s = propagated(z_i, z_r, seeds, 0.6, order)
    check_everything(sparse_i, sparse_r, seeds, s, q_i, q_r, alpha=0.6, order=order, block=16)


def test_repeated_indices_of_sparse_rows_add_up():
    rows = SparseRows(jnp.asarray([[1, 1], [2, 0]]), jnp.asarray([[0.25, 0.75], [0.5, 0.5]]), width=3)
    np.testing.assert_allclose(dense_rows(rows), [[0, 1, 0], [0.5, 0, 0.5]])


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), order=st.sampled_from([0, 4]), alpha=st.floats(0.1, 0.9))
def test_confidence_is_bounded(seed, order, alpha):
    z_i, z_r, seeds, _, q_r = world(seed, one_to_one=False)
    q_r[:2] = q_r[2]  # With evidence everywhere the confidence is the row sum of S.
    confidence = np.asarray(image_targets(*f32(z_i, z_r), seeds, *f32(q_r), alpha=alpha, order=order)[1])
    assert np.all(confidence <= alpha - alpha ** (order + 1) + 1e-5) and np.all(confidence >= 0)
    assert order == 0 or confidence.max() > 0.01


def test_rows_that_do_not_exist_change_nothing():
    z_i, z_r, seeds, _, q_r = world(5)
    z_i, z_r, q_r = f32(z_i, z_r, q_r)
    expected = image_targets(z_i, z_r, seeds, q_r, alpha=0.5, order=3)
    actual = image_targets(jnp.pad(z_i, ((0, 3), (0, 0))), z_r, seeds, q_r, alpha=0.5, order=3)
    for one, other in zip(expected, actual, strict=True):
        np.testing.assert_allclose(other[:N_I], one, atol=1e-6)
        assert not np.any(other[N_I:])


def test_no_seeds_relate_nothing():
    z_i, z_r, _, _, q_r = world(6)
    seeds = seed_edges(jnp.zeros(0, int), jnp.zeros(0, int), num_images=N_I, num_reports=N_R)
    assert not any(np.any(array) for array in image_targets(*f32(z_i, z_r), seeds, *f32(q_r), alpha=0.5, order=2))


@settings(max_examples=30, deadline=None)
@given(pairs=st.lists(st.tuples(st.integers(-1, 4), st.integers(-1, 3)), min_size=12, max_size=12),
       seed=st.integers(0, 100))
def test_seed_rows_and_columns_have_at_most_unit_mass(pairs, seed):
    images, reports = np.array(pairs).T
    weights = np.random.default_rng(seed).random(len(pairs))
    seeds = seed_edges(images, reports, num_images=5, num_reports=4, weights=jnp.asarray(weights))
    s0 = dense.seed_matrix(seeds, 5, 4)
    assert s0.sum(0).max() <= 1 + 1e-6 and s0.sum(1).max() <= 1 + 1e-6
    plain = np.zeros((5, 4))
    there = (images >= 0) & (reports >= 0)
    np.add.at(plain, (images[there], reports[there]), weights[there])
    largest = np.maximum(np.maximum(plain.sum(1, keepdims=True), plain.sum(0, keepdims=True)), 1)
    np.testing.assert_allclose(s0, plain / largest, atol=1e-6)


def test_what_is_refused():
    z_i, z_r, seeds, _, q_r = world(8)
    z_i, z_r, q_r = f32(z_i, z_r, q_r)
    for alpha, order in ((1.0, 1), (-0.1, 1), (0.5, -1)):
        with pytest.raises(ValueError, match="alpha must be in"):
            relation_factor(seeds, z_i, z_r, alpha=alpha, order=order)
    with pytest.raises(ValueError, match="41 rows do not divide into 2 shards"):
        relation_factor(seeds, z_i, z_r, alpha=0.5, order=1, shards=2)
    factor = relation_factor(seeds, z_i, z_r, alpha=0.5, order=1)
    with pytest.raises(ValueError, match="evidence of 41 rows for a side of 35"):
        landmark_evidence(factor, z_r, z_i)
    with pytest.raises(ValueError, match="evidence of 35 rows for a side of 41"):
        landmark_evidence(factor.T, z_i, q_r)
