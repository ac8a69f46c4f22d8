"""MS-CXR: boxes of one phrase stay together, CSV and JSON say the same, images must have their size."""

import pytest

from data_prep.sources.registry import open_sources
from lgdea_jax.errors import UserError
from tests.data_prep.sources import releases
from tests.fixtures import mimic_cxr as mimic
from tests.fixtures import ms_cxr as fixture
from tests.fixtures import world


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return releases.built("ms_cxr", tmp_path_factory.mktemp("ms_cxr"))


def test_boxes_and_phrases(data):
    records = data.by_image()
    assert set(data.records) == {"test"} and len(records) == 12
    # Image 0 has two boxes of one phrase and one of another, image 1 has one, image 3 two of one phrase.
    first = records[mimic.dicom_id(0)]
    assert [(b.finding, b.phrase, b.x, b.y, b.w, b.h) for b in first.boxes] == [
        ("Atelectasis", "phrase 0", 10, 20, 30, 40), ("Atelectasis", "phrase 0", 60, 70, 20, 25),
        ("Pneumonia", "another phrase 0", 5, 5, 15, 15)]
    assert [b.phrase for b in records[mimic.dicom_id(10)].boxes] == ["phrase 1"]
    assert [b.phrase for b in records[mimic.dicom_id(30)].boxes] == ["phrase 3", "phrase 3"]
    assert sum(len({b.phrase for b in r.boxes}) for r in records.values()) == 12 + 3
    assert {name for name, value in data.labels(first).items() if value == 1} == {"Atelectasis", "Pneumonia"}
    assert set(data.labels(first).values()) == {1, -2}  # Nobody said that the other categories are absent.
    assert (first.view, first.report, first.original_shape.tolist()) == ("FRONTAL", "", [1, 120, 96])


def test_subjects_are_those_of_mimic(data, tmp_path):
    mimic_data = releases.built("mimic_cxr", tmp_path)
    ours = {r.image_id: (r.study_id, r.subject_id) for r in data.by_image().values()}
    theirs = {r.image_id: (r.study_id, r.subject_id) for r in mimic_data.by_image().values()}
    both = set(ours) & set(theirs)
    assert len(both) == 12 and all(ours[name] == theirs[name] for name in both)


def test_json_and_csv_say_the_same(data, tmp_path):
    other = releases.built("ms_cxr", tmp_path, annotations="MS_CXR_Local_Alignment_v1.1.0.json")
    ours, theirs = data.by_image(), other.by_image()
    assert set(ours) == set(theirs)
    assert all(ours[name].boxes == theirs[name].boxes for name in ours)
    assert sorted(data.reasons().values()) == sorted(other.reasons().values()) == [
        "a box lies outside the image", "unknown category 'Cardiomegally'"]


def test_the_official_split_is_a_choice(tmp_path):
    folder = releases.written("ms_cxr", tmp_path / "ms")
    sources = open_sources(releases.config("ms_cxr", folder, splits="official"))
    # Images go round train, val, test; the two odd ones are the 12th and 13th.
    assert {split: len(source) for split, source in sources.items()} == {"train": 5, "validation": 5, "test": 4}
    table = folder / "MS_CXR_Local_Alignment_v1.1.0.csv"
    rows = releases.rows(table)
    world.table(table, [{k: v for k, v in row.items() if k not in ("split", "dicom_id")} for row in rows])  # As 1.0.0.
    with pytest.raises(UserError, match=r"needs version 1\.1\.0"):
        open_sources(releases.config("ms_cxr", folder, splits="official", verify="none"))
    assert list(open_sources(releases.config("ms_cxr", folder, verify="none"))) == ["test"]


def test_resized_images_are_refused(tmp_path):
    folder = releases.written("ms_cxr", tmp_path / "ms")
    path = folder / "files" / f"{mimic.stem(2, 0)}.jpg"
    world.jpeg(path, world.pixels(world.phantom(1, 0)[0], (60, 48)))
    from data_prep.build import build

    report = build(releases.config("ms_cxr", folder, verify="none"), None, progress=False)
    assert {r.image_id: r.reason for r in report.rejections}[mimic.dicom_id(20)] == (
        "the image is 60 x 48 pixels, its boxes are for 120 x 96")


def test_dicom_images_are_found(tmp_path):
    other = releases.built("ms_cxr", tmp_path, how={"images": "dicom"})
    assert other.total("read") == 12 and other.by_image()[mimic.dicom_id(0)].modality == "DX"


def test_faults(tmp_path):
    folder = releases.written("ms_cxr", tmp_path / "ms")
    with pytest.raises(UserError, match="no annotations"):
        open_sources(releases.config("ms_cxr", folder, annotations="other.csv"))
    with pytest.raises(UserError, match="give the folder as"):
        open_sources(releases.config("ms_cxr", folder, images="none"))
    (folder / "MS_CXR_Local_Alignment_v1.1.0.json").write_text('{"images": []}')
    with pytest.raises(UserError, match="is no COCO file"):
        open_sources(releases.config("ms_cxr", folder, annotations="MS_CXR_Local_Alignment_v1.1.0.json", verify="none"))
    assert len(fixture.CATEGORIES) == 8
