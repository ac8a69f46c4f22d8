"""A volume as its file stores it, before `io.volumes` orients it, scales it to Hounsfield units and checks it."""

from __future__ import annotations

import dataclasses
import math
from typing import Protocol

import numpy as np

WHAT = "volume's file"  # In the reasons of `opening.open_regular`.
MAX_VOXELS = 1 << 29  # A gigabyte of int16: more than any chest CT has.
MAX_RATIO = 1032  # By how much deflate can compress at most: a stream never holds more than this times its bytes.
TOO_LARGE = "the volume has more voxels than can be trusted"
# Of integers, what lies outside the field of view: the lowest int16, which is no scanner's value.
OUTSIDE = -32768
_READ = 1 << 24  # Bytes that are read at once.


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
      values: [i, j, k] integers or floats as stored; NaN and OUTSIDE lie outside the field of view.
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


class Readable(Protocol):
    """A binary file or a stream that is decompressed on the way."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fills a part of the buffer; how many bytes."""


def read_array(stream: Readable, shape: tuple[int, ...], dtype: np.dtype, *, fortran_order: bool) -> np.ndarray:
    """Reads an array from where a stream stands; memory is taken as the bytes arrive.

    Raises:
      EOFError: the stream ends before the array does.
    """
    values = np.empty(math.prod(shape), dtype)
    buffer = memoryview(values.view(np.uint8))
    done = 0
    while done < len(buffer):
        count = stream.readinto(buffer[done:done + _READ])
        if not count:
            raise EOFError("the file ends before its voxels do")
        done += count
    return values.reshape(shape, order="F" if fortran_order else "C")


def outside(marked: np.ndarray) -> np.ndarray:
    """The marked pixels that are connected, over marked ones, with the edge of the slice.

    Args:
      marked: bool [rows, columns]: pixels that hold the value for "no pixel", which may occur inside the body, too.

    Returns:
      bool [rows, columns].
    """
    from scipy import ndimage

    if not marked.any() or marked.all():
        return marked
    edge = np.zeros_like(marked)
    edge[[0, -1]], edge[:, [0, -1]] = marked[[0, -1]], marked[:, [0, -1]]
    labels, _ = ndimage.label(marked)
    reached = np.unique(labels[edge])
    return np.isin(labels, reached[reached > 0])
