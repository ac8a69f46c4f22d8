"""The evaluation scripts on a small phantom world with a stand-in model: outputs, exit statuses, refusals."""

import dataclasses
import importlib
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from data_prep import build
from lgdea_jax import cli
from lgdea_jax.data.dataset import load_metadata
from lgdea_jax.data.source import open_records
from lgdea_jax.errors import UserError
from lgdea_jax.eval import phantom, records
from lgdea_jax.eval.harness import inputs, pictures, runner
from lgdea_jax.evaluators import classified, tasks
from lgdea_jax.evaluators.data import EvalData, no_progress
from lgdea_jax.evaluators.zero_shot import ZeroShot
from lgdea_jax.metrics import bootstrap
from tests.eval.stand_ins import Model

STUDIES = 130


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "phantom"
    config = phantom.world_config(64, "test", STUDIES, 0)
    config.workers = 1
    build.build(config, folder, progress=False)
    return folder


@pytest.fixture
def model(monkeypatch):
    stand_in = Model()
    monkeypatch.setattr("lgdea_jax.eval.harness.inputs.load_predictor", lambda checkpoint, step: stand_in)
    return stand_in


def _run(main, *flags):
    return main([f"--{key}" for key in flags])


def test_records_writes_results_samples_and_pictures(data_dir, model, tmp_path, capsys):
    out = tmp_path / "out"
    status = _run(records.main, "checkpoint=RUN", f"data_dir={data_dir}", f"out={out}", "bootstrap=40", "overlays=3")
    assert status == cli.OK
    content = json.loads((out / "results.json").read_text(), parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    for key in ("benchmark", "results", "command", "config_hash", "checkpoint", "step", "transform", "seed"):
        assert key in content
    assert (content["benchmark"], content["step"], content["records"]) == ("records", 7, STUDIES)
    assert content["command"].startswith("python -m lgdea_jax.eval.records --checkpoint=RUN")
    assert [result["mode"] for result in content["results"]] == ["clean", "ours"]  # No public script has this list.
    clean, official = (result["metrics"] for result in content["results"])
    for name in ("zero_shot/auroc", "zero_shot/auroc/Pleural Effusion", "zero_shot/accuracy", "zero_shot/kappa",
                 "retrieval/precision@5", "retrieval/recall@5/image_to_text", "retrieval/recall@5/text_to_image",
                 "retrieval/map@5", "retrieval/jaccard@5", "grounding/cnr", "grounding/cnr_signed",
                 "grounding/pointing", "grounding/miou"):
        for metrics in (clean, official):
            entry = metrics[name]
            assert set(entry) == {"value", "low", "high", "n"} and entry["n"] > 0
            assert entry["low"] <= entry["high"]
    assert clean["zero_shot/auroc"] == official["zero_shot/auroc"]
    assert clean["grounding/miou"] != official["grounding/miou"]
    assert clean["zero_shot/auroc"]["n"] == STUDIES
    printed = capsys.readouterr().out
    row = next(line for line in printed.splitlines() if line.startswith("zero_shot/auroc "))
    assert f"{clean['zero_shot/auroc']['value']:.3f} [{clean['zero_shot/auroc']['low']:.3f}" in row
    assert "reports of single-finding studies" in printed and "Pneumothorax" in printed

    samples = tasks.load_samples(out / "samples.npz", "clean")
    again = bootstrap.intervals(samples["zero_shot"].metrics, samples["zero_shot"].subjects, resamples=40, seed=0)
    assert again["zero_shot/auroc"].low == clean["zero_shot/auroc"]["low"]

    pictures = sorted((out / "overlays").glob("*.png"))
    assert len(pictures) == 3 and all(re.fullmatch(r"00\d_[a-z_]+\.png", path.name) for path in pictures)
    assert Image.open(pictures[0]).size[0] > 700
    subjects = {record.subject_id for record in open_records(data_dir, "test")}
    everything = (out / "results.json").read_text() + printed + " ".join(map(str, samples["zero_shot"].subjects))
    assert not any(re.search(rf"\b{re.escape(subject)}\b", everything) for subject in subjects)


def test_the_same_command_gives_the_same_results(data_dir, model, tmp_path):
    def once(name, *more):
        _run(records.main, "checkpoint=RUN", f"data_dir={data_dir}", f"out={tmp_path / name}", "bootstrap=20",
             "overlays=2", "mode=clean", "records=60", *more)
        return json.loads((tmp_path / name / "results.json").read_text())["results"]

    first, again, other = once("a"), once("b"), once("c", "bootstrap=21")
    assert first == again and len(first) == 1
    pictures = [path.read_bytes() for path in sorted((tmp_path / "a/overlays").iterdir())]
    assert pictures and pictures == [path.read_bytes() for path in sorted((tmp_path / "b/overlays").iterdir())]
    auroc, resampled = (results[0]["metrics"]["zero_shot/auroc"] for results in (first, other))
    assert resampled["value"] == auroc["value"] and resampled["low"] != auroc["low"]


def test_a_part_of_the_tasks_and_records(data_dir, model, tmp_path):
    _run(records.main, "checkpoint=RUN", f"data_dir={data_dir}", f"out={tmp_path}", "bootstrap=0", "overlays=0",
         "records=50", "tasks=zero_shot", "mode=clean")
    content = json.loads((tmp_path / "results.json").read_text())
    metrics = content["results"][0]["metrics"]
    assert content["records"] == 50 and all(name.startswith("zero_shot/") for name in metrics)
    assert metrics["zero_shot/auroc"]["low"] is None and metrics["zero_shot/auroc"]["value"] is not None
    assert not (tmp_path / "overlays").exists()


def test_another_transform_is_refused(data_dir, model, tmp_path):
    for transform in ("grey8@2+letterbox@1:64", "grey8@1+letterbox@1:32", "grey8@1+crop@1:64"):
        model.transform = transform
        with pytest.raises(UserError, match=re.escape(transform)):
            _run(records.main, "checkpoint=RUN", f"data_dir={data_dir}", f"out={tmp_path / 'out'}")
        assert not (tmp_path / "out").exists()


def test_wrong_use_is_one_clear_line(data_dir, model, tmp_path):
    good = ("checkpoint=RUN", f"data_dir={data_dir}", f"out={tmp_path / 'out'}")
    for flags, message in (
            ((*good, "splt=test"), "did you mean '--split'"),
            ((*good, "mode=oficial"), "invalid choice"),
            ((*good, "split=tset"), "did you mean 'test'"),
            ((*good, "split=train"), "known: test"),
            ((*good, "tasks=zero_shot,retreival"), "did you mean 'retrieval'"),
            ((*good, "bootstrap=-1"), "0 or more"),
            (good[:2], "--out"),
            (("checkpoint=RUN", "out=x", f"data_dir={tmp_path / 'none'}"), "no data set")):
        with pytest.raises(UserError, match=message):
            _run(records.main, *flags)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="not a folder"):
        _run(records.main, *good[:2], f"out={tmp_path / 'file'}")
    model.reads_text, model.classifies = False, ""
    with pytest.raises(UserError, match="no text tower"):
        _run(records.main, *good)


