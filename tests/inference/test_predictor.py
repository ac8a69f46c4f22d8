"""The predictor: shapes, padding that nobody sees, checkpoints that need nothing else, one compilation."""

import types

import jax
import numpy as np
import pytest

from lgdea_jax import cli
from lgdea_jax.errors import UserError
from lgdea_jax.evaluators.data import EvalData
from lgdea_jax.evaluators.encoder import Encoder
from lgdea_jax.evaluators.grounding import grounding_samples, sample_heatmap
from lgdea_jax.experiment import Experiment
from lgdea_jax.inference.predictor import Predictor, load_predictor
from lgdea_jax.preprocess.text import TextTokenizer
from tests.evaluators import world
from tests.training import runs

SIZE = 32


def make(phantom_data, method, *, batch_size=4, seed=0, imagenet=False):
    config = cli.read_config(f"tests/training/tiny.py:{method}")
    if imagenet:
        config.model.image.name, config.model.image.resnet.variant = "resnet", "resnet8"
        config.model.image.resnet.sizes.width = 4
    tokenizer = TextTokenizer.load(phantom_data / "tokenizer.json")
    sizes = {"vocab_size": tokenizer.vocab_size, "num_labels": 3}
    experiment = Experiment.of(config)
    graphdef, _ = experiment.model.abstract(**sizes)
    params = experiment.model.initial_params(seed=seed, **sizes)
    return Predictor(experiment, params=params, graphdef=graphdef, tokenizer=tokenizer,
                     spec={"transform": f"grey8@1+letterbox@1:{SIZE}"}, batch_size=batch_size)


@pytest.fixture(scope="module")
def predictors(phantom_data):
    return {method: make(phantom_data, method) for method in ("lgdea", "clip", "clip_evidence")}


IMAGES = np.random.default_rng(0).integers(0, 256, (6, SIZE, SIZE), dtype=np.uint8)
TEXTS = ["small left effusion", "no pneumothorax", "the heart is enlarged", "clear lungs", "a nodule"]
PHRASES = [("small left effusion",), (), ("the heart", "is enlarged", "very", "much"), ("clear lungs",), ("a nodule",)]


@pytest.mark.parametrize("method", ["lgdea", "clip"])
def test_shapes_scores_and_heatmaps(predictors, method):
    predict = predictors[method]
    images, texts = predict.images(IMAGES), predict.texts(TEXTS, PHRASES)
    assert predict.grid == (4, 4) and predict.frame == SIZE and predict.reads_text
    assert images["patches"].shape[:2] == (6, 16) and texts["query"].shape == (5, images["patches"].shape[2])
    assert texts["embedding"].shape == (5, images["embedding"].shape[1])
    for array in (*images.values(), *texts.values()):
        assert array.dtype == np.float32 and np.isfinite(array).all()
    assert (images["embedding"] @ texts["embedding"].T).std() > 0


@pytest.mark.parametrize("method", ["lgdea", "clip"])
def test_a_row_does_not_depend_on_its_batch(predictors, method):
    predict = predictors[method]
    images, texts = predict.images(IMAGES), predict.texts(TEXTS, PHRASES)
    for i in range(len(IMAGES)):
        alone = predict.images(IMAGES[i:i + 1])
        for name in images:
            np.testing.assert_allclose(alone[name][0], images[name][i], atol=2e-6)
    for i in range(len(TEXTS)):
        alone = predict.texts(TEXTS[i:i + 1], PHRASES[i:i + 1])
        for name in texts:
            np.testing.assert_allclose(alone[name][0], texts[name][i], atol=2e-6)


def test_what_each_method_reads(predictors):
    same, other = [("a nodule",)], [("an effusion",)]
    for method, reads_phrases in (("lgdea", True), ("clip_evidence", True), ("clip", False)):
        predict = predictors[method]
        one = predict.texts(["text"], same)["embedding"]
        assert np.array_equal(one, predict.texts(["text"], other)["embedding"]) != reads_phrases
        assert np.array_equal(one, predict.texts(["words"], same)["embedding"]) == reads_phrases


