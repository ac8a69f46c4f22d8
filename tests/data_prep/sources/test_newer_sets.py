"""PadChest-GR, ReXGradient-160K and INSPECT: what their readers take from the official layout."""

import json

import numpy as np
import pytest

from data_prep.sources.registry import open_sources
from lgdea_jax.errors import UserError
from tests.data_prep.sources import releases
from tests.fixtures import padchest_gr as grounded
from tests.fixtures import rexgradient as rex


@pytest.fixture(scope="module")
def padchest_gr(tmp_path_factory):
    return releases.built("padchest_gr", tmp_path_factory.mktemp("padchest_gr"))


def test_boxes_are_pixels_of_their_sentence(padchest_gr):
    records = padchest_gr.by_image()
    first = records[grounded.image_id(0)]
    # 70 x 56 pixels: 0.125 * 56 = 7, 0.2 * 70 = 14, 0.375 * 56 = 21, 0.4 * 70 = 28; the second box likewise.
    assert np.allclose([(b.x, b.y, b.w, b.h) for b in first.boxes], [(7, 14, 21, 28), (28, 49, 14, 14)])
    assert {b.phrase for b in first.boxes} == {"Finding number 0."}
    assert {b.finding for b in first.boxes} <= {n for n, v in padchest_gr.labels(first).items() if v == 1}
    assert first.report == "Finding number 0. No pleural effusion." and first.language == "en"
    assert len(records[grounded.image_id(1)].boxes) == 1
    assert {name: len(records) for name, records in padchest_gr.records.items()} == {
        "train": 4, "validation": 5, "test": 4}


def test_a_normal_report_is_no_finding(padchest_gr):
    normal = padchest_gr.labels(padchest_gr.by_image()[grounded.image_id(4)])
    assert [name for name, value in normal.items() if value == 1] == ["No Finding"]
    assert set(normal.values()) == {0, 1}
    assert padchest_gr.labels(padchest_gr.by_image()[grounded.image_id(0)])["No Finding"] == 0


def test_padchest_gr_refuses_and_says_why(padchest_gr):
    assert sorted(padchest_gr.reasons().values()) == [
        "a box lies outside the image", "the image file is missing",
        "the study has no patient or no split in the master table"]


def test_spanish_sentences_and_padchests_patients(tmp_path):
    folder = releases.written("padchest_gr", tmp_path / "gr")
    source = open_sources(releases.config("padchest_gr", folder, language="es"))
    study = source["train"][1]
    assert study.report == "Hallazgo 3. Sin derrame pleural." and study.language == "es"
    assert (study.subject_id, study.study_id) == ("padchest-839863", "padchest-201409150003")
    refused = [r.reason for i in range(len(source["validation"])) for r in source["validation"][i].rejections]
    assert refused == ["a finding without a sentence in es"]


def test_padchest_gr_needs_its_files(tmp_path):
    folder = releases.written("padchest_gr", tmp_path / "gr")
    (folder / "grounded_reports_20240819.json").write_text("{}")
    with pytest.raises(UserError, match=r"grounded_reports_20240819\.json is no list"):
        open_sources(releases.config("padchest_gr", folder))
    with pytest.raises(UserError, match="boxes need their images"):
        releases.written("padchest_gr", tmp_path / "other")
        open_sources(releases.config("padchest_gr", tmp_path / "other", images="none"))


@pytest.fixture(scope="module")
def rexgradient(tmp_path_factory):
    return releases.built("rexgradient", tmp_path_factory.mktemp("rexgradient"))


def test_rexgradients_reports_and_views(rexgradient):
    records = rexgradient.by_image()
    first, side = records["1.2.0.0"], records["1.2.0.1"]
    assert first.report.startswith("FINDINGS: ") and "\nIMPRESSION: " in first.report and "cough" not in first.report
    assert (first.view, side.view, first.study_id) == ("PA", "LATERAL", side.study_id)
    assert (first.sex, first.age, first.subject_id) == ("M", 40.0, "rexgradient-GRDN0000")
    assert "IMPRESSION" not in records["1.2.4.0"].report
    assert {split: len(found) for split, found in rexgradient.records.items()} == {
        "train": 6, "validation": 6, "test": 6}


def test_a_patient_of_two_splits_is_not_trained_on(rexgradient):
    assert rexgradient.reasons()["1.2.3.12", "1.2.12.0"] == "the patient lies in test too"
    assert rexgradient.by_image()["1.2.2.0"].subject_id == "rexgradient-GRDN0002"


def test_rexgradients_frontal_images_and_sections(tmp_path):
    data = releases.built("rexgradient", tmp_path, views="frontal", report_sections=("indication",))
    assert {record.view for record in data.by_image().values()} == {"PA"} and data.total("read") == 12
    assert {record.report for record in data.by_image().values()} == {"INDICATION: cough"}


def test_a_path_out_of_the_release_is_refused(tmp_path):
    folder = releases.written("rexgradient", tmp_path / "rex")
    file = folder / "metadata" / "test_metadata_view_position.json"
    content = json.loads(file.read_text())
    next(iter(content.values()))["ImagePath"][0] = "../deid_png/../../secret.png"
    file.write_text(json.dumps(content))
    source = open_sources(releases.config("rexgradient", folder))["test"]
    assert [r.reason for study in map(source.__getitem__, range(len(source))) for r in study.rejections] == [
        "a path that leads out of the release"]
    assert rex.FILES == ("train", "valid", "test")


@pytest.fixture(scope="module")
def inspect(tmp_path_factory):
    return releases.built("inspect", tmp_path_factory.mktemp("inspect"))


def test_inspects_impressions_and_label(inspect):
    records = inspect.by_image()
    assert records["PE000000"].report == 'IMPRESSION: 1. Finding "0". 2. No other.'
    values = [inspect.labels(records[f"PE{i:06x}"])["Pulmonary Embolism"] for i in range(5)]
    assert values == [1, 0, 1, -2, 1]  # Of scan 3 it is censored.
    assert records["PE000001"].subject_id == "inspect-101" and records["PE000001"].modality == "CT"
    assert {split: len(found) for split, found in inspect.records.items()} == {"train": 4, "validation": 4, "test": 4}


def test_inspect_refuses_and_says_why(inspect):
    assert inspect.reasons()["inspect-900012", "PE00000c"] == "its split is none of train, valid, test"
    assert len(inspect.reasons()) == 2
