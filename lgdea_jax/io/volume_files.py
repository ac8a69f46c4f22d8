"""Volumes in one file: NIfTI (gzipped or not) and .npz; sizes are compared before memory is taken.

NIfTI headers in use contradict themselves. These are the rules, in the order in which they apply:

- Orientation. The sform is taken if its code is above 0 and its matrix is finite and not singular; otherwise the
  qform, by the same conditions ("sform ignored" if it was the matrix). Without either the sides are unknown, and the
  file is refused. It is refused too if both are usable and disagree about the side to which an axis of the array
  grows: one of them mirrors or turns the patient. If they differ by an angle or by their origins, the sform is taken
  ("qform differs from the sform").
- Voxel sizes: those of the sform, and of `pixdim` for the qform. An sform with voxels of 1 where `pixdim` states
  others gives directions only: its lengths are `pixdim`'s ("voxel sizes from pixdim"). Any other difference of more
  than 1% leaves the sform's ("pixdim differs from the affine").
- A quaternion longer than 1 by rounding is shortened to it.
- A slope of 0 or NaN means none, and then no intercept counts; an intercept of NaN is 0 ("intercept ignored").
- `vox_offset` below the end of the header means its end ("vox_offset"), unless there are extensions: they have no
  length then.
- A gzipped stream ends with the voxels; up to a mebibyte more is passed over.
"""

from __future__ import annotations

import contextlib
import gzip
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lgdea_jax.errors import UserError, require
from lgdea_jax.io.image_info import UnreadableImage, damage_as
from lgdea_jax.io.opening import file_kind, open_regular
from lgdea_jax.io.raw_volume import MAX_RATIO, MAX_VOXELS, TOO_LARGE, WHAT, RawVolume, Readable, read_array

_DAMAGED = "the NIfTI file is truncated or damaged"
_DAMAGED_NPZ = "the .npz file is truncated or damaged"
_KINDS = ("LR", "AP", "IS")  # Pairs of letters of `VolumeHeader.axes`, by axis of RAS.
_SLACK = 1 << 20  # Bytes that may follow the voxels.
_MILLIMETRES = {1: 1000.0, 3: 0.001}  # Of the units of length; 0 and 2 are millimetres.


def read_nifti(path: Path) -> RawVolume:
    """Reads a NIfTI file by the rules above.

    Raises:
      UnreadableImage: damaged, not one volume, or without an orientation. UserError: the extra `ct` is not installed.
    """
    nibabel = require("nibabel", "ct", "reading NIfTI")
    done: list[str] = []
    with _open(path) as (stream, most), damage_as(_DAMAGED):
        start = stream.read(352)
        second = start[4:7] == b"n+2"
        kind = nibabel.Nifti2Header if second else nibabel.Nifti1Header
        size = kind.template_dtype.itemsize
        start += stream.read(size + 4 - 352) if second else b""
        if not second and start[344:347] not in (b"n+1", b"ni1") and start[4:7] != b"ni2":
            inside = file_kind(start)
            raise UnreadableImage("a gzipped file that is no NIfTI file" + (f" but {inside}" if inside else ""))
        if start[344:347] == b"ni1" or start[4:7] == b"ni2":
            raise UnreadableImage(
                "a NIfTI pair (.hdr and .img) where one file is expected: convert it to .nii"
                if path.with_suffix(".img").exists() else "a NIfTI header (.hdr) without its .img")
        head = kind(start[:size], check=False)
        shape = _shape(head, done)
        dtype = head.get_data_dtype()
        if dtype.kind not in "iuf" or dtype.itemsize > 8:
            raise UnreadableImage("a NIfTI file of colours, complex numbers or 128 bits")
        slope, intercept = _scaling(head, done)
        affine, spacing_known = _orientation(head, done)
        first = _first_voxel(head, start, size, done)
        if first + math.prod(shape) * dtype.itemsize > most:
            raise UnreadableImage(f"{_DAMAGED} (it states more voxels than it holds)")
        _skip(stream, first - len(start))
        values = read_array(stream, shape, dtype, fortran_order=True)
        rest = stream.read(_SLACK + 1)
        if (isinstance(stream, gzip.GzipFile) and len(rest) > _SLACK) or (
                len(rest) >= values[..., 0].nbytes and rest.strip(b"\0")):
            raise UnreadableImage(f"{_DAMAGED} (it holds more than it states)")
    return RawVolume(values, affine, "nifti", slope, intercept, spacing_known=spacing_known,
                     axial=int(np.abs(affine[:3, 2]).argmax()) == 2, conversions=done)


