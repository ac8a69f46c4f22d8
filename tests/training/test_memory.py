"""Targets of the memory against dense formulas; tables of items; what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from lgdea_jax.methods.lgdea import TARGETS
from lgdea_jax.relations import graph
from lgdea_jax.training import evidence_memory as memory
from tests.relations import dense

PAIRS, IMAGES, REPORTS, PADDED, K, D = 3, 9, 8, 12, 5, 4
GRAPH = {"features": "pooled", "graph": "anchors", "landmarks": 6, "top": 0, "neighbours": 3, "temperature": 0.3,
         "alpha": 0.6, "order": 2}


def sides(seed=0):
    """(images, reports, truth) of a pass, padded to twelve rows; report 5 has no evidence."""
    rng = np.random.default_rng(seed)

    def side(rows):
        padded = {"evidence": rng.dirichlet(np.ones(K), PADDED), "pooled": rng.normal(size=(PADDED, D))}
        return {name: jnp.asarray(value, jnp.float32) for name, value in padded.items()}

    reports, truth = side(REPORTS), side(IMAGES)
    reports["valid"] = jnp.arange(PADDED) != 5
    truth["valid"] = jnp.ones(PADDED, bool)
    return side(IMAGES), reports, truth


def make(source, *, ramp=1.0, truth=True, **options):
    """`make_targets` on `sides`."""
    images, reports, true = sides()
    chosen = memory.TargetOptions(
        source=source, **{**GRAPH, "own": 0.0, "sharpen": 1.0, "align": 0, "confidence": 0.5, **options})
    return memory.make_targets(
        images=images, reports=reports, truth=true if truth else None, counts={"images": IMAGES, "reports": REPORTS},
        ramp=jnp.float32(ramp), key=jax.random.key(0), options=chosen, num_pairs=PAIRS, shards=1)


def test_relations_are_those_of_the_dense_walk(monkeypatch):
    images, reports, _ = sides()
    centres = np.random.default_rng(3).normal(size=(6, D)).astype(np.float32)
    monkeypatch.setattr(graph, "landmarks", lambda key, features, num, **_: jnp.asarray(centres[:num]))
    found, _ = make("relations")

    def assignments(features, rows, there):
        unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)  # noqa: E731
        z = softmax(unit(np.asarray(features)) @ unit(centres).T / 0.3, axis=1)
        return z * there[:, None]

    image_exists, has_evidence = np.arange(PADDED) < IMAGES, (np.arange(PADDED) < REPORTS) & (np.arange(PADDED) != 5)
    walk_i, walk_r = (dense.anchor_walk(assignments(side["pooled"], PADDED, mask))
                      for side, mask in ((images, image_exists), (reports, has_evidence)))
    seeds = np.zeros((PADDED, PADDED))
    seeds[range(PAIRS), range(PAIRS)] = 1
    s = dense.relations(walk_i, seeds, walk_r, 0.6, 2)
    stated = np.asarray(reports["evidence"]) * has_evidence[:, None]
    mass = (s * has_evidence).sum(1)
    expected = np.divide(s @ stated, mass[:, None], out=np.zeros((PADDED, K)), where=mass[:, None] > 0)
    np.testing.assert_allclose(found["image_target"][:IMAGES], expected[:IMAGES], atol=1e-5)
    unpaired = mass[PAIRS:IMAGES]
    np.testing.assert_allclose(found["image_weight"][PAIRS:IMAGES], np.minimum(unpaired / np.median(unpaired), 1),
                               atol=1e-4)
    own = np.asarray(images["evidence"]) * image_exists[:, None]
    columns = (s * image_exists[:, None]).sum(0)
    mirror = np.divide(s.T @ own, columns[:, None], out=np.zeros((PADDED, K)), where=columns[:, None] > 0)
    np.testing.assert_allclose(found["report_target"][has_evidence], mirror[has_evidence], atol=1e-5)


@pytest.mark.parametrize("source", TARGETS)
def test_pairs_padding_and_reports_without_evidence_weigh_nothing(source):
    found, log = make(source, ramp=0.5)
    image, report = np.asarray(found["image_weight"]), np.asarray(found["report_weight"])
    assert (image[:PAIRS] == 0).all() and (image[IMAGES:] == 0).all() and (image[PAIRS:IMAGES] > 0).all()
    assert image.max() == 0.5  # The ramp.
    assert (report[:PAIRS] == 0).all() and (report[REPORTS:] == 0).all() and report[5] == 0
    assert (report.max() > 0) == (source == "relations")
    np.testing.assert_allclose(found["image_target"][:IMAGES].sum(1), 1, atol=1e-5)
    assert all(np.isfinite(value) for value in log.values())


def test_sources():
    images, _, truth = sides()
    np.testing.assert_allclose(make("teacher")[0]["image_target"][:IMAGES], images["evidence"][:IMAGES], atol=1e-6)
    found, log = make("truth")
    np.testing.assert_allclose(found["image_target"][:IMAGES], truth["evidence"][:IMAGES], atol=1e-6)
    assert log["memory/target_to_truth"] == 0 and log["memory/teacher_to_truth"] > 0.1
    assert "memory/target_to_truth" not in make("teacher", truth=False)[1]
    half, whole = make("relations", own=0.5)[0], make("relations")[0]
    np.testing.assert_allclose(
        half["image_target"][:IMAGES], (whole["image_target"] + images["evidence"])[:IMAGES] / 2, atol=1e-5)


def test_targets_meet_the_prior_and_are_sharpened_first():
    images, reports, _ = sides()
    has_evidence = (np.arange(PADDED) < REPORTS) & (np.arange(PADDED) != 5)
    prior = np.asarray(reports["evidence"])[has_evidence].mean(0)
    found = np.asarray(make("teacher", align=200)[0]["image_target"])[:IMAGES]
    np.testing.assert_allclose(found.mean(0), prior, atol=1e-3)
    squared = np.asarray(images["evidence"])[:IMAGES] ** 2
    np.testing.assert_allclose(make("teacher", sharpen=0.5)[0]["image_target"][:IMAGES],
                               squared / squared.sum(1, keepdims=True), atol=1e-5)


def test_a_table_reads_its_parts_in_order_and_repeats_the_last_row():
    class Rows:
        def __init__(self, values):
            self.values = values

        def __len__(self):
            return len(self.values)

        def __getitem__(self, index):
            return {"x": np.asarray(self.values[index]), "other": np.zeros(2)}

    table = memory.Table([Rows([0, 1]), Rows([]), Rows([2, 3, 4])], ["x"], block=4, threads=2)
    assert (table.count, table.blocks, table.rows) == (5, 2, 8)
    assert table.read(0, 4)["x"].tolist() == [0, 1, 2, 3] and table.read(4, 8)["x"].tolist() == [4, 4, 4, 4]
    assert set(table.read(0, 1)) == {"x"}
