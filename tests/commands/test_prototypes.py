"""What prototypes stand for: shares, findings, phrases and nearest patches against counting by hand."""

import json
import types

import numpy as np
import pytest

from lgdea_jax import cli
from lgdea_jax import prototypes as command
from lgdea_jax.data.dataset import load_metadata
from lgdea_jax.data.source import open_records
from lgdea_jax.errors import UserError
from lgdea_jax.inference import prototypes
from lgdea_jax.inference.prototypes import Near, Phrases
from lgdea_jax.records import Box
from tests.inference.test_predictor import make


def test_shares_findings_and_phrases():
    phrases = Phrases(("a", "b", "c", "d"), np.array([1, 3, 2, 4]), ("Nodule", "Nodule", "Edema", "Mass"))
    assigned = np.array([[1.0, 0.0, 0.0], [0.999, 0.001, 0.0], [0.0, 1.0, 0.0], [0.5, 0.5, 0.0]])
    near = Near(np.zeros((3, 2), np.float32), np.tile([7, 9], (3, 1)), np.tile([0, 3], (3, 1)))
    cells = {7: {"Nodule": np.array([True, False, False, False])}, 9: {"Edema": np.array([False] * 3 + [True])}, 8: {}}
    table = prototypes.describe(assigned, phrases, near, cells)
    assert [row["prototype"] for row in table] == [0, 1, 2]
    np.testing.assert_allclose([row["share"] for row in table], [(1 + 2.997 + 2) / 10, (0.003 + 2 + 2) / 10, 0])
    assert [item["finding"] for item in table[0]["findings"]] == ["Nodule", "Mass"]
    assert table[0]["findings"][0]["share"] == pytest.approx(3.997 / 5.997)
    # As good as sure are a and b: the commoner one comes first.
    assert [item["phrase"] for item in table[0]["phrases"]][:3] == ["b", "a", "d"]
    assert table[0]["patches"] == {"images": 2, "in_a_box": 1, "by_chance": pytest.approx(0.25 / 3)}
    # Edema and Mass tie on the second: the first by the alphabet, in a box of which the second image's patch lies.
    assert table[1]["findings"][0]["finding"] == "Edema" and table[1]["patches"]["in_a_box"] == 1
    assert table[2]["findings"] == [] and table[2]["patches"]["in_a_box"] is None


def test_patches_in_boxes():
    boxes = [Box("Nodule", "", 0, 0, 16, 8), Box("Nodule", "", 24, 24, 8, 8), Box("Mass", "", 0, 0, 3.9, 32)]
    cells = prototypes.covered(boxes, (4, 4), 32, 0.0)
    assert np.flatnonzero(cells["Nodule"]).tolist() == [0, 1, 15] and not cells["Mass"].any()
    assert np.flatnonzero(prototypes.covered(boxes, (4, 4), 32, -0.5)["Mass"]).tolist() == [0, 4, 8, 12]


def test_nearest_keeps_one_image_a_subject():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(3, 40)).astype(np.float32)
    subjects = {image: f"s{image // 2}" for image in range(40)}
    have = Near(np.zeros((3, 0), np.float32), np.zeros((3, 0), np.int64), np.zeros((3, 0), np.int64))
    for start in range(0, 40, 8):
        images = np.tile(np.arange(start, start + 8), (3, 1))
        have = prototypes.nearest(have, Near(scores[:, start:start + 8], images, images + 100), subjects, limit=5)
    best = np.sort(scores.reshape(3, 20, 2).max(2), axis=1)[:, ::-1][:, :5]
    np.testing.assert_array_equal(have.scores, best)
    np.testing.assert_array_equal(np.take_along_axis(scores, have.images, axis=1), best)
    np.testing.assert_array_equal(have.patches, have.images + 100)


def test_the_command(phantom_data, tmp_path, monkeypatch):
    from lgdea_jax.inference import predictor

    predict = make(phantom_data, "lgdea")
    predict.spec["step"] = 5
    monkeypatch.setattr(predictor, "load_predictor", lambda *args, **options: predict)
    out = tmp_path / "out"
    flags = ["--checkpoint=RUN", f"--data_dir={phantom_data}", f"--out={out}"]
    assert command.main([*flags, "--split=test"]) == cli.OK
    content = prototypes.load(out)
    source = open_records(phantom_data, "test")
    stated = [item for record in source for item in record.evidence if item.certainty != "absent"]
    assert content["phrases"] == len(stated) and content["records"] == len(source) and content["terms"] == ["open"]
    table = content["prototypes"]
    assert len(table) == 8 and sum(row["share"] for row in table) == pytest.approx(1.0, abs=1e-5)
    assert 1 <= content["effective_number"] <= 8 and load_metadata(phantom_data).name == content["data"]
    assert all((out / "patches" / row["file"]).is_file() for row in table if row["share"] >= prototypes.LEAST_SHARE)
    # The assignment is the method's own, and patches are measured against the run's own vectors.
    mu = prototypes.prototype_vectors(predict)
    text = table[0]["phrases"][0]["phrase"]
    assert table[0]["phrases"][0]["p"] == pytest.approx(float(
        prototypes.assignments(predict, [text], len(mu))[0, table[0]["prototype"]]), abs=1e-5)
    assert command.main([*flags, "--split=test", "--records=3"]) == cli.OK
    assert json.loads((out / "prototypes.json").read_text())["records"] == 3


def test_wrong_use(phantom_data, tmp_path):
    with pytest.raises(UserError, match="the method clip has no prototypes"):
        prototypes.prototype_vectors(types.SimpleNamespace(
            params={}, config=types.SimpleNamespace(method="clip")))
    with pytest.raises(UserError, match=r"no prototypes\.json"):
        prototypes.load(tmp_path)
    with pytest.raises(UserError, match="did you mean '--split'"):
        command.main(["--checkpoint=x", f"--data_dir={phantom_data}", f"--out={tmp_path}", "--splits=test"])
