"""Propagation over nearest neighbours against the dense oracle."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lgdea_jax.relations.neighbours import link_neighbours, neighbour_graph, walk_step
from tests.relations import dense
from tests.relations.test_anchors import N_I, N_R, check_everything, world

K, D = 4, 3


def links(seed, rows, scaling, *, alone=False):
    """W of random features: the graph's, and the dense one; with `alone` one row has no neighbours."""
    x = np.random.default_rng(seed).normal(size=(rows, D))
    indices, cosines = dense.nearest(x, K)
    if alone:
        cosines[indices == 2], cosines[2] = -np.inf, -np.inf
    side = link_neighbours(jnp.asarray(indices), jnp.asarray(cosines, jnp.float32), temperature=0.2,
                                     self_share=0.1, scaling=scaling)
    return side, dense.neighbour_walk(indices, cosines, 0.2, 0.1, scaling)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), order=st.sampled_from([0, 1, 4]), alpha=st.floats(0, 0.99), alone=st.booleans(),
       scaling=st.sampled_from(["symmetric", "row"]))
def test_walks_equal_the_dense_oracle(seed, order, alpha, alone, scaling):
    _, _, seeds, q_i, q_r = world(seed, one_to_one=False)
    (images, w_i), (reports, w_r) = links(seed, N_I, scaling, alone=alone), links(seed + 1, N_R, scaling)
    s = dense.relations(w_i, dense.seed_matrix(seeds, N_I, N_R), w_r, alpha, order)
    graph = neighbour_graph(seeds, images, reports, alpha=alpha, order=order)
    check_everything(graph, s, q_i, q_r, block=64)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), alone=st.booleans())
def test_balanced_walks_keep_mass(seed, alone):
    _, _, seeds, q_i, q_r = world(seed)
    (images, w_i), (reports, w_r) = links(seed, N_I, "balanced", alone=alone), links(seed + 1, N_R, "balanced")
    for side, walk in ((images, w_i), (reports, w_r)):
        own = jax.jit(walk_step, static_argnums=2)(side, jnp.eye(len(walk)), 64)
        np.testing.assert_allclose(np.sum(own, axis=0), 1, atol=1e-3)
        np.testing.assert_allclose(np.sum(own, axis=1), 1, atol=1e-3)
        np.testing.assert_allclose(own, walk, atol=1e-3)
    s = dense.relations(w_i, dense.seed_matrix(seeds, N_I, N_R), w_r, 0.5, 3)
    graph = neighbour_graph(seeds, images, reports, alpha=0.5, order=3)
    check_everything(graph, s, q_i, q_r, tolerance={"rtol": 0, "atol": 2e-3})


def test_what_is_refused():
    with pytest.raises(ValueError, match="unknown scaling 'rows'; known: balanced, symmetric, row"):
        link_neighbours(jnp.zeros((3, 1), int), jnp.ones((3, 1)), temperature=1.0, scaling="rows")
    side, _ = links(0, N_I, "row")
    with pytest.raises(ValueError, match="alpha must be in"):
        neighbour_graph(world(0)[2], side, side, alpha=1.5, order=1)
