"""Own CT volumes: the build's own geometry and the evaluators' numbers, slices with heat, refusals in one line."""

import csv
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from data_prep.build import build
from lgdea_jax import cli, predict
from lgdea_jax.data.dataset import load_metadata
from lgdea_jax.data.source import open_records
from lgdea_jax.errors import UserError
from lgdea_jax.evaluators import tasks
from lgdea_jax.evaluators.data import EvalData
from lgdea_jax.evaluators.volumes import VolumeGeometry
from lgdea_jax.evaluators.zero_shot import ZeroShot
from lgdea_jax.experiment import Experiment
from lgdea_jax.findings import prompts
from lgdea_jax.inference.images import Reader, Rejected
from lgdea_jax.inference.input_checks import volume_warnings
from lgdea_jax.inference.model import load
from lgdea_jax.inference.volumes import (
    Scan,
    Volume,
    VolumeReader,
    find_volumes,
    hottest_slice,
    slice_overlay,
    window_of,
)
from lgdea_jax.preprocess.text import TextTokenizer
from lgdea_jax.preprocess.volume import VolumeView
from lgdea_jax.runtime.checkpoint import Checkpoints
from tests.fixtures import bad_volumes, ct
from tests.io.volumes.writers import write_series

SHAPE = (40, 30, 52)  # Not the geometry's 32 x 48 x 48: all axes are resampled.
SPACING = tuple(extent / n for extent, n in zip(ct.FIELD, SHAPE))
TRANSFORM = "phantom_ct@1+window@1:16x32x32:-1000:1000"
VIEW = VolumeView.of("phantom_ct", (16, 32, 32))


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Four phantom studies: two NIfTI files, a DICOM series and an .npz file; and the studies."""
    folder = tmp_path_factory.mktemp("scans")
    studies = ct.phantom(4, 0, SHAPE)
    volumes = [study.images[0].pixels for study in studies]
    ct.write_nifti(folder / "a.nii.gz", volumes[0], SPACING, "RAS")
    ct.write_nifti(folder / "b.nii", volumes[1], SPACING, "LPS", slope=1.0, intercept=-1024.0)
    write_series(folder / "c", volumes[2], SPACING)
    np.savez_compressed(folder / "d.npz", ct=volumes[3])
    return folder, studies


@pytest.fixture(scope="module")
def data(scans, tmp_path_factory):
    """What the build makes of the same files."""
    folder, studies = scans
    out = tmp_path_factory.mktemp("built")
    for name in ("a.nii.gz", "b.nii", "c"):
        (out / name).symlink_to(folder / name)
    names = sorted({name for study in studies for name in study.labels})
    with (out / "studies.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["study_id", "subject_id", "split", "image", "report", *(f"label:{name}" for name in names)])
        for number, name in enumerate(("a.nii.gz", "b.nii", "c")):
            # Labels with both classes each, so that the evaluator asks for all of them.
            rows.writerow([number, number, "test", name, studies[number].report,
                           *((number + column) % 2 for column in range(len(names)))])
        rows.writerow(["t", "t", "train", "", "FINDINGS: a nodule. No pleural effusion.", *[0] * len(names)])
    config = cli.read_config("configs/data/table_ct.py")
    config.table.path, config.volume.geometry = str(out / "studies.csv"), "phantom_ct"
    config.workers, config.tokenizer.vocab_size = 1, 300
    build(config, out / "data", progress=False)
    return out / "data"


def save_run(folder, data, method):
    """A run's directory with an untrained model."""
    config = cli.read_config(f"tests/training/tiny_ct.py:{method}")
    tokenizer = TextTokenizer.load(data / "tokenizer.json")
    params = Experiment.of(config).model.initial_params(seed=0, vocab_size=tokenizer.vocab_size, num_labels=2)
    spec = {"config": json.loads(config.to_json_best_effort()), "tokenizer": tokenizer.serialised,
            "transform": TRANSFORM, "label_names": ["Nodule", "Pleural Effusion"], "image_statistics": {},
            "record_size": 0}
    store = Checkpoints(folder)
    store.save({"params": params, "ema": {}, "step": np.int32(1)}, spec)
    store.close()
    return folder


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
    return {method: save_run(tmp_path_factory.mktemp(method), data, method) for method in ("clip", "lgdea_pairs")}


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("method", ["clip", "lgdea_pairs"])
def test_scores_are_the_evaluators_on_the_built_data_set(runs, scans, data, method):
    folder, studies = scans
    model = load(runs[method])
    read = EvalData.from_records(open_records(data, "test"), load_metadata(data), model.predictor.frame)
    order = [int(record.study_id) for record in open_records(data, "test")]
    seen = [VolumeReader(VIEW).read(folder / ("a.nii.gz", "b.nii", "c")[i], "x").model_input for i in order]
    np.testing.assert_array_equal(np.stack(seen), read.images[:])  # Bit for bit what the build's records show.
    samples = ZeroShot(read, **tasks.prompt_settings(model.predictor)).run(model.predictor)
    files = [str(folder / ("a.nii.gz", "b.nii", "c")[i]) for i in order]
    np.testing.assert_allclose(model.scores(files, samples.names["findings"]), samples.arrays["scores"], atol=1e-5)
    # From memory, the same.
    volume = Volume(studies[2].images[0].pixels, SPACING)
    np.testing.assert_allclose(model.embeddings(volume), model.embeddings(str(folder / "c")), atol=1e-6)
    if method == "clip":  # A model of whole reports is asked in the words of a CT's.
        assert model.predictor.prompt_context == prompts.REPORT
        assert "Nodule in the right upper lobe" in model.encode_prompts(["Nodule"]).sentences[0]


