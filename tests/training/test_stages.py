"""Training in stages, on volumes: a tower each on labels, then both aligned from these two runs."""

import numpy as np
import pytest

from lgdea_jax import cli
from lgdea_jax.errors import UserError
from lgdea_jax.experiment import Experiment
from lgdea_jax.inference.predictor import load_predictor
from lgdea_jax.runtime import sharding
from lgdea_jax.training.data import prepare_data
from lgdea_jax.training.start import share_out
from tests.training import runs

CONFIG = "tests/training/tiny_ct.py"
SHORT = ("total_steps=2", "checkpoint.every=2", "data.labels=silver", "eval.records=24")


@pytest.fixture(scope="module")
def stages(phantom_ct_data, compile_cache, tmp_path_factory):
    """Folders of the runs of the image tower and of the text tower."""
    folder = tmp_path_factory.mktemp("stages")
    for method in ("supervised", "supervised_text"):
        assert runs.here(folder / method, phantom_ct_data, *SHORT, "eval.metric=classifier/auroc",
                         config=f"{CONFIG}:{method}", cache=compile_cache) == cli.OK
    return folder / "supervised", folder / "supervised_text"


def test_both_towers_come_from_their_runs(stages, phantom_ct_data, compile_cache, tmp_path, capsys):
    flags = (f"init_from={stages[0]},{stages[1]}", "init_parts=image_tower,text_tower", "eval.split=none",
             "optim.rates=('^image_tower/=0','^text_tower/=0')")
    assert runs.here(tmp_path, phantom_ct_data, *SHORT, *flags, config=f"{CONFIG}:clip_supervised",
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
            runs.here(tmp_path, phantom_ct_data, *SHORT, *flags, config=f"{CONFIG}:clip_supervised")


def test_each_module_comes_from_the_only_run_that_has_it():
    runs_ = {"a": {"image_tower", "classifier"}, "b": {"text_tower", "classifier"}, "c": set()}
    assert share_out(["text_tower", "image_tower"], runs_) == {"b": ["text_tower"], "a": ["image_tower"]}
    assert share_out(["prototypes"], {"a": set()}) == {"a": ["prototypes"]}  # Which is then missed by its name.
    with pytest.raises(UserError, match="a and b have the module classifier"):
        share_out(["classifier"], runs_)
    with pytest.raises(UserError, match="none of a, b, c has the module prototypes"):
        share_out(["prototypes"], runs_)
