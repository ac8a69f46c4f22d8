"""Labels that were derived from reports: every source can have them, and an evaluation by them says so."""

import json
from pathlib import Path

import numpy as np
import pytest

from configs.data.table import get_config
from data_prep.build import build
from lgdea_jax import cli
from lgdea_jax.data.dataset import load_metadata
from lgdea_jax.data.source import open_records
from lgdea_jax.eval import records
from lgdea_jax.evaluators.data import EvalData
from lgdea_jax.findings.label_sets import LABEL_SETS, label_columns, own_label_set
from lgdea_jax.pages import results, runs
from lgdea_jax.records import MISSING, NEGATIVE, POSITIVE
from tests.data_prep.shards import tables
from tests.data_prep.sources import releases
from tests.eval.stand_ins import Model

EFFUSION = "FINDINGS: Small left pleural effusion. No pneumothorax."
CLEAR = "FINDINGS: The lungs are clear. No pleural effusion."


def config(folder, **changes):
    out = get_config()
    out.workers, out.derived_labels, out.table.path = 1, ("silver",), str(folder)
    out.tokenizer.vocab_size = 300
    out.update(changes)
    return out


@pytest.fixture(scope="module")
def silver_only(tmp_path_factory):
    """A table of reports and images without a label column."""
    folder = tmp_path_factory.mktemp("silver")
    tables.write(folder, [
        {key: value for key, value in tables.row(
            f"s{i}", split="test", image=tables.image(folder, f"{i}.png", (64, 64), seed=i),
            report=EFFUSION if i % 2 else CLEAR).items() if not key.startswith("label:")} for i in range(12)])
    build(config(folder), folder / "data")
    return folder / "data"


@pytest.fixture
def model(monkeypatch):
    stand_in = Model()
    monkeypatch.setattr("lgdea_jax.eval.harness.inputs.load_predictor", lambda checkpoint, step: stand_in)


def evaluate(data, out, *flags):
    status = records.main(["--checkpoint=RUN", f"--data_dir={data}", f"--out={out}", "--bootstrap=5", "--overlays=0",
                           "--tasks=zero_shot", *flags])
    assert status == cli.OK
    return json.loads((out / "results.json").read_text())


def test_a_table_without_labels_has_those_of_chexpert(silver_only):
    names = load_metadata(silver_only).label_names
    assert names == tuple(f"silver:{name}" for name in LABEL_SETS["chexpert14"])
    for number, record in enumerate(open_records(silver_only, "test")):
        values = dict(zip(names, record.labels.tolist(), strict=True))
        assert values["silver:Pleural Effusion"] == (POSITIVE if number % 2 else NEGATIVE)
        assert values["silver:Pneumothorax"] == NEGATIVE  # Denied, or not mentioned.
        assert MISSING not in values.values()


def test_an_evaluation_without_a_reference_says_that_it_goes_by_silver_labels(silver_only, model, tmp_path, capsys):
    content = evaluate(silver_only, tmp_path / "out")
    assert content["labels"] == "silver"
    assert "zero_shot/auroc/Pleural Effusion" in content["results"][0]["metrics"]
    line = "labels: silver, which the extractor found in the reports"
    assert line in capsys.readouterr().out
    assert line in results.page([runs.load_run(tmp_path / "out")], [])


@pytest.mark.parametrize("name", ["openi", "mimic_cxr"])
def test_releases_can_have_silver_labels(name, tmp_path):
    wanted = releases.config(name, releases.written(name, tmp_path / "in"))
    wanted.derived_labels = ("silver",)
    build(wanted, tmp_path / "data")
    names = load_metadata(tmp_path / "data").label_names
    own, silver = list(label_columns(names)), [n for n in names if n.startswith("silver:")]
    assert own and silver == [f"silver:{n}" for n in own]
    start = names.index(silver[0])
    for record in open_records(tmp_path / "data", "train"):
        assert (record.labels[start:] == MISSING).all() != record.has_report


def test_every_data_config_has_the_key():
    files = [path for path in Path("configs/data").glob("*.py") if path.stem not in ("__init__", "common", "llm")]
    assert len(files) > 15
    assert [path.stem for path in files if "derived_labels" not in cli.read_config(str(path))] == []


def test_a_reference_goes_first_and_silver_is_asked_for(model, tmp_path, capsys):
    folder = tmp_path / "t"
    folder.mkdir()
    # The reference says the contrary of the reports.
    tables.write(folder, [tables.row(f"s{i}", split="test", image=tables.image(folder, f"{i}.png", (64, 64), seed=i),
                                     report=EFFUSION if i % 2 else CLEAR, effusion=str(1 - i % 2)) for i in range(12)])
    build(config(folder), tmp_path / "data")
    assert load_metadata(tmp_path / "data").label_names == (
        "Nodule", "Pleural Effusion", "silver:Nodule", "silver:Pleural Effusion")
    own = evaluate(tmp_path / "data", tmp_path / "own")
    assert own["labels"] == "reference" and "silver" not in capsys.readouterr().out
    silver = evaluate(tmp_path / "data", tmp_path / "silver", "--labels=silver")
    assert silver["labels"] == "silver"
    of = "zero_shot/auroc/Pleural Effusion"
    one, two = (content["results"][0]["metrics"][of]["value"] for content in (own, silver))
    assert one == pytest.approx(1 - two, abs=1e-6)


def test_which_set_an_evaluation_goes_by():
    assert own_label_set(()) == own_label_set(("Nodule", "silver:Nodule")) == "reference"
    assert own_label_set(("weak:Nodule", "silver:Nodule")) == "silver" and own_label_set(("weak:Mass",)) == "weak"


def test_labels_of_reports_follow_the_set(silver_only):
    data = EvalData.from_records(open_records(silver_only, "test"), load_metadata(silver_only), 64)
    assert data.label_set == "silver" and data.label_names == LABEL_SETS["chexpert14"] and data.label_note
    column = data.label_names.index("Pleural Effusion")
    np.testing.assert_array_equal(data.labels[:, column], [0, 1] * 6)
    np.testing.assert_array_equal(data.report_labels[:, column], [0, 1] * 6)
