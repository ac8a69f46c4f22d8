"""CT in DICOM -> one volume: a folder with the slices of one series, or an enhanced file with many frames.

Slices are put in order by their position along the normal of their plane (PS3.3 C.7.6.2.1.1), never by file name or
instance number. A folder with several series or reconstructions, with slices that differ in size, orientation or
spacing, or with gaps, is refused: half a chest must not pass for a whole one. These are the rules where a folder holds
more or less than the slices of one series:

- Files that are no slices are left out and counted by kind ("beside: a localizer"); what may be a slice and cannot be
  read refuses the folder (`io.series_files`).
- Slices across the others are localizers, if they are few. A slice that is there twice (equal SOPInstanceUID, position
  and pixels) counts once ("slice twice"). Series of one slice each are one series ("a series for every slice").
- Slices of several acquisitions, kernels or thicknesses that lie between each other are several reconstructions, and so
  are slices whose instance numbers go through the volume more than once.
- Fewer slices than ImagesInAcquisition: refused if they cover less than CHEST mm, otherwise counted ("fewer slices than
  acquired"), because the number may include other reconstructions.
- Padding that reaches the edge of a slice is air.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from lgdea_jax.io.dicom import parse_age
from lgdea_jax.io.dicom_pixels import padding_mask, pixel_array, rescale
from lgdea_jax.io.image_info import UnreadableImage, damage_as
from lgdea_jax.io.raw_volume import MAX_VOXELS, OUTSIDE, TOO_LARGE, RawVolume, outside
from lgdea_jax.io.series_files import check_headers, find_slices, read_file

CHEST = 200.0  # mm that the slices of an incomplete acquisition have to cover to be used.
_TOLERANCE = 1e-3  # Of direction cosines.
_DAMAGED = "a DICOM file of the series is truncated or damaged"
_ROOM = 1 << 26  # Bytes of a file besides its pixels.


@dataclasses.dataclass(frozen=True)
class Slice:
    """One slice before its pixels are read.

    Attributes:
      path, frame: where it lies; frame is -1 in a file of one image.
      uid, series: SOPInstanceUID and SeriesInstanceUID.
      size: (rows, columns); position, row, column: mm in LPS, and directions; spacing: mm between rows and columns.
      group: of the reconstruction: (acquisition, kernel, thickness); number: InstanceNumber, acquired:
        ImagesInAcquisition, -1 without.
    """

    path: Path
    frame: int
    uid: str
    series: str
    size: tuple[int, int]
    position: np.ndarray
    row: np.ndarray
    column: np.ndarray
    spacing: np.ndarray
    group: tuple[str, str, str]
    number: int
    acquired: int

    @property
    def normal(self) -> np.ndarray:
        """Unit vector across the plane."""
        return np.cross(self.row, self.column)


def read_series(source: Path) -> RawVolume:
    """Reads a series.

    Args:
      source: a folder with its files, at any depth, or one DICOM file.

    Returns:
      int16 [column, row, slice] in Hounsfield units by the files' own slopes, OUTSIDE where there is padding, with its
      affine.

    Raises:
      UnreadableImage: not one complete series of slices. UserError: the extra `dicom` is not installed.
    """
    files, done = find_slices(source)
    files = _without_pages(files, done)
    if any(str(header.get("Modality") or "CT") != "CT" for _, header in files):
        raise UnreadableImage("a DICOM series that is not CT")
    first = files[0][1]
    if not source.is_dir() and "PerFrameFunctionalGroupsSequence" not in first:
        raise UnreadableImage("one DICOM file where a volume is expected: name the folder of its series")
    with damage_as(_DAMAGED):
        check_headers([header for _, header in files])
        slices = [one for path, header in files for one in _slices(path, header, done)]
        slices = _without_localizers(slices, done)
        _check_series(slices, done)
        if len(slices) < 2:
            raise UnreadableImage("a DICOM series of one slice is no volume")
        _check_planes(slices)
        normal = slices[0].normal
        slices.sort(key=lambda one: float(one.position @ normal))
        slices = _without_copies(slices, done)
        step = _step(slices, normal)
        _check_reconstruction(slices, normal)
        _check_count(slices, float(np.linalg.norm(step)), done)
        if slices[0].size[0] * slices[0].size[1] * len(slices) > MAX_VOXELS:
            raise UnreadableImage(TOO_LARGE)
        values = _read_pixels(slices, done)
        sex = str(first.get("PatientSex") or "").strip().upper()
        age = parse_age(str(first.get("PatientAge") or ""))
    lps = np.eye(4)
    lps[:3, 0], lps[:3, 1] = slices[0].row * slices[0].spacing[1], slices[0].column * slices[0].spacing[0]
    lps[:3, 2], lps[:3, 3] = step, slices[0].position
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps
    return RawVolume(values, affine, "dicom", axial=int(np.abs(normal).argmax()) == 2, conversions=done,
                     sex=sex if sex in ("M", "F") else "", age=age)


def _without_pages(files: list[tuple[Path, Any]], done: list[str]) -> list[tuple[Path, Any]]:
    """Without images of other series that have no position, such as pages with the protocol."""
    placed = [(path, header) for path, header in files
              if "ImagePositionPatient" in header or "PerFrameFunctionalGroupsSequence" in header]
    series = {str(header.get("SeriesInstanceUID")) for _, header in placed}
    pages = {str(header.get("SeriesInstanceUID")) for _, header in files} - series
    if not placed or len(series) > 1 or not pages:
        return files
    done.append("beside: an image without a position")
    return [(path, header) for path, header in files if str(header.get("SeriesInstanceUID")) in series]


def _slices(path: Path, header: Any, done: list[str]) -> list[Slice]:
    """The slices of a file: one, or the frames of an enhanced object that are no localizers."""
    uid = str(header.get("SOPInstanceUID") or path)
    series, size = str(header.get("SeriesInstanceUID") or ""), (int(header.Rows), int(header.Columns))
    frames = header.get("PerFrameFunctionalGroupsSequence")
    if frames is None:
        if int(header.get("NumberOfFrames") or 1) != 1:
            raise UnreadableImage("a multi-frame DICOM in the series whose frames have no positions")
        numbers = (_number(header, name) for name in ("InstanceNumber", "ImagesInAcquisition"))
        group = tuple(str(header.get(name) or "") for name in ("AcquisitionNumber", "ConvolutionKernel"))
        thickness = _numbers(header, "SliceThickness", done)
        return [Slice(path, -1, uid, series, size, *_geometry(header, done),
                      (*group, f"{thickness[0]:.1f}" if len(thickness) else ""), *numbers)]
    if int(header.get("NumberOfFrames") or 1) != len(frames):
        raise UnreadableImage("an enhanced DICOM whose frames are not as many as it states")
    shared = (header.get("SharedFunctionalGroupsSequence") or [None])[0]
    found = []
    for i, own in enumerate(frames):
        groups = [part for part in (own, shared) if part is not None]
        kind = _functional(groups, "CTImageFrameTypeSequence")
        if "LOCALIZER" in str(kind.get("FrameType") if kind is not None else "").upper():
            done.append("beside: a localizer")
            continue
        kernel = _functional(groups, "CTReconstructionSequence")
        group = ("", str(kernel.get("ConvolutionKernel") or "") if kernel is not None else "", "")
        parts = [_functional(groups, name) for name in
                 ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")]
        found.append(Slice(path, i, uid, series, size, *_geometry(_Merged(parts), done), group, -1, -1))
    return found


def _functional(groups: list[Any], name: str) -> Any:
    """The item of a functional group: the frame's own before the shared one; None without."""
    for group in groups:
        if group.get(name):
            return group[name][0]
    return None


