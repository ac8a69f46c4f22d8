"""ChestX-ray14, ChestX-Det10, RSNA, SIIM-ACR and VinDr-CXR: image labels, boxes and splits."""

import csv
import json
import math

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from data_prep.sources.registry import open_sources
from data_prep.sources.shared.official import permuted_split
from data_prep.sources.siim_acr import box_of_runs
from lgdea_jax.errors import UserError
from tests.data_prep.sources import releases
from tests.fixtures import siim_acr as siim
from tests.fixtures import world

# --- ChestX-ray14 -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nih(tmp_path_factory):
    return releases.built("chestxray14", tmp_path_factory.mktemp("nih"))


def entries(folder):
    """Image -> (finding labels, age, sex, view), by place in the file as a person reads it."""
    with open(folder / "Data_Entry_2017.csv", encoding="utf-8") as file:
        lines = [line.rstrip("\n").split(",") for line in file.read().splitlines()[1:]]
    return {line[0]: (line[1], line[4], line[5], line[6]) for line in lines}


def test_nih_labels_and_people(nih):
    names = {"Effusion": "Pleural Effusion", "Infiltration": "Infiltrate", "Pleural_Thickening": "Pleural Thickening"}
    for image, record in nih.by_image().items():
        findings, age, sex, view = entries(nih.folder)[image]
        positive = {name for name, value in nih.labels(record).items() if value == 1}
        assert positive == {names.get(name, name) for name in findings.split("|")}
        assert set(nih.labels(record).values()) <= {0, 1} and len(record.labels) == 15
        assert (record.sex, record.view, record.subject_id) == (sex, view, f"nih-{image[:8]}")
        years = float(age.rstrip("Y"))
        assert record.age == years if years < 120 else math.isnan(record.age)
    assert math.isnan(nih.by_image()["00009002_000.png"].age)


def test_nih_splits(nih):
    listed = (nih.folder / "test_list.txt").read_text().split()
    assert {r.image_id for r in nih.records["test"]} == set(listed) and len(listed) == 6
    assert sorted(nih.reasons().values()) == ["the image is in neither list of the official split",
                                              "unknown label 'Sadness'"]


def test_nih_boxes(nih):
    with open(nih.folder / "BBox_List_2017.csv", encoding="utf-8", newline="") as file:
        rows = [row for row in list(csv.reader(file))[1:] if row[0] in nih.by_image()]
    assert rows and {r.image_id for r in nih.by_image().values() if r.boxes} == {row[0] for row in rows}
    for name, finding, *place in rows:
        box = nih.by_image()[name].boxes[0]
        assert [box.x, box.y, box.w, box.h] == [float(value) for value in place[:4]]
        assert box.finding == {"Effusion": "Pleural Effusion", "Infiltrate": "Infiltrate"}.get(finding, finding)


def test_nih_boxes_need_images_of_their_size(tmp_path):
    from data_prep.build import build

    folder = releases.written("chestxray14", tmp_path / "n")
    with open(folder / "BBox_List_2017.csv", encoding="utf-8", newline="") as file:
        name = list(csv.reader(file))[1][0]
    path = next(folder.rglob(name))
    world.png(path, np.arange(256 * 256, dtype=np.uint32).reshape(256, 256).astype(np.uint8))
    report = build(releases.config("chestxray14", folder), None, progress=False)
    assert "the image is 256 x 256 pixels, its boxes are for 1024 x 1024" in {r.reason for r in report.rejections}


