"""Reading CT volumes as they come (NIfTI, a DICOM series, .npz) to Hounsfield units in one frame.

The canonical frame is DICOM's LPS: arrays are [z, y, x] with x growing to the patient's left, y to the back, z to the
head. So image-left is patient-right in every axial slice, as radiologists view it, and slices go from the abdomen
up. Files in another order are flipped and transposed into it, which loses nothing; nothing is mirrored.

What a file does not state, or states implausibly, is refused with one reason, or taken from what the caller knows
(`VolumeHeader`: a table of the release) and counted among the conversions. The most common fault of all is to apply
slope and intercept to values that are in Hounsfield units already: it is looked for, and refused.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np

from lgdea_jax.io.dicom_series import read_series
from lgdea_jax.io.image_info import UnreadableImage
from lgdea_jax.io.raw_volume import MAX_VOXELS, NO_HEADER, RawVolume, VolumeHeader
from lgdea_jax.io.volume_files import read_nifti, read_npz

AIR = -1024
# Degrees by which an axis may lie off the patient's: below the first it is rounding, above the second the volume would
# have to be resampled to show slices.
STRAIGHT, OBLIQUE = 0.5, 5.0


@dataclasses.dataclass(frozen=True, eq=False)
class VolumeInfo:
    """What is known of a volume besides its voxels.

    Attributes:
      file_format: "nifti", "dicom" or "npz".
      spacing: mm per voxel (z, y, x).
      affine: float64 [4, 4]: indices (z, y, x, 1) -> the scanner's millimetres, x to the right, y to the front, z to
        the head (RAS+, as nibabel's); of a file without a position, that of an array around 0.
      conversions: what had to be repaired, for counting.
      modality: "CT"; sex, age: as `ImageInfo`, from DICOM.
    """

    file_format: str
    spacing: tuple[float, float, float]
    affine: np.ndarray
    conversions: tuple[str, ...] = ()
    modality: str = "CT"
    view: str = ""
    sex: str = ""
    age: float = math.nan


def read_volume(path: str | Path, header: VolumeHeader = NO_HEADER, *,
                hounsfield: bool = True) -> tuple[np.ndarray, VolumeInfo]:
    """Reads one volume; memory is a few times that of the int16 result.

    Args:
      path: a NIfTI file (.nii, .nii.gz), a folder with one DICOM series, or an .npz file with one array [z, y, x] (or
        one called "ct").
      header: what is known from elsewhere.
      hounsfield: False reads a mask or the like: values are not checked, and only the file's own scaling is applied.

    Returns:
      (int16 [z, y, x] in the canonical frame, VolumeInfo).

    Raises:
      UnreadableImage: missing, damaged, not one CT volume, or values that cannot be Hounsfield units.
      UserError: the extra that reads such files is not installed.
    """
    path = Path(path)
    if path.is_dir():
        raw = read_series(path)
    else:
        try:
            with open(path, "rb") as file:
                start = file.read(352)
        except FileNotFoundError:
            raise UnreadableImage("the volume's file is missing") from None
        except PermissionError:
            raise UnreadableImage("no permission to read the volume's file") from None
        if not start:
            raise UnreadableImage("the volume's file is empty")
        if start[:4] == b"PK\x03\x04":
            raw = read_npz(path, header.axes)
        elif start[128:132] == b"DICM":
            raise UnreadableImage("one DICOM file where a volume is expected: name the folder of its series")
        elif start[:2] == b"\x1f\x8b" or start[344:348] in (b"n+1\0", b"ni1\0") or start[4:8] == b"n+2\0":
            raw = read_nifti(path)
        else:
            raise UnreadableImage("not a NIfTI file, a DICOM folder or an .npz file")
    return _finish(raw, header, hounsfield)


def _finish(raw: RawVolume, header: VolumeHeader, hounsfield: bool) -> tuple[np.ndarray, VolumeInfo]:
    """Orients, scales and checks."""
    values = raw.values
    if values.size > MAX_VOXELS:
        raise UnreadableImage("the volume has more voxels than can be trusted")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise UnreadableImage("the volume has voxels that are not numbers (NaN or infinite)")
    done = list(raw.conversions)
    values, affine = _orient(values, raw.affine, done)
    if not raw.axial:
        done.append("not axial")
    known = all(mm > 0 and math.isfinite(mm) for mm in header.spacing)
    spacing = np.sqrt((affine[:3, :3] ** 2).sum(0))
    if known and not (raw.spacing_known and np.allclose(spacing, header.spacing, rtol=0.01)):
        done.append("spacing from the table")
    if known:
        affine = affine.copy()
        affine[:3, :3] *= np.array(header.spacing) / spacing
        spacing = np.array(header.spacing)
    elif not raw.spacing_known:
        raise UnreadableImage("the volume has no voxel spacing")
    if spacing.max() > 20 or spacing.min() < 0.05:
        raise UnreadableImage(f"a voxel spacing of {' x '.join(f'{mm:.3g}' for mm in spacing)} mm is not a chest CT's")
    volume = _hounsfield(values, raw, header, done) if hounsfield else _integers(
        values, raw.slope, raw.intercept)
    return np.ascontiguousarray(volume), VolumeInfo(
        raw.file_format, tuple(spacing.tolist()), affine, tuple(dict.fromkeys(done)), sex=raw.sex, age=raw.age)


def _orient(values: np.ndarray, affine: np.ndarray, done: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """[i, j, k] -> [z, y, x] of the canonical frame, with the affine over (z, y, x, 1)."""
    directions = affine[:3, :3] / np.sqrt((affine[:3, :3] ** 2).sum(0))
    axis = np.abs(directions).argmax(0)  # Of the patient, for every one of the array.
    if sorted(axis) != [0, 1, 2]:
        raise UnreadableImage("the volume's axes are not at right angles to each other")
    skew = np.abs(directions.T @ directions - np.eye(3)).max()
    if skew > math.sin(math.radians(1)):
        raise UnreadableImage("the volume is sheared (a tilted gantry)")
    angle = math.degrees(math.acos(min(1.0, float(np.abs(directions).max(0).min()))))
    if angle > OBLIQUE:
        raise UnreadableImage(f"the volume is oblique: {angle:.0f} degrees off the patient's axes")
    if angle > STRAIGHT:
        done.append("oblique")
    order = [int(np.flatnonzero(axis == wanted)[0]) for wanted in (2, 1, 0)]
    grows = (1, -1, -1)  # z to the head (+S), y to the back (-A), x to the left (-R).
    turn, flips = np.zeros((4, 4)), []
    turn[3, 3] = 1
    for new, (old, sign) in enumerate(zip(order, grows, strict=True)):
        flip = np.sign(directions[axis[old], old]) != sign
        flips.append(slice(None, None, -1) if flip else slice(None))
        turn[old, new], turn[old, 3] = (-1, values.shape[old] - 1) if flip else (1, 0)
    return values.transpose(order)[tuple(flips)], affine @ turn


def _hounsfield(values: np.ndarray, raw: RawVolume, header: VolumeHeader, done: list[str]) -> np.ndarray:
    """int16 Hounsfield units, checked."""
    slope, intercept = raw.slope, raw.intercept
    if math.isfinite(header.slope) or math.isfinite(header.intercept):
        slope = header.slope if math.isfinite(header.slope) else 1.0
        intercept = header.intercept if math.isfinite(header.intercept) else 0.0
        if (slope, intercept) != (1.0, 0.0) and is_hounsfield(_integers(values, raw.slope, raw.intercept)):
            raise UnreadableImage("rescaled twice: the file's values are Hounsfield units already, the table's slope "
                                  "and intercept must not be applied to them")
        if (slope, intercept) != (raw.slope, raw.intercept):
            done.append("slope from the table")
    if slope == 0 or not math.isfinite(slope) or not math.isfinite(intercept):
        raise UnreadableImage(f"a slope of {slope:g} and an intercept of {intercept:g} make no Hounsfield units")
    volume = _integers(values, slope, intercept)
    below = volume < -1200
    inside = volume
    if below.any():
        # Scanners fill what lies outside the field of view with one number; doubly rescaled air has many.
        common = np.bincount(volume[below].astype(np.int32) + 32768)
        if below.sum() - common.max() > 0.01 * volume.size:
            raise UnreadableImage("values far below air: rescaled twice, or not Hounsfield units")
        done.append("padding")
        inside = volume[~below]
    np.maximum(volume, AIR, out=volume)
    if not is_hounsfield(inside):
        raise UnreadableImage(f"values from {volume.min()} to {volume.max()} without air and soft tissue: a wrong "
                              "slope or intercept, or not a chest CT")
    return volume


def is_hounsfield(volume: np.ndarray) -> bool:
    """Whether the values are plausible Hounsfield units of a chest: both air or lung, and soft tissue."""
    if not volume.size:
        return False
    air = ((volume >= -1100) & (volume <= -500)).mean()
    tissue = ((volume >= -200) & (volume <= 300)).mean()
    return bool(air >= 0.001 and tissue >= 0.01)


def _integers(values: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    """int16 of values * slope + intercept, rounded; a copy."""
    if (slope, intercept) == (1.0, 0.0) and values.dtype.kind in "iu":
        scaled = values
    elif values.dtype.kind in "iu" and slope == 1 and intercept == round(intercept):
        scaled = values.astype(np.int32) + int(intercept)
    else:
        scaled = np.rint(values.astype(np.float32) * np.float32(slope) + np.float32(intercept))
    low, high = scaled.min(), scaled.max()
    if not (np.isfinite(low) and np.isfinite(high)) or low < -32768 or high > 32767:
        raise UnreadableImage(f"values from {low:g} to {high:g} are no Hounsfield units")
    return scaled.astype(np.int16)
