"""Own images: the same numbers as the evaluators', files out, broken files skipped, a clean stop."""

import csv
import json
import os
import subprocess
import sys
import weakref

import numpy as np
import pytest
from PIL import Image

from lgdea_jax import calibrate, cli, predict
from lgdea_jax.data.dataset import load_metadata
from lgdea_jax.data.source import open_records
from lgdea_jax.errors import UserError
from lgdea_jax.eval.harness import output
from lgdea_jax.eval.harness.output import config_hash
from lgdea_jax.evaluators import tasks
from lgdea_jax.evaluators.data import EvalData
from lgdea_jax.evaluators.zero_shot import ZeroShot
from lgdea_jax.inference import calibration
from lgdea_jax.inference import writer as writing
from lgdea_jax.inference.images import ReadAhead, Reader
from lgdea_jax.inference.model import Model, explain, finding_of, load
from lgdea_jax.preprocess import image_statistics
from lgdea_jax.runtime.checkpoint import Checkpoints
from tests.fixtures import bad_images
from tests.inference.test_predictor import make
from tests.training.runs import ROOT, environment


def model_of(phantom_data, method):
    predictor = make(phantom_data, method)
    predictor.spec |= {"step": 1, "config": json.loads(predictor.config.to_json_best_effort()),
                       "label_names": ["Nodule", "Mass", "Not a finding"]}
    return Model(predictor)


@pytest.fixture(scope="module")
def models(phantom_data):
    return {method: model_of(phantom_data, method) for method in ("lgdea", "clip")}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, phantom_data):
    """Eight phantom images as files."""
    from lgdea_jax.io import decode_image

    folder = tmp_path_factory.mktemp("images")
    for number, record in enumerate(open_records(phantom_data, "test")):
        Image.fromarray(decode_image(record.image, record.image_format)).save(folder / f"{number}.png")
    return sorted(folder.iterdir())


@pytest.mark.parametrize("method", ["lgdea", "clip"])
def test_scores_are_those_of_the_evaluators(models, pictures, phantom_data, method):
    model = models[method]
    data = EvalData.from_records(open_records(phantom_data, "test"), load_metadata(phantom_data), 32)
    samples = ZeroShot(data, **tasks.prompt_settings(model.predictor)).run(model.predictor)
    findings = samples.names["findings"]
    assert len(findings) > 3
    # "contrast" depends on what is asked for together: all of them, in their order.
    np.testing.assert_allclose(model.scores(pictures, findings), samples.arrays["scores"], atol=2e-6)
    if method == "clip":
        alone = model.scores(pictures, findings[:1])
        asked = model.encode_prompts(findings[:1], together=findings)
        np.testing.assert_allclose(model.scores(pictures, asked)[:, 0], samples.arrays["scores"][:, 0], atol=2e-6)
        assert not np.allclose(alone[:, 0], samples.arrays["scores"][:, 0], atol=2e-6)


def test_prompts_are_findings_or_free_text(models, pictures):
    assert [finding_of(text) for text in ("Pleural Effusion", "pleural effusion", "Effusion", "small effusion",
                                                  "no acute cardiopulmonary abnormality")] == [
        "Pleural Effusion", "Pleural Effusion", "Pleural Effusion", "", "No Finding"]
    model = models["lgdea"]
    asked = model.encode_prompts(["nodule", "a nodule in the left lung", "nodule"])
    assert asked.prompts == ("nodule", "a nodule in the left lung") and asked.findings == ("Nodule", "")
    assert len(asked.sentences[0]) > 4 and asked.sentences[1] == ("a nodule in the left lung",)
    embedding = model.embeddings(pictures)
    text = model.predictor.texts(["a nodule in the left lung"], [("a nodule in the left lung",)])["embedding"][0]
    np.testing.assert_allclose(model.scores(pictures, asked)[:, 1], embedding @ text, rtol=1e-5)
    lines = explain(model.encode_prompts(["Nodul", "a nodule in the left lung"]))
    assert "did you mean 'Nodule'" in lines[0] and "did you mean" not in lines[1]
    assert model.findings == ("Nodule", "Mass")
    for wrong in ([], [" "]):
        with pytest.raises(UserError, match="a prompt is needed"):
            model.encode_prompts(wrong)


