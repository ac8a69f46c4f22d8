"""The evidence memory against an oracle in NumPy, over ten steps; what its parts do at their edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgdea_jax.training import evidence_memory
from tests.relations.memory_oracle import Oracle, make_memory

PAIRS, IMAGES, REPORTS, K, D = 3, 9, 8, 5, 4


def f32(values):
    return jnp.asarray(values, jnp.float32)


def centres_of(seed=3):
    rng = np.random.default_rng(seed)
    return {"images": rng.normal(size=(6, D)).astype(np.float32), "reports": rng.normal(size=(6, D)).astype(np.float32)}


@pytest.fixture
def given_landmarks(monkeypatch):
    """Landmarks are drawn: here they are given, in the order in which the sides ask for them."""
    centres, asked = centres_of(), []

    def give(key, features, num, **_):
        asked.append(num)
        return jnp.asarray(centres["images" if len(asked) % 2 else "reports"][:num])

    monkeypatch.setattr(evidence_memory, "landmarks", give)
    return centres


def test_ten_steps_are_those_of_the_oracle(given_landmarks):
    memory = make_memory()
    oracle, aux = Oracle(memory, given_landmarks), memory.blank()
    rng = np.random.default_rng(0)
    weighed = 0
    for step in range(10):
        if memory.due(step):
            aux = memory.rebuild(aux)
            oracle.rebuild()
        # Unpaired images and reports come after the pairs; one image twice in the batch, with other evidence.
        images = rng.choice(np.arange(PAIRS, IMAGES), 4)
        images[3] = images[0]
        reports = np.concatenate([rng.choice(PAIRS, 2), rng.choice(np.arange(PAIRS, REPORTS), 3, replace=False)])
        q, f = rng.dirichlet(np.ones(K), 4), rng.normal(size=(4, D))
        aux, target, weight, log = memory.image_targets(aux, f32(q), f32(f), jnp.int32(step))
        expected = oracle.image_targets(q, f, step)
        np.testing.assert_allclose(target, expected[0], atol=2e-5, err_msg=f"target of step {step}")
        np.testing.assert_allclose(weight, expected[1], atol=2e-4)
        np.testing.assert_allclose(log["memory/ramp"], oracle.ramp(step), atol=1e-6)
        weighed += float(np.sum(weight)) > 0
        aux = memory.visit(aux, "images", jnp.asarray(images), f32(q), f32(f), step + 1)
        oracle.visit("images", images, q, f, step + 1)
        mirrored, report_weight = memory.report_targets(aux, jnp.asarray(reports), jnp.int32(step))
        expected = oracle.report_targets(reports, step)
        np.testing.assert_allclose(report_weight, expected[1], atol=2e-4)
        sure = expected[1] > 0
        np.testing.assert_allclose(np.asarray(mirrored)[sure], expected[0][sure], atol=2e-5)
        # Pairs' images and reports, of which the second has no evidence.
        q, f = rng.dirichlet(np.ones(K), 5), rng.normal(size=(5, D))
        q[1] = 0
        aux = memory.visit(aux, "images", jnp.asarray(reports[:2]), f32(q[2:4]), f32(f[2:4]), step + 1)
        oracle.visit("images", reports[:2], q[2:4], f[2:4], step + 1)
        aux = memory.visit(aux, "reports", jnp.asarray(reports), f32(q), f32(f), step + 1)
        oracle.visit("reports", reports, q, f, step + 1)
        aux = memory.count(aux, "reports", f32(q), f32(q.sum(1) > 0))
        oracle.count("reports", q, (q.sum(1) > 0).astype(float))
        for side in ("images", "reports"):
            for name, value in oracle.rows[side].items():
                np.testing.assert_allclose(aux[side][name], value, atol=1e-6, err_msg=f"{side}/{name}")
            total, mass = oracle.means[side]
            np.testing.assert_allclose(aux["means"][side]["sum"], total, atol=1e-6)
            np.testing.assert_allclose(aux["means"][side]["mass"], mass, atol=1e-6)
    assert weighed == 10 - memory.options.start
    assert float(log["memory/confidence"]) > 1e-3 and float(log["memory/target_to_teacher"]) > 0.05


def test_when_relations_are_rebuilt_and_targets_weigh():
    memory = make_memory(start=4, full=8, graph_every=3)
    assert [step for step in range(14) if memory.due(step)] == [4, 7, 10, 13]
    assert [float(memory.ramp(jnp.int32(step))) for step in range(9)] == [0, 0, 0, 0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    assert float(make_memory(start=4, full=2).ramp(jnp.int32(4))) == 1.0
    assert not any(make_memory(source="teacher").due(step) for step in range(20))


def test_rows_that_were_not_visited_relate_nothing_and_weigh_nothing():
    memory = make_memory()
    aux, rng = memory.blank(), np.random.default_rng(1)
    # Only unpaired items: no pair was read yet, so that nothing is related.
    for side, first, count in (("images", PAIRS, 6), ("reports", PAIRS, 5)):
        aux = memory.visit(aux, side, jnp.arange(first, first + count), f32(rng.dirichlet(np.ones(K), count)),
                           f32(rng.normal(size=(count, D))), 1)
    related = memory.rebuild(aux)
    assert not any(np.any(part["offered"]) for part in related["graph"].values())
    q, f = f32(rng.dirichlet(np.ones(K), 2)), f32(rng.normal(size=(2, D)))
    _, target, _, log = memory.image_targets(related, q, f, jnp.int32(20))
    assert float(log["memory/confidence"]) == 0
    np.testing.assert_allclose(target, np.asarray(q) ** (1 / 0.7) / np.sum(np.asarray(q) ** (1 / 0.7), 1)[:, None],
                               atol=1e-5)
    # With one pair read, every visited item is related to it, and the others' reports still weigh nothing.
    for side in ("images", "reports"):
        aux = memory.visit(aux, side, jnp.arange(1), q[:1], f[:1], 2)
    related = memory.rebuild(aux)
    _, weight = memory.report_targets(related, jnp.asarray([0, 1, PAIRS]), jnp.int32(20))
    assert weight[0] > 0 and weight[1] == 0 and weight[2] > 0


def test_targets_of_other_sources_have_no_rows():
    memory = make_memory(source="teacher")
    aux = memory.blank()
    assert set(aux) == {"means"} and memory.row_bytes() == 0
    q = f32(np.random.default_rng(0).dirichlet(np.ones(K), 4))
    assert memory.visit(aux, "images", jnp.arange(4), q, q[:, :D], 1) is aux
    _, target, weight, log = memory.image_targets(aux, q, q[:, :D], jnp.int32(20))
    sharp = np.asarray(q) ** (1 / 0.7)
    np.testing.assert_allclose(target, sharp / sharp.sum(1, keepdims=True), atol=1e-5)
    assert "memory/confidence" not in log and float(weight.max()) == 1


def test_rows_are_padded_to_the_devices_and_a_million_fit():
    memory = make_memory(images=10, reports=8, shards=4)
    assert (memory.rows("images"), memory.rows("reports")) == (256, 256)
    assert make_memory(images=257, shards=3).rows("images") == 768
    large = make_memory(images=1_000_000, reports=600_000, prototypes=16, width=8, landmarks=32)
    aux = jax.jit(large.blank)()
    aux = jax.jit(large.visit, static_argnums=1, donate_argnums=0)(
        aux, "images", jnp.asarray([0, 999_999]), jnp.ones([2, 16]) / 16, jnp.ones([2, 8]), 7)
    assert int(aux["images"]["visited"][999_999]) == 7 and int(jnp.sum(aux["images"]["visited"] > 0)) == 2
    assert sum(leaf.nbytes for side in ("images", "reports") for leaf in aux[side].values()) == (
        (large.rows("images") + large.rows("reports")) * large.row_bytes())
    assert large.rows("images") < 1_000_300