def test_nih_faults(tmp_path):
    folder = releases.written("chestxray14", tmp_path / "n")
    boxes = (folder / "BBox_List_2017.csv").read_text()
    (folder / "BBox_List_2017.csv").write_text(boxes + "00000002_000.png,Mass,1,2,-3,4,,,\n")
    source = open_sources(releases.config("chestxray14", folder))["train"]
    refused = [r for i in range(len(source)) for r in source[i].rejections]
    assert ("00000002_000.png", "a box with an unknown label or without extent") in [
        (r.image_id, r.reason) for r in refused]
    (folder / "BBox_List_2017.csv").unlink()
    (folder / "train_val_list.txt").write_text((folder / "test_list.txt").read_text())
    with pytest.raises(UserError, match="6 images are both in"):
        open_sources(releases.config("chestxray14", folder))
    with pytest.raises(UserError, match="no PNG images"):
        open_sources(releases.config("chestxray14", releases.written("chestxray14", tmp_path / "m"), images="pictures"))


# --- ChestX-Det10 -----------------------------------------------------------------------------------------------------


def test_det10(tmp_path):
    data = releases.built("chestx_det10", tmp_path)
    names = {"Effusion": "Pleural Effusion"}
    seen = 0
    for part in ("train", "test"):
        for item in json.loads((data.folder / f"{part}.json").read_text()):
            record = data.by_image().get(item["file_name"])
            if record is None:
                continue
            assert record in data.records[part]
            boxes = [[box.finding, box.x, box.y, box.x + box.w, box.y + box.h] for box in record.boxes]
            assert boxes == [[names.get(s, s), *map(float, b)] for s, b in zip(item["syms"], item["boxes"])]
            positive = {name for name, value in data.labels(record).items() if value == 1}
            assert positive == {box[0] for box in boxes} and set(data.labels(record).values()) <= {0, 1}
            seen += len(boxes)
    assert seen > 5
    # The benchmark's order: alphabetical in the official names, where our Pleural Effusion is Effusion.
    assert data.metadata.label_names == (
        "Atelectasis", "Calcification", "Consolidation", "Pleural Effusion", "Emphysema", "Fibrosis", "Fracture",
        "Mass", "Nodule", "Pneumothorax")
    assert sorted(data.reasons().values()) == ["syms and boxes are not lists of the same length",
                                               "unknown category 'Sadness'"]


def test_det10_files_named_as_the_nih_names_them(tmp_path):
    folder = tmp_path / "det"
    item = {"file_name": "00000042_006.png", "syms": ["Fibrosis"], "boxes": [[632, 721, 909, 969]]}
    world.png(folder / "test_data" / item["file_name"], np.zeros((1024, 1024), np.uint8))
    (folder / "test.json").write_text(json.dumps([item, {**item}, {"boxes": []}]))
    source = open_sources(releases.config("chestx_det10", folder))["test"]
    assert source[0].subject_id == "nih-00000042" and source[0].images[0].boxes[0].w == 277
    assert [source[i].rejections[0].reason for i in (1, 2)] == ["the image occurs twice", "no file_name"]
    (folder / "test.json").write_text("{}")
    with pytest.raises(UserError, match="is no list of images"):
        open_sources(releases.config("chestx_det10", folder))


# --- RSNA -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rsna(tmp_path_factory):
    return releases.built("rsna_pneumonia", tmp_path_factory.mktemp("rsna"))


def test_rsna_labels_boxes_and_people(rsna):
    rows = releases.rows(rsna.folder / "stage_2_train_labels.csv")
    kinds = {row["patientId"]: row["class"] for row in releases.rows(rsna.folder / "stage_2_detailed_class_info.csv")}
    positives, several = 0, 0
    for patient, record in rsna.by_image().items():
        mine = [row for row in rows if row["patientId"] == patient]
        expected = [tuple(float(row[k]) for k in ("x", "y", "width", "height")) for row in mine if row["Target"] == "1"]
        assert [(b.x, b.y, b.w, b.h) for b in record.boxes] == expected
        labels = rsna.labels(record)
        assert labels["Pneumonia"] == int(mine[0]["Target"]) and labels["No Finding"] == int(kinds[patient] == "Normal")
        positives, several = positives + labels["Pneumonia"], several + (len(expected) > 1)
        assert record.sex in "MF" and 20 <= record.age < 40 and record.view in ("PA", "AP")
        assert record.modality == "CR" and np.allclose(record.spacing[1:], 0.171)
    assert 0 < positives < 12 and several > 0
    assert sorted(rsna.reasons().values()) == ["a box where Target is 0", "the image file is missing"]