def test_what_the_model_does_not_read_of_a_prompt_is_told(models):
    """The tower of this config takes 8 tokens, two of them the opening and the closing one."""
    model = models["lgdea"]
    prompts = ["small left nodule", "no nodule. no mass. no pleural effusion seen before", "結節 in the left lung",
               "qzxjq effusion", "Nodule"]
    asked = model.encode_prompts(prompts)
    known, cut, script, letters, finding = asked.warnings
    assert known == finding == ()
    assert len(cut) == 1 and cut[0].startswith("cut, the model does not read '") and "seen before" in cut[0]
    assert script == ("unknown words: 結, 節",) and letters == ("unknown words: qzxjq",)
    lines = explain(asked)
    assert lines[0].endswith("as free text") and "unknown words: qzxjq" in lines[3] and "seen before" in lines[1]
    # What is told is so: prompts that differ in what is cut off have one score.
    scores = model.encode_prompts(["no nodule. no mass. no x", "no nodule. no mass. no y z"])._free.values()
    np.testing.assert_array_equal(*scores)


def test_files_of_prompts_that_look_alike_are_numbered():
    stems = writing.file_stems(["left nodule?", "Left nodule", "結節", "肺炎", "left nodule 2", "x" * 50, "x" * 60])
    assert stems == ["left_nodule", "left_nodule_2", "prompt", "prompt_2", "left_nodule_2_2", "x" * 40,
                     "x" * 40 + "_2"]


def test_paths_arrays_and_pil_images_are_alike(models, pictures):
    model = models["lgdea"]
    expected = model.scores([str(path) for path in pictures], "Nodule")
    arrays = [np.asarray(Image.open(path)) for path in pictures]
    for images in (arrays, np.stack(arrays), [Image.open(path) for path in pictures]):
        np.testing.assert_array_equal(model.scores(images, ["Nodule"]), expected)
    # Another batch size is another program: equal up to rounding.
    np.testing.assert_allclose(model.scores(arrays[0], "Nodule"), expected[:1], atol=1e-5)
    with pytest.raises(UserError, match=r"none\.png: the image file is missing"):
        model.scores("none.png", "Nodule")


def test_heatmaps_have_the_images_pixels_and_place(models):
    model = models["lgdea"]
    image = np.random.default_rng(0).integers(0, 256, (90, 60), dtype=np.uint8)
    [maps] = model.heatmaps(image, ["Nodule", "clear lungs"])
    assert maps.shape == (2, 90, 60)
    from lgdea_jax.preprocess.image import letterbox

    out = model.predictor.images(letterbox(image, 32)[None])
    query = model.predictor.texts(["clear lungs"], [("clear lungs",)])["query"][0]
    grid = (out["patches"][0] @ query).reshape(4, 4)
    # The image fills the square's height and the middle two thirds of its width: rows keep their place.
    assert maps[1].max() <= grid.max() + 1e-5 and maps[1].min() >= grid.min() - 1e-5
    np.testing.assert_allclose(maps[1][11, 30], grid[0, 1:3].mean(), atol=0.02 + 0.3 * float(np.ptp(grid)))


@pytest.fixture(scope="module")
def run(phantom_data, tmp_path_factory):
    """A run's directory with a checkpoint of an untrained model."""
    folder = tmp_path_factory.mktemp("run")
    model = model_of(phantom_data, "lgdea")
    statistics = image_statistics.measure(np.random.default_rng(0).integers(0, 256, (9, 32, 32), dtype=np.uint8))
    store = Checkpoints(folder)
    spec = {**model.spec, "tokenizer": model.predictor.tokenizer.serialised, "label_names": ["Nodule", "Mass", "Odd"],
            "image_statistics": statistics, "record_size": 64}
    store.save({"params": model.predictor._params, "ema": {}, "step": np.int32(1)}, spec)
    store.close()
    return folder