def test_unreadable_images_give_status_3(data_dir, model, tmp_path, monkeypatch, capsys):
    rows = list(open_records(data_dir, "test"))[:40]
    rows[5] = dataclasses.replace(rows[5], image=b"broken")
    monkeypatch.setattr(inputs, "open_records", lambda data_dir, split: rows)
    status = _run(records.main, "checkpoint=RUN", f"data_dir={data_dir}", f"out={tmp_path}", "bootstrap=5",
                  "overlays=0")
    assert status == cli.PARTIAL and "record 5 left out" in capsys.readouterr().err
    content = json.loads((tmp_path / "results.json").read_text())
    assert [entry["record"] for entry in content["rejected"]] == [5]


def test_phantom_makes_its_world_once(model, tmp_path, monkeypatch):
    sizes = []
    monkeypatch.setattr(phantom, "checkpoint_image_size", lambda checkpoint, step: 64)
    real = build.build
    monkeypatch.setattr(build, "build", lambda *a, **k: sizes.append(real(*a, **k)) or sizes[-1])
    flags = ("checkpoint=RUN", f"out={tmp_path}", "studies=24", "bootstrap=5", "overlays=0")
    assert _run(phantom.main, *flags) == cli.OK
    assert _run(phantom.main, *flags) == cli.OK
    assert sizes[0].seconds > 0 and sizes[1].seconds == 0  # The second evaluation finds it.
    content = json.loads((tmp_path / "results.json").read_text())
    assert (content["benchmark"], content["split"], content["records"]) == ("phantom", "test", 24)


