"""What a training starts from: published weights, from `transformers` and back, and towers of earlier runs."""

import json

import numpy as np
import pytest
import torch
import transformers

from lgdea_jax import cli, export
from lgdea_jax.errors import UserError
from lgdea_jax.experiment import Experiment
from lgdea_jax.inference.predictor import load_predictor, restore
from lgdea_jax.preprocess.text import TextTokenizer
from lgdea_jax.runtime import sharding
from lgdea_jax.training.data import prepare_data
from lgdea_jax.training.start import share_out
from tests.models import published
from tests.training import runs

VIT = ("model.image.vit.family=dinov2", "model.image.vit.pool=cls", "model.image.vit.sizes.mlp_dim=32",
       "model.image.vit.variant=XS/4", "model.image.vit.sizes.depth=2", "model.image.vit.sizes.heads=4")
BERT = ("model.text.bert.family=bert", "model.text.bert.sizes.depth=2", "model.text.bert.sizes.heads=4",
        "model.text.bert.sizes.mlp_dim=24")
SHORT = ("method=clip", "total_steps=1", "checkpoint.every=1", "eval.split=none", "optim.rate=0.0", "optim.ema=0.9")
CONFIG = "tests/training/tiny_ct.py"
STAGE = ("total_steps=2", "checkpoint.every=2", "data.labels=silver", "eval.records=24")


@pytest.fixture(scope="module")
def weights(phantom_data, tmp_path_factory):
    """Directories of a DINOv2 at 16 px and a BERT with the data set's tokeniser."""
    folder = tmp_path_factory.mktemp("weights")
    tokenizer = TextTokenizer.load(phantom_data)
    published.dinov2().save_pretrained(folder / "image")
    published.bert(vocab_size=tokenizer.vocab_size, max_position_embeddings=64).save_pretrained(folder / "text")
    published.bert().save_pretrained(folder / "other")
    (folder / "image" / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.53], "image_std": [0.26]}))
    return folder


def test_from_published_weights_and_back(weights, phantom_data, compile_cache, tmp_path, capsys):
    flags = (*SHORT, *VIT, *BERT, f"model.image.weights={weights}/image", f"model.text.weights={weights}/text")
    assert runs.here(tmp_path / "run", phantom_data, *flags, cache=compile_cache) == 0
    text = capsys.readouterr().err
    assert "image tower: " in text and "grey stem: the sum over the three channels" in text
    assert "positions from 4 x 4 to 8 x 8" in text and "made for images of mean [0.53]" in text
    assert "parameters (image tower and text tower as above, the rest fresh, seed 0)" in text

    # The rate is 0, so that what comes out must be what went in.
    out = tmp_path / "out"
    assert export.main([f"--checkpoint={tmp_path}/run", f"--out={out}"]) == cli.OK
    ids = torch.randint(5, 100, (2, 9))
    with torch.no_grad():
        one, other = (transformers.AutoModel.from_pretrained(folder, **options).eval()(ids).last_hidden_state
                      for folder, options in ((out / "text", {"add_pooling_layer": False}), (weights / "text", {})))
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
        grey = torch.randn(2, 1, 32, 32)
        # At 32 px the file's own model interpolates positions itself.
        one = transformers.AutoModel.from_pretrained(out / "image").eval()(grey).last_hidden_state
        other = transformers.AutoModel.from_pretrained(weights / "image").eval()(grey.repeat(1, 3, 1, 1))
        torch.testing.assert_close(one, other.last_hidden_state, atol=1e-5, rtol=1e-5)
    run = restore(tmp_path / "run")
    ours = transformers.AutoTokenizer.from_pretrained(out / "text")
    rows = ours(["Small left effusion."], padding="max_length", max_length=12)["input_ids"]
    np.testing.assert_array_equal(rows, run.tokenizer.encode(["Small left effusion."], 12))
    assert json.loads((out / "image" / "lgdea_jax.json").read_text())["size"] == 32
    with pytest.raises(UserError, match="no model with torchvision names has this tower"):
        export.export(run, tmp_path / "no", towers=("image",), names="torchvision")


@pytest.mark.parametrize("flags, message", [
    (("model.text.weights={weights}/other", *BERT), "word table has 40 rows, the tokeniser"),
    (("model.image.weights=nowhere",), "model.image.weights: no weights at nowhere"),
    (("model.image.weights={weights}/image", "init_from=RUN"), "both fill the image tower"),
    (("model.text.weights={weights}/text", "method=supervised"), "the method supervised has no text tower")])
def test_weights_that_do_not_fit_are_refused(flags, message, weights, phantom_data, compile_cache, tmp_path):
    with pytest.raises(UserError, match=message):
        runs.here(tmp_path, phantom_data, *SHORT, *(flag.format(weights=weights) for flag in flags),
                  cache=compile_cache)


