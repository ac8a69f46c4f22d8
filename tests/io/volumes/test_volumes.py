"""Volumes: one frame whatever the file's order, Hounsfield units once, and one reason for whatever is refused."""

import gzip

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lgdea_jax.errors import UserError
from lgdea_jax.io import UnreadableImage, decode_volume, encode_volume, read_volume
from lgdea_jax.io.raw_volume import VolumeHeader
from tests.fixtures.ct import write_nifti
from tests.io.volumes.writers import CODES, SPACING, chest, repairs


def direction_letters(affine):
    """Where the axes of an array grow to in the patient, such as "SPL"."""
    letters = []
    for column in np.asarray(affine)[:3, :3].T:
        axis = int(np.abs(column).argmax())
        letters.append(("RL", "AP", "SI")[axis][int(column[axis] < 0)])
    return "".join(letters)


def centroid_mm(mask, affine):
    """The centre of a mask [z, y, x] in the affine's millimetres."""
    return (affine @ np.array([*(p.mean() for p in np.nonzero(mask)), 1.0]))[:3]

@settings(max_examples=30, deadline=None)
@given(st.sampled_from(CODES), st.integers(0, 5))
def test_orientation_round_trips(tmp_path_factory, codes, seed):
    path = tmp_path_factory.mktemp("n") / "v.nii"
    volume = chest(seed=seed)
    write_nifti(path, volume, SPACING, codes)
    read, info = read_volume(path)
    np.testing.assert_array_equal(read, volume)
    np.testing.assert_allclose(info.spacing, SPACING, rtol=1e-6)
    assert direction_letters(info.affine) == "SPL"
    assert repairs(info) == (() if codes[2] in "SI" else ("not axial",))
    # The brightest voxel is where nibabel's own affine says it is.
    image = nibabel.load(path)
    there = image.affine @ [*np.argwhere(np.asarray(image.dataobj) == 700)[0], 1]
    np.testing.assert_allclose(info.affine @ [*np.argwhere(read == 700)[0], 1], there, atol=1e-4)


@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
def test_sitk_reads_the_same(tmp_path, name):
    sitk = pytest.importorskip("SimpleITK")
    for codes in ("RAS", "LPS", "PSR", "ILA"):
        write_nifti(tmp_path / name, chest(), SPACING, codes)
        image = sitk.DICOMOrient(sitk.ReadImage(str(tmp_path / name)), "LPS")
        read, info = read_volume(tmp_path / name)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), read)
        np.testing.assert_allclose(image.GetSpacing()[::-1], info.spacing, rtol=1e-5)


def test_a_masks_centroid_stays_in_place(tmp_path):
    mask = np.zeros((8, 10, 12), np.int16)
    mask[5:7, 2:5, 8:11] = 1
    for codes in CODES[::5]:
        write_nifti(tmp_path / "m.nii.gz", mask, SPACING, codes)
        read, info = read_volume(tmp_path / "m.nii.gz", hounsfield=False)
        image = nibabel.load(tmp_path / "m.nii.gz")
        middle = image.affine @ [*np.argwhere(np.asarray(image.dataobj) > 0).mean(0), 1]
        assert np.abs(centroid_mm(read > 0, info.affine) - middle[:3]).max() < 1e-3


@pytest.mark.parametrize("slope, intercept, dtype", [
    (1, -1024, np.uint16), (0.5, -1024, np.uint16), (2, 0, np.int16), (1, 0, np.float32)])
def test_the_files_slope_is_applied_once(tmp_path, slope, intercept, dtype):
    path = tmp_path / "v.nii.gz"
    write_nifti(path, chest(), SPACING, slope=slope, intercept=intercept, dtype=dtype)
    read, _ = read_volume(path)
    np.testing.assert_array_equal(read, np.rint(np.asarray(nibabel.load(path).get_fdata())).transpose(2, 1, 0))
    assert np.abs(read - chest()).max() <= slope / 2