def test_rsna_splits_are_those_of_the_fields_code(rsna):
    patients = sorted({row["patientId"] for row in releases.rows(rsna.folder / "stage_2_train_labels.csv")})
    train, rest = train_test_split(patients, test_size=0.15 * 2, random_state=0)
    test, valid = train_test_split(rest, test_size=0.5, random_state=0)
    for split, names in (("train", train), ("validation", valid), ("test", test)):
        assert {r.image_id for r in rsna.records[split]} == set(names) & set(rsna.by_image())


@pytest.mark.parametrize("n", [4, 10, 101, 1000])
def test_permuted_splits_equal_scikit_learn(n):
    train, rest = train_test_split(list(range(n)), test_size=0.3, random_state=0)
    test, valid = train_test_split(rest, test_size=0.5, random_state=0)
    splits = np.array(permuted_split(n, held_out=0.3))
    for name, rows in (("train", train), ("test", test), ("validation", valid)):
        assert np.flatnonzero(splits == name).tolist() == sorted(rows)


def test_rsna_without_the_detailed_classes(tmp_path):
    folder = releases.written("rsna_pneumonia", tmp_path / "r")
    (folder / "stage_2_detailed_class_info.csv").unlink()
    study = open_sources(releases.config("rsna_pneumonia", folder))["train"][0]
    assert study.labels["No Finding"] == -2
    by_hash = open_sources(releases.config("rsna_pneumonia", folder, splits="hash", validation=0.0, test=1.0))
    assert list(by_hash) == ["test"]


# --- SIIM-ACR ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("box", [(3, 5, 7, 11), (0, 0, 1, 1), (10, 0, 4, 16), (19, 15, 1, 1)])
def test_boxes_around_masks(box):
    mask = np.zeros((16, 20), bool)
    x, y, w, h = box
    mask[y:y + h, x:x + w] = True
    runs = np.array(siim.encode(mask).split(), int).reshape(-1, 2)
    assert box_of_runs(runs, mask.shape) == [float(v) for v in box]


