"""What one volume may cost: no file makes the reader wait, take memory that it does not fill or raise anything else."""

import gzip
import io
import json
import os
import struct
import subprocess
import sys
import zipfile

import nibabel
import numpy as np
import pytest

from lgdea_jax.io import UnreadableImage, VolumeHeader, read_volume, volumes
from tests.data_prep.shards.run import ROOT, environment
from tests.fixtures.ct import affine
from tests.io.volumes.writers import SPACING, chest, npz_bytes, write_series

MOST = 600  # Megabytes above the pixels of one item.
HEADER = VolumeHeader(spacing=SPACING)


def nifti(shape, dtype=np.int16):
    """The header of a NIfTI file, without its voxels."""
    header = nibabel.Nifti1Header()
    header.set_data_dtype(dtype)
    header.set_data_shape(shape)
    header.set_sform(affine(SPACING[::-1], "LPS"), 1)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    return header.binaryblock + bytes(4)


def _gzip_bomb(path):
    with gzip.open(path, "wb", 1) as file:
        file.write(nifti((2, 2, 2)) + bytes(16))
        for _ in range(16):
            file.write(bytes(50_000_000))


def _deflate_bomb(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive, archive.open(
            "ct.npy", "w") as member:
        np.lib.format.write_array_header_1_0(
            member, {"descr": "<i2", "fortran_order": False, "shape": (4, 4, 4)})
        for _ in range(16):
            member.write(bytes(50_000_000))


def _sparse(start, size):
    def make(path):
        with open(path, "wb") as file:
            file.write(start)
            file.truncate(size)

    return make


def _sparse_slice(path):
    write_series(path, chest(), SPACING)
    with open(path / "3.dcm", "r+b") as file:
        file.truncate(20 << 30)


def _lying_slice(path):
    """A pixel element of 3 GB in a file that has them, sparsely."""
    write_series(path, chest(), SPACING)
    data = bytearray((path / "3.dcm").read_bytes())
    at = data.rindex(b"\xe0\x7f\x10\x00OW")
    struct.pack_into("<I", data, at + 8, 3 << 30)
    (path / "3.dcm").write_bytes(data)
    os.truncate(path / "3.dcm", (3 << 30) + len(data))


@pytest.mark.parametrize("name, make", [
    ("v.nii.gz", _gzip_bomb), ("v.npz", _deflate_bomb), ("v.nii", _sparse(nifti((1000, 1000, 500)), 5000)),
    ("v.nii", _sparse(b"", 40 << 30)), ("v.nii", _sparse(nifti((2000, 2000, 2000)), 40 << 30)),
    ("v.npz", lambda path: path.write_bytes(npz_bytes((700, 700, 700), b"x"))),
    ("v.npz", lambda path: path.write_bytes(npz_bytes((2, 2, 100_000_000), bytes(64)))),
    ("v.nii.gz", lambda path: path.write_bytes(gzip.compress(nifti((700, 700, 700)) + bytes(20_000_000)))),
    ("series", _sparse_slice), ("series", _lying_slice)])
def test_files_that_claim_more_than_they_hold(tmp_path, name, make):
    make(tmp_path / name)
    found = _measure(tmp_path / name)
    assert "reason" in found
    assert found["megabytes"] < MOST


def _measure(path):
    process = subprocess.run([sys.executable, "-m", "tests.io.volumes.memory", str(path)], cwd=ROOT, check=False,
                             env=environment(), capture_output=True, text=True, timeout=120)
    assert process.returncode == 0, process.stderr[-2000:]
    assert not process.stderr
    return json.loads(process.stdout)


@pytest.mark.parametrize("name, dtype", [("v.nii.gz", np.int16), ("v.nii", np.float32), ("v.npz", np.int32)])
def test_a_large_volume_takes_little_more_than_its_pixels(tmp_path, name, dtype):
    volume = np.tile(chest((8, 40, 40)), (25, 10, 10)).astype(dtype)  # 64 MB of int16.
    if name == "v.npz":
        np.savez(tmp_path / name, ct=volume)
    else:
        image = nibabel.Nifti1Image(volume.transpose(2, 1, 0), affine(SPACING[::-1], "LPS"))
        nibabel.save(image, tmp_path / name)
    found = _measure(tmp_path / name)
    assert found["shape"] == list(volume.shape)
    # As stored, as int16, and 150 MB for a few slices at a time.
    assert found["megabytes"] < volume.nbytes / 2**20 + found["pixels"] + 150


@pytest.mark.parametrize("make, reason", [
    (os.mkfifo, "a named pipe"), (lambda path: os.symlink("/dev/zero", path), "a device"),
    (lambda path: os.symlink("/proc/self/mem", path), "empty"),
    (lambda path: os.symlink(path, path), "a loop of links"), (lambda path: path.write_bytes(b""), "empty"),
    (lambda path: path.mkdir(), "no DICOM files")])
def test_what_is_no_regular_file(tmp_path, make, reason):
    make(tmp_path / "v.nii")
    with pytest.raises(UnreadableImage, match=reason):
        read_volume(tmp_path / "v.nii")


@pytest.mark.parametrize("path", ["x" * 300 + ".nii", "a\0b.nii", "file/v.nii", "names/latin\udce9.nii"])
def test_names_that_no_file_has(tmp_path, path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UnreadableImage, match=r"longer than|null character|leads through a file|is missing"):
        read_volume(f"{tmp_path}/{path}")


def _members(**members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "."), data)
    return buffer.getvalue()