def test_the_tables_slope(tmp_path):
    """Raw values need it, Hounsfield units must not get it; one that changes nothing is let pass."""
    header = VolumeHeader(slope=1, intercept=-1024)
    write_nifti(tmp_path / "raw.nii", chest() + 1024, SPACING)
    read, info = read_volume(tmp_path / "raw.nii", header)
    np.testing.assert_array_equal(read, chest())
    assert repairs(info) == ("slope from the table",)
    for how in ({}, {"slope": 1, "intercept": -1024, "dtype": np.uint16}):  # As values, or by the file's own slope.
        write_nifti(tmp_path / "hu.nii", chest(), SPACING, **how)
        with pytest.raises(UnreadableImage, match=r"^rescaled twice"):
            read_volume(tmp_path / "hu.nii", header)
    np.testing.assert_array_equal(read_volume(tmp_path / "raw.nii", VolumeHeader(1, -1024))[0], chest())
    write_nifti(tmp_path / "hu.nii", chest(), SPACING)
    np.testing.assert_array_equal(read_volume(tmp_path / "hu.nii", VolumeHeader(1, 0))[0], chest())


def test_padding_is_told_from_values_that_were_rescaled_twice(tmp_path):
    volume = chest()
    volume[:, :1] = -3024
    write_nifti(tmp_path / "p.nii", volume, SPACING)
    read, info = read_volume(tmp_path / "p.nii")
    np.testing.assert_array_equal(read, np.maximum(volume, -1024))
    assert repairs(info) == ("padding",)
    with_noise = chest().astype(np.int32) - 1024 + np.random.default_rng(0).integers(-40, 40, volume.shape)
    write_nifti(tmp_path / "p.nii", with_noise, SPACING)
    with pytest.raises(UnreadableImage, match="values far below air: rescaled twice"):
        read_volume(tmp_path / "p.nii")


def _four_d(image):
    return nibabel.Nifti1Image(np.stack([np.asarray(image.dataobj)] * 2, -1), image.affine)


def _one_frame(image):
    return nibabel.Nifti1Image(np.asarray(image.dataobj)[..., None], image.affine)


def _nan(image):
    values = np.asarray(image.dataobj).astype(np.float32)
    values[1, 1, 1] = np.nan
    return nibabel.Nifti1Image(values, image.affine)


def _turned(degrees):
    def change(image):
        angle = np.deg2rad(degrees)
        turn = np.eye(4)
        turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        return nibabel.Nifti1Image(np.asarray(image.dataobj), turn @ image.affine)

    return change


def _sheared(image):
    affine = image.affine.copy()
    affine[1, 2] += 1.5
    return nibabel.Nifti1Image(np.asarray(image.dataobj), affine)


def _no_spacing(path):
    """Takes sform and voxel sizes out of a file: nibabel puts them back when it saves."""
    data = bytearray(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())
    data[80:92], data[254:256] = bytes(12), bytes(2)
    path.write_bytes(gzip.compress(bytes(data)) if path.suffix == ".gz" else bytes(data))


def _no_orientation(image):
    image.set_sform(None, 0)
    image.set_qform(None, 0)


def _micrometres(image):
    affine = image.affine.copy()
    affine[:3] *= 1000
    out = nibabel.Nifti1Image(np.asarray(image.dataobj), affine)
    out.header.set_xyzt_units("micron")
    return out


@pytest.mark.parametrize("change, reason", [
    (_four_d, r"a 4D NIfTI file of shape \[12, 10, 8, 2\]"), (_nan, "voxels that are not numbers"),
    (_turned(20), "oblique: 20 degrees"), (_sheared, "sheared"), (_no_orientation, "without an orientation"),
    (_no_spacing, "no voxel spacing"), (_one_frame, None), (_turned(2), None), (_micrometres, None)])
def test_what_a_header_can_do(tmp_path, change, reason):
    path = tmp_path / "v.nii.gz"
    write_nifti(path, chest(), SPACING, change=None if change is _no_spacing else change)
    if change is _no_spacing:
        change(path)
    if reason:
        with pytest.raises(UnreadableImage, match=reason):
            read_volume(path)
    else:
        read, info = read_volume(path)
        np.testing.assert_array_equal(read, chest())
        np.testing.assert_allclose(info.spacing, SPACING, rtol=1e-4)
        assert repairs(info) == ({_one_frame: "one frame of 4D", _micrometres: "units"}.get(change, "oblique"),)


