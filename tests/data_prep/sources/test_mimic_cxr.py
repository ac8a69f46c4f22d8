"""MIMIC-CXR: joins by name, splits, labels, reports, DICOM or JPEG, checksums."""

import csv
import gzip
import math
import shutil

import numpy as np
import pytest

from data_prep.sources.registry import open_sources
from data_prep.sources.shared import mimic_files
from data_prep.sources.shared.mimic_report import read_report
from lgdea_jax.errors import UserError
from tests.data_prep.sources import releases
from tests.fixtures import mimic_cxr as fixture
from tests.fixtures import world

SECTIONS = ("findings", "impression", "last_paragraph")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return releases.built("mimic_cxr", tmp_path_factory.mktemp("mimic"), patients="")


def test_splits_and_ids(data):
    # Studies 0 to 11 go round train, train, validate, test; even ones have two images.
    studies = {split: sorted({record.study_id for record in records}) for split, records in data.records.items()}
    assert studies["validation"] == ["s50000002", "s50000006", "s50000010"]
    assert studies["test"] == ["s50000003", "s50000007", "s50000011"]
    record = data.by_image()[fixture.dicom_id(21)]
    assert (record.study_id, record.subject_id, record.view) == ("s50000002", "p10000034", "LATERAL")
    assert (record.source, record.terms, record.label_source) == ("MIMIC-CXR", "credentialed", "report_program")
    assert record.original_shape.tolist() == [1, 72, 60]


def test_labels_are_found_by_name(data):
    with gzip.open(data.folder / "mimic-cxr-2.0.0-chexpert.csv.gz", "rt", newline="") as file:
        expected = {f"s{row['study_id']}": row for row in csv.DictReader(file)}
    seen = set()
    for record in data.by_image().values():
        row = expected[record.study_id]
        for name, value in data.labels(record).items():
            assert value == (-2 if row[name] == "" else int(float(row[name]))), (record.study_id, name)
            seen.add(value)
    assert seen == {1, 0, -1, -2} and len(data.metadata.label_names) == 14


def test_reports(data):
    study = world.phantom(releases.STUDIES, releases.SEED)[2]
    first, second = (data.by_image()[fixture.dicom_id(number)] for number in (20, 21))
    assert first.report == second.report == (
        f"FINDINGS: {world.section(study, 'findings')}\nIMPRESSION: {world.section(study, 'impression')}")
    # Neither findings nor impression: the last paragraph; no report: unpaired images.
    last, missing = (data.by_image()[fixture.dicom_id(number)] for number in (120, 130))
    assert last.report == "There is no pneumothorax. Small left pleural effusion." and last.view == ""
    assert {(e.finding, e.certainty) for e in last.evidence} >= {("Pneumothorax", "absent"),
                                                                ("Pleural Effusion", "present")}
    assert missing.has_image and not missing.has_report


def test_what_is_refused(data):
    assert data.reasons() == {
        ("s50000014", fixture.dicom_id(140)): "the JPEG file is truncated or damaged",
        ("s50000014", fixture.dicom_id(141)): "the JPEG file is truncated or damaged",
        ("s50000015", fixture.dicom_id(150)): "the image is not in the table of splits",
        ("s50000016", fixture.dicom_id(160)): "unreadable report: not UTF-8",
        ("s50000016", fixture.dicom_id(161)): "unreadable report: not UTF-8"}
    rows = {r.image_id: r.row for r in data.report.rejections}
    with gzip.open(data.folder / "mimic-cxr-2.0.0-metadata.csv.gz", "rt", newline="") as file:
        lines = file.read().splitlines()
    assert all(lines[row - 1].startswith(image) for image, row in rows.items())


def test_dicom_gives_the_same_studies(data, tmp_path):
    other = releases.built("mimic_cxr", tmp_path, how={"images": "dicom"}, image_format="dicom")
    ours, theirs = data.by_image(), other.by_image()
    damaged = {fixture.dicom_id(140), fixture.dicom_id(141)}
    assert set(theirs) == set(ours) and {r.image_id for r in other.report.rejections} >= damaged
    for name, record in theirs.items():
        assert (record.view, record.report, record.labels.tolist()) == (
            ours[name].view, ours[name].report, ours[name].labels.tolist())
        assert record.modality == "DX" and ours[name].modality == "CR"
    # MONOCHROME1 in every second study: turned round, which the JPEG of the same picture is not.
    assert other.metadata.converted["monochrome1"] == sum(int(r.study_id[1:]) % 2 for r in theirs.values())