def test_the_command(runs, scans, tmp_path, capsys):
    source, _ = scans
    folder, out = tmp_path / "in", tmp_path / "out"
    shutil.copytree(source, folder)
    (folder / "broken.nii.gz").write_bytes((source / "a.nii.gz").read_bytes()[:3000])
    (folder / "notes.txt").write_text("x")
    status = predict.main([f"--checkpoint={runs['lgdea_pairs']}", str(folder), "--prompt=Pleural Effusion",
                           "--prompt=nodule in the left upper lobe", f"--out={out}", "--heatmaps", "--embeddings",
                           f"--spacing={','.join(map(str, SPACING))}"])
    printed = capsys.readouterr()
    assert status == cli.PARTIAL and "1 other files" in printed.err and "4 volumes" in printed.out
    assert [row["image"] for row in rows(out / "scores.csv")] == [
        str(folder / name) for name in ("a.nii.gz", "b.nii", "c", "d.npz")]
    [broken] = rows(out / "rejected.csv")
    assert broken["image"] == str(folder / "broken.nii.gz") and "truncated or damaged" in broken["reason"]
    about = json.loads((out / "about.json").read_text())
    entries = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert about["transform"] == TRANSFORM and np.load(out / "embeddings.npy").shape[0] == 4
    for entry in entries:
        assert (entry["depth"], entry["height"], entry["width"]) == SHAPE
        np.testing.assert_allclose(entry["spacing"], SPACING, atol=1e-3)
        assert set(entry["slices"]) == set(entry["heatmaps"]) == set(entry["scores"])
        assert all(0 <= z < SHAPE[0] for z in entry["slices"].values())
        for file in entry["heatmaps"].values():
            with Image.open(out / file) as picture:
                assert picture.width > picture.height > 300 and np.asarray(picture).std() > 20
    model = load(runs["lgdea_pairs"])
    [maps] = model.heatmaps(str(source / "c"), ["Pleural Effusion"])
    assert maps.shape == (1, *SHAPE)
    z = entries[2]["slices"]["Pleural Effusion"]
    np.testing.assert_allclose(np.nanmax(maps[0, z]), np.nanmax(maps), atol=1e-5)


def test_the_hottest_slice_is_where_the_heat_is():
    # 40 slices of 10 mm; the model sees 16 x 32 x 32 of the resampled 32 x 48 x 48 voxels.
    geometry = VolumeGeometry(VIEW.map(SHAPE, SPACING))
    grid = np.zeros((4, 8, 8), np.float32)
    grid[2, 5, 1] = 1.0
    # Patch 2 of 4 covers the model's voxels 8..12, so voxels 16..20 of the 32 resampled, so slices 20..25 of 40.
    z = hottest_slice(geometry, grid, 0.0)
    assert 20 <= z < 25
    full = geometry.heatmap(grid)
    assert np.nanmax(full[z]) == pytest.approx(float(np.nanmax(full)))
    scan = Scan("x.nii.gz", np.zeros(1), SHAPE, SPACING, np.full(SHAPE, -600, np.int16), ())
    shown, same = slice_overlay(scan, VIEW, grid, 0.0, window="lung", title="t", lines=("score", "note"))
    assert same == z and shown.lines[1] == f"slice {z + 1} of 40 from below, lung window"
    np.testing.assert_array_equal(shown.heatmap, full[z])
    # -600 HU is the middle of the lung window and black in the other. Panels have the patient's proportions.
    assert set(np.unique(shown.image)) == {128}
    other, _ = slice_overlay(scan, VIEW, grid, 0.0, window="mediastinum", title="t", lines=("score",))
    assert set(np.unique(other.image)) == {0}
    assert shown.frame[0] / shown.frame[1] == pytest.approx(ct.FIELD[1] / ct.FIELD[2], rel=0.03)


def test_the_window_follows_the_prompt():
    assert window_of("Nodule", "Nodule") == "lung" and window_of("Cardiomegaly", "Cardiomegaly") == "mediastinum"
    for text, window in (("calcified granuloma on the right", "lung"), ("large pleural effusion", "mediastinum"),
                         ("something odd", "lung"), ("the aorta is wide", "mediastinum"),
                         ("ground glass in both lungs", "lung")):
        assert window_of(text, "") == window, text


