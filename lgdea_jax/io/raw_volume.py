"""A volume as its file stores it, before `io.volumes` orients it, scales it to Hounsfield units and checks it."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

MAX_VOXELS = 1 << 29  # A gigabyte of int16: more than any chest CT has.


@dataclasses.dataclass(frozen=True)
class VolumeHeader:
    """What is known of a file from elsewhere, such as the release's table of metadata.

    Attributes:
      slope, intercept: make stored values Hounsfield units. NaN: the file's own. Given, they replace the
        file's own, and are refused where the file's values are Hounsfield units already.
      spacing: mm (z, y, x) in the canonical frame, zeros where unknown; replaces the file's own.
      axes: for .npz, which has no orientation: where the array's axes grow to, three of the letters L R A P S I.
    """

    slope: float = math.nan
    intercept: float = math.nan
    spacing: tuple[float, float, float] = (0.0, 0.0, 0.0)
    axes: str = "SPL"


NO_HEADER = VolumeHeader()


@dataclasses.dataclass
class RawVolume:
    """What a reader of one file format returns.

    Attributes:
      values: [i, j, k] integers or floats as stored.
      affine: float64 [4, 4]: indices (i, j, k, 1) -> millimetres in RAS+.
      file_format: "nifti", "dicom" or "npz".
      slope, intercept: of the file, not yet applied.
      spacing_known: whether the affine's lengths are millimetres.
      axial: whether the file's slices were axial.
      conversions: what was repaired, for counting.
      sex, age: as `ImageInfo`.
    """

    values: np.ndarray
    affine: np.ndarray
    file_format: str
    slope: float = 1.0
    intercept: float = 0.0
    spacing_known: bool = True
    axial: bool = True
    conversions: list[str] = dataclasses.field(default_factory=list)
    sex: str = ""
    age: float = math.nan
