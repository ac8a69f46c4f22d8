"""Metrics of a part of the images are those of that part alone."""

import dataclasses

import numpy as np
import pytest

from lgdea_jax.eval.harness import subgroups
from lgdea_jax.evaluators.data import EvalData
from lgdea_jax.evaluators.encoder import Encoder
from lgdea_jax.evaluators.grounding import Grounding
from lgdea_jax.evaluators.retrieval import Retrieval
from lgdea_jax.evaluators.zero_shot import ZeroShot
from tests.evaluators.test_evaluators import METADATA
from tests.evaluators.world import SIZE, Oracle, world


def _records():
    rows = world(80)
    return [dataclasses.replace(r, subject_id=f"s{i}", sex="FM"[i % 2] if i % 10 else "", view=("PA", "AP")[i % 4 == 0],
                                age=float(15 + i) if i != 7 else float("nan")) for i, r in enumerate(rows)]


def test_groups():
    data = EvalData.from_records(_records(), METADATA, SIZE)
    found = subgroups.groups(data)
    assert {name: len(rows) for name, rows in found["sex"].items()} == {"F": 32, "M": 40}
    assert {name: len(rows) for name, rows in found["age"].items()} == {
        "0-19": 5, "20-39": 19, "40-59": 20, "60-79": 20, "80+": 15}
    assert {name: len(rows) for name, rows in found["view"].items()} == {"AP": 20, "PA": 60}


def test_a_group_has_the_metrics_of_its_records_alone():
    records = _records()
    data = EvalData.from_records(records, METADATA, SIZE)
    encoder = Encoder(Oracle(), data)
    samples = [ZeroShot(data).run(encoder), Grounding(data).run(encoder), Retrieval(data).run(encoder)]
    found = subgroups.measure(samples, data, resamples=10, seed=0)
    alone = EvalData.from_records([r for r in records if r.sex == "M"], METADATA, SIZE)
    group = found["sex"]["M"]
    assert (group["images"], group["n_subjects"]) == (40, 40)
    for name, value in {**ZeroShot(alone).run(Oracle()).metrics(), **Grounding(alone).run(Oracle()).metrics()}.items():
        if name in subgroups.HEADLINE:
            assert group["metrics"][name]["value"] == pytest.approx(value, abs=1e-6), name
    assert group["metrics"]["zero_shot/auroc"]["n"] == 40
    recall = group["metrics"]["retrieval/recall@10/image_to_text"]
    assert recall["n"] == 40 and recall["low"] <= recall["value"] <= recall["high"]


def test_small_groups_and_single_groups_have_no_numbers():
    records = _records()
    data = EvalData.from_records(records, METADATA, SIZE)
    found = subgroups.measure([ZeroShot(data).run(Oracle())], data, resamples=0, seed=0)
    assert found["age"]["0-19"] == {"images": 5, "n_subjects": 5, "metrics": {}}
    assert found["age"]["20-39"]["metrics"]["zero_shot/auroc"]["low"] is None
    one_view = dataclasses.replace(data, views=np.full(80, "PA"))
    assert "view" not in subgroups.measure([], one_view, resamples=0, seed=0)
