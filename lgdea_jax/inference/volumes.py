"""The CT volumes that `lgdea_jax.predict` is given: files and series to what the model sees, slices with heatmaps.

A volume is read and brought into the run's geometry by the functions that `data_prep.build` uses (`io.read_volume`,
`to_record`, `VolumeView.prepare`): there is no second way.
"""

from __future__ import annotations

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
from lgdea_jax.inference.images import Rejected
from lgdea_jax.inference.overlay import Overlay
from lgdea_jax.io import UnreadableImage, VolumeHeader, read_volume
from lgdea_jax.io.raw_volume import NO_HEADER
from lgdea_jax.preprocess.volume import VolumeView, resampled_shape, to_record

SUFFIXES = (".nii", ".nii.gz", ".npz")
DICOM = (".dcm", ".dicom", ".ima")
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
# Millimetres (z, y, x) that a chest CT covers at least, and along any axis at most, with some room.
_LEAST, _MOST = (180.0, 180.0, 230.0), 700.0


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
    """A volume as the model sees it.

    Attributes:
      name: the file or folder as the user named it, or "image N".
      seen: float32 [D, H, W, 1], windowed.
      shape: (z, y, x) voxels of the original; spacing: its mm per voxel.
      voxels: int16 [z, y, x], the original in HU; None where nobody needs it.
      warnings: what is unusual about it.
    """

    name: str
    seen: np.ndarray
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    voxels: np.ndarray | None
    warnings: tuple[str, ...]

    @property
    def size(self) -> dict[str, Any]:
        """What predictions.json says of it."""
        depth, height, width = self.shape
        return {"depth": depth, "height": height, "width": width, "spacing": [round(mm, 4) for mm in self.spacing]}

    @property
    def stem(self) -> str:
        """The name without folders and suffix."""
        return re.sub(r"(\.nii)?\.gz$|\.nii$|\.npz$", "", os.path.basename(self.name.rstrip(os.sep)))