def test_loading_prints_nothing(run):
    """In a process of its own: loggers stay muted once they are."""
    code = f"import logging; logging.basicConfig(); import lgdea_jax; lgdea_jax.load({str(run)!r})"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def predictions(folder):
    """(about.json, the lines of predictions.jsonl)."""
    lines = (folder / "predictions.jsonl").read_text().splitlines()
    return json.loads((folder / "about.json").read_text()), [json.loads(line) for line in lines]


def test_the_command(run, pictures, phantom_data, tmp_path, capsys):
    folder, out = tmp_path / "images", tmp_path / "out"
    folder.mkdir()
    for path in pictures:
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "broken.png").write_bytes(pictures[0].read_bytes()[:60])
    flags = [f"--checkpoint={run}", str(folder), "--prompt=Nodule", "--prompt=clear lungs", f"--out={out}",
             "--embeddings", "--heatmaps", "--batch_size=3"]
    assert predict.main(flags) == cli.PARTIAL
    printed = capsys.readouterr()
    assert writing.RESEARCH_ONLY in printed.out and "truncated" in printed.err
    table = rows(out / "scores.csv")
    assert [row["image"] for row in table] == [str(folder / path.name) for path in pictures]
    assert rows(out / "rejected.csv") == [{"image": str(folder / "broken.png"),
                                           "reason": "the PNG file is truncated or damaged"}]
    about, lines = predictions(out)
    assert about["notice"] == writing.RESEARCH_ONLY and about["complete"]
    assert (about["images"], about["rejected"]) == (8, 1)
    assert [item["finding"] for item in about["prompts"]] == ["Nodule", None]
    model = load(run)
    expected = model.scores(pictures, ["Nodule", "clear lungs"])
    for row, entry, values in zip(table, lines, expected, strict=True):
        np.testing.assert_allclose([float(row["Nodule"]), float(row["clear lungs"])], values, atol=1e-4)
        np.testing.assert_allclose(list(entry["scores"].values()), values, atol=1e-4)
        for file in entry["heatmaps"].values():
            with Image.open(out / file) as picture:
                assert picture.width > picture.height > 300
    np.testing.assert_allclose(np.load(out / "embeddings.npy"), model.embeddings(pictures), atol=1e-5)
    # The images that the checkpoint's statistics were taken from were noise: these are not.
    assert all("training images" in row["warnings"] for row in table)
    # A second run leaves nothing of the first.
    assert predict.main([f"--checkpoint={run}", str(pictures[0]), f"--out={out}"]) == cli.OK
    assert len(rows(out / "scores.csv")) == 1 and not list((out / "heatmaps").iterdir())
    assert not (out / "embeddings.npy").exists() and "Nodule" in rows(out / "scores.csv")[0]