def test_boxes_around_any_mask():
    rng = np.random.default_rng(0)
    for _ in range(50):
        mask = rng.random((16, 20)) < 0.02
        if not mask.any():
            continue
        runs = np.array(siim.encode(mask).split(), int).reshape(-1, 2)
        rows, columns = np.nonzero(mask)
        x, y, w, h = box_of_runs(runs, mask.shape)
        tight = (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
        # One run over two columns touches the image's bottom and top, and says so.
        assert (x, w) == (tight[0], tight[2]) and y <= tight[1] and y + h >= tight[1] + tight[3]
        assert (y, h) in ((tight[1], tight[3]), (0, 16))
    assert box_of_runs(np.array([[319, 1]]), (16, 20)) == [19, 15, 1, 1]
    assert box_of_runs(np.array([[319, 2]]), (16, 20)) is None


def test_siim(tmp_path):
    data = releases.built("siim_acr", tmp_path)
    by_number = {int(name.split(".")[9]) - 300: record for name, record in data.by_image().items()}
    assert sorted(by_number) == list(range(12))
    for i, record in by_number.items():
        masks = [siim.ellipse(100 + 10 * i, 200, 60, 90)] if i % 2 == 0 else []
        masks += [siim.ellipse(600, 300 + i, 30, 40)] if i % 4 == 0 else []
        assert data.labels(record) == {"Pneumothorax": int(bool(masks))}
        expected = []
        for mask in masks:
            rows, columns = np.nonzero(mask)
            expected.append((columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1))
        assert [(b.x, b.y, b.w, b.h) for b in record.boxes] == expected
        assert record.sex == "MF"[i % 2] and record.age == 20 + i
    assert sorted(data.reasons().values()) == [
        "a mask that is not pairs of gap and length", "the image file is missing",
        "the image is 512 x 512 pixels, its boxes are for 1024 x 1024"]
    # An image goes where the first of its rows goes in the field's row-wise split.
    with open(data.folder / "train-rle.csv", newline="") as file:
        names = [row[0] for row in csv.reader(file)][1:]
    train, rest = train_test_split(names, test_size=0.3, random_state=0)
    order = list(range(len(names)))
    first_train = set(train_test_split(order, test_size=0.3, random_state=0)[0])
    assert {r.image_id for r in data.records["train"]} == {
        name for name in data.by_image() if names.index(name) in first_train}
    assert len(train) + len(rest) == len(names)


# --- VinDr-CXR --------------------------------------------------------------------------------------------------------


def test_vindr(tmp_path):
    data = releases.built("vindr_cxr", tmp_path)
    rows = releases.rows(data.folder / "annotations" / "image_labels_train.csv")
    ours = {"Nodule/Mass": "Nodule Or Mass", "Pulmonary fibrosis": "Fibrosis", "ILD": "Interstitial Lung Disease",
            "Lung cavity": "Cavitation", "Enlarged PA": "Enlarged Pulmonary Artery", "Infiltration": "Infiltrate",
            "Other diseases": "Other Disease", "Nodule": "Nodule"}
    uncertain = 0
    for record in [*data.records["train"], *data.records.get("validation", [])]:
        votes = [row for row in rows if row["image_id"] == record.image_id]
        assert len(votes) == 3
        for column in set(votes[0]) - {"image_id", "rad_ID"}:
            yes = sum(int(row[column]) for row in votes)
            name = ours.get(column, column.title() if column not in ("COPD",) else column)
            assert data.labels(record)[name] == {0: 0, 1: -1}.get(yes, 1), (column, name)
            uncertain += yes == 1
    assert uncertain > 0
    test = releases.rows(data.folder / "annotations" / "annotations_test.csv")
    for record in data.records["test"]:
        expected = [(float(r["x_min"]), float(r["y_min"]), float(r["x_max"]), float(r["y_max"])) for r in test
                    if r["image_id"] == record.image_id and r["class_name"] != "No finding"]
        assert [(b.x, b.y, b.x + b.w, b.y + b.h) for b in record.boxes] == expected
        assert record.sex in ("M", "F", "") and 20 <= record.age < 40 and record.view == "PA"
    # Both readers of a training image drew the box.
    place = {(box.finding, box.x, box.y): 0 for record in data.records["train"] for box in record.boxes}
    for record in data.records["train"]:
        for box in record.boxes:
            place[box.finding, box.x, box.y] += 1
    assert place and min(place.values()) >= 2
    assert data.reasons()[next(k for k, v in data.reasons().items() if "colour" in v)].endswith("not a radiograph")
    assert data.metadata.converted["monochrome1"] > 0


def test_vindr_votes_and_faults(tmp_path):
    folder = releases.written("vindr_cxr", tmp_path / "v")
    lenient = open_sources(releases.config("vindr_cxr", folder, votes=1, validation=0.0))["train"][0]
    assert lenient.labels["Tuberculosis"] == 1  # Of image 0, by one reader alone.
    strict = open_sources(releases.config("vindr_cxr", folder, votes=2, validation=0.0))["train"][0]
    assert strict.labels["Tuberculosis"] == -1
    with pytest.raises(UserError, match="must be 1, 2 or 3"):
        open_sources(releases.config("vindr_cxr", folder, votes=4))
    table = folder / "annotations" / "image_labels_test.csv"
    table.write_text(table.read_text().replace("0,", "x,", 1))
    with pytest.raises(UserError, match="is not the released file"):
        open_sources(releases.config("vindr_cxr", folder))
    source = open_sources(releases.config("vindr_cxr", folder, verify="none"))["test"]
    assert sum("a label is neither 0 nor 1" in str(source[i].rejections) for i in range(len(source))) == 1
