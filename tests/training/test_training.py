"""What a run does besides going on: one compilation, bf16, frozen and borrowed modules, evaluation of every method."""

import jax
import numpy as np
import pytest

from lgdea_jax import cli, train
from lgdea_jax.cli import UserError
from lgdea_jax.inference.predictor import load_predictor
from tests.training import runs


class Lowered:
    """Counts how often each function is lowered, that is compiled or looked up among the compiled."""

    EVENT = "/jax/core/compile/jaxpr_to_mlir_module_duration"

    def __init__(self):
        self.names = []

    def __enter__(self):
        jax.monitoring.register_event_duration_secs_listener(self._listen)
        return self

    def __exit__(self, *error):
        jax.monitoring.clear_event_listeners()

    def _listen(self, event, seconds, **details):
        if event == self.EVENT:
            self.names.append(str(details.get("fun_name", "")))

    def count(self, name):
        return sum(name == found or f"({name})" in found or found.endswith(name) for found in self.names)


SHORT = ("total_steps=4", "checkpoint.every=2", "log.every=2")


@pytest.fixture(scope="module")
def labelled(phantom_data, compile_cache, tmp_path_factory):
    """A supervised run, whose image tower others start from."""
    workdir = tmp_path_factory.mktemp("supervised")
    assert runs.here(workdir, phantom_data, *SHORT, "method=supervised", "eval.metric=classifier/auroc",
                     cache=compile_cache) == 0
    return workdir


def test_one_compilation_whatever_happens(phantom_data, compile_cache, tmp_path):
    flags = ("method=clip", "eval.every=1", *SHORT)
    with Lowered() as lowered:
        assert runs.here(tmp_path, phantom_data, *flags, cache=compile_cache) == 0
    assert len(runs.rows(tmp_path, "evals.jsonl")) == 4
    assert [lowered.count(name) for name in ("train_step", "images", "texts")] == [1, 1, 1], lowered.names
    with Lowered() as lowered:  # Nothing is left to do: nothing is compiled.
        assert runs.here(tmp_path, phantom_data, *flags, cache=compile_cache) == 0
    assert lowered.count("train_step") == lowered.count("images") == 0


def test_a_method_without_text_is_evaluated_by_its_classifier(labelled):
    [scores] = runs.rows(labelled, "evals.jsonl")
    findings = [name for name in scores if name.startswith("classifier/auroc/")]
    assert scores["classifier/auroc"] == pytest.approx(np.mean([scores[name] for name in findings]))
    assert findings and all(0 <= scores[name] <= 1 for name in findings)
    assert load_predictor(labelled, "best").spec["step"] == 4
    predict = load_predictor(labelled)
    assert not predict.reads_text
    with pytest.raises(UserError, match="has no text tower"):
        predict.texts(["x"], [("x",)])


def test_modules_from_another_run_and_frozen(labelled, phantom_data, compile_cache, tmp_path, capsys):
    flags = ("method=clip", f"init_from={labelled}", "init_parts=image_tower", "optim.rates=image_tower=0",
             "optim.ema=0.5", "eval.split=none", *SHORT)
    assert runs.here(tmp_path, phantom_data, *flags, cache=compile_cache) == 0
    told = capsys.readouterr().err
    assert f"from {labelled}, the rest fresh" in told and "frozen)" in told
    source, state = runs.state(labelled, 4), runs.state(tmp_path, 4)
    tower = [name for name in state if name.startswith("params/image_tower/")]
    assert len(tower) > 10
    for name in tower:
        assert state[name].tobytes() == source[name].tobytes(), name
        np.testing.assert_allclose(state[f"ema/{name.removeprefix('params/')}"], source[name], rtol=1e-6)
    assert not any("image_tower" in name for name in state if name.startswith("opt/"))
    kernel = "params/text_projection/kernel"
    assert any("text_projection/kernel" in name for name in state if name.startswith("opt/"))
    assert not np.array_equal(state[kernel], runs.state(tmp_path, 2)[kernel])


