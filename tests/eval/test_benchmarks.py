"""Every benchmark's script on a stand-in of its data set: official layout -> build -> eval -> page."""

import importlib
import json
import re

import pytest

from lgdea_jax import cli, report
from lgdea_jax.data.source import open_records
from lgdea_jax.errors import UserError
from lgdea_jax.evaluators import tasks
from tests.eval import stand_ins

OFFICIAL = ("ms_cxr", "chexpert")
ALWAYS = ("--bootstrap=20", "--overlays=2")
# What each must measure, at least.
METRICS = {
    "ms_cxr": ("grounding/cnr", "grounding/miou", "grounding/pointing", "grounding/dice", "grounding/cnr/Pneumonia"),
    "chexpert_5x200": ("zero_shot/accuracy", "zero_shot/macro_f1", "zero_shot/kappa", "retrieval/precision@5"),
    "mimic_5x200": ("zero_shot/accuracy", "zero_shot/macro_f1", "zero_shot/kappa", "retrieval/precision@5"),
    "mimic_cxr": ("retrieval/recall@5/image_to_text", "retrieval/recall@5/text_to_image", "zero_shot/auroc"),
    "rsna_pneumonia": ("zero_shot/auroc/Pneumonia", "zero_shot/f1", "zero_shot/mcc", "zero_shot/ece", "grounding/cnr"),
    "siim_acr": ("zero_shot/auroc/Pneumothorax", "zero_shot/f1", "grounding/pointing"),
    "covidx": ("zero_shot/accuracy", "zero_shot/auroc/COVID-19", "zero_shot/kappa"),
    "chexpert": ("zero_shot/auroc", "zero_shot/auroc@competition", "probe@0.5/auroc", "probe@1/auroc@competition"),
    "chestxray14": ("zero_shot/auroc", "zero_shot/average_precision"),
    "padchest": ("zero_shot/auroc", "zero_shot/auroc@tail"),
    "chestx_det10": ("zero_shot/auroc", "grounding/pointing"),
    "openi": ("zero_shot/auroc", "retrieval/recall@1/image_to_text"),
    "vindr_cxr": ("zero_shot/auroc", "grounding/pointing"),
}


@pytest.fixture(scope="module")
def run(phantom_data, compile_cache, tmp_path_factory):
    return stand_ins.checkpoint(tmp_path_factory.mktemp("run"), phantom_data, compile_cache)


@pytest.fixture(scope="module")
def data_of(tmp_path_factory):
    """A function from a data set's name to its built stand-in, made once."""
    root, made = tmp_path_factory.mktemp("official"), {}

    def get(name, studies, **keys):
        key = "_".join((name, *keys))
        if key not in made:
            official = stand_ins.write(name, root / key, studies)
            made[key] = stand_ins.data_set(name, official, root / f"{key}_built", **keys)
        return made[key]

    return get


@pytest.fixture(autouse=True)
def one_model(monkeypatch):
    """The checkpoint is read and compiled once for all scripts."""
    monkeypatch.setattr("lgdea_jax.eval.harness.inputs.load_predictor", stand_ins.load_predictor)


def evaluate(name, run, data, out, *flags):
    """The script's status and its results.json."""
    main = importlib.import_module(f"lgdea_jax.eval.{name}").main
    status = main([f"--checkpoint={run}", f"--data_dir={data}", f"--out={out}", *ALWAYS, *flags])
    return status, json.loads((out / "results.json").read_text())