@pytest.mark.skipif(sys.platform == "win32", reason="pipes, links and names that are not UTF-8")
def test_sixty_bad_files_of_two_hundred(run, tmp_path, capfd):
    folder, out = tmp_path / "images", tmp_path / "out"
    folder.mkdir()
    bad = bad_images.write(folder) | {"gone.jpg": "missing"}
    del bad["folder.png"]  # As an argument it is searched.
    rng = np.random.default_rng(0)
    for number in range(138):
        Image.fromarray(rng.integers(0, 256, (24, 20), dtype=np.uint8)).save(folder / f"good_{number}.png")
    for name in (b"latin\xe9.png", b"latin\xea.png"):
        with open(os.path.join(os.fsencode(folder), name), "wb") as file:
            file.write((folder / "good_0.png").read_bytes())
    (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    named = [str(folder / name) for name in bad if not os.path.lexists(folder / name)]
    flags = [f"--checkpoint={run}", str(folder), *named, "--prompt=Nodule", f"--out={out}"]
    assert predict.main(flags) == cli.PARTIAL
    printed = capfd.readouterr()
    assert "140 images" in printed.out and "60 rejected" in printed.out
    assert "Traceback" not in printed.err and "Warning" not in printed.err
    reasons = {row["image"]: row["reason"] for row in rows(out / "rejected.csv")}
    for name, words in bad.items():
        assert words in reasons[str(folder / name)], name
    names = {row["image"].rpartition("/")[2] for row in rows(out / "scores.csv")}
    assert {"latin\\xe9.png", "latin\\xea.png"} <= names and len(names) == 140


@pytest.mark.parametrize("flags,message", [
    ([], "an IMAGE is needed"), (["--prompts=x", "a.png"], "did you mean '--prompt'"),
    (["a.png", "--batch_size=0"], "at least 1"), (["a.png", "--calibration=none.json"], "cannot read none.json"),
    (["a.png", "--prompt= "], "a prompt is needed"), (["a.png", "--prompt=pneumo\udce9"], "not UTF-8 text")])
def test_wrong_use(run, tmp_path, flags, message):
    with pytest.raises(UserError, match=message):
        predict.main([f"--checkpoint={run}", f"--out={tmp_path / 'out'}", *flags])


def test_ctrl_c_leaves_readable_files(models, pictures, tmp_path):
    model = models["lgdea"]

    class Stopping(writing.Writer):
        def write(self, *args):
            if self.count >= 4:
                raise KeyboardInterrupt
            super().write(*args)

    writer = Stopping(tmp_path, model.encode_prompts(["Nodule"]), None, model, head={}, embeddings=True)
    with pytest.raises(KeyboardInterrupt):
        writing.run(model, [str(path) for path in pictures], writer)
    about, lines = predictions(tmp_path)
    assert not about["complete"] and about["images"] == len(lines) == len(rows(tmp_path / "scores.csv")) == 4
    assert len(np.load(tmp_path / "embeddings.npy")) == 4


def test_a_model_without_text_scores_its_labels_and_reads_no_prompt(phantom_data, pictures, tmp_path, monkeypatch):
    model = model_of(phantom_data, "supervised")
    monkeypatch.setattr(predict, "load", lambda *args, **options: model)
    flags = ["--checkpoint=x", str(pictures[0]), f"--out={tmp_path}"]
    assert predict.main(flags) == cli.OK
    assert set(rows(tmp_path / "scores.csv")[0]) > {"Nodule", "Mass"}
    with pytest.raises(UserError, match="unknown label of this classifier"):
        predict.main([*flags, "--prompt=a nodule in the left lung"])
    assert predict.main([*flags, "--embeddings"]) == cli.OK
    assert np.load(tmp_path / "embeddings.npy").shape[0] == 1


def test_the_curve_is_scikit_learns():
    """Platt's targets are soft: for scikit-learn each row counts twice, as positive and as negative, with weights."""
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    scores = 3.0 + 0.05 * (labels + rng.normal(0, 1, 400))
    separated = np.array([0.0] * 20 + [1.0] * 30), np.array([0] * 20 + [1] * 30)
    for x, y in ((scores, labels), separated):
        slope, intercept = calibration.fit(x, y)
        target = np.where(y == 1, (y.sum() + 1) / (y.sum() + 2), 1 / ((1 - y).sum() + 2))
        centred = (x - x.mean())[:, None] / x.std()
        model = LogisticRegression(C=1e10, tol=1e-9, max_iter=1000).fit(
            np.concatenate([centred, centred]), np.repeat([1, 0], len(x)), np.concatenate([target, 1 - target]))
        expected = model.predict_proba(centred)[:, 1]
        np.testing.assert_allclose(1 / (1 + np.exp(-(slope * x + intercept))), expected, atol=1e-5)


def test_what_a_killed_command_left_is_gone(models, tmp_path):
    """SIGKILL between the writing of a temporary file and its renaming leaves it; a file of another name stays."""
    model = models["clip"]
    left, other = tmp_path / ".about.json.27932.140417565485952.tmp", tmp_path / ".about.txt.1.2.tmp"
    left.write_text("{"), other.write_text("mine")
    writing.Writer(tmp_path, model.encode_prompts(["Nodule"]), None, model, head={})
    assert not left.exists() and other.exists() and (tmp_path / "about.json").is_file()


def test_lines_can_be_read_while_the_command_still_runs(models, pictures, tmp_path):
    model, counts = models["lgdea"], []

    class Reading(writing.Writer):
        def write(self, *args):
            super().write(*args)
            about, lines = predictions(tmp_path)
            counts.append((len(lines), len(rows(tmp_path / "scores.csv")), about["complete"]))

    model.predictor.batch_size, before = 3, model.predictor.batch_size
    writing.run(model, [str(path) for path in pictures], Reading(tmp_path, model.encode_prompts("x"), None, model,
                                                                 head={}))
    model.predictor.batch_size = before
    assert counts == [(3, 3, False), (6, 6, False), (8, 8, False)] and predictions(tmp_path)[0]["complete"]


def test_calibration_from_an_evaluation_to_probabilities(models, pictures, tmp_path):
    from lgdea_jax.evaluators.zero_shot import ZeroShotSamples

    model, rng, n = models["lgdea"], np.random.default_rng(0), 600
    labels = (rng.random((n, 3)) < 0.3).astype(np.int8)
    scores = np.stack([labels[:, 0] + rng.normal(0, 0.7, n), -labels[:, 1] + rng.normal(0, 0.7, n),
                       rng.normal(0, 1, n)], axis=1).astype(np.float32)
    labels[5:, 2] = 0
    samples = ZeroShotSamples(np.arange(n).astype("U"), {
        "scores": scores, "labels": labels, "truth": np.full(n, -1), "predicted": np.full(n, -1)},
        {"findings": ("Nodule", "Mass", "Edema"), "classes": ()}, {})
    output.save_samples(tmp_path / "samples.npz", {"clean": [samples]})
    head = {"step": 1, "config_hash": config_hash(model.spec["config"]), "benchmark": "records", "data": "d",
            "split": "validation", "command": "c"}
    (tmp_path / "results.json").write_text(json.dumps(head))
    file = tmp_path / "c.json"
    assert calibrate.main([f"--results={tmp_path}", f"--out={file}"]) == cli.OK
    made = calibration.read(file)
    assert list(made.findings) == ["Nodule"] and made.together == ("Nodule", "Mass", "Edema")
    left_out = json.loads(file.read_text())["left_out"]
    assert "no better than chance" in left_out["Mass"] and "at least 10" in left_out["Edema"]
    # Calibrated: on average the predicted probability is the share of positives.
    predicted = np.array([made.probability("Nodule", float(score)) for score in scores[:, 0]])
    assert abs(predicted.mean() - labels[:, 0].mean()) < 0.01 and made.findings["Nodule"]["ece"] < 0.08
    encoded = model.encode_prompts(["Nodule", "Mass"], together=made.together)
    writer = writing.Writer(tmp_path, encoded, made, model, head={})
    writing.run(model, [str(pictures[0])], writer)
    [row] = rows(tmp_path / "scores.csv")
    expected = made.probability("Nodule", float(row["Nodule"]))
    assert float(row["probability:Nodule"]) == pytest.approx(expected, abs=1e-3) and "probability:Mass" not in row
    with pytest.raises(UserError, match="another run or step"):
        made.check("another", 1)
    with pytest.raises(UserError, match="another run or step"):
        made.check(head["config_hash"], 2)
    made.check(head["config_hash"], 1)
    file.write_text("{}")
    with pytest.raises(UserError, match="not a calibration file"):
        calibration.read(file)


def test_memory_does_not_grow_with_the_images(pictures):
    """What is held at a time is a few batches: pictures are let go of once they are written."""
    held, most = weakref.WeakValueDictionary(), []

    class Noticed(Reader):
        def read(self, source, name):
            item = super().read(source, name)
            held[name] = item.model_input
            return item

    for batch in ReadAhead([(str(pictures[0]), str(n)) for n in range(60)], Noticed(32), batch_size=4):
        most.append(len(held))
        del batch
    assert len(most) == 15 and max(most) <= 16
