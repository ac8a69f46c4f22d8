"""CT volumes from files and DICOM series to the input of the model, and slices with heatmaps.

A volume is read and resampled to the run's geometry by the functions that `data_prep.build` uses (`io.read_volume`,
`to_record`, `VolumeView.prepare`): there is no second way.
"""

from __future__ import annotations

import argparse
import dataclasses
import glob
import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from lgdea_jax.errors import UserError
from lgdea_jax.evaluators.volumes import VolumeGeometry
from lgdea_jax.findings.vocabulary import LABELLED
from lgdea_jax.inference import input_checks
from lgdea_jax.inference.images import Rejected
from lgdea_jax.inference.overlay import Overlay
from lgdea_jax.io import UnreadableImage, VolumeHeader, read_volume
from lgdea_jax.io.dicom_file import is_dicom
from lgdea_jax.io.opening import file_kind, open_regular
from lgdea_jax.io.raw_volume import NO_HEADER
from lgdea_jax.io.series_files import series_identity
from lgdea_jax.preprocess.volume import VolumeView, to_record

SUFFIXES = (".nii", ".nii.gz", ".npz")
DICOM = (".dcm", ".dicom", ".ima")
# Conversions of `io.read_volume` that a person should know of.
_CONVERSIONS = {
    "oblique": "its axes are oblique to the patient's", "not axial": "its slices are not axial",
    "voxel sizes from pixdim": "its affine has no voxel sizes: those of pixdim are taken",
    "pixdim differs from the affine": "its voxel sizes contradict each other: the affine's are taken, not pixdim's",
    "qform differs from the sform": "its orientation is given twice and differently: the sform is taken",
    "fewer slices than acquired": "it has fewer slices than its acquisition states"}
# (low, high) in HU, as radiologists set them: -600 +- 750 and 40 +- 200.
WINDOWS = {"lung": (-1350.0, 150.0), "mediastinum": (-160.0, 240.0)}
# Findings that a lung window hides: the heart, vessels, nodes, fluid, bone and what was put in.
_SOFT = frozenset({
    "Enlarged Cardiomediastinum", "Cardiomegaly", "Pleural Effusion", "Pleural Other", "Pleural Thickening", "Fracture",
    "Support Devices", "Surgical Hardware", "Medical Material", "Calcification Other", "Hernia",
    "Scoliosis Or Kyphosis", "Degenerative Spine", "Aortic Abnormality", "Arterial Wall Calcification",
    "Coronary Artery Wall Calcification", "Pericardial Effusion", "Lymphadenopathy", "Aortic Enlargement",
    "Enlarged Pulmonary Artery", "Rib Fracture", "Clavicle Fracture", "Calcification"})
_SOFT_WORDS = re.compile(r"\b(heart|cardi|pericardi|aort|coronar|mediastin|lymph|effusion|fluid|calcif|hernia|bone|"
                         r"vertebra|rib|liver|thyroid|pacemaker|catheter)")


@dataclasses.dataclass(frozen=True, eq=False)
class Volume:
    """A volume in memory, for the Python API.

    Attributes:
      voxels: int16 [z, y, x] in HU: z to the head, y to the back, x to the patient's left.
      spacing: mm per voxel (z, y, x).
    """

    voxels: np.ndarray
    spacing: tuple[float, float, float]


@dataclasses.dataclass(frozen=True, eq=False)
class Scan:
    """A volume, prepared for the model.

    Attributes:
      name: the file or folder as the user named it, or "image N".
      model_input: int16 [D, H, W, 1] in HU.
      shape: (z, y, x) voxels of the original; spacing: its mm per voxel.
      voxels: int16 [z, y, x], the original in HU; None unless it is kept.
      warnings: in what it is unusual.
    """

    name: str
    model_input: np.ndarray
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    voxels: np.ndarray | None
    warnings: tuple[str, ...]

    @property
    def size(self) -> dict[str, Any]:
        """Its size and spacing for predictions.jsonl."""
        depth, height, width = self.shape
        return {"depth": depth, "height": height, "width": width, "spacing": [round(mm, 4) for mm in self.spacing]}

    @property
    def stem(self) -> str:
        """The name without folders and suffix."""
        return re.sub(r"(\.nii)?\.gz$|\.nii$|\.npz$", "", os.path.basename(self.name.rstrip(os.sep)))


