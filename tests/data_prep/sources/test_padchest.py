"""PadChest: lists of labels, who gave them, patients by split, 16-bit images in numbered folders."""

import ast

import pytest

from data_prep.sources.padchest import _list
from data_prep.sources.registry import open_sources
from tests.data_prep.sources import releases


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return releases.built("padchest", tmp_path_factory.mktemp("padchest"))


def table(data):
    return {row["ImageID"]: row for row in releases.rows(next(data.folder.glob("PADCHEST*.csv")))}


def test_labels(data):
    ours = {"pleural effusion": "Pleural Effusion", "rib fracture": "Rib Fracture", "pulmonary edema": "Edema",
            "hiatal hernia": "Hernia", "calcified granuloma": "calcified granuloma", "normal": "No Finding"}
    checked = set()
    for name, record in data.by_image().items():
        cell = table(data)[name]["Labels"]
        given = {text.strip() for text in (ast.literal_eval(cell) if cell else [])} - {"unchanged"}
        positive = {label for label, value in data.labels(record).items() if value == 1}
        assert positive == {ours.get(label, label.title()) for label in given}
        assert set(data.labels(record).values()) <= {0, 1}
        checked |= given
    assert {"normal", "pleural effusion"} <= checked and len(checked) > 5
    assert list(data.metadata.label_names) == sorted(data.metadata.label_names)
    assert "unchanged" not in data.metadata.label_names


def test_splits_and_subjects(data):
    # Every second report was labelled by a physician: these patients are the test set.
    for split, records in data.records.items():
        for record in records:
            row = table(data)[record.image_id]
            assert (row["MethodLabel"] == "Physician") == (split == "test") == (record.label_source == "report_human")
            assert record.subject_id == f"padchest-{row['PatientID']}" and record.language == "es"
            assert record.sex == row["PatientSex_DICOM"] and record.age == 2014 - float(row["PatientBirth"])
            assert record.view == {"PA": "PA", "L": "LATERAL"}[row["Projection"]]
    assert data.metadata.converted["16 bit"] == data.total("images")
    assert data.metadata.extractor == "" and any(r.has_report for r in data.records["test"])


def test_what_is_refused(data):
    assert sorted(data.reasons().values()) == [
        "marked EXCLUDE by the authors: not a usable chest radiograph", "the image file is missing",
        "the labels are not a list"]


def test_images_in_one_folder(tmp_path):
    folder = releases.written("padchest", tmp_path / "p")
    for path in list(folder.glob("*/*.png")):
        (tmp_path / "flat").mkdir(exist_ok=True)
        path.rename(tmp_path / "flat" / path.name)
    source = open_sources(releases.config("padchest", folder, images=str(tmp_path / "flat")))["test"]
    assert all((tmp_path / "flat" / ref.image_id).samefile(ref.path) for i in range(3) for ref in source[i].images)


def test_shares_instead_of_the_manual_set(tmp_path):
    folder = releases.written("padchest", tmp_path / "p")
    sources = open_sources(releases.config("padchest", folder, manual_test=False, validation=0.0, test=0.0))
    assert list(sources) == ["train"]
    frontal = open_sources(releases.config("padchest", folder, manual_test=False, validation=0.0, views="frontal"))
    assert {ref.view for i in range(5) for ref in frontal["train"][i].images} == {"PA"}


@pytest.mark.parametrize(("cell", "expected"), [
    ("['normal']", ["normal"]), ("[' scoliosis', 'copd signs']", [" scoliosis", "copd signs"]), ("[]", []), ("", []),
    ("nan", []), ("['a', nan]", ["a", ""]), ("normal", None), ("['a'", None), ("[1]", None), ("{'a'}", None)])
def test_lists(cell, expected):
    assert _list(cell) == expected
