"""Chest CT from end to end: labels -> CLIP -> ct_rate and rad_chestct, on the phantom world and on official layouts."""

import functools
import json
from importlib import import_module

import numpy as np
import pytest

from data_prep import build
from lgdea_jax import cli, report
from lgdea_jax.data.dataset import load_metadata
from lgdea_jax.errors import UserError
from lgdea_jax.eval import ct_rate, rad_chestct
from lgdea_jax.findings.label_sets import LABEL_SETS
from lgdea_jax.inference import predictor
from lgdea_jax.runtime.checkpoint import Checkpoints
from lgdea_jax.runtime.log import read_rows
from tests.training import runs

CONFIG = "tests/training/tiny_ct.py"
ALWAYS = ("--bootstrap=10", "--overlays=2")
load_predictor = functools.cache(predictor.load_predictor)


@pytest.fixture(scope="module")
def supervised(phantom_ct_data, compile_cache, tmp_path_factory):
    folder = tmp_path_factory.mktemp("supervised")
    assert runs.here(folder, phantom_ct_data, "data.labels=silver", "total_steps=2", "eval.metric=classifier/auroc",
                     config=f"{CONFIG}:supervised", cache=compile_cache) == cli.OK
    return folder


@pytest.fixture(scope="module")
def run(supervised, phantom_ct_data, compile_cache, tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    # Without a step of its own the image tower would still be the supervised one.
    assert runs.here(folder, phantom_ct_data, f"init_from={supervised}", "init_parts=image_tower", "total_steps=2",
                     "optim.rates=('^image_tower/=0',)", "eval.every=0", config=f"{CONFIG}:clip",
                     cache=compile_cache) == cli.OK
    return folder


@pytest.fixture(autouse=True)
def one_model(monkeypatch):
    """The checkpoint is read and compiled once."""
    monkeypatch.setattr("lgdea_jax.eval.harness.inputs.load_predictor", load_predictor)


def evaluate(module, run, data, out, *flags):
    status = module.main([f"--checkpoint={run}", f"--data_dir={data}", f"--out={out}", *ALWAYS, *flags])
    content = json.loads((out / "results.json").read_text())
    return status, content, {result["mode"]: result["metrics"] for result in content["results"]}


def test_the_image_tower_is_the_supervised_one(supervised, run):
    (scores,) = read_rows(supervised / "evals.jsonl")
    assert 0 <= scores["classifier/auroc"] <= 1
    assert Checkpoints(supervised, writable=False).spec(2)["label_names"][0] == "Medical Material"
    one, other = runs.state(supervised, 2), runs.state(run, 2)
    towers = [name for name in one if name.startswith("params") and "image_tower" in name
              and not name.endswith(("/mean", "/var"))]
    assert len(towers) > 5
    for name in towers:
        np.testing.assert_array_equal(one[name], other[name])
    assert any("text_tower" in name for name in other) and not any("classifier" in name for name in other)


def test_phantom_world_to_page(run, phantom_ct_data, tmp_path, capsys):
    status, content, modes = evaluate(ct_rate, run, phantom_ct_data, tmp_path / "out")
    assert status == cli.OK and set(modes) == {"official", "clean"}
    for mode, metrics in modes.items():
        for name in ("zero_shot/auroc", "zero_shot/auroc@16", "retrieval/jaccard@5",
                     "retrieval/recall@5/text_to_image"):
            assert metrics[name]["value"] is not None and metrics[name]["n"] > 0, (mode, name)
    official, clean = modes["official"], modes["clean"]
    assert {"operating_point/f1_weighted", "operating_point/accuracy@16", "operating_point/precision"} <= set(official)
    assert "operating_point/accuracy" not in clean and "retrieval/map@5" in clean and "zero_shot/f1" in clean
    # The query finds itself.
    assert official["retrieval/jaccard@1"]["value"] > clean["retrieval/jaccard@1"]["value"]
    assert content["transform"] == "phantom_ct@1+window@1:16x32x32:-1000:1000"
    assert content["leakage"]["checked"] and len(list((tmp_path / "out/overlays").glob("*.png"))) == 2
    assert "printed as MAP@K" in capsys.readouterr().out
    assert report.main([str(tmp_path / "out"), f"--html={tmp_path / 'page.html'}"]) == cli.OK
    page = (tmp_path / "page.html").read_text()
    assert "0.537" in page and "slice" in page  # The published value of the same mode and metric.
    status, _, modes = evaluate(rad_chestct, run, phantom_ct_data, tmp_path / "rad", "--mode=official")
    assert "zero_shot/auroc/Arterial Wall Calcification" in modes["official"]
    assert not any(name.startswith("retrieval") for name in modes["official"])


@pytest.mark.slow
@pytest.mark.parametrize("module, name, studies", [(ct_rate, "ct_rate", 24), (rad_chestct, "rad_chestct", 24)])
def test_official_layout_to_numbers(module, name, studies, run, tmp_path):
    (tmp_path / name).mkdir()
    import_module(f"tests.fixtures.{name}").write(tmp_path / name, studies=studies, seed=0)
    config = cli.read_config(f"configs/data/{name}.py")
    config[name].path, config.volume.geometry = str(tmp_path / name), "phantom_ct"
    config.workers, config.tokenizer.vocab_size = 1, 400
    build.build(config, tmp_path / "data", progress=False)
    _, content, modes = evaluate(module, run, tmp_path / "data", tmp_path / "out")
    assert content["benchmark"] == name and set(modes) == {"official", "clean"}
    known = [key.rsplit("/", 1)[1] for key in modes["official"] if key.startswith("zero_shot/auroc/")]
    allowed = LABEL_SETS["ct_rate18"] if name == "ct_rate" else rad_chestct.STANDARD["findings"]
    info = {result["mode"]: result["info"] for result in content["results"]}
    assert info["official"]["protocol"]["name"] == "ct_clip"
    if name == "rad_chestct":  # Everything that could be read, against the test split.
        total = sum(count["images"] for count in load_metadata(tmp_path / "data").counts.values())
        assert info["official"]["selection"] == f"all splits: {total} records"
        assert info["clean"]["selection"].startswith("the split test: ")
        assert len(info["official"]["protocol"]["differs"]) == 1  # Whose table of labels it is.
        assert {"Medical Material", "Arterial Wall Calcification"} & set(known)
        clean = {key.rsplit("/", 1)[1] for key in modes["clean"] if key.startswith("zero_shot/auroc/")}
        assert clean <= set(rad_chestct.FINDINGS)
    assert known and set(known) <= set(allowed)
    assert modes["official"]["zero_shot/auroc"]["value"] is not None
    if name == "ct_rate":
        assert modes["official"]["retrieval/recall@5/text_to_image"]["n"] > 0


def test_another_view_of_the_volumes_is_refused(run, phantom_ct_data, phantom_data, tmp_path):
    with pytest.raises(UserError, match="trained with the transform"):
        evaluate(ct_rate, run, phantom_data, tmp_path)  # Found first: nothing of it would be comparable.


def test_supervised_run_is_scored_by_its_classifier_and_not_by_prompts(supervised, phantom_ct_data, tmp_path):
    _, _, modes = evaluate(ct_rate, supervised, phantom_ct_data, tmp_path)
    assert {key.split("/")[0] for metrics in modes.values() for key in metrics} == {"classifier"}


def test_rad_chestct_refuses_a_probe_before_anything_is_read(capsys):
    with pytest.raises(UserError, match=r"--probe is refused by rad_chestct: .*eval\.records --probe"):
        rad_chestct.main(["--checkpoint=none", "--data_dir=none", "--out=none", "--probe=1"])
    with pytest.raises(SystemExit):
        rad_chestct.main(["--help"])
    assert "refused here" in capsys.readouterr().out
