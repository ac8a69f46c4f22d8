"""Image files, folders and patterns to the input of a 2D model, read ahead of it.

`Reader` is the only way from a file to the input of a 2D model; `inference.volumes` has that of volumes. Volumes among
the files of a 2D model are found and reported as rejected.
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

from lgdea_jax.errors import UserError
from lgdea_jax.inference import input_checks
from lgdea_jax.io import ImageInfo, UnreadableImage, read_image_file
from lgdea_jax.io.dicom_file import is_dicom
from lgdea_jax.io.opening import open_regular
from lgdea_jax.preprocess import image_statistics
from lgdea_jax.preprocess.image import fit_shape, letterbox, resize, to_grey8

SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom", ".nii", ".nii.gz")


@dataclasses.dataclass(frozen=True)
class Picture:
    """An image, prepared for the model.

    Attributes:
      name: the file as the user named it, or "image N".
      model_input: uint8 [S, S].
      shape: (height, width) of the original.
      stored: (height, width) after the record transform, from which `model_input` was made.
      grey: uint8 [height, width], the original as grey levels; None unless it is kept.
      warnings: in what it is unusual.
    """

    name: str
    model_input: np.ndarray
    shape: tuple[int, int]
    stored: tuple[int, int]
    grey: np.ndarray | None
    warnings: tuple[str, ...]

    @property
    def size(self) -> dict[str, Any]:
        """Its size for predictions.jsonl."""
        return {"height": int(self.shape[0]), "width": int(self.shape[1])}

    @property
    def stem(self) -> str:
        """The name without folders and suffix."""
        return Path(self.name).stem


@dataclasses.dataclass(frozen=True)
class Rejected:
    """An image that cannot be used, and why."""

    name: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Reader:
    """Makes a `Picture` of a file or an array.

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
        model_input = letterbox(resize(grey, stored), self.size)
        warnings = [*input_checks.image_warnings(array, info), *image_statistics.unusual(model_input, self.statistics)]
        return Picture(name, model_input, grey.shape, tuple(stored), grey if self.keep_grey else None, tuple(warnings))

    def _open(self, source: Any) -> tuple[np.ndarray, ImageInfo | None]:
        if isinstance(source, (str, os.PathLike)):
            name = str(source).lower()
            if name.endswith((".nii", ".nii.gz", ".npz")):
                raise UnreadableImage(f"a volume ({'.npz' if name.endswith('.npz') else 'NIfTI'}): this checkpoint's "
                                      "model takes single 2D images")
            array, info = read_image_file(source)
            if info.modality.upper() == "CT":
                raise UnreadableImage("a slice of a CT (DICOM): this checkpoint's model takes radiographs")
            return array, info
        return np.asarray(source), None


def find_images(arguments: Sequence[str]) -> tuple[list[str], int]:
    """Files from files, folders (searched to the bottom) and patterns, in order, each once.

    In folders, files count by their suffix (SUFFIXES), links without a target too, and files without a suffix if they
    are DICOM; a DICOMDIR does not. A file that is named is taken whatever it is called; one that is missing is rejected
    later like any broken one.

    Returns:
      (paths, number of other files in the folders).

    Raises:
      UserError: a pattern or a folder without images.
    """
    found: list[str] = []
    others = 0
    for argument in arguments:
        if os.path.isdir(argument):
            inside = sorted(str(path) for path in Path(argument).rglob("*") if not path.is_dir())
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
    if name.startswith(".") or name == "dicomdir":  # The directory of a disc.
        return False
    if name.endswith(SUFFIXES):
        return True
    if "." in name.strip("0123456789."):  # UIDs as names ("1.2.840.113619") have dots but no suffix.
        return False
    try:
        with open_regular(path) as (file, _):
            return is_dicom(file.read(256))
    except UnreadableImage:
        return False


class ReadAhead:
    """Batches of prepared images in order, read by threads while the caller does something else.

    Memory is bounded: `ahead` batches that are read or waiting to be, and the one that was returned. To be
    closed (`contextlib.closing`), also where the caller stops early: nothing is read any further then.

    Args:
      sources: (source, name) of each image.
      reader: prepares them (`Reader`, or `inference.volumes.VolumeReader`).
      batch_size: images per batch; the last may have fewer.
      threads: number of reading threads.
      ahead: number of batches.
    """

    def __init__(self, sources: Iterable[tuple[Any, str]], reader: Any, *, batch_size: int, threads: int = 2,
                 ahead: int = 3) -> None:
        self._sources, self._reader, self._size, self._most = iter(sources), reader, batch_size, ahead * batch_size
        self._pending: collections.deque = collections.deque()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="read")
        self._fill()

    def _fill(self) -> None:
        while len(self._pending) < self._most:
            try:
                source, name = next(self._sources)
            except StopIteration:
                return
            self._pending.append(self._pool.submit(self._reader.read, source, name))

    def __iter__(self) -> Iterator[list[Any]]:
        return self

    def __next__(self) -> list[Any]:
        batch = []
        while self._pending and len(batch) < self._size:
            batch.append(self._pending.popleft().result())
            self._fill()  # At once, so that the threads have work while the batch is put together and used.
        if not batch:
            self.close()
            raise StopIteration
        return batch

    def close(self) -> None:
        """Stops reading, and waits for the files that are being read."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._pending.clear()


def reading_threads() -> int:
    """Number of reading threads by default: one per core, at least 2 and at most 8."""
    return max(2, min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 2))
