"""DICOM series: one volume of all slices, or one reason; nothing in a folder is passed over in silence."""

import gzip
import os
import shutil

import numpy as np
import pydicom
import pytest

from lgdea_jax.io import UnreadableImage, read_volume
from tests.io.volumes import SPACING, chest, repairs, setting, write_enhanced, write_series


def test_dicom_series(tmp_path):
    write_series(tmp_path / "s", chest(), SPACING)
    (tmp_path / "s" / "readme.txt").write_text("x" * 200)
    read, info = read_volume(tmp_path / "s")
    np.testing.assert_array_equal(read, chest())
    np.testing.assert_allclose(info.spacing, SPACING)
    assert (info.sex, info.age, repairs(info)) == ("F", 61.0, ())
    np.testing.assert_allclose(info.affine @ [0, 0, 0, 1], [-10, 20, 100, 1])  # LPS to RAS.
    sitk = pytest.importorskip("SimpleITK")
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "s")))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.DICOMOrient(reader.Execute(), "LPS")), read)


def test_dicom_series_lying_on_its_face(tmp_path):
    """A prone patient's slices are turned by half a circle; the reader turns them back."""
    write_series(tmp_path / "s", chest()[:, ::-1, ::-1], SPACING, orientation=(-1, 0, 0, 0, -1, 0))
    np.testing.assert_array_equal(read_volume(tmp_path / "s")[0], chest())


@pytest.mark.parametrize("change, reason", [
    (setting(SeriesInstanceUID=lambda k: f"1.2.{k % 2}"), "mixes several series"),
    (setting(PixelSpacing=None), r"without a voxel spacing \(PixelSpacing\)"),
    (setting(PixelSpacing=lambda k: [3.0, 2.0 + k]), "mixes slices"),
    (setting(ImagePositionPatient=None), "without a position"),
    (setting(ImagePositionPatient=lambda k: [0, 0, 5.0 * (k // 2)]), "two slices at one position"),
    (setting(ImagePositionPatient=lambda k: [0, 0, 5.0 * k + (k > 3) * 4]), "lacks slices"),
    (setting(ImagePositionPatient=lambda k: [0, 2.0 * k, 5.0 * k]), "sheared"),
    (setting(Modality="MR"), "not CT"), (setting(RescaleSlope=0), "a slope of 0"),
    (lambda one, k: k != 4, "lacks slices"), (lambda one, k: k == 4, "one slice"),
    (lambda one, k: False, "no DICOM files"),
    (setting(PixelData=lambda k: bytes(10)), "truncated or damaged")])
def test_series_that_are_refused(tmp_path, change, reason):
    write_series(tmp_path / "s", chest(), SPACING, change=change)
    with pytest.raises(UnreadableImage, match=reason):
        read_volume(tmp_path / "s")


def test_one_slice_is_no_volume(tmp_path):
    write_series(tmp_path / "s", chest(), SPACING)
    with pytest.raises(UnreadableImage, match="name the folder"):
        read_volume(next((tmp_path / "s").iterdir()))