def test_sex_and_age_come_from_the_patients(tmp_path):
    folder = releases.written("mimic_cxr", tmp_path / "m")
    source = open_sources(releases.config("mimic_cxr", folder, patients=str(folder / "patients.csv.gz")))["train"]
    studies = {study.study_id: study for study in (source[i] for i in range(len(source)))}
    # Patient 1: anchor 51 years in 2180, study in 2181; patient 4: 54 and 2184.
    assert (studies["s50000001"].sex, studies["s50000001"].age) == ("M", 52)
    assert (studies["s50000004"].sex, studies["s50000004"].age) == ("F", 58)
    without = open_sources(releases.config("mimic_cxr", folder))["train"][0]
    assert without.sex == "" and math.isnan(without.age)


def test_views_and_halves(tmp_path):
    folder = releases.written("mimic_cxr", tmp_path / "m")
    source = open_sources(releases.config("mimic_cxr", folder, views="frontal"))["train"]
    views = [image.view for i in range(len(source)) for image in source[i].images]
    assert set(views) == {"PA"} and len(views) == 6 + 2  # Of six studies in train, and the odd ones that are readable.
    alone = open_sources(releases.config("mimic_cxr", folder, images="none"))["test"][0]
    assert alone.images == () and alone.report and alone.rows == 1
    images = open_sources(releases.config("mimic_cxr", folder, reports="none", labels="none"))["test"][0]
    assert images.report == "" and images.images and images.labels == {} and images.label_source == ""


LAYOUTS = {"wget": ("physionet.org/files/mimic-cxr-jpg/2.1.0", "physionet.org/files/mimic-cxr/2.1.0"),
           "bucket": ("mimic-cxr-jpg-2.1.0.physionet.org", "mimic-cxr-2.1.0.physionet.org")}


def downloaded(root, layout, *, dicom=False):
    """The release as a download leaves it: tables and JPEGs in one project, reports (and DICOMs) in the other."""
    written = releases.written("mimic_cxr", root / "all", images="dicom" if dicom else "jpg")
    jpg, texts = (root / place for place in LAYOUTS[layout])
    jpg.parent.mkdir(parents=True, exist_ok=True)
    texts.mkdir(parents=True)
    (written / "mimic-cxr-reports" / "files").rename(texts / "files")
    if dicom:
        shutil.copytree(written / "files", texts / "files", dirs_exist_ok=True)
        shutil.rmtree(written / "files")
    written.rename(jpg)
    return jpg, texts


def first(folder, split="train", **changes):
    return open_sources(releases.config("mimic_cxr", folder, verify="none", **changes))[split][0]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dicom", [False, True])
def test_the_layout_of_a_download(tmp_path, layout, dicom):
    expected = first(releases.written("mimic_cxr", tmp_path / "flat"))
    jpg, texts = downloaded(tmp_path, layout, dicom=dicom)
    parts = [jpg, tmp_path, *(list(jpg.parents)[:3] if layout == "wget" else ())]
    for folder in parts:
        study = first(folder)
        assert study.report == expected.report != ""
        assert study.images[0].path.startswith(str((texts if dicom else jpg) / "files"))
        assert study.images[0].path.endswith(".dcm" if dicom else ".jpg")


def test_no_report_is_an_error_that_names_the_key(tmp_path):
    texts = downloaded(tmp_path, "wget")[1]
    (texts / "files").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"config\.mimic_cxr\.reports=\.\.\., or config\.mimic_cxr\.reports=none for"):
        first(tmp_path)
    (texts / "mimic-cxr-reports.zip").write_bytes(b"")
    with pytest.raises(UserError, match=r"unpack .*mimic-cxr/2\.1\.0/mimic-cxr-reports\.zip"):
        first(tmp_path)
    assert first(tmp_path, reports=str(tmp_path / "elsewhere")).report
    assert first(tmp_path, reports="none").report == ""
    with pytest.raises(UserError, match="no reports"):
        first(tmp_path, reports=str(tmp_path / "nowhere"))


