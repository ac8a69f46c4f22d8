"""What must not become one volume: several patients, slices that are scaled otherwise, parts, places that drift."""

import nibabel
import numpy as np
import pytest

from lgdea_jax.io import UnreadableImage, read_volume
from tests.io.volumes.writers import SPACING, chest, repairs, setting, write_enhanced, write_series


@pytest.mark.parametrize("change, reason", [
    (setting(PatientID=lambda k: "A" if k < 4 else "B"), "mixes 2 patients"),
    (setting(RescaleSlope=lambda k: None if k == 3 else 1, RescaleIntercept=lambda k: None if k == 3 else -1024),
     "1 of 8 slices of the series lack the slope"),
])
def test_headers_that_do_not_belong_together(tmp_path, change, reason):
    write_series(tmp_path / "s", chest(), SPACING, change=change)
    with pytest.raises(UnreadableImage, match=reason):
        read_volume(tmp_path / "s")


def test_patients_that_are_not_named_everywhere(tmp_path):
    for name, ids in (("a", lambda k: "" if k < 4 else "A"), ("b", lambda k: f"P{k}"), ("c", lambda k: "A" + " " * k)):
        write_series(tmp_path / name, chest(), SPACING, change=setting(PatientID=ids))
        np.testing.assert_array_equal(read_volume(tmp_path / name)[0], chest())


def test_gaps_that_grow_slowly(tmp_path):
    # Each is within a tenth of the usual one, and in the middle half a slice is lost.
    volume = chest((30, 10, 12))
    write_series(tmp_path / "s", volume, SPACING,
                 change=setting(ImagePositionPatient=lambda k: [0, 0, 6.0 * k + 0.02 * k * k]))
    with pytest.raises(UnreadableImage, match="unevenly spaced"):
        read_volume(tmp_path / "s")


def test_a_part_of_an_enhanced_object(tmp_path):
    def part(one):
        one.ConcatenationUID, one.InConcatenationNumber, one.InConcatenationTotalNumber = "1.2.3", 1, 2

    write_enhanced(tmp_path / "a.dcm", chest(), SPACING, change=part)
    with pytest.raises(UnreadableImage, match="1 of the 2 parts of an enhanced DICOM"):
        read_volume(tmp_path / "a.dcm")


def save(path, volume):
    nibabel.save(nibabel.Nifti1Image(volume.transpose(2, 1, 0), np.diag([-2.0, -3.0, 5.0, 1.0])), path)


@pytest.mark.parametrize("value", [0, 1000, -500])
def test_one_value_around_the_field_of_view_is_air(tmp_path, value):
    volume = chest((8, 20, 24))
    y, x = np.mgrid[:20, :24]
    round_view = (y - 9.5) ** 2 / 100 + (x - 11.5) ** 2 / 144 <= 1
    volume[volume == value] += 1
    volume[:, 10, 12] = value  # The same value inside stays.
    filled = np.where(round_view, volume, value).astype(np.int16)
    save(tmp_path / "v.nii", filled)
    read, info = read_volume(tmp_path / "v.nii")
    np.testing.assert_array_equal(read, np.where(round_view, volume, -1024))
    assert repairs(info) == ("padding",)


def test_edges_with_noise_or_air_are_left_alone(tmp_path):
    for volume in (chest(), chest()[:, 3:-3, 3:-3]):
        save(tmp_path / "v.nii", volume)
        read, info = read_volume(tmp_path / "v.nii")
        np.testing.assert_array_equal(read, volume)
        assert repairs(info) == ()


def test_lungs_without_a_body_are_no_chest(tmp_path):
    volume = chest((8, 20, 24))
    save(tmp_path / "v.nii", np.where(volume < -700, volume, 0).astype(np.int16) * (volume > -950))
    with pytest.raises(UnreadableImage, match="without air and soft tissue"):
        read_volume(tmp_path / "v.nii")


def test_slices_without_numbers(tmp_path):
    volume = chest((8, 20, 24)).astype(np.float32)
    volume[5:] = np.nan
    save(tmp_path / "v.nii", volume)
    with pytest.raises(UnreadableImage, match="3 of the volume's 8 slices have no numbers"):
        read_volume(tmp_path / "v.nii")


def test_more_slices_than_stated(tmp_path):
    save(tmp_path / "v.nii", chest())
    data = bytearray((tmp_path / "v.nii").read_bytes())
    data[46:48] = (5).to_bytes(2, "little")
    (tmp_path / "v.nii").write_bytes(data)
    with pytest.raises(UnreadableImage, match="holds more than it states"):
        read_volume(tmp_path / "v.nii")
