"""NIfTI headers that contradict themselves: the written rules of `io.volume_files`, one by one."""

import gzip
import struct

import nibabel
import numpy as np
import pytest

from lgdea_jax.io import UnreadableImage, read_volume
from tests.fixtures.ct import affine, write_nifti
from tests.io.volumes.writers import SPACING, chest, repairs

# Where the fields of a NIfTI-1 header begin (nifti1.h).
DIM, PIXDIM, VOX_OFFSET, SLOPE, INTERCEPT, QFORM_CODE, SFORM_CODE, QUATERNION, SROW = (
    40, 76, 108, 112, 116, 252, 254, 256, 280)


def _write(path, *edits, volume=None, codes="LPS", size=None):
    """A chest whose header has other bytes: (format, offset, values...)."""
    write_nifti(path.with_suffix(".whole.nii"), chest() if volume is None else volume, SPACING, codes)
    data = bytearray(path.with_suffix(".whole.nii").read_bytes())
    for kind, offset, *values in edits:
        struct.pack_into(f"<{kind}", data, offset, *values)
    path.write_bytes(gzip.compress(data) if path.name.endswith(".gz") else data)
    return path


def _sform(codes, spacing=SPACING):
    return [(f"{4 * 3}f", SROW, *affine(spacing[::-1], codes)[:3].ravel())]


NO_SFORM = ("h", SFORM_CODE, 0)


@pytest.mark.parametrize("edits, counted", [
    ([("f", VOX_OFFSET, 0)], ("vox_offset",)), ([("f", VOX_OFFSET, 348)], ("vox_offset",)),
    ([("f", SLOPE, 0), ("f", INTERCEPT, -1024)], ()), ([("f", SLOPE, np.nan), ("f", INTERCEPT, np.nan)], ()),
    ([("f", SLOPE, 1), ("f", INTERCEPT, np.nan)], ("intercept ignored",)),
    # An sform of directions only, and one of nothing; the voxel sizes and sides are elsewhere.
    (_sform("LPS", (1, 1, 1)), ("voxel sizes from pixdim",)),
    ([("12f", SROW, *[0] * 12)], ("sform ignored",)), ([("f", SROW, np.nan)], ("sform ignored",)),
    ([("f", PIXDIM + 12, 0)], ("pixdim differs from the affine",)),
    ([("f", PIXDIM + 12, 9)], ("pixdim differs from the affine",)),
    # Half a turn about z is (0, 0, 1): longer than 1 by rounding.
    ([NO_SFORM, ("3f", QUATERNION, 0, 0, 1.0000002)], ()), ([NO_SFORM, ("3f", QUATERNION, 0, 0, 0.9999998)], ()),
    ([NO_SFORM, ("f", PIXDIM + 12, -5)], ()), ([NO_SFORM, ("f", PIXDIM, 0)], ()),
    ([("3f", QUATERNION + 12, 500, 500, 500)], ("qform differs from the sform",)),
    ([("h", DIM, 4), ("h", DIM + 8, 0)], ("one frame of 4D",))])
def test_headers_of_which_one_reading_makes_sense(tmp_path, edits, counted):
    for name in ("v.nii", "v.nii.gz"):
        read, info = read_volume(_write(tmp_path / name, *edits))
        np.testing.assert_array_equal(read, chest())
        np.testing.assert_allclose(info.spacing, SPACING, rtol=1e-4)
        assert repairs(info) == counted


@pytest.mark.parametrize("edits, reason", [
    (_sform("RPS"), "disagree about the patient's sides"), (_sform("RAS"), "disagree about the patient's sides"),
    (_sform("LPI"), "disagree about the patient's sides"), (_sform("LSP"), "disagree about the patient's sides"),
    ([("h", QFORM_CODE, 0), NO_SFORM], "without an orientation"),
    ([NO_SFORM, ("3f", QUATERNION, 0, 0, 1.5)], "without an orientation"),
    ([NO_SFORM, ("f", QUATERNION, np.nan)], "without an orientation"),
    ([NO_SFORM, ("f", PIXDIM + 12, 0)], "no voxel spacing"), ([("f", VOX_OFFSET, -4)], "damaged"),
    ([("f", VOX_OFFSET, np.inf)], "damaged"), ([("f", VOX_OFFSET, 1e9)], "more voxels than it holds"),
    ([("f", VOX_OFFSET, 0), ("B", 348, 1)], "extensions"), ([("h", DIM, 9)], "dimensions"),
    ([("h", DIM + 2, -12)], "no volume"), ([("3h", DIM + 2, 2000, 2000, 2000)], "more voxels than can be trusted"),
    ([("3h", DIM + 2, 200, 200, 200)], "more voxels than it holds"), ([("h", 70, 128)], "colours"),
    ([("h", 70, 32)], "complex"), ([("f", SLOPE, np.inf)], "make no Hounsfield units")])