def test_faults_of_the_whole_release(tmp_path, caplog):
    folder = releases.written("mimic_cxr", tmp_path / "m")
    table = folder / "mimic-cxr-2.0.0-split.csv.gz"
    text = gzip.decompress(table.read_bytes()).decode()
    table.write_bytes(gzip.compress(text.replace(",test", ",train", 1).encode()))
    with pytest.raises(UserError, match=r"split\.csv\.gz is not the released file .*SHA-256"):
        open_sources(releases.config("mimic_cxr", folder))
    open_sources(releases.config("mimic_cxr", folder, verify="none"))
    assert "377,110" in caplog.text
    table.write_bytes(gzip.compress(text.replace("split\r\n", "fold\r\n").encode()))
    with pytest.raises(UserError, match="no column 'split'"):
        open_sources(releases.config("mimic_cxr", folder, verify="none"))
    table.write_bytes(gzip.compress(text.encode())[:40])
    with pytest.raises(UserError, match="truncated or damaged"):
        open_sources(releases.config("mimic_cxr", folder, verify="none"))
    table.unlink()
    with pytest.raises(UserError, match=r"no mimic-cxr-2\.0\.0-split\.csv\.gz"):
        open_sources(releases.config("mimic_cxr", folder))


def test_faults_of_rows_refuse_these_rows_only(tmp_path):
    folder = releases.written("mimic_cxr", tmp_path / "m")
    for name, old, new in (("chexpert", "50000001,", "50000001,7"), ("split", ",validate", ",fold")):
        table = folder / f"mimic-cxr-2.0.0-{name}.csv.gz"
        table.write_bytes(gzip.compress(gzip.decompress(table.read_bytes()).decode().replace(old, new, 1).encode()))
    sources = open_sources(releases.config("mimic_cxr", folder, verify="none"))
    found = {r.image_id: r.reason for source in sources.values() for i in range(len(source))
             for r in source[i].rejections}
    assert found[fixture.dicom_id(10)] == "a label is none of 1, 0, -1 and empty"
    assert found[fixture.dicom_id(20)] == "its split is none of train, validate, test"
    assert sum(source[i].rows for source in sources.values() for i in range(len(source))) == 26


def test_every_file_is_checked_when_asked(tmp_path):
    folder = releases.written("mimic_cxr", tmp_path / "m")
    open_sources(releases.config("mimic_cxr", folder, verify="all"))
    image = folder / "files" / f"{fixture.stem(3, 0)}.jpg"
    image.write_bytes(image.read_bytes() + b"\0")
    open_sources(releases.config("mimic_cxr", folder, verify="tables"))
    with pytest.raises(UserError, match="is not the released file"):
        open_sources(releases.config("mimic_cxr", folder, verify="all"))
    image.unlink()  # A file that was not downloaded is not a file that differs.
    open_sources(releases.config("mimic_cxr", folder, verify="all"))
    (folder / "SHA256SUMS.txt").unlink()
    with pytest.raises(UserError, match="verify=all needs"):
        open_sources(releases.config("mimic_cxr", folder, verify="all"))


def test_a_subject_in_two_splits_is_refused(tmp_path):
    folder = releases.written("mimic_cxr", tmp_path / "m")
    shutil.rmtree(folder / "files")
    table = folder / "mimic-cxr-2.0.0-split.csv.gz"
    text = gzip.decompress(table.read_bytes()).decode()
    line = next(line for line in text.splitlines() if line.startswith(fixture.dicom_id(21)))
    table.write_bytes(gzip.compress(text.replace(line, line.replace("validate", "test")).encode()))
    with pytest.raises(UserError, match="the subject lies both in validation and in test"):
        open_sources(releases.config("mimic_cxr", folder, verify="none", images="none"))


@pytest.mark.parametrize(("text", "expected"), [
    (" FINAL REPORT\n FINDINGS:\n\n Clear lungs.  No\n effusion.\n\n IMPRESSION:  Normal.\n",
     "FINDINGS: Clear lungs. No effusion.\nIMPRESSION: Normal."),
    (" FINAL REPORT\n INDICATION: Cough.\n\n IMPRESSION: Normal.", "IMPRESSION: Normal."),
    (" FINAL REPORT\n CHEST RADIOGRAPH\n\n HISTORY: Cough.\n\n No effusion.\n Normal.", "No effusion. Normal."),
    (" FINAL REPORT\n HISTORY: Cough.\n\n RECOMMENDATION: See above.", ""),
    ("", ""),
])
def test_sections(text, expected):
    assert read_report(text, SECTIONS) == expected


def test_paths_are_those_of_the_release():
    assert mimic_files.study_path("10000032", "50414267") == "p10/p10000032/s50414267"
    assert np.all([len(fixture.dicom_id(n)) == 44 for n in range(3)])