@pytest.mark.parametrize("name", stand_ins.BENCHMARKS)
def test_from_official_layout_to_page(name, run, data_of, tmp_path, capsys):
    fixture, studies, flags = stand_ins.BENCHMARKS[name]
    status, content = evaluate(name, run, data_of(fixture, studies), tmp_path / "out", *flags)
    assert status == cli.OK, content["rejected"]
    modes = {result["mode"]: result["metrics"] for result in content["results"]}
    # Of a 5x200 without a list there is no number but the clean one.
    second = "official" if name in OFFICIAL else "ours"
    assert set(modes) == ({"clean"} if name.endswith("5x200") else {"clean", second})
    protocols = {result["mode"]: result["info"].get("protocol") for result in content["results"]}
    assert protocols["clean"] is None
    if name in OFFICIAL:
        assert len(protocols["official"]["commit"]) == 40 and "github.com" in protocols["official"]["repository"]
        assert not protocols["official"]["not_the_scripts"]
    for metric in METRICS[name]:
        for mode, metrics in modes.items():
            entry = metrics[metric]
            assert entry["value"] is not None and entry["n"] > 0, (metric, mode)
            assert entry["low"] <= entry["high"]
    assert content["leakage"]["checked"] and content["leakage"]["subjects_in_common"] == 0
    assert f"lgdea_jax.eval.{name}" in content["command"]
    page = tmp_path / "page.html"
    assert report.main([str(tmp_path / "out"), f"--html={page}"]) == cli.OK
    html = page.read_text(encoding="utf-8")
    value = modes["clean"][METRICS[name][0]]["value"]
    assert f"<span>{value:.3f}</span>" in html and f"<h2>{name}</h2>" in html
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)|<script|@import|url\(""", html)
    assert ("<svg" in html) == any(metric.startswith("zero_shot/auroc") for metric in modes["clean"])
    assert html.count('<div class="pair">') == len(list((tmp_path / "out/overlays").glob("*.png")))
    assert "Traceback" not in capsys.readouterr().err


def test_an_official_list_of_5x200(run, data_of, tmp_path):
    data = data_of("chexpert", 48)
    ids = [record.image_id for record in open_records(data, "train") if record.has_image]
    classes = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
    chosen = {str(i): {"image_path": f"CheXpert-v1.0/{name}", "label": [int(c == i % 5) for c in range(5)]}
              for i, name in enumerate(ids[3:18])}
    (tmp_path / "list.json").write_text(json.dumps(chosen))
    _, content = evaluate("chexpert_5x200", run, data, tmp_path / "out", f"--list={tmp_path / 'list.json'}",
                          "--per_class=2")
    clean, official = content["results"]
    assert [part["metrics"]["zero_shot/accuracy"]["n"] for part in (clean, official)] == [10, 15]
    assert "drawn with seed 0" in clean["info"]["selection"]
    assert "15 images of list.json" in official["info"]["selection"]
    samples = tasks.load_samples(tmp_path / "out/samples.npz", "official")["zero_shot"]
    assert samples.names["classes"] == classes
    wanted = {image_id: i % 5 for i, image_id in enumerate(ids[3:18])}
    assert samples.arrays["truth"].tolist() == [wanted[record.image_id] for record in open_records(data, "train")
                                                if record.image_id in wanted]
    assert official["info"]["protocol"]["name"] == "gloria" and official["info"]["zero_shot"]["standardised"]
    with pytest.raises(UserError, match="--list=FILE"):
        evaluate("chexpert_5x200", run, data, tmp_path / "no", "--mode=official")


@pytest.mark.parametrize("name, protocol, count", [
    ("padchest", "kad", 193), ("padchest", "carzero", 192), ("openi", "carzero", 18), ("chestxray14", "kad", 14),
    ("chexpert", "kad", 5), ("rsna_pneumonia", "medclip", 1), ("covidx", "medclip", 3),
    ("chestx_det10", "carzero", 10)])
def test_a_protocol_by_name(name, protocol, count, run, data_of, tmp_path):
    """Its label set is asked for; without one of the script's parts it is called ours."""
    module = importlib.import_module(f"lgdea_jax.eval.{name}")
    (chosen,) = [item for item in module.BENCHMARK.protocols if item.name == protocol]
    assert len(chosen.findings or module.BENCHMARK.findings) == count
    fixture, studies, flags = stand_ins.BENCHMARKS[name]
    data = data_of(fixture, studies, **({"protocol_labels": True} if name == "padchest" else {}))
    status, content = evaluate(name, run, data, tmp_path / "out", f"--protocol={protocol}", "--mode=ours", *[
        flag for flag in flags if "probe" not in flag])
    (result,) = content["results"]
    assert status == cli.OK and result["mode"] == "ours" and result["info"]["protocol"]["name"] == protocol
    scored = {key.rsplit("/", 1)[1] for key in result["metrics"] if key.startswith("zero_shot/auroc/")}
    assert scored <= set(chosen.findings or module.BENCHMARK.findings) and scored
    assert not any("build it again" in line for line in result["info"]["protocol"]["differs"])
    with pytest.raises(UserError, match="has no official mode"):
        evaluate(name, run, data, tmp_path / "no", f"--protocol={protocol}", "--mode=official")


def test_another_data_set_is_refused(run, data_of, tmp_path):
    data = data_of("siim_acr", 40)
    with pytest.raises(UserError, match="from the source siim_acr, and openi is measured on openi"):
        evaluate("openi", run, data, tmp_path / "no")
    _, content = evaluate("openi", run, data, tmp_path / "out", "--as_if", "--overlays=0", "--bootstrap=0",
                          "--tasks=zero_shot", "--protocol=carzero")
    differs = content["results"][1]["info"]["protocol"]["differs"]
    assert "the data set is siim_acr, not the benchmark's" in differs
    assert any("no labels of this protocol" in line for line in differs)


def test_subjects_that_were_trained_on_are_refused(run, phantom_data, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"subjects .* are in the training data"):
        evaluate("openi", run, phantom_data, tmp_path / "out", "--split=train", "--as_if")
    assert not (tmp_path / "out").exists()
    _, content = evaluate("openi", run, phantom_data, tmp_path / "out", "--split=train", "--allow_leaks",
                          "--overlays=0", "--bootstrap=0", "--as_if")
    assert content["leakage"]["subjects_in_common"] > 0
    report.main([str(tmp_path / "out"), f"--html={tmp_path / 'page.html'}"])
    assert "do not measure generalisation" in (tmp_path / "page.html").read_text()


class Wordless:
    """The checkpoint as one of a method without a text tower."""

    reads_text = False

    def __init__(self, model):
        self.model = model

    def __getattr__(self, name):
        assert name != "texts"
        return getattr(self.model, name)

    def images(self, images):
        return {name: value for name, value in self.model.images(images).items() if name != "patches"}


def test_a_model_without_text_is_probed(run, phantom_data, tmp_path, monkeypatch):
    model = Wordless(stand_ins.load_predictor(str(run), "latest"))
    monkeypatch.setattr("lgdea_jax.eval.harness.inputs.load_predictor", lambda *_: model)
    _, content = evaluate("records", run, phantom_data, tmp_path / "out", "--probe=1", "--mode=clean")
    [result] = content["results"]
    assert set(result["info"]) == {"probe@1"} and result["metrics"]["probe@1/auroc"]["value"] is not None
    with pytest.raises(UserError, match="no text tower"):
        evaluate("records", run, phantom_data, tmp_path / "no")
    with pytest.raises(UserError, match="labels to train on"):
        evaluate("records", run, phantom_data, tmp_path / "no", "--probe=1", "--split=train")


@pytest.mark.parametrize("name", stand_ins.BENCHMARKS)
def test_help_says_what_it_is(name, capsys):
    module = importlib.import_module(f"lgdea_jax.eval.{name}")
    with pytest.raises(SystemExit) as stopped:
        module.main(["--help"])
    shown = capsys.readouterr().out
    assert stopped.value.code == 0 and f"lgdea_jax.eval.{name}" in shown and "--allow_leaks" in shown
    assert f"python -m lgdea_jax.eval.{name} --checkpoint=RUN --data_dir=DATA --out=OUT" in module.__doc__
    assert "Read: DATA built with configs/data/" in module.__doc__ and "rompts" in module.__doc__
