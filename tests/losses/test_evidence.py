"""Evidence losses against dense float64 formulas; the stop-gradient; masks; soft targets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, rel_entr, softmax

from lgdea_jax.losses import evidence
from tests.losses.gradients import check_gradients

R, N, K, D = 4, 3, 5, 6


def example(seed):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(R, N, D))
    return z / np.linalg.norm(z, axis=-1, keepdims=True), rng.normal(size=(K, D)), rng.random((R, N)) < 0.6


def f32(*arrays):
    return [jnp.asarray(array, jnp.float32) for array in arrays]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), temperature=st.floats(0.05, 2.0))
def test_assignment_and_reconstruction(seed, temperature):
    z, mu, mask = example(seed)
    p = softmax(z @ mu.T / temperature, -1)
    log_p = evidence.assign(*f32(z, mu), temperature)
    np.testing.assert_allclose(np.exp(log_p), p, rtol=2e-3, atol=1e-5)
    errors = [np.sum((z[r, n] - sum(p[r, n, k] * mu[k] for k in range(K))) ** 2) for r, n in np.argwhere(mask)]
    expected = (np.mean(errors) if errors else 0.0) + 0.1 * np.sum(mu**2)
    actual = evidence.reconstruction_loss(f32(z)[0], log_p, *f32(mu), jnp.asarray(mask), decay=0.1)
    np.testing.assert_allclose(actual, expected, rtol=1e-3)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), uncertain_weight=st.sampled_from([0.0, 0.25, 1.0]))
def test_report_evidence_is_the_weighted_mean(seed, uncertain_weight):
    z, mu, mask = example(seed)
    weights = np.where(np.random.default_rng(seed).random((R, N)) < 0.5, 1.0, uncertain_weight)
    p = softmax(z @ mu.T, -1)
    actual, valid = evidence.report_evidence(jnp.asarray(np.log(p), jnp.float32), jnp.asarray(mask),
                                             *f32(weights))
    for r in range(R):
        total = np.sum(weights[r] * mask[r])
        assert bool(valid[r]) == (total > 0)
        expected = sum(weights[r, n] * mask[r, n] * p[r, n] for n in range(N)) / total if total else np.zeros(K)
        np.testing.assert_allclose(actual[r], expected, rtol=1e-4, atol=1e-6)


def test_masked_phrases_never_enter():
    z, mu, _ = example(1)
    mask = jnp.ones((R, N), bool).at[:, 1].set(False)
    log_p = evidence.assign(*f32(z, mu), 0.5)
    garbage = log_p.at[:, 1].set(jnp.nan)
    np.testing.assert_array_equal(evidence.report_evidence(garbage, mask)[0], evidence.report_evidence(log_p, mask)[0])


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), sharpness=st.floats(0.1, 10.0))
def test_image_evidence(seed, sharpness):
    rng = np.random.default_rng(seed)
    logits, mask = 3 * rng.normal(size=(R, 7, K)), rng.random((R, 7)) < 0.6
    mean = evidence.image_evidence(*f32(logits), jnp.asarray(mask))
    lse = evidence.image_evidence(*f32(logits), jnp.asarray(mask), pooling="lse", sharpness=sharpness)
    for r in range(R):
        rows = logits[r][mask[r]]
        if not mask[r].any():
            np.testing.assert_allclose(np.exp([mean[r], lse[r]]), 1 / K, rtol=1e-5)
            continue
        np.testing.assert_allclose(np.exp(mean[r]), softmax(rows, -1).mean(0), rtol=1e-4, atol=1e-7)
        pooled = np.log(np.mean(np.exp(sharpness * rows), 0)) / sharpness
        np.testing.assert_allclose(lse[r], log_softmax(pooled), rtol=1e-3, atol=1e-4)
    unmasked = evidence.image_evidence(*f32(logits))
    np.testing.assert_allclose(np.exp(unmasked), softmax(logits, -1).mean(1), rtol=1e-4, atol=1e-7)
    with pytest.raises(ValueError, match="unknown pooling"):
        evidence.image_evidence(*f32(logits), pooling="max")


def pair_example(seed):
    rng = np.random.default_rng(seed)
    report = rng.dirichlet(np.full(K, 0.5), size=R)
    report[0] = np.eye(K)[1]
    return report, rng.normal(size=(R, K)), np.array([True, True, False, True])


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000))
def test_pair_loss_is_the_divergence(seed):
    report, logits, mask = pair_example(seed)
    expected = rel_entr(report, softmax(logits, -1)).sum(1)[mask].mean()
    actual = evidence.pair_loss(*f32(report), *f32(log_softmax(logits, -1)), jnp.asarray(mask))
    np.testing.assert_allclose(actual, expected, rtol=1e-4)
    np.testing.assert_allclose(evidence.pair_loss(*f32(report), *f32(np.log(report + 1e-30)), jnp.asarray(mask)), 0,
                               atol=1e-5)


def test_pair_loss_stops_the_gradient_into_the_report():
    z, mu, mask = example(2)
    rng = np.random.default_rng(2)
    mask[:, 0] = True
    patches = f32(rng.normal(size=(R, 7, D)))[0]

    def loss(z, mu_report, mu_image, stop_report):
        report, valid = evidence.report_evidence(evidence.assign(z, mu_report, 0.5), jnp.asarray(mask))
        log_image = evidence.image_evidence(evidence.similarities(patches, mu_image, 0.5))
        return evidence.pair_loss(report, log_image, valid, stop_report=stop_report)

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 2)), static_argnums=3)
    stopped, free = (gradient(*f32(z, mu, mu), stop) for stop in (True, False))
    assert np.all(np.asarray(stopped[0]) == 0) and np.all(np.asarray(stopped[1]) == 0)
    assert np.abs(free[0]).max() > 1e-3 and np.abs(free[1]).max() > 1e-3
    np.testing.assert_array_equal(stopped[2], free[2])
    assert np.abs(stopped[2]).max() > 1e-3


def test_gradients():
    z, mu, mask = example(3)
    mask[0] = False
    patches = np.random.default_rng(3).normal(size=(R, 7, D))
    patch_mask = jnp.asarray(np.random.default_rng(4).random((R, 7)) < 0.6).at[1].set(False)
    mask = jnp.asarray(mask)
    check_gradients(lambda z, mu: evidence.reconstruction_loss(z, evidence.assign(z, mu, 0.5), mu, mask, decay=0.1),
                    z, mu)

    def pair(z, mu, patches, pooling):
        report, valid = evidence.report_evidence(evidence.assign(z, mu, 0.5), mask)
        log_image = evidence.image_evidence(evidence.similarities(patches, mu, 0.5), patch_mask, pooling=pooling,
                                            sharpness=2.0)
        return evidence.pair_loss(report, log_image, valid, stop_report=False)

    for pooling in ("mean", "lse"):
        check_gradients(lambda z, mu, patches, pooling=pooling: pair(z, mu, patches, pooling), z, mu, patches)


def test_order_of_phrases_patches_and_pairs_does_not_matter():
    z, mu, mask = example(5)
    mask[:, 0] = True
    rng = np.random.default_rng(5)
    logits = rng.normal(size=(R, 7, K))

    def loss(z, mask, logits):
        report, valid = evidence.report_evidence(evidence.assign(*f32(z, mu), 0.5), jnp.asarray(mask))
        return evidence.pair_loss(report, evidence.image_evidence(*f32(logits), pooling="lse", sharpness=3.0), valid)

    phrases, patches, pairs = rng.permutation(N), rng.permutation(7), rng.permutation(R)
    expected = loss(z, mask, logits)
    np.testing.assert_allclose(loss(z[:, phrases], mask[:, phrases], logits), expected, rtol=1e-5)
    np.testing.assert_allclose(loss(z, mask, logits[:, patches]), expected, rtol=1e-5)
    np.testing.assert_allclose(loss(z[pairs], mask[pairs], logits[pairs]), expected, rtol=1e-5)
    assert abs(loss(z[pairs[::-1]], mask[pairs[::-1]], logits[pairs]) - expected) > 1e-4


def test_diagnostics_see_collapse():
    apart = jnp.log(jnp.eye(K) * (1 - 1e-6) + 1e-7)
    together = jnp.tile(apart[:1], (K, 1))
    mask = jnp.ones(K, bool)
    good, collapsed = evidence.diagnostics(apart, mask, apart), evidence.diagnostics(together, mask, together)
    np.testing.assert_allclose([good["report_prototypes"], good["image_prototypes"]], K, rtol=1e-3)
    np.testing.assert_allclose([collapsed["report_prototypes"], collapsed["image_prototypes"]], 1, rtol=1e-3)
    np.testing.assert_allclose([good["report_entropy"], good["image_entropy"]], 0, atol=1e-4)
    flat = evidence.diagnostics(jnp.full((K, K), -jnp.log(K)), mask, apart)
    np.testing.assert_allclose(flat["report_entropy"], np.log(K), rtol=1e-5)


def test_bfloat16_inputs_give_float32_losses():
    z, mu, mask = example(6)
    mask[:, 0] = True
    z16, mu16 = (array.astype(jnp.bfloat16) for array in f32(z, mu))
    log_p = evidence.assign(z16, mu16, 0.1)
    assert log_p.dtype == jnp.float32
    loss = evidence.reconstruction_loss(z16, log_p, mu16, jnp.asarray(mask))
    assert loss.dtype == jnp.float32
    exact = evidence.reconstruction_loss(f32(z)[0], evidence.assign(*f32(z, mu), 0.1), *f32(mu), jnp.asarray(mask))
    np.testing.assert_allclose(loss, exact, rtol=0.05)