def test_towers_of_our_own_are_exported_with_our_names(phantom_data, compile_cache, tmp_path):
    assert runs.here(tmp_path / "run", phantom_data, *SHORT, "method=supervised", cache=compile_cache) == 0
    lines = export.export(restore(tmp_path / "run"), tmp_path / "out")
    assert len(lines) == 1 and "our own names" in lines[0] and "family=plain" in lines[0]
    config = json.loads((tmp_path / "out" / "image" / "config.json").read_text())
    assert config["model_type"] == "lgdea_jax" and config["tower"] == "vit" and config["family"] == "plain"


@pytest.fixture(scope="module")
def stages(phantom_ct_data, compile_cache, tmp_path_factory):
    """Folders of the runs of the image tower and of the text tower."""
    folder = tmp_path_factory.mktemp("stages")
    for method in ("supervised", "supervised_text"):
        assert runs.here(folder / method, phantom_ct_data, *STAGE, "eval.metric=classifier/auroc",
                         config=f"{CONFIG}:{method}", cache=compile_cache) == cli.OK
    return folder / "supervised", folder / "supervised_text"


def test_both_towers_come_from_their_runs(stages, phantom_ct_data, compile_cache, tmp_path, capsys):
    flags = (f"init_from={stages[0]},{stages[1]}", "init_parts=image_tower,text_tower", "eval.split=none",
             "optim.rates=('^image_tower/=0','^text_tower/=0')")
    assert runs.here(tmp_path, phantom_ct_data, *STAGE, *flags, config=f"{CONFIG}:clip_supervised",
                     cache=compile_cache) == cli.OK
    assert f"from {stages[0]} and {stages[1]}, the rest fresh" in capsys.readouterr().err
    state = runs.state(tmp_path, 2)
    for tower, source in zip(("image_tower", "text_tower"), (runs.state(run, 2) for run in stages)):
        names = [name for name in state if name.startswith(f"params/{tower}/") and not name.endswith(("mean", "var"))]
        assert len(names) > 5
        for name in names:
            assert state[name].tobytes() == source[name].tobytes(), name
    # One classifier for both sides, of the latents: 16 channels, not a tower's.
    assert state["params/classifier/kernel"].shape[0] == 16 and "params/text_classifier/kernel" not in state
    (row,) = [row for row in runs.rows(tmp_path) if row["step"] == 2]
    assert {"loss/contrastive", "loss/image_labels", "loss/text_labels", "batch/known_labels"} <= set(row)
    predict = load_predictor(tmp_path)
    texts = predict.texts(["Nodule.", "No nodule."], [("Nodule.",), ("No nodule.",)])
    assert texts["logits"].shape[1] == state["params/classifier/kernel"].shape[1]
    # Plain dot products, without norms and temperature.
    assert not np.allclose(np.linalg.norm(texts["embedding"], axis=1), 1.0) and predict.logit_scale == 1.0


def test_a_text_tower_reads_reports_only(stages, phantom_ct_data):
    (scores,) = runs.rows(stages[1], "evals.jsonl")
    assert 0 <= scores["classifier/auroc"] <= 1
    predict = load_predictor(stages[1])
    assert predict.reads_text and not predict.reads_images
    with pytest.raises(UserError, match="supervised_text has no image tower: it cannot read images"):
        predict.images(np.zeros((1, 16, 32, 32, 1), np.float32))
    config = cli.read_config(f"{CONFIG}:supervised_text")
    config.data.dir = str(phantom_ct_data)
    data = prepare_data(Experiment.of(config), sharding.make_mesh(**config.mesh), show=False)
    assert {"tokens", "labels"} <= set(data.batches[0]["pairs"])
    assert not {"image", "volume", "image_index"} & set(data.batches[0]["pairs"])
    assert data.batches[0]["pairs"]["labels"].shape[0] == 4


def test_runs_that_leave_open_what_to_take(stages, phantom_ct_data, tmp_path):
    both = f"init_from={stages[0]},{stages[1]}"
    for flags, message in (((both,), "have the module classifier: name the modules to take"),
                           ((f"init_from={stages[0]},{stages[0]}x", "init_parts=image_tower"), "no checkpoints in"),
                           ((both, "init_parts=image_tower,text_twr"), "the model has no 'text_twr'")):
        with pytest.raises(UserError, match=message):
            runs.here(tmp_path, phantom_ct_data, *STAGE, *flags, config=f"{CONFIG}:clip_supervised")


def test_each_module_comes_from_the_only_run_that_has_it():
    runs_ = {"a": {"image_tower", "classifier"}, "b": {"text_tower", "classifier"}, "c": set()}
    assert share_out(["text_tower", "image_tower"], runs_) == {"b": ["text_tower"], "a": ["image_tower"]}
    assert share_out(["prototypes"], {"a": set()}) == {"a": ["prototypes"]}  # Which is then missed by its name.
    with pytest.raises(UserError, match="a and b have the module classifier"):
        share_out(["classifier"], runs_)
    with pytest.raises(UserError, match="none of a, b, c has the module prototypes"):
        share_out(["prototypes"], runs_)