def test_spacing_from_the_table(tmp_path):
    header = VolumeHeader(spacing=(4.0, 1.0, 1.5))
    for change in (_no_spacing, None):
        write_nifti(tmp_path / "v.nii", chest(), SPACING)
        if change:
            change(tmp_path / "v.nii")
        read, info = read_volume(tmp_path / "v.nii", header)
        np.testing.assert_array_equal(read, chest())
        assert info.spacing == header.spacing and repairs(info) == ("spacing from the table",)
        np.testing.assert_allclose(np.linalg.norm(info.affine[:3, :3], axis=0), header.spacing)


@pytest.mark.parametrize("volume", [
    np.zeros((8, 10, 12), np.int16), chest() * 30, chest() // 20, np.full((8, 10, 12), -1000, np.int16)])
def test_values_that_are_no_chest(tmp_path, volume):
    write_nifti(tmp_path / "v.nii", volume, SPACING)
    with pytest.raises(UnreadableImage, match=r"wrong slope|rescaled twice|no Hounsfield units"):
        read_volume(tmp_path / "v.nii")


def test_damaged_files(tmp_path):
    path = tmp_path / "v.nii.gz"
    write_nifti(path, chest(), SPACING)
    whole = path.read_bytes()
    plain = gzip.decompress(whole)
    cases = [whole[:cut] for cut in (0, 1, 9, 60, len(whole) // 2, len(whole) - 1)]
    cases += [whole[:-4] + bytes(4), whole[:-30] + bytes(30), b"\x1f\x8b" + bytes(40), b"hello",
              gzip.compress(b"hello" * 100)]
    for data in cases:
        path.write_bytes(data)
        with pytest.raises(UnreadableImage) as caught:
            read_volume(path)
        assert str(tmp_path) not in caught.value.reason
    (tmp_path / "v.nii").write_bytes(plain[: len(plain) - 50])
    with pytest.raises(UnreadableImage, match="truncated or damaged"):
        read_volume(tmp_path / "v.nii")
    with pytest.raises(UnreadableImage, match="missing"):
        read_volume(tmp_path / "none.nii")
    other = tmp_path / "volume"  # A NIfTI file without its usual name.
    other.write_bytes(whole)
    np.testing.assert_array_equal(read_volume(other)[0], chest())


def test_npz(tmp_path):
    path = tmp_path / "v.npz"
    header = VolumeHeader(spacing=(0.8, 0.8, 0.8), axes="IAR")
    np.savez_compressed(path, ct=chest()[::-1, ::-1, ::-1], other=np.zeros(3))
    read, info = read_volume(path, header)
    np.testing.assert_array_equal(read, chest())
    assert info.spacing == (0.8, 0.8, 0.8) and direction_letters(info.affine) == "SPL"
    with pytest.raises(UnreadableImage, match="no voxel spacing"):
        read_volume(path)
    with pytest.raises(UserError, match="axes"):
        read_volume(path, VolumeHeader(axes="SSL"))
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(UnreadableImage, match="truncated or damaged"):
        read_volume(path, header)


@settings(max_examples=20, deadline=None)
@given(st.tuples(*[st.integers(1, 40)] * 3), st.data())
def test_stored_volumes(shape, data):
    volume = np.random.default_rng(data.draw(st.integers(0, 9))).integers(-32768, 32767, shape).astype(np.int16)
    stored = encode_volume(volume)
    assert stored == encode_volume(volume.copy())
    np.testing.assert_array_equal(decode_volume(stored), volume)
    low = [data.draw(st.integers(0, n - 1)) for n in shape]
    region = tuple(slice(a, data.draw(st.integers(a + 1, n))) for a, n in zip(low, shape))
    np.testing.assert_array_equal(decode_volume(stored, region), volume[region])


def test_damaged_stored_volumes():
    stored = encode_volume(chest((40, 40, 40)))
    for data in (b"", b"x" * 50, stored[:40], stored[: len(stored) // 2]):
        with pytest.raises(ValueError, match="stored volume"):
            decode_volume(data)
    with pytest.raises(ValueError, match="expected int16"):
        encode_volume(np.zeros((2, 2), np.int16))
