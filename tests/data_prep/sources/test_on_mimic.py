"""MS-CXR-T, CXR-LT and Chest ImaGenome: what they say of MIMIC-CXR's images, and that the images are MIMIC-CXR's."""

from collections import Counter

import pytest

from data_prep.sources.mimic.cxr_lt import LABELS, names
from data_prep.sources.registry import open_sources
from lgdea_jax.errors import UserError
from tests.data_prep.sources import releases
from tests.fixtures import mimic_cxr as mimic
from tests.fixtures import world


@pytest.fixture(scope="module")
def ms_cxr_t(tmp_path_factory):
    return releases.built("ms_cxr_t", tmp_path_factory.mktemp("ms_cxr_t"))


def test_a_pair_is_a_study_with_the_current_image_first(ms_cxr_t):
    records = [r for r in ms_cxr_t.records["test"] if r.has_image]
    pairs = {}
    for record in records:
        pairs.setdefault(record.study_id, []).append(record.image_id)
    assert list(pairs.values())[1] == [mimic.dicom_id(11), mimic.dicom_id(10)]
    # 12 pairs, and the current image of the one whose previous image is missing.
    assert len(records) == 25 and sorted(map(len, pairs.values())) == [1, *[2] * 12]
    assert records[0].subject_id == "p10000032"


def test_changes_are_labels(ms_cxr_t):
    first = next(r for r in ms_cxr_t.records["test"] if r.image_id == mimic.dicom_id(1))
    labels = ms_cxr_t.labels(first)
    # Study 0: consolidation improves, edema is stable, nothing else was judged.
    assert {name for name, value in labels.items() if value == 1} == {"Consolidation improving", "Edema stable"}
    assert {name for name, value in labels.items() if value == 0} == {
        "Consolidation stable", "Consolidation worsening", "Edema improving", "Edema worsening"}
    assert sum(value == -2 for value in labels.values()) == 17 - 6


def test_sentences_are_two_lines(ms_cxr_t):
    reports = [r for r in ms_cxr_t.records["test"] if not r.has_image]
    assert len(reports) == 6
    assert reports[1].report.split("\n") == ["The effusion number 1 has grown.", "Smaller effusion number 1."]
    known = [{name: value for name, value in ms_cxr_t.labels(r).items() if value != -2} for r in reports]
    assert known == [{"Paraphrase (RadGraph)": 1}, {"Paraphrase (RadGraph)": 0}, {"Paraphrase (swaps)": 1},
                     {"Paraphrase (swaps)": 0}, {"Paraphrase (RadGraph)": 1}, {"Paraphrase (RadGraph)": 0}]


def test_ms_cxr_t_refuses_and_says_why(ms_cxr_t):
    assert Counter(r.reason for r in ms_cxr_t.report.rejections) == {
        "a category that is none of paraphrase, contradiction": 1, "the image file is missing": 1,
        "a progression that is none of improving, stable, worsening": 2, "the two images are of different subjects": 2}


@pytest.fixture(scope="module")
def cxr_lt(tmp_path_factory):
    return releases.built("cxr_lt", tmp_path_factory.mktemp("cxr_lt"))


def test_cxr_lts_splits_and_labels(cxr_lt):
    assert {split: len(found) for split, found in cxr_lt.records.items()} == {"train": 9, "validation": 6, "test": 3}
    record = cxr_lt.by_image()[mimic.dicom_id(10)]  # Study 1, of the test set.
    columns = LABELS["2024", "2"]
    assert [cxr_lt.labels(record)[name] for name in names(columns)] == [int((1 + k) % 3 == 0) for k in range(26)]
    assert names(("Infiltration", "Normal", "Bulla")) == ("Infiltrate", "No Finding", "Bulla")
    assert (record.label_source, cxr_lt.by_image()[mimic.dicom_id(20)].label_source) == (
        "report_human", "report_program")
    assert (record.subject_id, record.study_id, record.view) == ("p10000033", "s50000001", "AP")


