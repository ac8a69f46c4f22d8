"""CT-RATE and RAD-ChestCT: names, splits, labels, reconstructions, headers against metadata."""

import nibabel
import numpy as np
import pytest

from data_prep.build import build
from data_prep.sources.ct import rad_chestct
from data_prep.sources.registry import open_sources
from lgdea_jax.data.source import open_records
from lgdea_jax.errors import UserError
from lgdea_jax.findings.label_sets import LABEL_SETS
from lgdea_jax.io import decode_volume
from tests.data_prep.sources import releases
from tests.fixtures import ct, world


@pytest.fixture(scope="module")
def ct_rate(tmp_path_factory):
    return releases.built("ct_rate", tmp_path_factory.mktemp("ct_rate"))


def test_ct_rate(ct_rate):
    data, meta = ct_rate, ct_rate.metadata
    assert (meta.modalities, meta.volume, meta.transform) == (("CT",), "phantom_ct", "phantom_ct@1")
    assert meta.label_names == LABEL_SETS["ct_rate18"]
    tables = data.folder / "dataset"
    official = {}
    for part in ("train", "valid"):
        for row in releases.rows(tables / "multi_abnormality_labels" / f"{part}_predicted_labels.csv"):
            official[row["VolumeName"].removesuffix(".nii.gz")] = row
    reports = {row["VolumeName"].removesuffix(".nii.gz"): row for part in ("train", "validation")
               for row in releases.rows(tables / "radiology_text_reports" / f"{part}_reports.csv")}
    for image, record in data.by_image().items():
        part, patient, scan, _ = image.split("_")
        assert record.study_id == f"{part}_{patient}_{scan}" and record.subject_id == f"{part}_{patient}"
        assert (record in data.records["test"]) == (part == "valid")
        row = official[image]
        assert record.labels.tolist() == [int(row[name]) for name in list(row)[1:]]  # By position: the official order.
        assert record.label_source == "report_program" and record.sex in "MF" and record.age > 20
        assert reports[image]["Findings_EN"] in record.report and "Not given" not in record.report
        # The stored volume is the file's, read with another library, in the canonical frame.
        loaded = nibabel.load(tables / f"{part}_fixed" / f"{part}_{patient}" / record.study_id / f"{image}.nii.gz")
        turned = nibabel.as_closest_canonical(loaded).get_fdata()[::-1, ::-1].transpose(2, 1, 0)
        assert tuple(record.original_shape) == turned.shape == ct.SHAPE
        np.testing.assert_allclose(record.spacing, ct.SPACING, rtol=1e-5)
        stored = decode_volume(record.image).astype(float)
        assert np.corrcoef(stored[::8, ::8, ::8].ravel(),
                           turned[np.ix_(*[((np.arange(n // 8) * 8 + 0.5) * m / n).astype(int) for n, m in zip(
                               stored.shape, turned.shape)])].ravel())[0, 1] > 0.9
    siblings = [r for r in data.records["train"] if r.study_id == "train_0_a"]
    assert len(siblings) == 2 and siblings[0].report == siblings[1].report != ""
    assert {r.subject_id for r in data.records["train"]} > {"train_2"} and "train_2_b" in {
        r.study_id for records in data.records.values() for r in records}
    assert sorted(data.reasons().values()) == [
        "its row of labels is empty", "no volume of CT-RATE is called 'scout.nii.gz'",
        "the NIfTI file is truncated or damaged (EOFError)", "the volume's file is missing"]


def test_ct_rate_headers(ct_rate, tmp_path):
    """The first release takes slope and spacing from the metadata; the fixed one is refused if it does."""
    raw = releases.built("ct_rate", tmp_path, how={"headers": "metadata"}, headers="metadata")
    fixed = ct_rate.by_image()
    assert raw.metadata.converted["slope from the table"] == len(raw.by_image())
    for image, record in raw.by_image().items():
        np.testing.assert_array_equal(decode_volume(record.image), decode_volume(fixed[image].image))
    out = tmp_path / "twice"
    with pytest.raises(UserError, match="no row of the source could be used"):
        build(releases.config("ct_rate", ct_rate.folder, headers="metadata"), out, progress=False)
    reasons = {row["reason"] for row in releases.rows(out / "rejected.csv")}
    assert any(reason.startswith("rescaled twice") for reason in reasons)


def test_ct_rate_parts_and_reconstructions(ct_rate, tmp_path):
    sources = open_sources(releases.config("ct_rate", ct_rate.folder, reconstructions="first", images="none"))
    assert all(not source[i].images for source in sources.values() for i in range(len(source)))
    assert sum(source[i].rows for source in sources.values() for i in range(len(source))) == 12 + 3 + 1
    broken = tmp_path / "broken" / "dataset"
    row = {"VolumeName": "valid_1_a_1.nii.gz", "Findings_EN": "x", "Impressions_EN": ""}
    world.table(broken / "radiology_text_reports" / "validation_reports.csv", [row])
    with pytest.raises(UserError, match=r"no valid_predicted_labels\.csv"):
        open_sources(releases.config("ct_rate", tmp_path / "broken"))
    world.table(broken / "multi_abnormality_labels" / "valid_predicted_labels.csv",
                [{"VolumeName": "valid_1_a_1.nii.gz", "Lung nodule": "1"}])
    with pytest.raises(UserError, match=r"no image folder .*valid_fixed"):
        open_sources(releases.config("ct_rate", tmp_path / "broken"))
    with pytest.raises(UserError, match="has no column for Arterial Wall Calcification, "):
        open_sources(releases.config("ct_rate", tmp_path / "broken", images="none"))


def test_rad_chestct(tmp_path):
    data = releases.built("rad_chestct", tmp_path)
    for image, record in data.by_image().items():
        split = {"trn": "train", "val": "validation", "tst": "test"}[image[:3]]
        assert record in data.records[split] and not record.has_report
        part = {"train": "train", "validation": "valid", "test": "test"}[split]
        row = next(row for row in releases.rows(data.folder / f"img{part}_Abnormality_and_Location_Labels.csv")
                   if row["NoteAcc_DEID"] == image)
        labels = data.labels(record)
        for kind, names in (("hernia", ["Hernia"]), ("fibrosis", ["Pulmonary Fibrotic Sequela"]),
                            ("opacity", ["Lung Opacity"]),
                            ("calcification", ["Arterial Wall Calcification", "Coronary Artery Wall Calcification"])):
            there = any(value == "1" for column, value in row.items() if column.split("*")[0] == kind)
            assert [labels[name] for name in names] == [int(there)] * len(names)
        np.testing.assert_allclose(record.spacing, 0.8, rtol=1e-6)
    assert sorted(data.reasons().values()) == [
        "a label is neither 0 nor 1", "an .npz file with 2 arrays and none called ct", "the volume's file is missing"]


def test_rad_chestct_is_the_right_way_up(tmp_path):
    """A volume of 320 x 360 x 360 mm whose first slices, at the head, have a bone in front to the patient's left."""
    name = "trn00001"
    ones = dict.fromkeys([f"{kind}*other_location" for kind in rad_chestct.MAPPING], "0") | {"NoteAcc_DEID": name}
    world.table(tmp_path / "imgtrain_Abnormality_and_Location_Labels.csv", [ones], list(ones))
    volume = np.full((32, 48, 48), -1000, np.int16)  # [head to feet, front to back, patient's right to left].
    volume[:8, 6:42, 6:42] = 0
    volume[2:6, 8:16, 30:40] = 900
    np.savez_compressed(tmp_path / f"{name}.npz", ct=volume)
    build(releases.config("rad_chestct", tmp_path, spacing=(10.0, 7.5, 7.5)), tmp_path / "data", progress=False)
    (record,) = open_records(tmp_path / "data", "train")
    # Records are [feet to head, front to back, patient's right to left].
    bone = np.argwhere(decode_volume(record.image) > 500)
    np.testing.assert_allclose(bone.mean(0), (31 - 3.5, 11.5, 34.5), atol=0.6)


def test_rad_chestct_axes(tmp_path):
    """The axes that the config names are turned into the canonical frame."""
    folder = releases.written("rad_chestct", tmp_path / "r")
    first = releases.config("rad_chestct", folder, spacing=ct.SPACING)
    build(first, tmp_path / "a", progress=False)
    with pytest.raises(UserError, match="axes 'SPX'"):
        build(releases.config("rad_chestct", folder, axes="SPX"), tmp_path / "c", progress=False)
    second = releases.config("rad_chestct", folder, axes="SPR", spacing=ct.SPACING)
    build(second, tmp_path / "b", progress=False)
    for a, b in zip(open_records(tmp_path / "a", "train"), open_records(tmp_path / "b", "train"), strict=True):
        np.testing.assert_array_equal(decode_volume(a.image), decode_volume(b.image)[::-1, :, ::-1])
