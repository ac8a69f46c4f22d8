"""The images that `lgdea_jax.predict` is given: files, folders and patterns to pictures, read ahead of the model.

Volumes: `read_picture` is the one place where a file becomes what the model sees. NIfTI files are found and reported as
rejected there, because the model of a 2D checkpoint takes one image.
"""

from __future__ import annotations

import collections
import dataclasses
import glob
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from lgdea_jax import image_statistics
from lgdea_jax.cli import UserError
from lgdea_jax.io import ImageInfo, UnreadableImage, read_image_file
from lgdea_jax.preprocess.image import fit_shape, letterbox, resize, to_grey8

SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom", ".nii", ".nii.gz")
# What a DICOM file says of itself where it is a radiograph; an empty string where it says nothing.
RADIOGRAPHS = ("", "CR", "DX", "DR", "RG", "PX", "RF", "SC", "OT")
SMALLEST = 32  # Pixels of the shorter side: below, there is nothing to diagnose.
_COLOUR = 12.0  # Mean difference of the colour channels, in grey levels, from which a picture counts as a colour one.


@dataclasses.dataclass(frozen=True)
class Picture:
    """An image as the model sees it.

    Attributes:
      name: the file as the user named it, or "image N".
      square: uint8 [S, S].
      shape: (height, width) of the original.
      stored: (height, width) after the record transform, from which `square` was made.
      grey: uint8 [height, width], the original as grey levels; None where nobody needs it.
      warnings: what is unusual about it.
    """

    name: str
    square: np.ndarray
    shape: tuple[int, int]
    stored: tuple[int, int]
    grey: np.ndarray | None
    warnings: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Rejected:
    """An image that cannot be used, and why."""

    name: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Reader:
    """Makes pictures of files and arrays.

    Attributes:
      size: side of the model's square.
      record_size: longer side of the training records, to which images were reduced first; 0 where unknown.
      statistics: of the training images, see `image_statistics`.
      keep_grey: whether the originals are needed (for overlays).
    """

    size: int
    record_size: int = 0
    statistics: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    keep_grey: bool = False

    def read(self, source: Any, name: str) -> Picture | Rejected:
        """A picture of a path, an array or a PIL image; never raises for what is wrong with one image.

        Raises:
          UserError: a DICOM file and the extra `dicom` is not installed.
        """
        try:
            array, info = self._open(source)
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                return Rejected(name, "has pixels that are not finite")
            grey, _ = to_grey8(array)
        except UnreadableImage as error:
            return Rejected(name, error.reason)
        except (ValueError, OSError, MemoryError) as error:
            return Rejected(name, f"cannot be read ({type(error).__name__}: {error})")
        stored = fit_shape(grey.shape, self.record_size, enlarge=False) if self.record_size else grey.shape
        square = letterbox(resize(grey, stored), self.size)
        warnings = [*_formal(array, info), *image_statistics.unusual(square, self.statistics)]
        return Picture(name, square, grey.shape, tuple(stored), grey if self.keep_grey else None, tuple(warnings))

    def _open(self, source: Any) -> tuple[np.ndarray, ImageInfo | None]:
        if isinstance(source, (str, os.PathLike)):
            # The place for volumes: a 3D checkpoint would read NIfTI here.
            if str(source).lower().endswith((".nii", ".nii.gz")):
                raise UnreadableImage("a volume (NIfTI): this checkpoint's model takes single 2D images")
            return read_image_file(source)
        return np.asarray(source), None


def _formal(array: np.ndarray, info: ImageInfo | None) -> list[str]:
    """What the file itself says that speaks against it."""
    found = []
    if min(array.shape[:2]) < SMALLEST:
        found.append(f"only {array.shape[1]} x {array.shape[0]} pixels")
    if array.ndim == 3:
        colours = array[..., :3].astype(np.int16)
        if float(np.ptp(colours, axis=2).mean()) > _COLOUR:
            found.append("a colour picture: radiographs are grey")
    if info is not None and info.modality.upper() not in RADIOGRAPHS:
        found.append(f"DICOM modality {info.modality}: the model was trained on radiographs")
    return found


def find_images(arguments: Sequence[str]) -> tuple[list[str], int]:
    """Files from files, folders (searched to the bottom) and patterns, in order, each once.

    In folders, files count by their suffix (SUFFIXES), and files without a suffix if they are DICOM. A file that is
    named is taken whatever it is called; one that is missing is rejected later like any broken one.

    Returns:
      (paths, number of other files in the folders).

    Raises:
      UserError: a pattern or a folder without images.
    """
    found: list[str] = []
    others = 0
    for argument in arguments:
        if os.path.isdir(argument):
            inside = sorted(str(path) for path in Path(argument).rglob("*") if path.is_file())
            images = [path for path in inside if is_image_name(path)]
            others += len(inside) - len(images)
            if not images:
                raise UserError(f"no image in the folder {argument} (PNG, JPEG or DICOM)")
            found += images
        elif not os.path.exists(argument) and glob.has_magic(argument):
            images = sorted(path for path in glob.glob(argument, recursive=True) if os.path.isfile(path))
            if not images:
                raise UserError(f"no file fits the pattern {argument}")
            found += images
        else:
            found.append(argument)
    return list(dict.fromkeys(found)), others


def is_image_name(path: str) -> bool:
    """Whether a file in a folder counts as an image: by its suffix, or without one by its first bytes."""
    name = os.path.basename(path).lower()
    if name.startswith("."):
        return False
    if name.endswith(SUFFIXES):
        return True
    if "." in name.strip("0123456789."):  # UIDs as names ("1.2.840.113619") have dots but no suffix.
        return False
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def read_ahead(sources: Iterable[tuple[Any, str]], reader: Reader, *, batch_size: int, threads: int = 2,
               ) -> Iterator[list[Picture | Rejected]]:
    """Batches of pictures in order, read by threads while the caller works; at most three batches are held.

    Args:
      sources: (source, name) of each image.
      reader: makes pictures of them.
      batch_size: images of a batch; the last may have fewer.
      threads: that read.
    """
    pending: collections.deque = collections.deque()
    batch: list[Picture | Rejected] = []
    pool = ThreadPoolExecutor(threads, thread_name_prefix="read")
    try:
        for source, name in sources:
            pending.append(pool.submit(reader.read, source, name))
            if len(pending) >= 2 * batch_size:
                batch.append(pending.popleft().result())
                if len(batch) == batch_size:
                    yield batch
                    batch = []
        while pending:
            batch.append(pending.popleft().result())
            if len(batch) == batch_size:
                yield batch
                batch = []
        if batch:
            yield batch
    finally:  # Also where the caller stops early: nothing is read any further.
        pool.shutdown(wait=True, cancel_futures=True)