@dataclasses.dataclass(frozen=True)
class VolumeReader:
    """Makes scans of files, folders and `Volume`s.

    Attributes:
      view: how the run's model sees volumes.
      header: what .npz files do not say of themselves.
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
            voxels, spacing, said = self._open(source)
            stored = to_record(voxels, spacing, self.view.geometry)
            seen = self.view.prepare(stored)
        except UnreadableImage as error:
            return Rejected(name, error.reason)
        except (ValueError, OSError, MemoryError) as error:
            return Rejected(name, f"cannot be read ({type(error).__name__}: {error})")
        warnings = (*said, *unusual(voxels, spacing, self.view))
        return Scan(name, seen, tuple(voxels.shape), tuple(float(mm) for mm in spacing),
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
                                  "predict.Volume(voxels, spacing)")
        npz = str(source).lower().endswith(".npz")
        try:
            voxels, info = read_volume(source, self.header if npz else NO_HEADER)
        except UnreadableImage as error:
            if _is_picture(source):
                raise UnreadableImage("a 2D image: this checkpoint's model takes CT volumes (NIfTI, .npz, or a folder "
                                      "with a DICOM series)") from None
            if npz and "spacing" in error.reason:
                raise UnreadableImage(f"{error.reason}: say it with --spacing=Z,Y,X") from None
            raise
        said = {"oblique": "its axes lie askew to the patient's", "not axial": "its slices are not axial"}
        return voxels, info.spacing, tuple(said[name] for name in info.conversions if name in said)


def _is_picture(path: str | os.PathLike) -> bool:
    try:
        with open(path, "rb") as file:
            start = file.read(8)
    except OSError:
        return False
    return start == b"\x89PNG\r\n\x1a\n" or start[:2] == b"\xff\xd8"


def unusual(voxels: np.ndarray, spacing: Sequence[float], view: VolumeView) -> list[str]:
    """What speaks against a volume being a whole chest CT in Hounsfield units, in words; [] where nothing does.

    A net with wide meshes: what passes need not be right. What cannot be Hounsfield units at all is refused when it is
    read.

    Args:
      voxels: int16 [z, y, x] in HU; spacing: mm (z, y, x); view: how the model sees volumes.
    """
    found = []
    # A sixteenth of the voxels tells as much of their distribution as all of them.
    part = voxels[::2, ::2, ::4] if voxels.size > 1 << 20 else voxels
    low, high = int(part.min()), int(part.max())
    if low > -900:
        found.append(f"lowest value {low} HU: air is at -1000, was the volume cut or rescaled?")
    if high < 200:
        found.append(f"highest value {high} HU: no bone, was the volume cut or rescaled?")
    lung = float(((part > -950) & (part < -550)).mean())
    if lung < 0.02:
        found.append(f"hardly any lung ({100 * lung:.1f}% of the voxels): is it a chest?")
    covered = [n * mm for n, mm in zip(voxels.shape, spacing, strict=True)]
    if any(have < least for have, least in zip(covered, _LEAST, strict=True)) or max(covered) > _MOST:
        found.append(f"covers {' x '.join(f'{mm:.0f}' for mm in covered)} mm: not a whole chest, or a wrong voxel "
                     "spacing")
    if view.geometry.spacing and any(mm > 2.5 * new for mm, new in zip(spacing, view.geometry.spacing, strict=True)):
        found.append(f"voxels of {' x '.join(f'{mm:.3g}' for mm in spacing)} mm, far coarser than the "
                     f"{' x '.join(f'{mm:.3g}' for mm in view.geometry.spacing)} mm of the training volumes")
    resampled = resampled_shape(voxels.shape, spacing, view.geometry)
    shares = [min(want, limit or want, have) / have for want, limit, have in zip(
        view.shape, view.geometry.shape or (0, 0, 0), resampled, strict=True)]
    if min(shares) < 0.75:
        found.append(f"the model sees only the middle {100 * min(shares):.0f}% along its "
                     f"{('height', 'depth', 'width')[int(np.argmin(shares))]}")
    return found


def find_volumes(arguments: Sequence[str]) -> tuple[list[str], int]:
    """Volumes from files, folders (searched to the bottom) and patterns, in order, each once.

    A folder that holds DICOM files is one volume: a series. Files in folders count by their suffix (SUFFIXES). What is
    named is taken whatever it is called; what is missing or no volume is rejected later like any broken one.

    Returns:
      (paths, number of other files in the folders).

    Raises:
      UserError: a pattern or a folder without volumes.
    """
    found: list[str] = []
    others = 0
    for argument in arguments:
        if os.path.exists(argument) or not glob.has_magic(argument):
            places = [argument]
        else:
            places = sorted(glob.glob(argument, recursive=True))
            if not places:
                raise UserError(f"no file fits the pattern {argument}")
        inside: list[str] = []
        for place in places:
            if os.path.isdir(place):
                volumes, rest = _inside(place)
                inside, others = inside + volumes, others + rest
            else:
                inside.append(place)
        if not inside:
            raise UserError(f"no volume in the folder {argument} (NIfTI, .npz, or the slices of a DICOM series): this "
                            "checkpoint's model takes CT volumes")
        found += inside
    return list(dict.fromkeys(found)), others


def _inside(folder: str) -> tuple[list[str], int]:
    """The volumes of a folder and the number of its other files."""
    found: list[str] = []
    others = 0
    for here, folders, names in os.walk(folder):
        folders.sort()
        series = False
        for name in sorted(names):
            path = os.path.join(here, name)
            if name.startswith(".") or name.upper() == "DICOMDIR":
                others += 1
            elif name.lower().endswith(SUFFIXES):
                found.append(path)
            elif _is_dicom(path):
                series = True
            else:
                others += 1
        if series:
            found.append(here)
    return sorted(found), others


def _is_dicom(path: str) -> bool:
    if path.lower().endswith(DICOM):
        return True
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def window_of(prompt: str, finding: str) -> str:
    """The name in WINDOWS in which a prompt is looked for: by its finding, or for free text by its words."""
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