@dataclasses.dataclass(frozen=True)
class VolumeReader:
    """Makes a `Scan` of a file, a folder or a `Volume`.

    Attributes:
      view: the input of the run's model.
      header: spacing and axes of .npz files, which lack them.
      keep_voxels: whether the originals are needed (for slices).
    """

    view: VolumeView
    header: VolumeHeader = NO_HEADER
    keep_voxels: bool = False

    def read(self, source: Any, name: str) -> Scan | Rejected:
        """A scan; never raises for what is wrong with one volume.

        Raises:
          UserError: the extra that reads such files is not installed.
        """
        try:
            voxels, spacing, warnings = self._open(source)
            stored = to_record(voxels, spacing, self.view.geometry)
            model_input = self.view.prepare(stored)
        except UnreadableImage as error:
            return Rejected(name, error.reason)
        except (ValueError, OSError, MemoryError) as error:
            return Rejected(name, f"cannot be read ({type(error).__name__}: {error})")
        warnings = (*warnings, *input_checks.volume_warnings(voxels, spacing, self.view))
        return Scan(name, model_input, tuple(voxels.shape), tuple(float(mm) for mm in spacing),
                    voxels if self.keep_voxels else None, warnings)

    def _open(self, source: Any) -> tuple[np.ndarray, tuple[float, float, float], tuple[str, ...]]:
        if isinstance(source, Volume):
            voxels, spacing = np.asarray(source.voxels), tuple(float(mm) for mm in source.spacing)
            if voxels.dtype != np.int16 or voxels.ndim != 3 or not voxels.size:
                raise UnreadableImage(f"a volume is int16 [z, y, x] in HU, not {voxels.dtype} {list(voxels.shape)}")
            if len(spacing) != 3 or not all(0 < mm < np.inf for mm in spacing):
                raise UnreadableImage("a volume needs three voxel spacings in mm")
            return voxels, spacing, ()
        if not isinstance(source, (str, os.PathLike)):
            raise UnreadableImage("this checkpoint's model takes CT volumes: a file, a folder with a DICOM series, or "
                                  "Volume(voxels, spacing)")
        npz = str(source).lower().endswith(".npz")
        try:
            voxels, info = read_volume(source, self.header if npz else NO_HEADER)
        except UnreadableImage as error:
            if _is_picture(source):
                raise UnreadableImage("a 2D image: this checkpoint's model takes CT volumes (NIfTI, .npz, or a folder "
                                      "with a DICOM series)") from None
            if npz and "spacing" in error.reason:
                raise UnreadableImage(f"{error.reason}: give it with --spacing=Z,Y,X") from None
            raise
        return voxels, info.spacing, tuple(_CONVERSIONS[name] for name in info.conversions if name in _CONVERSIONS)


def _is_picture(path: str | os.PathLike) -> bool:
    return file_kind(_start(path)) in ("a PNG file", "a JPEG file")


def _start(path: str | os.PathLike) -> bytes:
    """The first bytes of a regular file; none of anything else."""
    try:
        with open_regular(path) as (file, _):
            return file.read(512)
    except UnreadableImage:
        return b""


def find_volumes(arguments: Sequence[str]) -> tuple[list[str], int]:
    """Volumes from files, folders (searched to the bottom) and patterns, in order, each once.

    A folder that holds DICOM files is one volume: a series. So is a folder of such folders that all hold one series.
    Files in folders count by their suffix (SUFFIXES). What is named is taken whatever it is called; what is missing or
    no volume is rejected later like any broken one.

    Returns:
      (paths, number of other files in the folders).

    Raises:
      UserError: a pattern or a folder without volumes.
    """
    found: list[str] = []
    others = 0
    for argument in arguments:
        if os.path.exists(argument) or not glob.has_magic(argument):
            paths = [argument]
        else:
            paths = sorted(glob.glob(argument, recursive=True))
            if not paths:
                raise UserError(f"no file fits the pattern {argument}")
        inside: list[str] = []
        for path in paths:
            if os.path.isdir(path):
                volumes, rest = _inside(path)
                inside, others = inside + volumes, others + rest
            else:
                inside.append(path)
        if not inside:
            raise UserError(f"no volume in the folder {argument} (NIfTI, .npz, or the slices of a DICOM series): this "
                            "checkpoint's model takes CT volumes")
        found += inside
    return list(dict.fromkeys(found)), others


