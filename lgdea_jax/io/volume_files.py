"""Volumes in one file: NIfTI and .npz, as they are stored (`io.raw_volume.RawVolume`)."""

from __future__ import annotations

import gzip
import math
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np

from lgdea_jax.errors import UserError, require
from lgdea_jax.io.image_info import UnreadableImage
from lgdea_jax.io.raw_volume import MAX_VOXELS, RawVolume


def read_nifti(path: Path) -> RawVolume:
    """Reads a NIfTI-1 or NIfTI-2 file, gzipped or not.

    Raises:
      UnreadableImage: damaged, not one volume, or without an orientation. UserError: the extra `ct` is not installed.
    """
    nibabel = require("nibabel", "ct", "reading NIfTI")
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    conversions: list[str] = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = _plain(path)
            kind = nibabel.Nifti2Image if data[4:8] == b"n+2\0" else nibabel.Nifti1Image
            image = kind.from_bytes(data)
            # nibabel mends voxel sizes of 0 silently when it checks a header: this one keeps the file's own.
            head = kind.header_class(data[:kind.header_class.template_dtype.itemsize], check=False)
            shape = image.shape
            if len(shape) > 3 and all(n == 1 for n in shape[3:]):
                conversions.append("one frame of 4D")
            elif len(shape) != 3:
                raise UnreadableImage(f"a {len(shape)}D NIfTI file of shape {list(shape)} where one volume is expected")
            if min(shape[:3]) < 2:
                raise UnreadableImage(f"a NIfTI file of shape {list(shape)} is no volume")
            if math.prod(shape) > MAX_VOXELS:
                raise UnreadableImage("the volume has more voxels than can be trusted")
            if head.get_data_dtype().kind not in "iuf":
                raise UnreadableImage("a NIfTI file of colours or complex numbers")
            slope, intercept = float(image.dataobj.slope), float(image.dataobj.inter)  # 1 and 0 where it has none.
            values = np.asanyarray(image.dataobj.get_unscaled()).reshape(shape[:3])
    except UnreadableImage:
        raise
    except (EOFError, zlib.error, OSError, ValueError, ImageFileError, HeaderDataError) as error:
        # OSError covers a gzip stream that ends early or whose checksum differs.
        raise UnreadableImage(f"the NIfTI file is truncated or damaged ({type(error).__name__})") from None
    if int(head["sform_code"]) == 0 and int(head["qform_code"]) == 0:
        raise UnreadableImage("a NIfTI file without an orientation (neither sform nor qform): its sides are unknown")
    affine = np.array(image.affine, np.float64)
    pixdim = np.abs(np.array(head["pixdim"][1:4], np.float64))
    lengths = np.sqrt((affine[:3, :3] ** 2).sum(0))
    if not np.isfinite(affine).all() or not np.isfinite(pixdim).all():
        raise UnreadableImage("the NIfTI file's affine is not finite")
    unit = {1: 1000.0, 3: 0.001}.get(int(head["xyzt_units"]) & 7, 1.0)
    if unit != 1:
        affine[:3] *= unit
        conversions.append("units")
    if (lengths <= 0).any():
        raise UnreadableImage("the volume has no voxel spacing")
    # Without lengths the directions are still known: the spacing may come from elsewhere.
    spacing_known = not ((pixdim <= 0).any() and int(head["sform_code"]) == 0)
    if spacing_known and not np.allclose(pixdim * unit, lengths * unit, rtol=0.01):
        conversions.append("pixdim differs from the affine")
    return RawVolume(values, affine, "nifti", slope, intercept, spacing_known=spacing_known,
                     axial=int(np.abs(affine[:3, 2]).argmax()) == 2, conversions=conversions)


def _plain(path: Path) -> bytes:
    """The content of a NIfTI file, unzipped to the end of the stream: its checksum is at the end."""
    with open(path, "rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    most = 4 * MAX_VOXELS
    with gzip.open(path) if zipped else open(path, "rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise UnreadableImage("the volume has more voxels than can be trusted")
    return data


def read_npz(path: Path, axes: str) -> RawVolume:
    """Reads an .npz file with one array, or one called "ct"; its affine has voxels of 1, around 0.

    Args:
      axes: where the array's axes grow to (`VolumeHeader.axes`).

    Raises:
      UnreadableImage: damaged, or not one volume. UserError: `axes` are none.
    """
    letters = axes.upper()
    kinds = ["LR", "AP", "IS"]
    if len(letters) != 3 or sorted(next((i for i, kind in enumerate(kinds) if letter in kind), 9) for letter in letters
                                  ) != [0, 1, 2]:
        raise UserError(f"axes {axes!r}: three of L R, A P, S I, one of each pair, such as SPL")
    try:
        with np.load(path, allow_pickle=False) as archive:
            names = [name for name in archive.files if name == "ct"] or archive.files
            if len(names) != 1:
                raise UnreadableImage(f"an .npz file with {len(names)} arrays and none called ct")
            values = archive[names[0]]
    except (OSError, EOFError, ValueError, zlib.error, zipfile.BadZipFile) as error:
        raise UnreadableImage(f"the .npz file is truncated or damaged ({type(error).__name__})") from None
    if values.ndim == 4 and 1 in (values.shape[0], values.shape[3]):
        values = values[0] if values.shape[0] == 1 else values[..., 0]
    if values.ndim != 3 or min(values.shape) < 2 or values.dtype.kind not in "iuf":
        raise UnreadableImage(f"an array of {values.dtype} {list(values.shape)} where one volume is expected")
    affine = np.eye(4)
    affine[:3, :3] = 0
    for i, letter in enumerate(letters):
        affine[next(k for k, kind in enumerate(kinds) if letter in kind), i] = 1 if letter in "RAS" else -1
    return RawVolume(values, affine, "npz", spacing_known=False, axial=letters[0] in "SI")
