"""Each measurement of speed runs through, in small; what it finds on so little work says nothing."""

import json
import math

import pytest

from benchmarks.speed import checkpoint, contrastive, input_pipeline, metrics, online_teacher, predict, steps, volumes
from lgdea_jax import cli
from tests.shrink import shrink

TOWER = {"width": 32, "depth": 1, "heads": 2, "mlp_dim": 64}


@pytest.mark.slow
def test_training_steps_beside_pytorch(tmp_path, capsys, monkeypatch):
    for row in steps.CPU_ROWS.values():
        if row["image"]["kind"] == "vit":
            monkeypatch.setitem(row, "image", row["image"] | TOWER)
        monkeypatch.setitem(row, "text", TOWER)
        for name, value in {"batch": 4, "side": 32, "tokens": 8, "width": 16}.items():
            monkeypatch.setitem(row, name, value)
    assert steps.main([f"--out={tmp_path / 'speed.json'}", "--repeats=6", "--steps=1"]) == cli.OK
    rows = json.loads((tmp_path / "speed.json").read_text())["rows"]
    assert [row["row"] for row in rows] == ["G1", "G2"]
    for row in rows:
        losses = row["first_loss"]  # PyTorch's towers are ours.
        assert losses["torch"] == pytest.approx(losses["jax"], abs=1e-4)
        assert losses["torch compiled"] == pytest.approx(losses["jax"], abs=1e-4)
        for form in ("torch", "torch compiled"):
            ratio = row["ratio"][form]
            assert 0 < ratio["worst"] <= ratio["low"] <= ratio["median"] <= ratio["high"] < math.inf
    assert "not measured on this device" in capsys.readouterr().out


@pytest.fixture
def small_config(monkeypatch, phantom_data):
    """The commands' `configs/phantom.py` takes fewer and smaller images."""
    read = cli.read_config

    def read_small(path, *args):
        config = shrink(read(path, *args))
        config.model.image.vit.sizes.update(TOWER)
        config.model.text.bert.sizes.update(TOWER)
        config.optim.rates = ()
        return config

    monkeypatch.setattr(cli, "read_config", read_small)
    return phantom_data


@pytest.mark.slow
def test_cost_of_the_online_teacher(tmp_path, capsys, small_config):
    out = tmp_path / "online_teacher.json"
    assert online_teacher.main([f"--out={out}", f"--data={small_config}", "--repeats=6", "--steps=1", "--images=2000",
                                "--reports=1000", "--large=20000", "--paper", "--pairs=2"]) == cli.OK
    found = json.loads(out.read_text())
    assert set(found["ratio"]) == {"teacher", "size"}
    assert set(found["seconds"]) == {"teacher", "without", "small", "large"}
    for ratio in found["ratio"].values():
        assert 0 < ratio["worst"] <= ratio["low"] <= ratio["median"] <= ratio["high"] < math.inf
    assert found["rebuild_share"] == found["rebuild_seconds"] / (500 * found["paper_step_seconds"]) > 0
    assert "with 20,000 items" in capsys.readouterr().out


@pytest.mark.slow
def test_cost_of_a_checkpoint(tmp_path, capsys, small_config):
    out = tmp_path / "checkpoint.json"
    assert checkpoint.main([f"--out={out}", f"--data={small_config}", "--saves=1", "--only=save"]) == cli.OK
    saved = json.loads(out.read_text())["save"]
    assert saved["share"] > 0 and saved["bytes"] > 0
    assert "a checkpoint of" in capsys.readouterr().out


@pytest.mark.slow
def test_chunked_losses(tmp_path, capsys):
    out = tmp_path / "chunked.json"
    assert contrastive.main([f"--out={out}", "--rows=128", "--width=16", "--chunk=32", "--repeats=1"]) == cli.OK
    assert {row["loss"] for row in json.loads(out.read_text())["rows"]} == set(contrastive.LOSSES)
    capsys.readouterr()


@pytest.mark.slow
def test_input_pipeline(tmp_path, capsys):
    out = tmp_path / "input.json"
    assert input_pipeline.main([f"--out={out}", "--repeats=1", "--seconds=0.2", "--only=rate,growth",
                                "--records", "128", "512"]) == cli.OK
    assert {"rate", "growth"} <= set(json.loads(out.read_text()))
    capsys.readouterr()


@pytest.mark.slow
def test_the_input_of_the_shipped_configuration(tmp_path, capsys):
    out = tmp_path / "input.json"
    assert input_pipeline.main([f"--out={out}", "--repeats=1", "--only=shipped", "--studies=12"]) == cli.OK
    found = json.loads(out.read_text())["shipped"]
    assert found["stored"] == {"image_size": 224, "image_encoding": "jpeg"} and found["ratio"]["median"] > 2
    capsys.readouterr()


def test_metrics(capsys):
    assert metrics.main(["--samples=300", "--resamples=5", "--timed=1", "--size=2000", "--width=64"]) == cli.OK
    assert "scikit-learn" in capsys.readouterr().out


@pytest.mark.slow
def test_predictions(capsys):
    assert predict.main(["--random=quick_start", "--images=20", "--batch_size=4", "--share=0"]) == cli.OK
    assert "images" in capsys.readouterr().out


def test_volumes(tmp_path, capsys):
    # Whether it is as fast as it should be is no question on so small a volume.
    volumes.main(["--shape=24,40,40", "--repeat=1", f"--out={tmp_path / 'volumes.json'}"])
    assert json.loads((tmp_path / "volumes.json").read_text())["equal"]
    capsys.readouterr()
