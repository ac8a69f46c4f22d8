"""Labels by a text classifier: those of the model, report by report, in files that the build and the score take."""

import csv

import numpy as np
import pytest

from data_prep.shards.silver_file import read_labels
from lgdea_jax import cli, label
from lgdea_jax.data.dataset import load_metadata
from lgdea_jax.data.source import open_records
from lgdea_jax.errors import UserError
from lgdea_jax.inference.model import load
from tests.inference.test_model_folder import run  # noqa: F401 (a fixture)
from tests.training import runs


@pytest.fixture(scope="module")
def reader(phantom_data, compile_cache, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reader")
    assert runs.here(folder, phantom_data, "total_steps=2", "eval.metric=classifier/auroc", "checkpoint.every=2",
                     config="tests/training/tiny.py:supervised_text", cache=compile_cache) == cli.OK
    return folder


def table(path):
    with open(path, newline="") as file:
        return list(csv.reader(file))


def test_labels_and_probabilities_are_the_models(reader, phantom_data, tmp_path, capsys):
    words = [f"--checkpoint={reader}", f"--data_dir={phantom_data}", "--split=test", "--batch_size=3"]
    assert label.main([*words, f"--out={tmp_path / 'labels.csv'}"]) == cli.OK
    assert label.main([*words, f"--out={tmp_path / 'scores.csv'}", "--probability"]) == cli.OK
    names = load_metadata(phantom_data).label_names
    reports = {record.study_id: record for record in open_records(phantom_data, "test") if record.has_report}
    head, *rows = table(tmp_path / "scores.csv")
    assert head == ["uid", *names] and [row[0] for row in rows] == list(reports)
    model = load(reader).predictor
    for row in rows[:4]:  # One report at a time.
        record = reports[row[0]]
        logits = model.texts([record.report], [tuple(item.phrase for item in record.evidence
                                                     if item.certainty != "absent")])["logits"][0]
        np.testing.assert_allclose([float(cell) for cell in row[1:]], 1 / (1 + np.exp(-logits)), atol=2e-6)
    found = read_labels(tmp_path / "labels.csv", names)
    assert found == {row[0]: {name: int(float(cell) > 0.5) for name, cell in zip(names, row[1:])} for row in rows}
    assert f"{len(reports)} reports labelled" in capsys.readouterr().out


def test_refusals(reader, run, phantom_data, tmp_path):  # noqa: F811
    words = [f"--data_dir={phantom_data}", f"--out={tmp_path / 'labels.csv'}"]
    with pytest.raises(UserError, match=r"no classifier of reports.*supervised_text"):
        label.main([f"--checkpoint={run}", *words])
    with pytest.raises(UserError, match="split"):
        label.main([f"--checkpoint={reader}", *words, "--split=tset"])
    assert not (tmp_path / "labels.csv").exists()
