"""Reading CT volumes as they come (NIfTI, DICOM, .npz) to Hounsfield units in one frame.

The canonical frame is DICOM's LPS: arrays are [z, y, x] with x growing to the patient's left, y to the back, z to the
head. So image-left is patient-right in every axial slice, as radiologists view it, and slices go from the abdomen
up. Files in another order are flipped and transposed into it, which loses nothing; nothing is mirrored.

What a file does not state, or states implausibly, is refused with one reason, or taken from what the caller knows
(`VolumeHeader`: a table of the release) and counted among the conversions. The most common fault of all is to apply
slope and intercept to values that are in Hounsfield units already: it is looked for, and refused. So are volumes whose
lungs stand on their heads.

Memory: the file's voxels as they are stored, the int16 result, and some slices.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lgdea_jax.errors import UserError
from lgdea_jax.io.dicom_file import is_dicom
from lgdea_jax.io.dicom_series import read_series
from lgdea_jax.io.head_end import CLEAR, head_evidence
from lgdea_jax.io.image_info import UnreadableImage
from lgdea_jax.io.opening import file_kind, open_regular
from lgdea_jax.io.raw_volume import (
    MAX_VOXELS,
    NO_HEADER,
    OUTSIDE,
    TOO_LARGE,
    WHAT,
    RawVolume,
    VolumeHeader,
    outside,
)
from lgdea_jax.io.volume_files import read_nifti, read_npz

AIR = -1024
# Degrees by which an axis may lie off the patient's: below the first it is rounding, above the second the volume would
# have to be resampled to show slices.
STRAIGHT, OBLIQUE = 0.5, 5.0
# Millimetres (z, y, x) that a chest CT covers at least, and along any axis at most, with some room.
CHEST_LEAST, CHEST_MOST = (180.0, 180.0, 230.0), 700.0
_LACKING = 0.25  # Share of slices that may be without any number.
_NOT_AIR = -900  # HU; what most of the edge consists of is air up to here.
_SLAB = 1 << 22  # Voxels that are converted at once.


@dataclasses.dataclass(frozen=True, eq=False)
class VolumeInfo:
    """What is known of a volume besides its voxels.

    Attributes:
      file_format: "nifti", "dicom" or "npz".
      spacing: mm per voxel (z, y, x).
      affine: float64 [4, 4]: indices (z, y, x, 1) -> the scanner's millimetres, x to the right, y to the front, z to
        the head (RAS+, as nibabel's); of a file without a position, that of an array around 0.
      conversions: what had to be repaired or could not be checked, for counting.
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
    """Reads one volume.

    Args:
      path: a NIfTI file (.nii, .nii.gz), a folder with one DICOM series (also in subfolders), an enhanced DICOM file
        with many frames, or an .npz file with one array [z, y, x] (or one called "ct").
      header: what is known from elsewhere.
      hounsfield: False reads a mask or the like: values are not checked, and only the file's own scaling is applied.

    Returns:
      (int16 [z, y, x] in the canonical frame, VolumeInfo).

    Raises:
      UnreadableImage: missing, damaged, not one CT volume, values that cannot be Hounsfield units, or upside down.
        Whatever else the parsers and decoders of other people raise becomes one, too.
      UserError: the extra that reads such files is not installed.
    """
    try:
        with np.errstate(all="ignore"):  # Damaged numbers are looked for, not warned of.
            return _finish(_read(Path(path), header), header, hounsfield)
    except (UnreadableImage, UserError):
        raise
    except MemoryError:
        raise UnreadableImage("the volume needs more memory than there is") from None
    except Exception as error:
        raise UnreadableImage(f"the volume is damaged or cannot be read ({type(error).__name__})") from None


def _read(path: Path, header: VolumeHeader) -> RawVolume:
    if os.path.isdir(path):  # Unlike `Path.is_dir`, it takes names that no file can have.
        return read_series(path)
    with open_regular(path, WHAT) as (file, size):
        if not size:
            raise UnreadableImage("the volume's file is empty")
        start = file.read(512)
    if start[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return read_npz(path, header.axes)
    if start[:2] == b"\x1f\x8b" or start[344:348] in (b"n+1\0", b"ni1\0") or start[4:8] in (b"n+2\0", b"ni2\0"):
        return read_nifti(path)
    if is_dicom(start):
        return read_series(path)
    raise UnreadableImage(_what_it_is(path, start))


def _what_it_is(path: Path, start: bytes) -> str:
    """Why a file of no known format is refused: its name, where there is one for it."""
    if 348 in (int.from_bytes(start[:4], "little"), int.from_bytes(start[:4], "big")):
        return "an Analyze header (.hdr): convert the pair to .nii"
    if path.suffix.lower() == ".img" and path.with_suffix(".hdr").exists():
        return "the .img of a pair (.hdr and .img): convert it to one .nii file"
    expected = "a NIfTI file, a DICOM folder or an .npz file"
    kind = file_kind(start)
    return f"{kind} where {expected} is expected" if kind else f"not {expected}"


def _finish(raw: RawVolume, header: VolumeHeader, hounsfield: bool) -> tuple[np.ndarray, VolumeInfo]:
    """Orients, scales and checks."""
    if raw.values.size > MAX_VOXELS:
        raise UnreadableImage(TOO_LARGE)
    done = list(raw.conversions)
    values, affine = _orient(raw.values, raw.affine, done)
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
    lengths = tuple(spacing.tolist())
    if hounsfield:
        if not is_whole_chest(values.shape, lengths):
            done.append("extent unlike a chest's")
        volume = _hounsfield(values, raw, header, done)
        evidence = head_evidence(volume, lengths)
        if evidence < -CLEAR:
            raise UnreadableImage("upside down: by the shape of its lungs the head is where the feet are stated"
                                  + (f" (axes {header.axes})" if raw.file_format == "npz" else ""))
        if not evidence > CLEAR:
            done.append("head end not checked")
    else:
        volume, _ = _integers(values, raw.slope, raw.intercept, nan=False)
    return volume, VolumeInfo(
        raw.file_format, lengths, affine, tuple(dict.fromkeys(done)), sex=raw.sex, age=raw.age)


def is_whole_chest(shape: Sequence[int], spacing: Sequence[float]) -> bool:
    """Whether voxels (z, y, x) of these mm cover as much as a chest CT does, and no more."""
    covered = [n * mm for n, mm in zip(shape, spacing, strict=True)]
    return all(have >= least for have, least in zip(covered, CHEST_LEAST, strict=True)) and max(covered) <= CHEST_MOST


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
        if (slope, intercept) != (1.0, 0.0) and _is_hounsfield(_integers(values, raw.slope, raw.intercept)[1][1:]):
            raise UnreadableImage("rescaled twice: the file's values are Hounsfield units already, the table's slope "
                                  "and intercept must not be applied to them")
        if (slope, intercept) != (raw.slope, raw.intercept):
            done.append("slope from the table")
    if slope == 0 or not math.isfinite(slope) or not math.isfinite(intercept):
        raise UnreadableImage(f"a slope of {slope:g} and an intercept of {intercept:g} make no Hounsfield units")
    volume, counts = _integers(values, slope, intercept)
    if counts[0]:
        done.append("NaN outside the field of view" if values.dtype.kind == "f" else "padding")
    counts[0] = 0
    below = counts[:-1200 - OUTSIDE]
    if below.any():
        # Scanners fill what lies outside the field of view with one number; doubly rescaled air has many.
        if below.sum() - below.max() > 0.01 * volume.size:
            raise UnreadableImage("values far below air: rescaled twice, or not Hounsfield units")
        done.append("padding")
    cleared = _clear_edge(volume) if _is_hounsfield(counts[1:]) else None
    if cleared is not None:
        done.append("padding")
        counts = cleared
    if not _is_hounsfield(counts[1:]):
        found = np.flatnonzero(counts) + OUTSIDE
        raise UnreadableImage(f"values from {max(found[0], AIR)} to {found[-1]} without air and soft tissue: a wrong "
                              "slope or intercept, or not a chest CT" if found.size else "a volume without a voxel")
    return np.maximum(volume, AIR, out=volume)


def _clear_edge(volume: np.ndarray) -> np.ndarray | None:
    """Makes OUTSIDE of what lies around a field of view, where it has one value that is not air's.

    Some tools write 0 there, which would be water. Tissue is never of one value: a scanner's noise is 10 HU or more.

    Returns:
      As the second of `_integers`, of the new volume; None where there is nothing to do.
    """
    edge = np.concatenate([volume[:, [0, -1]].ravel(), volume[:, :, [0, -1]].ravel()])
    counts = np.bincount(edge.view(np.uint16), minlength=1 << 16)
    value = np.uint16(counts.argmax()).astype(np.int16)
    if value <= _NOT_AIR or counts.max() <= edge.size // 2:
        return None
    counts[:] = 0
    for plane in volume:
        plane[outside(plane == value)] = OUTSIDE
        counts += np.bincount(plane.ravel().view(np.uint16), minlength=1 << 16)
    counts = np.roll(counts, 1 << 15)
    counts[0] = 0
    return counts


def _is_hounsfield(counts: np.ndarray) -> bool:
    """Whether values are plausible Hounsfield units of a chest: both air or lung, and soft tissue.

    Args:
      counts: int64 [65535], how many voxels have each value from -32767 on; those below -1200 HU are padding.
    """
    def share(low: int, high: int) -> float:
        return counts[low + 32767:high + 32768].sum() / max(1, inside)

    inside = counts[-1200 + 32767:].sum()
    return bool(share(-1100, -500) >= 0.001 and share(-200, 300) >= 0.01)


def _integers(values: np.ndarray, slope: float, intercept: float, *, nan: bool = True
              ) -> tuple[np.ndarray, np.ndarray]:
    """int16 of values * slope + intercept, rounded, in some slices at a time.

    Args:
      values: [z, y, x]; of integers, OUTSIDE stays so. nan: whether floats that are NaN become OUTSIDE where they reach
        the edge of a slice.

    Returns:
      (int16 [z, y, x], a copy; int64 [65536], how many voxels have each value from OUTSIDE on).

    Raises:
      UnreadableImage: values beyond int16, infinite, or NaN inside a slice.
    """
    volume = np.empty(values.shape, np.int16)
    counts, empty = np.zeros(1 << 16, np.int64), 0
    step = max(1, _SLAB // max(1, values[0].size))
    for start in range(0, len(values), step):
        slab, scaled = values[start:start + step], volume[start:start + step]
        if slab.dtype.kind == "f":
            lacking = np.isnan(slab)
            if lacking.any() and not (nan and all(np.array_equal(outside(plane), plane) for plane in lacking)):
                raise UnreadableImage("the volume has voxels that are not numbers (NaN)")
            empty += int(lacking.all((1, 2)).sum())
        else:
            lacking = slab == OUTSIDE
        if lacking.any():
            scaled[:] = _scale(np.where(lacking, slab.dtype.type(0), slab), slope, intercept)
            scaled[lacking] = OUTSIDE
        else:
            scaled[:] = _scale(slab, slope, intercept)
        counts += np.bincount(scaled.ravel().view(np.uint16), minlength=1 << 16)
    if empty > _LACKING * len(values):
        raise UnreadableImage(f"{empty} of the volume's {len(values)} slices have no numbers (NaN)")
    return volume, np.roll(counts, 1 << 15)


def _scale(slab: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    """values * slope + intercept, rounded: of a kind that fits int16."""
    if (slope, intercept) == (1.0, 0.0) and slab.dtype.kind in "iu":
        scaled = slab
    elif slab.dtype.kind in "iu" and slab.dtype.itemsize <= 2 and slope == 1 and intercept == round(intercept):
        scaled = slab.astype(np.int64) + int(intercept)
    else:
        scaled = np.rint(slab.astype(np.float32) * np.float32(slope) + np.float32(intercept))
    low, high = scaled.min(), scaled.max()
    if not (np.isfinite(low) and np.isfinite(high)) or low < -32768 or high > 32767:
        raise UnreadableImage(f"values from {low:g} to {high:g} are no Hounsfield units")
    return scaled