def test_phantom_takes_a_data_set(data_dir, model, tmp_path):
    _run(phantom.main, "checkpoint=RUN", f"data_dir={data_dir}", f"out={tmp_path}", "bootstrap=5", "overlays=0")
    assert json.loads((tmp_path / "results.json").read_text())["records"] == STUDIES


def test_world_config_holds_one_split():
    config = phantom.world_config(128, "validation", 9, 4)
    wanted = {"size": 128, "train": 0, "validation": 9, "test": 0, "seed": 4}
    assert {key: config.phantom[key] for key in wanted} == wanted
    assert config.image_size == 128


def test_thresholds_come_from_the_validation_split(phantom_data, model):
    args = SimpleNamespace(checkpoint="RUN", step="latest", split="test", mode="both", views="all", labels="",
                           records=0, seed=0)
    bench = dataclasses.replace(records.BENCHMARK, public=True)
    opened = inputs.Inputs.open(args, bench, phantom_data, no_progress)
    metadata, rows = load_metadata(phantom_data), open_records(phantom_data, "validation")
    expected = classified.thresholds(ZeroShot(EvalData.from_records(rows, metadata, 64)).run(model))
    assert expected["f1"] and opened.thresholds(["zero_shot"]) == expected
    assert opened.thresholds(["retrieval"]) is None


def test_a_script_exits_with_2(tmp_path):
    wrong = subprocess.run([sys.executable, "-m", "lgdea_jax.eval.records", "--checkpoint=RUN", "--data=x",
                            f"--out={tmp_path}"], capture_output=True, text=True)
    assert wrong.returncode == 2 and wrong.stderr.count("\n") == 1 and "Traceback" not in wrong.stderr


def test_flags_are_checked_before_jax_is_imported():
    code = "import sys, lgdea_jax.eval.phantom, lgdea_jax.eval.chexpert_5x200; print('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout.split() == [b"False"]


SCRIPTS = sorted(path.stem for path in Path(records.__file__).parent.glob("[a-z]*.py"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_has_two_examples_that_parse(name, capsys, monkeypatch):
    main = importlib.import_module(f"lgdea_jax.eval.{name}").main
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    assert "--bootstrap" in shown and "docs/reference/commands.md" in shown and "docs/guides/benchmarks.md" in shown
    lines = shown.replace("\\\n", " ").splitlines()
    commands = [line for line in lines if f"python -m lgdea_jax.eval.{name} --" in line]
    assert len(commands) == 2
    parsed = []
    monkeypatch.setattr(runner, "evaluate", lambda args, *rest, **options: parsed.append(args) or cli.OK)
    monkeypatch.setattr(phantom, "make_world", lambda args: Path("world"))
    for command in commands:
        assert main(shlex.split(command)[3:]) == cli.OK
    assert [args.step for args in parsed] == ["latest", "best"]


def test_overlays_without_boxes_ask_with_prompts(data_dir, model, tmp_path):
    from lgdea_jax.evaluators.encoder import Encoder

    rows = [dataclasses.replace(r, boxes=()) for r in list(open_records(data_dir, "test"))[:20]]
    metadata = SimpleNamespace(label_names=("Nodule", *[f"unknown {i}" for i in range(len(rows[0].labels) - 1)]))
    data = EvalData.from_records(rows, metadata, 64)
    data.labels[:, 0] = 1
    count = pictures.draw_overlays(Encoder(model, data), rows, tmp_path / "pictures", 2, 0)
    assert count == 2 and {path.name[4:] for path in (tmp_path / "pictures").glob("*.png")} == {"nodule.png"}