@contextlib.contextmanager
def _open(path: Path) -> Iterator[tuple[Any, int]]:
    """(stream of the file's content, most bytes that it can hold)."""
    with open_regular(path, WHAT) as (file, size):
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if not packed:
            yield file, size
            return
        with gzip.GzipFile(fileobj=file) as stream:
            yield stream, MAX_RATIO * size


def _shape(head: Any, done: list[str]) -> tuple[int, int, int]:
    dims = [int(n) for n in head["dim"]]
    if not 1 <= dims[0] <= 7:
        raise UnreadableImage(f"{_DAMAGED} (a number of dimensions of {dims[0]})")
    shape = dims[1:1 + dims[0]]
    while len(shape) > 3 and shape[-1] in (0, 1):
        shape.pop()
        done.append("one frame of 4D")
    if len(shape) != 3:
        raise UnreadableImage(f"a {len(shape)}D NIfTI file of shape {shape} where one volume is expected")
    if min(shape) < 2:
        raise UnreadableImage(f"a NIfTI file of shape {shape} is no volume")
    if math.prod(shape) > MAX_VOXELS:
        raise UnreadableImage(TOO_LARGE)
    return shape[0], shape[1], shape[2]


def _scaling(head: Any, done: list[str]) -> tuple[float, float]:
    slope, intercept = float(head["scl_slope"]), float(head["scl_inter"])
    if slope == 0 or math.isnan(slope):
        return 1.0, 0.0
    if math.isnan(intercept):
        done.append("intercept ignored")
        return slope, 0.0
    return slope, intercept


def _first_voxel(head: Any, start: bytes, size: int, done: list[str]) -> int:
    """The byte at which the voxels begin."""
    offset, least = float(head["vox_offset"]), size + 4
    if offset >= least and offset == int(offset):
        return int(offset)
    if not 0 <= offset < least:
        raise UnreadableImage(f"{_DAMAGED} (voxels at byte {offset:g})")
    if start[size:size + 1] != b"\0" and len(start) > size:
        raise UnreadableImage("a NIfTI file with extensions whose vox_offset does not lie behind them")
    done.append("vox_offset")
    return least


def _skip(stream: Readable, count: int) -> None:
    """Passes over extensions."""
    buffer = memoryview(bytearray(1 << 16))
    while count:
        got = stream.readinto(buffer[:count])
        if not got:
            raise EOFError("the file ends before its voxels begin")
        count -= got


def _orientation(head: Any, done: list[str]) -> tuple[np.ndarray, bool]:
    """(affine to millimetres in RAS+, whether its lengths are known)."""
    pixdim = np.abs(np.array(head["pixdim"][1:4], np.float64))
    sized = bool(np.isfinite(pixdim).all() and (pixdim > 0).all())
    sform = _sform(head) if int(head["sform_code"]) > 0 else None
    qform = _qform(head, pixdim if sized else np.ones(3)) if int(head["qform_code"]) > 0 else None
    if sform is None and int(head["sform_code"]) > 0:
        done.append("sform ignored")
    if sform is None and qform is None:
        raise UnreadableImage("a NIfTI file without an orientation (neither sform nor qform): its sides are unknown")
    affine, spacing_known = (sform, True) if sform is not None else (qform, sized)
    if sform is not None and qform is not None:
        _compare(sform, qform, done)
    if sform is not None and sized:
        lengths = np.sqrt((sform[:3, :3] ** 2).sum(0))
        if not np.allclose(lengths, pixdim, rtol=0.01):
            if np.allclose(lengths, 1, rtol=1e-3):
                affine[:3, :3] *= pixdim / lengths
                done.append("voxel sizes from pixdim")
            else:
                done.append("pixdim differs from the affine")
    elif sform is not None:
        done.append("pixdim differs from the affine")
    unit = _MILLIMETRES.get(int(head["xyzt_units"]) & 7, 1.0)
    if unit != 1:
        affine[:3] *= unit
        done.append("units")
    return affine, spacing_known


def _sform(head: Any) -> np.ndarray | None:
    affine = np.eye(4)
    affine[:3] = [head["srow_x"], head["srow_y"], head["srow_z"]]
    return affine if _usable(affine) else None