def test_modules_that_do_not_fit(labelled, phantom_data, tmp_path):
    for flags, message in ((("init_parts=image_towr",), "the model has no 'image_towr'"),
                           (("init_parts=text_tower",), "missing text_tower"),
                           (("init_parts=image_tower", "model.image.vit.sizes.mlp_dim=48"), "not")):
        with pytest.raises(UserError, match=message):
            runs.here(tmp_path, phantom_data, "method=clip", f"init_from={labelled}", *flags, *SHORT)


def test_bfloat16_keeps_parameters_and_losses_in_float32(phantom_data, compile_cache, tmp_path):
    flags = ("method=clip", "eval.split=none", "log.every=1", "total_steps=2", "optim.rate=1e-3")
    for name in ("float32", "bfloat16"):
        assert runs.here(tmp_path / name, phantom_data, *flags, f"dtype={name}", cache=compile_cache) == 0
    half = runs.state(tmp_path / "bfloat16", 2)
    assert {array.dtype for name, array in half.items() if name != "step"} <= {np.dtype("float32"), np.dtype("int32")}
    exact, rough = (runs.rows(tmp_path / name) for name in ("float32", "bfloat16"))
    for a, b in zip(exact, rough, strict=True):
        assert a["loss"] != b["loss"] and b["loss"] == pytest.approx(a["loss"], rel=0.05)


def test_what_is_logged(labelled, phantom_data, compile_cache, tmp_path):
    import json

    lines = [json.loads(line) for line in (labelled / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4]
    for line in lines:
        assert {"loss", "loss/labels", "grad_norm", "update_norm", "learning_rate", "time/step_seconds",
                "time/examples_per_second", "time/data_wait_share", "time/tflops"} <= set(line)
        assert line["time/examples_per_second"] == pytest.approx(8 / line["time/step_seconds"])
        assert 0 <= line["time/data_wait_share"] <= 1 and line["time/tflops"] > 0
    config = json.loads((labelled / "config.json").read_text())
    assert config["method"] == "supervised"
    assert runs.here(tmp_path, phantom_data, *SHORT, "method=supervised", "log.tensorboard=true", "eval.split=none",
                     "log.peak_tflops=1.0", cache=compile_cache) == 0
    [events] = (tmp_path / "tensorboard").iterdir()
    assert b"loss/labels" in events.read_bytes()
    assert "time/mfu" in (tmp_path / "metrics.jsonl").read_text()


def test_the_phantom_data_set_is_made_on_the_spot(compile_cache, tmp_path):
    """As configs/phantom.py does, with a smaller world."""
    (tmp_path / "world.py").write_text(
        "from lgdea_jax import cli\n\ndef get_config(arg=None):\n"
        "    config = cli.read_config('configs/data/phantom.py')\n"
        "    config.phantom.train, config.phantom.validation, config.phantom.test = 12, 4, 0\n"
        "    config.workers, config.image_size = 1, 64\n    config.tokenizer.vocab_size = 400\n    return config\n")
    flags = (f"data.make_from={tmp_path / 'world.py'}", "method=supervised", "eval.split=none", *SHORT)
    assert runs.here(tmp_path / "run", tmp_path / "made", *flags, cache=compile_cache) == 0
    assert (tmp_path / "made" / "dataset.json").is_file()
    assert cli.read_config("configs/phantom.py").data.make_from == "configs/data/phantom.py"


@pytest.mark.slow
@pytest.mark.parametrize("stop", [True, False])
def test_without_the_stop_gradient_the_alarm_stops_the_run_within_200_steps(stop, phantom_data, compile_cache,
                                                                            tmp_path):
    config = cli.read_config("configs/phantom.py")
    config.method, config.methods.lgdea_pairs.stop_report = "lgdea_pairs", stop
    config.data.dir, config.compile_cache = str(phantom_data), str(compile_cache)
    config.model.image.resnet.sizes.width = 8
    config.total_steps, config.optim.warmup_steps, config.eval.every, config.batch.pairs = 200, 50, 0, 16
    config.checkpoint.every, config.log.tensorboard, config.eval.records = 200, False, 8
    if stop:
        assert train.train(config, tmp_path) == cli.OK
    else:
        with pytest.raises(UserError, match=r"evidence has collapsed .* stop_report=True"):
            train.train(config, tmp_path)