def test_what_is_unlike_a_chest_ct_is_said():
    volume = ct.phantom(1, 0, SHAPE)[0].images[0].pixels
    assert volume_warnings(volume, SPACING, VIEW) == ["only the middle 50% along its height goes into the model"]
    whole = VolumeView.of("phantom_ct")
    assert volume_warnings(volume, SPACING, whole) == []
    for changed, spacing, words in (
            (np.maximum(volume, -500), SPACING, "lowest value -500"), (np.minimum(volume, 100), SPACING, "no bone"),
            (volume, (1.0, 1.0, 1.0), "covers 40 x 30 x 52 mm"),
            (volume, (SPACING[0], 6.5, 4.0), "covers 320 x 195 x 208 mm"),
            (volume[::4], (80.0, *SPACING[1:]), "far coarser"),
            (np.where(volume < -500, -1000, volume).astype(np.int16), SPACING, "hardly any lung")):
        assert any(words in text for text in volume_warnings(changed, spacing, whole)), words


def test_volumes_are_found(scans, tmp_path):
    folder, _ = scans
    expected = [str(folder / name) for name in ("a.nii.gz", "b.nii", "c", "d.npz")]
    assert find_volumes([str(folder)]) == (expected, 0)
    assert find_volumes([str(folder / "*")]) == (expected, 0) and find_volumes([str(folder / "c")])[0] == expected[2:3]
    assert find_volumes(["missing.nii"]) == (["missing.nii"], 0)
    (tmp_path / "photo.png").write_bytes(b"x")
    with pytest.raises(UserError, match="no volume in the folder"):
        find_volumes([str(tmp_path)])
    with pytest.raises(UserError, match="fits the pattern"):
        find_volumes([str(tmp_path / "*.nii")])


def test_a_series_in_parts_is_one_volume(tmp_path):
    """Each part alone would be a shorter chest."""
    volume = ct.phantom(1, 3, SHAPE)[0].images[0].pixels
    for name in ("a", "b"):
        write_series(tmp_path / name, volume, SPACING)
        for number, path in enumerate(sorted((tmp_path / name).iterdir())):
            part = tmp_path / name / f"part{number // 15}"
            part.mkdir(exist_ok=True)
            path.rename(part / path.name)
    # As on a CD: its directory is neither a volume nor rejected.
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM" + b"its records")
    assert find_volumes([str(tmp_path)]) == ([str(tmp_path / "a"), str(tmp_path / "b")], 1)
    assert VolumeReader(VIEW).read(str(tmp_path / "a"), "a").shape == SHAPE


@pytest.mark.skipif(os.name == "nt", reason="pipes and links")
def test_volumes_that_cannot_be_used(tmp_path):
    bad = bad_volumes.write(tmp_path)
    (tmp_path / "pipe").symlink_to("pipe.nii")  # Without a suffix it is opened to see what it is.
    paths, others = find_volumes([str(tmp_path)])
    assert {os.path.basename(path) for path in paths} == {
        name for name in bad if os.path.lexists(tmp_path / name)} - {"slices.zip"}
    assert others == 2
    for path in paths:
        item = VolumeReader(VIEW).read(path, "x")
        assert isinstance(item, Rejected)
        assert bad[os.path.basename(path)] in item.reason or "a 2D image" in item.reason


def test_each_model_refuses_what_the_other_takes(scans, tmp_path):
    folder, _ = scans
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(tmp_path / "a.png")
    reader = VolumeReader(VIEW)
    for source, reason in ((tmp_path / "a.png", "a 2D image: this checkpoint's model takes CT volumes"),
                           (np.zeros((64, 64)), "takes CT volumes"), (folder / "c/0.dcm", "name the folder"),
                           (folder / "d.npz", "give it with --spacing"), (tmp_path / "none.nii", "missing"),
                           (Volume(np.zeros((4, 4, 4), np.float32), SPACING), "int16")):
        item = reader.read(source, "x")
        assert isinstance(item, Rejected) and reason in item.reason, item
    for source, reason in ((folder / "a.nii.gz", "a volume (NIfTI)"), (folder / "d.npz", "a volume (.npz)"),
                           (folder / "c/0.dcm", "a slice of a CT")):
        item = Reader(32).read(str(source), "x")
        assert isinstance(item, Rejected) and reason in item.reason and "\n" not in item.reason


def test_another_geometry_than_the_runs_is_refused(runs, monkeypatch, tmp_path):
    spec = Checkpoints.spec
    monkeypatch.setattr(Checkpoints, "spec", lambda self, step: {**spec(self, step), "transform": "phantom_ct@0+x"})
    with pytest.raises(UserError, match=r"trained with the transform phantom_ct@0\+x"):
        load(runs["clip"])