def test_phrases_beyond_the_limit_are_left_out(predictors):
    predict = predictors["lgdea"]
    first = predict.texts(["x"], [PHRASES[2][:3]])["embedding"]
    np.testing.assert_array_equal(first, predict.texts(["x"], [PHRASES[2]])["embedding"])


@pytest.mark.parametrize("images", [IMAGES.astype(np.float32), IMAGES[:, :16], IMAGES[0]])
def test_wrong_images(predictors, images):
    with pytest.raises(ValueError, match="uint8"):
        predictors["clip"].images(images)


def test_nothing_to_predict(predictors):
    with pytest.raises(ValueError, match="empty"):
        predictors["clip"].images(IMAGES[:0])


def test_parameters_that_are_not_finite_are_told(phantom_data):
    """One NaN in a projection: a line, and no scores that look like numbers."""
    predict = make(phantom_data, "clip")
    params = jax.tree.map(np.array, predict.params)
    for name, call in (("image", lambda: predict.images(IMAGES)), ("text", lambda: predict.texts(TEXTS, PHRASES))):
        kernel = params[f"{name}_projection"]["kernel"]
        kernel[0, 0], before = np.nan, kernel[0, 0]
        predict.set_params(params)
        with pytest.raises(UserError, match=r"embedding that is not finite: .*earlier --step") as error:
            call()
        assert "\n" not in str(error.value)
        kernel[0, 0] = before
    predict.set_params(params)
    assert np.isfinite(predict.images(IMAGES)["embedding"]).all()


def test_other_parameters_without_another_compilation(phantom_data):
    predict, other = (make(phantom_data, "clip", seed=seed) for seed in (0, 1))
    before = predict.images(IMAGES)["embedding"]
    predict.set_params(other._params)
    after = predict.images(IMAGES)["embedding"]
    assert not np.allclose(before, after)
    np.testing.assert_array_equal(after, other.images(IMAGES)["embedding"])
    assert predict._images._cache_size() == 1


def test_a_checkpoint_is_enough(phantom_data, compile_cache, tmp_path):
    flags = ("total_steps=2", "method=clip", "optim.ema=0.5", "eval.split=none")
    assert runs.here(tmp_path / "run", phantom_data, *flags, cache=compile_cache) == 0
    predict = load_predictor(tmp_path / "run", batch_size=4)
    assert predict.spec["step"] == 2 and predict.transform == f"grey8@1+letterbox@1:{SIZE}"
    # What `predict` compares an image with, in place of the data.
    assert predict.spec["image_statistics"]["count"] == 40 and predict.spec["record_size"] == 64
    state = runs.state(tmp_path / "run", 2)
    kernel = state["ema/image_projection/kernel"]  # The average predicts, not the last step.
    assert not np.array_equal(kernel, state["params/image_projection/kernel"])
    np.testing.assert_array_equal(np.asarray(predict._params["image_projection"]["kernel"]), kernel)
    assert np.isfinite(predict.texts(TEXTS, PHRASES)["embedding"]).all()
    with pytest.raises(UserError, match="no best checkpoint"):
        load_predictor(tmp_path / "run", "best")
    with pytest.raises(UserError, match="no checkpoints in"):
        load_predictor(tmp_path)


def test_heatmaps_of_the_imagenet_stem_are_moved_to_where_it_looks(phantom_data):
    predict = make(phantom_data, "clip", imagenet=True)
    assert predict.grid == (2, 2) and predict.patch_offset == -7.5 / 16
    assert make(phantom_data, "clip").patch_offset == 0.0
    data = EvalData.from_records([world.record(0, ("Nodule",), shape=(SIZE, SIZE))],
                                 types.SimpleNamespace(label_names=world.LABELS), SIZE)
    encoder = Encoder.of(predict, data)
    sample = grounding_samples(data)[0]
    query = np.ones(encoder.patches(0).shape[1], np.float32)
    grid = (encoder.patches(0) @ query).reshape(2, 2)
    expected = data.geometry(0).heatmap(grid, patch_offset=-7.5 / 16)
    np.testing.assert_array_equal(sample_heatmap(encoder, sample, query), expected)
    # The patches look at the pixels 0 and 16 of either axis: there the heatmap has their values.
    np.testing.assert_allclose(expected[::16, ::16], grid, rtol=1e-5)
