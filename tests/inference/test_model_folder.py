"""A model as a folder: equal scores, nothing of its training, clear refusals."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

import lgdea_jax
from lgdea_jax import export
from lgdea_jax.errors import UserError
from lgdea_jax.inference import loading, model_folder
from lgdea_jax.runtime.checkpoint import Checkpoints
from tests.inference.test_predictor import IMAGES, make
from tests.training.runs import ROOT, environment

PROMPTS = ["Nodule", "clear lungs"]
SOURCES = [{"source": "a hospital", "licence": "none", "terms": "credentialed"}]


@pytest.fixture(scope="module")
def run(phantom_data, tmp_path_factory):
    """A run's directory with a checkpoint of an untrained model, whose config names places on this disk."""
    folder = tmp_path_factory.mktemp("somewhere") / "run"
    predictor = make(phantom_data, "lgdea")
    config = json.loads(predictor.config.to_json_best_effort())
    config["data"]["dir"] = config["init_from"] = config["model"]["text"]["weights"] = str(folder)
    config["data"]["pairs_from"] = [f"{folder}:0.5"]
    spec = {**predictor.spec, "config": config, "tokenizer": predictor.tokenizer.serialised, "sources": SOURCES,
            "label_names": ["Nodule", "Mass", "Odd"], "data": {"names": ["own"], "items": {}, "digest": "0"}}
    store = Checkpoints(folder)
    store.save({"params": predictor.params, "ema": {}, "step": np.int32(1), "opt": {"moment": np.ones(9)}}, spec)
    store.close()
    return folder


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported") / "model"
    (run / "MODEL_CARD.md").write_text("# Model card")
    assert export.main([f"--checkpoint={run}", f"--out={out}", "--format=lgdea"]) == 0
    return out


def test_scores_and_heatmaps_are_equal(run, exported):
    ours, theirs = lgdea_jax.load(run), lgdea_jax.load(exported)
    np.testing.assert_allclose(theirs.scores(list(IMAGES), PROMPTS), ours.scores(list(IMAGES), PROMPTS), atol=1e-6)
    np.testing.assert_allclose(theirs.heatmaps(IMAGES[0], PROMPTS)[0], ours.heatmaps(IMAGES[0], PROMPTS)[0], atol=1e-6)
    assert theirs.findings == ours.findings and theirs.spec["step"] == 1
    assert loading.load_spec(exported)["transform"] == ours.spec["transform"]


def test_it_holds_the_model_and_nothing_of_its_training(run, exported):
    assert sorted(path.name for path in exported.iterdir()) == [
        "MODEL_CARD.md", "TERMS.md", "config.json", "model.safetensors", "tokenizer.json"]
    names = set(load_file(exported / "model.safetensors"))
    assert "prototypes/mu" in names and not [name for name in names if "moment" in name or "opt" in name]
    for path in exported.iterdir():
        assert str(run).encode() not in path.read_bytes() and str(run.parent).encode() not in path.read_bytes()
    assert "a hospital: licence none, terms credentialed" in (exported / "TERMS.md").read_text()
    (exported.parent / "new").write_text("")
    usual = (exported.parent / "new").stat().st_mode
    assert {path.stat().st_mode for path in exported.iterdir()} == {usual}  # A colleague can read what one can share.


@pytest.mark.slow
def test_a_load_says_nothing(run, exported):
    """Neither Orbax nor absl warns of what nobody can act on."""
    for folder in (run, exported):
        done = subprocess.run([sys.executable, "-c", f"import lgdea_jax; lgdea_jax.load({str(folder)!r})"], cwd=ROOT,
                              env=environment(), capture_output=True, text=True, timeout=300)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_refusals(run, exported, tmp_path):
    with pytest.raises(UserError, match="holds one step, 1: --step=7 needs the run"):
        lgdea_jax.load(exported, step=7)
    with pytest.raises(UserError, match="--tower and --names are for --format=towers"):
        export.main([f"--checkpoint={run}", f"--out={tmp_path}", "--format=lgdea", "--tower=image"])
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in exported.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    whole = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(whole[:-8])
    with pytest.raises(UserError, match=r"model\.safetensors is damaged: copy the model again"):
        lgdea_jax.load(copy)
    (copy / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(UserError, match="is no model of the format lgdea 1"):
        lgdea_jax.load(copy)


def test_the_places_are_keys_of_the_config():
    from lgdea_jax import cli

    config = cli.read_config("configs/common.py")
    for key in model_folder.PLACES:
        value = config
        for part in key.split("."):
            value = value[part]
        assert isinstance(value, (str, tuple))


@pytest.mark.parametrize("times", [15, pytest.param(200, marks=pytest.mark.slow)])
def test_a_damaged_model_is_never_used(exported, times, tmp_path):
    """Every flip and cut of its files is without effect, or one line that names the file."""
    folder, rng, refused = tmp_path / "model", np.random.default_rng(times), 0
    shutil.copytree(exported, folder)

    def read():
        return model_folder.read_spec(folder), {path: a.tobytes() for path, a in
                                                sorted(model_folder.read_params(folder).items())}

    expected = read()
    names = ("model.safetensors", "config.json", "tokenizer.json")
    for number in range(times):
        path = folder / names[number % 3]
        before = path.read_bytes()
        content, place = bytearray(before), int(rng.integers(len(before)))
        if rng.random() < 0.75:
            content[place] ^= 1 << int(rng.integers(8))
        else:
            del content[place:]
        path.write_bytes(content)
        try:
            assert read() == expected
        except UserError as error:
            refused += 1
            assert str(folder) in str(error) and "\n" not in str(error)
        path.write_bytes(before)
    print(f"\n{refused} of {times} refused, the others without effect")
    assert refused >= 0.8 * times