def test_cxr_lt_refuses_and_says_why(cxr_lt):
    assert sorted(cxr_lt.reasons().values()) == [
        "a label is none of 1, 0, -1 and empty", "the image file is missing",
        "the path is not that of this image of MIMIC-CXR"]


@pytest.mark.parametrize("release, task, count", [("2023", "1", 26), ("2024", "1", 40), ("2024", "3", 5)])
def test_every_challenge(release, task, count, tmp_path):
    folder = releases.written("cxr_lt", tmp_path / "lt", release=release, task=task)
    sources = open_sources(releases.config("cxr_lt", folder, release=release, task=task))
    assert {split: len(source) for split, source in sources.items()} == {"train": 6 + 3, "validation": 3, "test": 3}
    assert len(set(sources["test"].label_names)) == count


def test_tables_of_training_may_be_missing_that_of_the_test_not(tmp_path):
    folder = releases.written("cxr_lt", tmp_path / "lt")
    for name in ("train_labeled", "development_labeled_task2"):
        (folder / "cxr-lt-2024" / f"{name}.csv").unlink()
    assert list(open_sources(releases.config("cxr_lt", folder, verify="none"))) == ["test"]
    frontal = open_sources(releases.config("cxr_lt", folder, verify="none", views="frontal"))
    assert [len(study.images) for study in map(frontal["test"].__getitem__, range(3))] == [1, 1, 1]
    (folder / "cxr-lt-2024" / "test_labeled_task2.csv").unlink()
    with pytest.raises(UserError, match=r"no test_labeled_task2\.csv"):
        open_sources(releases.config("cxr_lt", folder, verify="none"))


@pytest.fixture(scope="module")
def chest_imagenome(tmp_path_factory):
    return releases.built("chest_imagenome", tmp_path_factory.mktemp("chest_imagenome"))


def test_a_box_is_a_region_with_a_finding(chest_imagenome):
    first = chest_imagenome.by_image()[mimic.dicom_id(0)]
    assert [(b.finding, b.phrase, b.x, b.y, b.w, b.h) for b in first.boxes] == [
        ("Lung Opacity", "Opacity number 0.", 5, 10, 30, 60),
        ("Lung Opacity", "No pneumothorax, stable opacity.", 5, 10, 30, 60),
        ("Edema", "Edema.", 5, 10, 30, 60), ("Edema", "Edema.", 50, 10, 30, 60)]
    labels = chest_imagenome.labels(first)
    assert {name for name, value in labels.items() if value == 1} == {"Lung Opacity", "Edema"}
    assert [name for name, value in labels.items() if value == 0] == ["Pneumothorax"]
    assert len(chest_imagenome.by_image()[mimic.dicom_id(10)].boxes) == 2


def test_the_gold_standards_images_are_left_out(chest_imagenome, tmp_path):
    assert mimic.dicom_id(110) not in chest_imagenome.by_image() and len(chest_imagenome.by_image()) == 11
    sources = open_sources(releases.config("chest_imagenome", chest_imagenome.folder, gold="keep"))
    assert sum(map(len, sources.values())) == 15
    assert sorted(chest_imagenome.reasons().values()) == [
        "a box without extent", "its scene graph cannot be read", "no scene graph of this image"]


@pytest.mark.parametrize("name", ["ms_cxr_t", "cxr_lt", "chest_imagenome"])
def test_subjects_are_those_of_mimic_and_tables_are_checked(name, request, tmp_path):
    data = request.getfixturevalue(name)
    theirs = {r.image_id: r.subject_id for r in releases.built("mimic_cxr", tmp_path).by_image().values()}
    ours = {r.image_id: r.subject_id for r in data.by_image().values() if r.has_image}
    both = set(ours) & set(theirs)
    assert len(both) > 8 and all(ours[image] == theirs[image] for image in both)
    folder = releases.written(name, tmp_path / "release")
    table = next(path for path in sorted(folder.rglob("*.csv")) if "avoid" not in path.name)
    world.table(table, releases.rows(table)[:-1])
    with pytest.raises(UserError, match="is not the released file"):
        open_sources(releases.config(name, folder))