def _inside(folder: str) -> tuple[list[str], int]:
    """The volumes of a folder and the number of its other files."""
    found: list[str] = []
    series: dict[str, str] = {}
    others = 0
    for here, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(here, name)
            if name.startswith(".") or name.upper() == "DICOMDIR":
                others += 1
            elif name.lower().endswith(SUFFIXES):
                found.append(path)
            elif _is_dicom(path):
                series.setdefault(here, path)
            else:
                others += 1
    return sorted(found + _whole_series(series)), others


def _whole_series(series: dict[str, str]) -> list[str]:
    """Folders of DICOM files, those of one series under one parent as the parent: a part must not pass for a volume.

    Args:
      series: folder -> one of its files.
    """
    parents: dict[str, list[str]] = {}
    for folder in series:
        parents.setdefault(os.path.dirname(folder), []).append(folder)
    found = list(series)
    for parent, folders in parents.items():
        if len(folders) > 1 and parent not in series:
            identities = {series_identity(series[folder]) for folder in folders}
            if len(identities) == 1 and () not in identities:
                found = [folder for folder in found if folder not in folders] + [parent]
    return found


def _is_dicom(path: str) -> bool:
    return path.lower().endswith(DICOM) or is_dicom(_start(path))


def window_of(prompt: str, finding: str) -> str:
    """The name in WINDOWS that fits a prompt: by its finding, or for free text by its words."""
    if finding:
        return "mediastinum" if finding in _SOFT else "lung"
    text = prompt.lower()
    # The longest phrase that the text has: "calcified granuloma" is of the lung although it is calcified.
    named = max(((len(phrase), name) for name, known in LABELLED.items() for phrase in known.synonyms
                 if re.search(rf"\b{re.escape(phrase)}\b", text)), default=(0, ""))[1]
    if named:
        return window_of(prompt, named)
    return "mediastinum" if _SOFT_WORDS.search(text) else "lung"


def hottest_slice(geometry: VolumeGeometry, grid: np.ndarray, patch_offset: float | Sequence[float]) -> int:
    """The index z of the original's axial slice that holds the heatmap's maximum.

    Args:
      geometry: of the volume; grid: [gd, gh, gw], one value per patch; patch_offset: of the image tower.
    """
    # Every slice, but in its plane only as densely as patches need: a full heatmap of a large volume takes seconds.
    plane = [np.arange(step // 2, size, step) for size in geometry.map.original[1:] for step in (max(1, size // 96),)]
    heat = geometry.heatmap(grid, patch_offset=patch_offset, voxels=(None, *plane))
    highest = np.where(np.isnan(heat), -np.inf, heat).max((1, 2))
    best = np.flatnonzero(highest == highest.max())
    return int(best[len(best) // 2])  # Beyond the outermost patches heat is constant: the middle of those slices.


def slice_overlay(scan: Scan, view: VolumeView, grid: np.ndarray, patch_offset: float | Sequence[float], *,
                  window: str, title: str, lines: Sequence[str]) -> tuple[Overlay, int]:
    """What to draw for one prompt, and its slice z.

    Args:
      scan: with its voxels; grid: [gd, gh, gw] of the prompt; window: a name in WINDOWS.
      title, lines: of the picture; a line with slice and window is put after the first one.
    """
    geometry = VolumeGeometry(view.map(scan.shape, scan.spacing))
    z = hottest_slice(geometry, grid, patch_offset)
    heat = geometry.heatmap(grid, patch_offset=patch_offset, voxels=(np.array([z]), None, None))[0]
    low, high = WINDOWS[window]
    plane = np.rint(np.clip((scan.voxels[z].astype(np.float32) - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    # Pixels need not be square where slices were not axial in the file.
    finest = min(scan.spacing[1:])
    frame = tuple(max(1, round(n * mm / finest)) for n, mm in zip(scan.shape[1:], scan.spacing[1:], strict=True))
    where = f"slice {z + 1} of {scan.shape[0]} from below, {window} window"
    return Overlay(plane, heat, frame, (), title, (*lines[:1], where, *lines[1:])), z


def only_for_volumes(volumes: bool, args: argparse.Namespace, **defaults: Any) -> None:
    """Refuses flags that mean nothing to a model of 2D images.

    Args:
      volumes: whether the model takes volumes; defaults: the values of those flags where they are not given.

    Raises:
      UserError: names the flag.
    """
    for flag, default in defaults.items():
        if not volumes and getattr(args, flag) != default:
            raise UserError(f"--{flag} is for CT volumes: this checkpoint's model takes 2D images")
