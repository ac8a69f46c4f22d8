"""A folder with the slices of one CT series -> one volume.

Slices are put in order by their position along the normal of their plane (PS3.3 C.7.6.2.1.1), never by file name or
instance number. A folder with several series, with slices that differ in size, orientation or spacing, or with gaps, is
refused: half a chest must not pass for a whole one.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from lgdea_jax.errors import UserError, require
from lgdea_jax.io.dicom import parse_age
from lgdea_jax.io.image_info import UnreadableImage
from lgdea_jax.io.raw_volume import RawVolume

_TOLERANCE = 1e-3  # Of direction cosines.


def read_series(folder: Path) -> RawVolume:
    """Reads a series.

    Args:
      folder: its DICOM files; files that are no DICOM are passed over.

    Returns:
      int16 or float32 [column, row, slice] in Hounsfield units by the files' own slopes, with its affine.

    Raises:
      UnreadableImage: not one complete axial-to-be series. UserError: the extra `dicom` is not installed.
    """
    pydicom = require("pydicom", "dicom", "reading DICOM")

    paths = sorted(path for path in folder.iterdir() if path.is_file())
    slices = []
    for path in paths:
        with open(path, "rb") as file:
            if file.read(132)[128:] != b"DICM":
                continue
        slices.append(_read(pydicom, path))
    if not slices:
        raise UnreadableImage("the folder has no DICOM files")
    if len({str(one.get("SeriesInstanceUID")) for one in slices}) > 1:
        raise UnreadableImage("the folder mixes several series")
    if any(str(one.get("Modality", "CT")) != "CT" for one in slices):
        raise UnreadableImage("a DICOM series that is not CT")
    if len(slices) < 2:
        raise UnreadableImage("a DICOM series of one slice is no volume")
    row, column, spacing = _plane(slices)
    normal = np.cross(row, column)
    positions = np.array([_numbers(one, "ImagePositionPatient", 3) for one in slices])
    order = np.argsort(positions @ normal, kind="stable")
    slices, positions = [slices[i] for i in order], positions[order]
    step = _step(positions, normal)
    values = np.stack([_pixels(one) for one in slices], axis=-1)
    lps = np.eye(4)
    lps[:3, 0], lps[:3, 1], lps[:3, 2], lps[:3, 3] = row * spacing[1], column * spacing[0], step, positions[0]
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps
    sex = str(slices[0].get("PatientSex") or "").strip().upper()
    return RawVolume(values, affine, "dicom", axial=int(np.abs(normal).argmax()) == 2,
                     sex=sex if sex in ("M", "F") else "", age=parse_age(str(slices[0].get("PatientAge") or "")))


def _read(pydicom: Any, path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            one = pydicom.dcmread(path)
            if "PixelData" not in one:
                raise UnreadableImage("a DICOM file without pixels in the series")
            one.get("SeriesInstanceUID")
            return one
    except (UnreadableImage, UserError):
        raise
    except Exception as error:  # Parsers meet damaged bytes here, and raise whatever they like.
        raise UnreadableImage(f"a DICOM file of the series is truncated or damaged ({type(error).__name__})") from None


def _numbers(one: Any, name: str, count: int) -> np.ndarray:
    value = one.get(name)
    try:
        numbers = np.array([float(part) for part in value], np.float64)
    except (TypeError, ValueError):
        numbers = np.zeros(0)
    if numbers.shape != (count,) or not np.isfinite(numbers).all():
        what = {"PixelSpacing": "voxel spacing", "ImagePositionPatient": "position",
                "ImageOrientationPatient": "orientation"}[name]
        raise UnreadableImage(f"a DICOM slice without a {what} ({name})")
    return numbers


def _plane(slices: list[Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(direction of a row, of a column, mm between rows and between columns), the same for all slices."""
    size = {(int(one.Rows), int(one.Columns)) for one in slices}
    orientation = np.array([_numbers(one, "ImageOrientationPatient", 6) for one in slices])
    spacing = np.array([_numbers(one, "PixelSpacing", 2) for one in slices])
    if len(size) > 1 or np.ptp(orientation, axis=0).max() > _TOLERANCE or np.ptp(spacing, axis=0).max() > _TOLERANCE:
        raise UnreadableImage("the series mixes slices of several sizes, orientations or spacings")
    if (spacing <= 0).any():
        raise UnreadableImage("the volume has no voxel spacing")
    row, column = orientation[0, :3], orientation[0, 3:]
    if abs(np.linalg.norm(row) - 1) > 0.01 or abs(np.linalg.norm(column) - 1) > 0.01 or abs(row @ column) > 0.01:
        raise UnreadableImage("a DICOM slice whose orientation makes no sense")
    return row, column, spacing[0]


def _step(positions: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """mm from one slice to the next, float64 [3]; slices must be evenly spaced."""
    gaps = np.diff(positions @ normal)
    usual = float(np.median(gaps))
    if gaps.min() < 0.01 or usual < 0.01:
        raise UnreadableImage("the series has two slices at one position")
    if gaps.max() > 1.5 * usual:
        raise UnreadableImage("the series lacks slices")
    if np.abs(gaps - usual).max() > 0.1 * usual:
        raise UnreadableImage("the series' slices are unevenly spaced")
    return (positions[-1] - positions[0]) / (len(positions) - 1)


def _pixels(one: Any) -> np.ndarray:
    """int16 or float32 [column, row] in Hounsfield units."""
    try:
        stored = one.pixel_array
        slope, intercept = float(one.get("RescaleSlope", 1)), float(one.get("RescaleIntercept", 0))
    except Exception as error:  # As `_read`.
        raise UnreadableImage(f"a DICOM file of the series is truncated or damaged ({type(error).__name__})") from None
    if stored.ndim != 2:
        raise UnreadableImage("a multi-frame DICOM in the series")
    if not math.isfinite(slope) or slope == 0 or not math.isfinite(intercept):
        raise UnreadableImage(f"a slope of {slope:g} and an intercept of {intercept:g} make no Hounsfield units")
    if slope == 1 and intercept == round(intercept):
        return np.clip(stored.astype(np.int32) + int(intercept), -32768, 32767).astype(np.int16).T
    return (stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)).T
