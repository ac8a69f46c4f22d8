"""CheXpert: both releases, tables in different orders, test labels, reports of CheXpert Plus."""

import csv

import pytest

from data_prep.sources.registry import open_sources
from lgdea_jax.errors import UserError
from tests.data_prep.sources import releases
from tests.fixtures import world


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return releases.built("chexpert", tmp_path_factory.mktemp("chexpert"))


def test_splits_ids_and_views(data):
    # Patients 1 to 6 are in train (odd numbers with a lateral image), 7 to 9 in valid, 10 to 12 in test.
    names = {split: [r.image_id for r in records] for split, records in data.records.items()}
    assert names["train"] == [
        f"train/patient{n:05d}/study1/view{k}_{view}.jpg" for n in range(1, 7)
        for k, view in ((1, "frontal"), (2, "lateral"))[:2 if n % 2 else 1]]
    assert names["validation"] == [f"valid/patient{n:05d}/study1/view1_frontal.jpg" for n in (7, 8, 9)]
    assert names["test"] == [f"test/patient{n:05d}/study1/view1_frontal.jpg" for n in (10, 11, 12)]
    first, second = data.records["train"][:2]
    assert (first.study_id, first.subject_id, first.view, first.sex, first.age) == (
        "patient00001/study1", "patient00001", "AP", "F", 40)
    assert second.view == "LATERAL"
    test = data.records["test"][0]
    assert (test.view, test.sex) == ("FRONTAL", "")  # By the file's name; that table has no more.
    assert {split: {r.label_source for r in records} for split, records in data.records.items()} == {
        "train": {"report_program"}, "validation": {"radiologist"}, "test": {"radiologist"}}


def test_labels_by_name_whatever_the_order(data):
    for split, name in (("train", "train.csv"), ("validation", "valid.csv"), ("test", "test_labels.csv")):
        expected = {row["Path"].removeprefix("CheXpert-v1.0-small/"): row for row in releases.rows(data.folder / name)}
        for record in data.records[split]:
            row = expected[record.image_id]
            assert data.labels(record) == {k: int(float(row[k])) if row[k] else -2 for k in data.metadata.label_names}
    # The two tables do order these two labels differently.
    orders = [next(csv.reader(open(data.folder / name))) for name in ("train.csv", "test_labels.csv")]  # noqa: SIM115
    places = [(order.index("Lung Opacity") < order.index("Lung Lesion")) for order in orders]
    assert places == [True, False]
    assert any(data.labels(r)["Lung Lesion"] != data.labels(r)["Lung Opacity"] for r in data.records["train"])


def test_what_is_refused(data):
    assert sorted(data.reasons().values()) == sorted([
        "the image file is missing", "the image file is missing", "a label is none of 1, 0, -1 and empty",
        "the path is not like train/patient00001/study1/view1_frontal.jpg"])


def test_the_full_release(data, tmp_path):
    other = releases.built("chexpert", tmp_path, how={"release": "CheXpert-v1.0"})
    assert [r.image_id for r in other.records["train"]] == [r.image_id for r in data.records["train"]]


def test_reports_of_chexpert_plus(tmp_path):
    folder = releases.written("chexpert", tmp_path / "c", plus=True)
    table = folder / "df_chexpert_plus_240401.csv"
    sources = open_sources(releases.config("chexpert", folder, reports=str(table)))
    study = world.phantom(releases.STUDIES, releases.SEED)[2]
    found = sources["train"][2]
    assert found.study_id == "patient00003/study1" and found.images[0].path.endswith(".png")
    assert found.report == (f"FINDINGS: {world.section(study, 'findings')}\n"
                            f"IMPRESSION: 1. {world.section(study, 'impression')}")
    assert sources["test"][0].report  # Other splits are joined the same way.
    alone = open_sources(releases.config("chexpert", folder, reports=str(table), images="none"))["train"][2]
    assert alone.images == () and alone.report == found.report and alone.rejections == ()
    with pytest.raises(UserError, match="no column 'section_summary'"):
        table.write_text(table.read_text().replace("section_summary", "summary"))
        open_sources(releases.config("chexpert", folder, reports=str(table), report_sections=("summary",)))


def test_frontal_only(tmp_path):
    folder = releases.written("chexpert", tmp_path / "c")
    source = open_sources(releases.config("chexpert", folder, views="frontal"))["train"]
    assert {image.view for i in range(len(source)) for image in source[i].images} == {"AP"}


def test_labels_that_differ_within_a_study(tmp_path):
    folder = releases.written("chexpert", tmp_path / "c")
    rows = releases.rows(folder / "train.csv")
    rows[1]["Edema"] = "-1.0"
    world.table(folder / "train.csv", rows)
    study = open_sources(releases.config("chexpert", folder))["train"][0]
    assert [image.view for image in study.images] == ["AP"]
    assert [(r.image_id, r.row) for r in study.rejections] == [("train/patient00001/study1/view2_lateral.jpg", 3)]


def test_an_image_that_occurs_twice(tmp_path):
    folder = releases.written("chexpert", tmp_path / "c")
    rows = releases.rows(folder / "train.csv")
    world.table(folder / "train.csv", [rows[0], *rows])
    source = open_sources(releases.config("chexpert", folder))["train"]
    assert [r.reason for i in range(2) for r in source[i].rejections] == ["the image occurs twice"]


def test_the_folder_above_the_release(tmp_path):
    releases.written("chexpert", tmp_path / "above" / "CheXpert-v1.0-small")
    source = open_sources(releases.config("chexpert", tmp_path / "above"))["train"]
    assert (tmp_path / "above" / "CheXpert-v1.0-small" / "train" / "patient00001" / "study1" / "view1_frontal.jpg"
            ).samefile(source[0].images[0].path)


def test_the_full_release_as_its_archives_unpack(tmp_path):
    written = releases.written("chexpert", tmp_path / "c", release="CheXpert-v1.0")
    folder = tmp_path / "full"
    first, second = folder / "CheXpert-v1.0 batch 1 (validate & csv)", folder / "CheXpert-v1.0 batch 2 (train 1)"
    folder.mkdir()
    (written / "train").rename(second)  # Patients without the folder train/.
    written.rename(first)
    sources = open_sources(releases.config("chexpert", folder))
    assert second.joinpath("patient00001", "study1", "view1_frontal.jpg").samefile(sources["train"][0].images[0].path)
    assert first.joinpath("valid", "patient00007", "study1", "view1_frontal.jpg").samefile(
        sources["validation"][0].images[0].path)
    assert sources["train"][0].images[0].image_id == "train/patient00001/study1/view1_frontal.jpg"