def _flagged(data, *, at, value):
    """A byte of the local and of the central header of the first member changed."""
    data = bytearray(data)
    data[4 + at] = data[data.find(b"PK\x01\x02") + 6 + at] = value
    return bytes(data)


_WHOLE = npz_bytes((8, 10, 12), chest().astype("<i2").tobytes())


@pytest.mark.parametrize("data, reason", [
    (_members(scan__nii=nifti((8, 10, 12)) + bytes(9000)), r"without an array in it \(1 files\)"),
    (_members(**{f"{k}__dcm": b"x" for k in range(30)}), r"without an array in it \(30 files\)"),
    (_members(), r"without an array in it \(0 files\)"),
    (_flagged(_WHOLE, at=2, value=1), "encrypted"), (_flagged(_WHOLE, at=4, value=99), "compressed otherwise"),
    (npz_bytes((8, 10, 12), bytes(1920), method=zipfile.ZIP_LZMA), "compressed otherwise"),
    (npz_bytes((-3, 5, 5), bytes(64)), "where one volume is expected"),
    (npz_bytes((8, 10, 12), bytes(1900)), "damaged"),
    (npz_bytes((8, 10, 12), bytes(1930)), "more voxels than it states"),
    (npz_bytes((8, 10, 12), bytes(8 * 960), kind="<c8"), "where one volume"), (_members(ct__npy=b""), "damaged"),
    (_members(ct__npy=b"\x93NUMPY\x01\0\xff\xff" + b"(" * 65535), "damaged"), (_WHOLE[:-300], "damaged"),
    (_WHOLE.replace(b"\0ct", b"\0c\0"), "without an array"), (b"PK\x03\x04" + bytes(400), "damaged")])
def test_odd_archives(tmp_path, data, reason):
    (tmp_path / "v.npz").write_bytes(data)
    with pytest.raises(UnreadableImage, match=reason):
        read_volume(tmp_path / "v.npz", HEADER)


@pytest.mark.parametrize("error, reason", [
    (MemoryError(), "more memory"), (RecursionError(), "RecursionError"), (NotImplementedError("x"), "NotImpl"),
    (struct.error("secret"), "damaged")])
def test_whatever_a_parser_raises_is_one_reason(tmp_path, monkeypatch, error, reason):
    def fail(path):
        raise error

    (tmp_path / "v.nii.gz").write_bytes(gzip.compress(nifti((2, 2, 2))))
    monkeypatch.setattr(volumes, "read_nifti", fail)
    with pytest.raises(UnreadableImage, match=reason) as caught:
        read_volume(tmp_path / "v.nii.gz")
    assert "secret" not in caught.value.reason