def test_headers_of_which_no_reading_makes_sense(tmp_path, edits, reason):
    names = ("v.nii", "v.nii.gz") if reason != "more voxels than it holds" else ("v.nii",)
    for name in names:
        with pytest.raises(UnreadableImage, match=reason):
            read_volume(_write(tmp_path / name, *edits))


def test_voxels_behind_extensions(tmp_path):
    image = nibabel.Nifti1Image(chest().transpose(2, 1, 0), affine(SPACING[::-1], "LPS"))
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"x" * 500))
    nibabel.save(image, tmp_path / "v.nii.gz")
    np.testing.assert_array_equal(read_volume(tmp_path / "v.nii.gz")[0], chest())


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<f4", ">f8", "<i4"])
def test_kinds_of_numbers(tmp_path, kind, dtype):
    header = kind.header_class(endianness=dtype[0])
    header.set_data_dtype(dtype)
    values = chest().transpose(2, 1, 0).astype(dtype)
    nibabel.save(kind(values, affine(SPACING[::-1], "LPS"), header), tmp_path / "v.nii")
    np.testing.assert_array_equal(read_volume(tmp_path / "v.nii")[0], chest())


def test_nan_outside_the_field_of_view_is_air(tmp_path):
    """Slices are round in it, some lie outside as a whole; a NaN that no NaN joins to an edge lies inside."""
    volume = chest((8, 20, 24)).astype(np.float32)
    y, x = np.mgrid[:20, :24]
    volume[:, (y - 9.5) ** 2 / 100 + (x - 11.5) ** 2 / 144 > 1] = np.nan
    volume[0] = np.nan
    for codes in ("LPS", "SLP"):
        write_nifti(tmp_path / "v.nii", volume, SPACING, codes, dtype=np.float32)
        read, info = read_volume(tmp_path / "v.nii")
        np.testing.assert_array_equal(read, np.where(np.isnan(volume), -1024, volume))
        assert "NaN outside the field of view" in repairs(info)
    for value, where in ((np.nan, (4, 10, 12)), (np.inf, (0, 0, 0)), (-np.inf, (0, 0, 0))):
        damaged = volume.copy()
        damaged[where] = value
        write_nifti(tmp_path / "v.nii", damaged, SPACING, dtype=np.float32)
        with pytest.raises(UnreadableImage, match=r"not numbers|no Hounsfield units"):
            read_volume(tmp_path / "v.nii")


@pytest.mark.parametrize("name, data, reason", [
    ("v.hdr", struct.pack("<i", 348) + bytes(344), "Analyze"), ("v.img", b"\1\2" * 300, r"the \.img of a pair"),
    ("v.mha", b"ObjectType = Image\nNDims = 3\n", "MetaImage"), ("v.nrrd", b"NRRD0004\n", "NRRD"),
    ("v.nii", b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"), ("v.nii", bytes(5000), "zeros"),
    ("v.nii.gz", b"BZh91AY" + bytes(99), "a bzip2 archive where a NIfTI file"),
    ("v.nii.gz", gzip.compress(b"hello" * 200, mtime=0), "gzip.* no NIfTI file but a text file")])
def test_other_files_are_called_what_they_are(tmp_path, name, data, reason):
    (tmp_path / "v.hdr").write_bytes(b"x")
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UnreadableImage, match=reason):
        read_volume(tmp_path / name)


def test_a_pair_is_no_file(tmp_path):
    nibabel.save(nibabel.Nifti1Pair(chest().transpose(2, 1, 0), affine(SPACING[::-1], "LPS")), tmp_path / "v.hdr")
    with pytest.raises(UnreadableImage, match=r"a NIfTI pair \(\.hdr and \.img\)"):
        read_volume(tmp_path / "v.hdr")
    (tmp_path / "v.img").unlink()
    with pytest.raises(UnreadableImage, match=r"a NIfTI header \(\.hdr\) without its \.img"):
        read_volume(tmp_path / "v.hdr")
