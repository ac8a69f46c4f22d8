"""Fine-tuning from an exported model: what stays, what learns, and that every command takes the result."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

import lgdea_jax
from lgdea_jax import cli, export, predict
from lgdea_jax.arrays import flatten
from lgdea_jax.data.source import open_records
from lgdea_jax.errors import UserError
from lgdea_jax.eval import records
from lgdea_jax.inference import loading, model_folder
from lgdea_jax.io import decode_image
from lgdea_jax.training.optim import frozen_rules
from tests.inference.test_predictor import IMAGES, make
from tests.training import runs

SOURCE = {"source": "a hospital", "licence": "none", "terms": "credentialed"}
SHORT = ("total_steps=2", "eval.every=2", "checkpoint.every=2", "log.every=1", "log.tensorboard=False",
         "batch.pairs=8", "data.cache=True", "optim.warmup_steps=1")


def test_a_share_of_the_tower_is_frozen():
    blocks = {str(block): {"kernel": np.zeros(1)} for block in range(12)}
    params = {"image_tower": {"blocks": blocks, "stem": {"out": np.zeros(1)}, "cls": np.zeros(1), "norm": np.zeros(1)},
              "classifier": {"kernel": np.zeros(1)}}

    def frozen(share):
        import re

        rules = frozen_rules(params, share)
        return {path for path in flatten(params) if any(re.search(pattern, path) for pattern, _ in rules)}

    assert frozen(0.0) == set()
    assert frozen(1.0) == {path for path in flatten(params) if path.startswith("image_tower/")}
    three_quarters = {f"image_tower/blocks/{block}/kernel" for block in range(9)}
    assert frozen(0.75) == three_quarters | {"image_tower/stem/out", "image_tower/cls"}
    for share, tree, message in ((1.5, params, "a share from 0 to 1"), (1.0, {"text_tower": {}}, "no image tower")):
        with pytest.raises(UserError, match=message):
            frozen_rules(tree, share)


@pytest.fixture(scope="module")
def source(phantom_data, tmp_path_factory):
    """An exported model with a ResNet of three blocks with batch norm, untrained, with moments that are not fresh."""
    folder = tmp_path_factory.mktemp("source") / "model"
    predictor = make(phantom_data, "lgdea", imagenet=True)
    rng = np.random.default_rng(0)
    params = {path: np.abs(value) + rng.random(value.shape, np.float32) if path.endswith(("/mean", "/var")) else value
              for path, value in ((path, np.asarray(value)) for path, value in flatten(predictor.params).items())}
    model_folder.write(folder, params, {
        **predictor.spec, "config": json.loads(predictor.config.to_json_best_effort()), "step": 7,
        "tokenizer": predictor.tokenizer.serialised, "tokenizer_digest": predictor.tokenizer.digest,
        "label_names": [], "sources": [SOURCE], "data": {"names": ["x"], "items": {}, "digest": ""}})
    return folder, params


def tuned(how, source, data, folder, cache):
    assert runs.here(folder, data, *SHORT, f"init_from={source[0]}", config=f"configs/finetune.py:{how}",
                     cache=cache) == cli.OK
    return folder


@pytest.fixture(scope="module")
def linear(source, phantom_data, compile_cache, tmp_path_factory):
    return tuned("linear", source, phantom_data, tmp_path_factory.mktemp("linear") / "run", compile_cache)


@pytest.mark.slow
def test_a_linear_probe_leaves_the_tower_as_it_is(linear, source, compile_cache, phantom_data):
    state = runs.state(linear, 2)
    kept = {path: value for path, value in source[1].items() if path.startswith("image_tower/")}
    assert any(path.endswith("/mean") for path in kept) and len(kept) > 20
    for path, value in kept.items():
        np.testing.assert_array_equal(state[f"params/{path}"], value, err_msg=path)
    config = json.loads((linear / "config.json").read_text())
    assert config["model"]["image"]["name"] == "resnet" and config["model"]["image"]["resnet"]["sizes"]["width"] == 4
    assert config["image"]["size"] == 32
    spec = loading.load_spec(linear)
    assert SOURCE in spec["sources"] and len(spec["sources"]) == 2  # The terms of what it started from hold on.
    (scores,) = runs.rows(linear, "evals.jsonl")
    assert 0 <= scores["classifier/auroc"] <= 1 and loading.load_spec(linear, "best")["step"] == 2
    # The same command again has nothing to do, without the run that it started from as well.
    assert runs.here(linear, phantom_data, *SHORT, "init_from=", config="configs/finetune.py:linear",
                     cache=compile_cache) == cli.OK


@pytest.mark.slow
def test_the_last_quarter_learns(source, phantom_data, compile_cache, tmp_path):
    state = runs.state(tuned("partial", source, phantom_data, tmp_path, compile_cache), 2)
    changed = {path.split("/")[1] + ("/" + path.split("/")[2] if "blocks" in path else "")
               for path, value in source[1].items() if path.startswith("image_tower/")
               and not np.array_equal(state[f"params/{path}"], value)}
    assert changed == {"blocks/2"}


@pytest.mark.slow
def test_the_result_is_a_classifier_for_every_command(linear, phantom_data, tmp_path):
    model = lgdea_jax.load(linear)
    labels = loading.load_spec(linear)["label_names"]
    assert model.labels == tuple(labels) and len(labels) > 3
    out = model.predictor.images(IMAGES)
    asked = [labels[2], labels[0].lower()]
    np.testing.assert_allclose(model.scores(list(IMAGES), asked), out["logits"][:, [2, 0]], atol=1e-5)
    # The features are the mean of the patches, so that the mean of the map is the score without the bias.
    encoded = model.encode_prompts(asked)
    bias = model.predictor.classifier[1]
    grids = model.grids(model.patches(out)[0], encoded)
    np.testing.assert_allclose(grids.reshape(2, -1).mean(1), out["logits"][0, [2, 0]] - bias[[2, 0]], atol=1e-5)
    assert model.heatmaps(IMAGES[0], asked)[0].shape == (2, *IMAGES[0].shape)
    with pytest.raises(UserError, match="unknown label of this classifier 'clear lungs'"):
        model.scores(IMAGES[0], "clear lungs")

    record = next(iter(open_records(phantom_data, "test")))
    Image.fromarray(decode_image(record.image, record.image_format)).save(tmp_path / "a.png")
    assert predict.main([f"--checkpoint={linear}", str(tmp_path / "a.png"), f"--out={tmp_path / 'out'}",
                         "--heatmaps"]) == cli.OK
    with (tmp_path / "out/scores.csv").open() as file:
        (row,) = csv.DictReader(file)
    np.testing.assert_allclose([float(row[name]) for name in labels],
                               model.scores(str(tmp_path / "a.png"), labels)[0], rtol=1e-4, atol=1e-5)
    assert len(list((tmp_path / "out/heatmaps").glob("*.png"))) == len(labels)

    assert records.main([f"--checkpoint={linear}", f"--data_dir={phantom_data}", "--split=validation",
                         f"--out={tmp_path / 'eval'}", "--bootstrap=20"]) == cli.OK
    (result,) = [part for part in json.loads((tmp_path / "eval/results.json").read_text())["results"]
                 if part["mode"] == "clean"]
    (scores,) = runs.rows(linear, "evals.jsonl")
    assert result["metrics"]["classifier/auroc"]["value"] == pytest.approx(scores["classifier/auroc"], abs=1e-6)
    assert not any(name.startswith(("zero_shot", "retrieval")) for name in result["metrics"])

    exported = tmp_path / "exported"
    assert export.main([f"--checkpoint={linear}", f"--out={exported}", "--format=lgdea"]) == cli.OK
    np.testing.assert_allclose(lgdea_jax.load(exported).scores(list(IMAGES), asked),
                               model.scores(list(IMAGES), asked), atol=1e-6)


def test_images_without_reports_are_rows_of_the_batch(phantom_data):
    """A table with labels and no report: the rows of pairs are those of images, without a key."""
    from lgdea_jax.experiment import Experiment
    from lgdea_jax.runtime import sharding
    from lgdea_jax.training.data import batch_sizes

    mesh = sharding.make_mesh(data=1, fsdp=1)
    experiment = Experiment.of(cli.read_config("tests/training/tiny.py:supervised"))
    assert batch_sizes(experiment, mesh, {"pairs": 0, "images": 9, "reports": 0}) == {
        "pairs": 0, "images": 8, "reports": 0}
    assert batch_sizes(experiment, mesh, {"pairs": 5, "images": 9, "reports": 0}) == {
        "pairs": 8, "images": 16, "reports": 0}