class _Merged:
    """Attributes of several items as one."""

    def __init__(self, parts: list[Any]) -> None:
        self._parts = [part for part in parts if part is not None]

    def get_item(self, name: str) -> Any:
        """The element of the first item that has it; None without."""
        return next((part.get_item(name) for part in self._parts if name in part), None)


def _geometry(header: Any, done: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(position, direction of a row, of a column, mm between rows and between columns)."""
    found = []
    for name, count, what in (("ImagePositionPatient", 3, "a position"),
                              ("ImageOrientationPatient", 6, "an orientation"), ("PixelSpacing", 2, "a voxel spacing")):
        numbers = _numbers(header, name, done)
        if numbers.shape != (count,) or not np.isfinite(numbers).all():
            raise UnreadableImage(f"a DICOM slice without {what} ({name})")
        found.append(numbers)
    position, orientation, spacing = found
    if (spacing <= 0).any():
        raise UnreadableImage("the volume has no voxel spacing")
    row, column = orientation[:3], orientation[3:]
    if abs(np.linalg.norm(row) - 1) > 0.01 or abs(np.linalg.norm(column) - 1) > 0.01 or abs(row @ column) > 0.01:
        raise UnreadableImage("a DICOM slice whose orientation makes no sense")
    return position, row, column, spacing


def _numbers(header: Any, name: str, done: list[str]) -> np.ndarray:
    """The numbers of a decimal string, float64; NaN for what is none. Some writers put a decimal comma."""
    element = header.get_item(name)
    value = None if element is None else element.value
    if value is None:
        return np.zeros(0)
    if isinstance(value, bytes):
        texts = value.decode("latin-1").split("\\")
    else:
        several = hasattr(value, "__iter__") and not isinstance(value, str)
        texts = [str(part) for part in (value if several else [value])]
    if any("," in text for text in texts):
        texts = [text.replace(",", ".") for text in texts]
        done.append("decimal comma")
    numbers = []
    for text in texts:
        try:
            numbers.append(float(text.strip(" \0")))
        except ValueError:
            numbers.append(np.nan)
    return np.array(numbers, np.float64)


def _number(header: Any, name: str) -> int:
    """A whole number, -1 without."""
    numbers = _numbers(header, name, [])
    return int(numbers[0]) if len(numbers) == 1 and np.isfinite(numbers[0]) else -1


def _without_localizers(slices: list[Slice], done: list[str]) -> list[Slice]:
    """Without images whose plane stands across that of nearly all others."""
    if not slices:
        raise UnreadableImage("the folder has no DICOM files with slices")
    normals = np.stack([one.normal for one in slices])
    usual = normals[np.argmax([(np.abs(normals @ normal) > 0.9).sum() for normal in normals[:64]])]
    across = np.abs(normals @ usual) < 0.5
    if 0 < across.sum() <= max(2, len(slices) // 20):
        done.append("beside: a localizer")
        return [one for one, is_across in zip(slices, across, strict=True) if not is_across]
    return slices


def _check_series(slices: list[Slice], done: list[str]) -> None:
    count = len({one.series for one in slices})
    if count == 1:
        return
    if count != len({one.uid for one in slices}) or count < 3:
        raise UnreadableImage("the folder mixes several series")
    done.append("a series for every slice")


def _check_planes(slices: list[Slice]) -> None:
    planes = np.stack([np.concatenate([one.row, one.column, one.spacing]) for one in slices])
    if len({one.size for one in slices}) > 1 or np.ptp(planes, axis=0).max() > _TOLERANCE:
        raise UnreadableImage("the series mixes slices of several sizes, orientations or spacings")


def _without_copies(slices: list[Slice], done: list[str]) -> list[Slice]:
    """Without slices that are there twice.

    Args:
      slices: in order.
    """
    kept: dict[tuple[str, int, tuple[float, ...]], Slice] = {}
    for one in slices:
        key = (one.uid, one.frame, tuple(np.round(one.position, 3)))
        if key not in kept:
            kept[key] = one
            continue
        if not np.array_equal(_read_pixels([one], []), _read_pixels([kept[key]], [])):
            raise UnreadableImage("the series has two slices of one SOPInstanceUID with different pixels")
        done.append("slice twice")
    return list(kept.values())


def _step(slices: list[Slice], normal: np.ndarray) -> np.ndarray:
    """mm from one slice to the next, float64 [3]; slices must be evenly spaced."""
    positions = np.stack([one.position for one in slices])
    gaps = np.diff(positions @ normal)
    if not len(gaps):
        raise UnreadableImage("a DICOM series of one slice is no volume")
    usual = float(np.median(gaps))
    if gaps.min() < 0.01 or usual < 0.01:
        raise UnreadableImage("the series has two slices at one position")
    if gaps.max() > 1.5 * usual:
        raise UnreadableImage("the series lacks slices")
    even = np.linspace(positions[0] @ normal, positions[-1] @ normal, len(positions))
    if np.abs(gaps - usual).max() > 0.1 * usual or np.abs(positions @ normal - even).max() > 0.5 * usual:
        raise UnreadableImage("the series' slices are unevenly spaced")
    return (positions[-1] - positions[0]) / (len(positions) - 1)


def _check_reconstruction(slices: list[Slice], normal: np.ndarray) -> None:
    """Raises UnreadableImage where the slices, in order, are those of several reconstructions between each other."""
    extents: dict[tuple[str, str, str], list[int]] = {}
    for i, one in enumerate(slices):
        extents.setdefault(one.group, []).append(i)
    ends = sorted((found[0], found[-1]) for found in extents.values() if len(found) > 1)
    if any(start < stop for (_, stop), (start, _) in itertools.pairwise(ends)):
        raise UnreadableImage("the series mixes several acquisitions or reconstructions")
    numbers = np.array([one.number for one in slices])
    if len(slices) < 6 or len(set(numbers.tolist())) < len(slices):
        return
    # By number, the slices of one reconstruction go through the volume once; those of n go n steps at a time.
    moves = np.diff(np.argsort(numbers))
    usual = int(np.median(np.abs(moves)))
    most = max((moves == usual).mean(), (moves == -usual).mean())
    if usual > 1 and most > 0.8:
        raise UnreadableImage("the series mixes several acquisitions or reconstructions (its slices are numbered "
                              f"{usual} at a time)")


def _check_count(slices: list[Slice], step: float, done: list[str]) -> None:
    """Compares the number of slices with what their acquisitions state."""
    stated: dict[str, int] = {}
    for one in slices:
        stated[one.group[0]] = max(stated.get(one.group[0], 0), one.acquired)
    total, found = sum(stated.values()), len(slices)
    if total <= found or set(stated.values()) == {found}:  # Some writers give every acquisition the number of all.
        return
    if found * step < CHEST:
        raise UnreadableImage(f"{found} of the {total} slices that ImagesInAcquisition states, which cover "
                              f"{found * step:.0f} mm: the series is incomplete")
    done.append("fewer slices than acquired")


def _read_pixels(slices: list[Slice], done: list[str]) -> np.ndarray:
    """int16 [column, row, slice] in Hounsfield units, OUTSIDE where there is padding that reaches an edge."""
    values = np.empty((len(slices), *slices[0].size), np.int16)
    frames = Counter(one.path for one in slices)
    path, dataset = None, None
    for out, one in zip(values, slices, strict=True):
        if one.path != path:
            # Twice as many as in 16 bits, and a header: what is larger is no slice.
            if os.stat(one.path).st_size > 4 * values[0].size * frames[one.path] + _ROOM:
                raise UnreadableImage("a DICOM file of the series is far larger than its image")
            path, dataset = one.path, read_file(one.path, pixels=True)
            if "PixelData" not in dataset:
                raise UnreadableImage("a DICOM file without pixels in the series")
        out[:] = _hounsfield(dataset, one.frame, done)
    return values.transpose(2, 1, 0)


def _hounsfield(dataset: Any, frame: int, done: list[str]) -> np.ndarray:
    """int16 [rows, columns] of one slice."""
    group = image = dataset
    if frame >= 0:
        shared = (dataset.get("SharedFunctionalGroupsSequence") or [None])[0]
        groups = [part for part in (dataset.PerFrameFunctionalGroupsSequence[frame], shared) if part is not None]
        group, image = _functional(groups, "PixelValueTransformationSequence"), _one_frame(dataset, frame)
    stored = pixel_array(image)
    if stored.ndim != 2:
        raise UnreadableImage("a DICOM slice that is not one grey image")
    padding, values = padding_mask(image, stored), stored
    if group is not None:
        for name in ("RescaleSlope", "RescaleIntercept"):
            _numbers(group, name, done)  # For the count of decimal commas.
        values, how = rescale(group, stored)
        if "rescale ignored" in how:
            raise UnreadableImage(f"a slope of {group.get('RescaleSlope')} and an intercept of "
                                  f"{group.get('RescaleIntercept')} make no Hounsfield units")
        done += how
    if values.dtype.kind == "f":
        values = np.rint(values, out=values)
    values = np.clip(values, OUTSIDE + 1, 32767).astype(np.int16)
    if padding is not None:
        values[outside(padding)] = OUTSIDE
    return values


def _one_frame(dataset: Any, frame: int) -> Any:
    """A frame of an enhanced object as an image of its own."""
    from pydicom import Dataset
    from pydicom.encaps import encapsulate, get_frame

    count = len(dataset.PerFrameFunctionalGroupsSequence)
    image = Dataset()
    for element in dataset.group_dataset(0x0028):
        image[element.tag] = element
    image.file_meta, image.NumberOfFrames = dataset.file_meta, 1
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        image.PixelData = encapsulate([get_frame(dataset.PixelData, frame, number_of_frames=count)])
    else:
        size = int(image.Rows) * int(image.Columns) * int(image.get("BitsAllocated") or 16) // 8
        image.PixelData = dataset.PixelData[frame * size:(frame + 1) * size]
    return image