def _qform(head: Any, lengths: np.ndarray) -> np.ndarray | None:
    """The affine of a quaternion; `lengths` of its columns."""
    from nibabel.quaternions import quat2mat

    vector = np.array([head["quatern_b"], head["quatern_c"], head["quatern_d"]], np.float64)
    square = float((vector**2).sum())
    if not square < 1.001:  # Also where it is NaN.
        return None
    vector /= max(1.0, math.sqrt(square))
    affine = np.eye(4)
    affine[:3, :3] = quat2mat([math.sqrt(max(0.0, 1 - square)), *vector]) * lengths
    affine[:3, 2] *= -1 if float(head["pixdim"][0]) < 0 else 1
    affine[:3, 3] = [head["qoffset_x"], head["qoffset_y"], head["qoffset_z"]]
    return affine if _usable(affine) else None


def _usable(affine: np.ndarray) -> bool:
    lengths = np.sqrt((affine[:3, :3] ** 2).sum(0))
    if not np.isfinite(affine).all() or not (lengths > 0).all():
        return False
    return bool(abs(np.linalg.det(affine[:3, :3] / lengths)) > 1e-3)


def _compare(sform: np.ndarray, qform: np.ndarray, done: list[str]) -> None:
    """Raises UnreadableImage where the two disagree about the patient's sides."""
    first, second = (affine[:3, :3] / np.sqrt((affine[:3, :3] ** 2).sum(0)) for affine in (sform, qform))
    axes = np.abs(first).argmax(0)
    columns = np.arange(3)
    if (axes != np.abs(second).argmax(0)).any() or (first[axes, columns] * second[axes, columns] < 0).any():
        raise UnreadableImage("the NIfTI file's sform and qform disagree about the patient's sides")
    if np.abs(first - second).max() > 0.01 or np.abs(sform[:3, 3] - qform[:3, 3]).max() > 1:
        done.append("qform differs from the sform")


def read_npz(path: Path, axes: str) -> RawVolume:
    """Reads an .npz file with one array, or one called "ct"; its affine has voxels of 1, around 0.

    Args:
      axes: where the array's axes grow to (`VolumeHeader.axes`).

    Raises:
      UnreadableImage: damaged, encrypted, or not one volume. UserError: `axes` are none.
    """
    letters = axes.upper()
    if len(letters) != 3 or sorted(next((i for i, kind in enumerate(_KINDS) if letter in kind), 9) for letter in letters
                                  ) != [0, 1, 2]:
        raise UserError(f"axes {axes!r}: three of L R, A P, S I, one of each pair, such as SPL")
    with open_regular(path, WHAT) as (file, _), damage_as(_DAMAGED_NPZ), zipfile.ZipFile(file) as archive:
        values = _read_member(archive, _find_member(archive))
    if values.ndim == 4:
        values = values[0] if values.shape[0] == 1 else values[..., 0]
    affine = np.eye(4)
    affine[:3, :3] = 0
    for i, letter in enumerate(letters):
        affine[next(k for k, kind in enumerate(_KINDS) if letter in kind), i] = 1 if letter in "RAS" else -1
    return RawVolume(values, affine, "npz", spacing_known=False, axial=letters[0] in "SI")


def _find_member(archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    members = [member for member in archive.infolist() if not member.is_dir()]
    arrays = [member for member in members if member.filename.endswith(".npy")]
    if not arrays:
        raise UnreadableImage(f"a zip archive without an array in it ({len(members)} files): unpack it first")
    chosen = [member for member in arrays if member.filename == "ct.npy"] or arrays
    if len(chosen) != 1:
        raise UnreadableImage(f"an .npz file with {len(arrays)} arrays and none called ct")
    (member,) = chosen
    if member.flag_bits & 1:
        raise UnreadableImage("an encrypted .npz file")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UnreadableImage("an .npz file that is compressed otherwise than NumPy does")
    return member


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        if version not in ((1, 0), (2, 0)):
            raise UnreadableImage("an .npz file of a later version than NumPy writes for numbers")
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran_order, dtype = read_header(stream)
        volume = len(shape) == 3 or (len(shape) == 4 and 1 in (shape[0], shape[3]))
        if not volume or dtype.kind not in "iuf" or sorted(shape)[-3] < 2:
            raise UnreadableImage(f"an array of {dtype} {list(shape)} where one volume is expected")
        if math.prod(shape) > MAX_VOXELS:
            raise UnreadableImage(TOO_LARGE)
        size = math.prod(shape) * dtype.itemsize
        if size > min(member.file_size, MAX_RATIO * member.compress_size):
            raise UnreadableImage(f"{_DAMAGED_NPZ} (it states more voxels than it holds)")
        values = read_array(stream, shape, dtype, fortran_order=fortran_order)
        if stream.read(1):  # The checksum is compared at the end of the member.
            raise UnreadableImage(f"{_DAMAGED_NPZ} (it holds more voxels than it states)")
    return values
