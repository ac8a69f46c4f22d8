"""Schedules against their formulas, AdamW against a written-out one, decay masks, frozen parameters, the average."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lgdea_jax import cli, experiment
from lgdea_jax.arrays import flatten
from lgdea_jax.errors import UserError
from lgdea_jax.training import optim


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["cosine", "linear", "constant"]), st.integers(1, 300), st.integers(0, 400),
       st.floats(1e-6, 1.0))
def test_schedules_follow_their_formula(name, total, warmup, peak):
    schedule = optim.learning_rate(schedule=name, peak=peak, warmup_steps=warmup, total_steps=total)
    w = min(warmup, total - 1)
    for step in {0, 1, w // 2, w, w + 1, (w + total) // 2, total - 1, total, total + 5}:
        if step < w:
            expected = peak * step / w
        else:
            part = min(1.0, (step - w) / (total - w))
            expected = {"cosine": peak * 0.5 * (1 + np.cos(np.pi * part)), "linear": peak * (1 - part),
                        "constant": peak}[name]
        np.testing.assert_allclose(float(schedule(step)), expected, rtol=1e-5, atol=1e-6 * peak)


def test_an_unknown_schedule_is_refused():
    with pytest.raises(UserError, match="did you mean 'cosine'"):
        optim.learning_rate(schedule="cosin", peak=1.0, warmup_steps=0, total_steps=1)


PARAMS = {
    "image_tower": {"blocks": {"0": {"dense": {"kernel": np.ones((3, 2)), "bias": np.ones(2)}}},
                    "position": np.ones((1, 4))},
    "text_tower": {"dense": {"kernel": np.full((2, 2), 2.0)}, "norm": {"scale": np.ones(2)}},
    "prototypes": {"mu": np.ones((4, 2))},
    "logit_scale": np.ones(()),
}


def params():
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), PARAMS)


def gradients(seed):
    leaves, tree = jax.tree.flatten(PARAMS)
    rng = np.random.default_rng(seed)
    return jax.tree.unflatten(tree, [jnp.asarray(rng.normal(size=np.shape(leaf)), jnp.float32) for leaf in leaves])


def adamw_by_hand(rates, steps, *, rate=0.1, decay=0.05, b1=0.9, b2=0.98, clip=0.0):
    """float64 AdamW: {path: value} after some steps."""
    values = {k: np.asarray(v, np.float64) for k, v in flatten(PARAMS).items()}
    m, v = ({k: np.zeros_like(x) for k, x in values.items()} for _ in range(2))
    for step in range(1, steps + 1):
        g = {k: np.asarray(x, np.float64) for k, x in flatten(gradients(step)).items()}
        norm = np.sqrt(sum((g[k] ** 2).sum() for k in g if rates(k) > 0))
        factor = min(1.0, clip / norm) if clip else 1.0
        for k in values:
            if rates(k) == 0:
                continue
            m[k] = b1 * m[k] + (1 - b1) * g[k] * factor
            v[k] = b2 * v[k] + (1 - b2) * (g[k] * factor) ** 2
            update = (m[k] / (1 - b1**step)) / (np.sqrt(v[k] / (1 - b2**step)) + 1e-8)
            if k.endswith("kernel"):
                update = update + decay * values[k]
            values[k] = values[k] - rate * rates(k) * update
    return values


def run(rules, steps, *, clip=0.0):
    tx = optim.make_optimizer(params(), schedule=lambda _: 0.1, weight_decay=0.05, beta1=0.9, beta2=0.98,
                              clip_norm=clip, rates=rules)
    values, state = params(), tx.init(params())
    for step in range(1, steps + 1):
        updates, state = tx.update(gradients(step), state, values)
        values = optax.apply_updates(values, updates)
    return values, state


@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_adamw_decays_kernels_only_and_follows_the_rates(clip):
    rules = [("text_tower/norm", 0.0), ("text_tower", 0.1), ("tower", 2.0)]

    def rate(path):
        return 0.0 if "norm" in path else 0.1 if path.startswith("text") else 2.0 if "tower" in path else 1.0

    values, _ = run(rules, 4, clip=clip)
    for path, expected in adamw_by_hand(rate, 4, clip=clip).items():
        np.testing.assert_allclose(np.asarray(flatten(values)[path]), expected, rtol=2e-5, atol=1e-6, err_msg=path)


def test_what_is_decayed():
    decayed, _ = run([], 1)
    still = optim.make_optimizer(params(), schedule=lambda _: 0.1, weight_decay=0.0, beta1=0.9, beta2=0.98,
                                 clip_norm=0.0, rates=[])
    updates, _ = still.update(gradients(1), still.init(params()), params())
    plain = optax.apply_updates(params(), updates)
    changed = {path for path in flatten(plain) if not np.array_equal(flatten(plain)[path], flatten(decayed)[path])}
    assert changed == {path for path in flatten(PARAMS) if path.endswith("kernel")}


def test_frozen_parameters_have_no_slots_and_do_not_move():
    values, state = run([("image_tower", 0.0)], 3)
    shapes = [leaf.shape for leaf in jax.tree.leaves(state)]
    full = [leaf.shape for leaf in jax.tree.leaves(run([], 3)[1])]
    frozen = [np.shape(leaf) for leaf in jax.tree.leaves(PARAMS["image_tower"])]
    assert sorted(map(str, full)) == sorted(map(str, shapes + 2 * frozen))
    for path, value in flatten(values).items():
        assert np.array_equal(value, flatten(PARAMS)[path]) == path.startswith("image_tower")


def test_frozen_parameters_have_no_gradient():
    rates = optim.rates_by_path(PARAMS, [("image_tower", 0.0)])

    def loss(values):
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(optim.stop_frozen(values, rates)))

    for path, gradient in flatten(jax.grad(loss)(params())).items():
        assert bool(jnp.any(gradient != 0)) == (not path.startswith("image_tower")), path


def test_rules_first_match_wins_and_all_must_match():
    rates = flatten(optim.rates_by_path(PARAMS, [("text_tower/norm", 3.0), ("text_tower", 0.5)]))
    assert rates["text_tower/norm/scale"] == 3.0 and rates["text_tower/dense/kernel"] == 0.5
    assert rates["logit_scale"] == 1.0
    with pytest.raises(UserError, match="'txt_tower' matches no parameter"):
        optim.rates_by_path(PARAMS, [("txt_tower", 0.5)])
    assert experiment.rate_rules(("a=0.5", "b/c=d=0")) == (("a", 0.5), ("b/c=d", 0.0))
    with pytest.raises(UserError, match="not PATTERN=MULTIPLIER"):
        experiment.rate_rules(("text_tower",))


@settings(max_examples=30, deadline=None)
@given(st.floats(0.5, 0.9999), st.integers(1, 12))
def test_the_average_follows_its_formula(decay, steps):
    values = np.random.default_rng(steps).normal(size=(steps + 1, 3))
    ema, expected = {"w": jnp.asarray(values[0], jnp.float32)}, values[0]
    for step in range(steps):
        ema = optim.update_ema(ema, {"w": jnp.asarray(values[step + 1], jnp.float32)}, decay=decay,
                               step=jnp.asarray(step, jnp.int32))
        d = min(decay, (1 + step) / (10 + step))
        expected = d * expected + (1 - d) * values[step + 1]
    np.testing.assert_allclose(np.asarray(ema["w"]), expected, rtol=1e-5, atol=1e-6)
    assert ema["w"].dtype == jnp.float32


def test_decay_of_a_real_model_is_on_kernels_only():
    config = cli.read_config("tests/training/tiny.py")
    _, shapes = experiment.Experiment.of(config).model.abstract(vocab_size=50, num_labels=4)
    import re

    decayed = {path for path in flatten(shapes) if re.search(optim.DECAYED, path)}
    assert decayed and all(len(flatten(shapes)[path].shape) >= 2 for path in decayed)
    rest = set(flatten(shapes)) - decayed
    assert {"logit_scale", "prototypes/mu"} <= rest and not any("kernel" in path for path in rest)
