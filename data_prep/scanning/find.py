"""What a folder holds: images, volumes (files, and folders with the slices of a series), and everything else.

Every file is accounted for. Kinds are recognised by a file's first bytes, or by its name where these say nothing; of
DICOM files the header is read, not the pixels. Whether an image can be used is for the readers to say
(`scanning.inventory`).
"""

from __future__ import annotations

import dataclasses
import gzip
import mimetypes
import os
import stat
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

from lgdea_jax.errors import UserError, require

_DIRECTORY_CLASS = "1.2.840.10008.1.3.10"  # Media Storage Directory (DICOMDIR).
_TAGS = ("SOPClassUID", "SOPInstanceUID", "Modality", "PatientID", "StudyInstanceUID", "SeriesInstanceUID")
_START = 352  # Bytes: a NIfTI header with its magic number.
# Names of files that hold pictures, whatever they begin with: an empty "a.png" is a picture that cannot be read.
_IMAGE_SUFFIXES = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".dcm": "dicom", ".dicom": "dicom", ".bmp": "bmp",
                   ".gif": "gif", ".tif": "tiff", ".tiff": "tiff", ".webp": "webp", ".jp2": "jpeg 2000"}
# Python's own list, not that of the machine.
_SUFFIXES = mimetypes.MimeTypes().types_map[True]
_VOLUME_SUFFIXES = {".nii": "nifti", ".nii.gz": "nifti", ".npz": "npz", ".hdr": "analyze", ".img": "analyze",
                    ".mha": "metaimage", ".mhd": "metaimage", ".nrrd": "nrrd", ".mgz": "mgh"}


@dataclasses.dataclass(frozen=True)
class Item:
    """Something in the folder.

    Attributes:
      kind: "image", "volume" or "other".
      path: relative to the folder; as a table's `image` names it.
      format: "png", "jpeg", "dicom", "nifti", ...; of others, what they are ("csv", "DICOMDIR").
      files: how many belong to it.
      patient, study, series, instance: DICOM's identifiers, "" where there are none.
      modality: of DICOM.
    """

    kind: str
    path: str
    format: str
    files: int = 1
    patient: str = ""
    study: str = ""
    series: str = ""
    instance: str = ""
    modality: str = ""


def find_items(folder: Path) -> list[Item]:
    """Everything in a folder and the folders in it, in the order of the paths; links are followed, each folder once.

    Slices of CT in DICOM files are a volume, that of the folder in which they lie; where the folders in a folder have
    parts of one series, that of the folder. DICOM files in it whose header says nothing are counted among the slices:
    whether the volume can be used without them is for the reader to say.

    Raises:
      UserError: a DICOM file, and the extra `dicom` is not installed.
    """
    items: list[Item] = []
    slices: dict[str, list[Item]] = {}
    for path in _walk(folder):
        item = _look(folder, path)
        if item.kind == "slice":
            slices.setdefault(os.path.dirname(item.path), []).append(item)
        else:
            items.append(item)
    alone = []
    for item in items:
        own = slices.get(os.path.dirname(item.path)) if _says_nothing(item) else None
        (alone if own is None else own).append(item)
    return sorted([*alone, *_volumes(slices)], key=lambda item: item.path)


def _says_nothing(item: Item) -> bool:
    return item.kind == "image" and item.format == "dicom" and not item.modality


def _walk(folder: Path) -> Iterator[str]:
    """The paths of all files, and of folders that cannot be read. A link back to a folder is not followed again."""
    seen: set[tuple[int, int]] = set()
    unreadable: list[str] = []
    for where, folders, files in os.walk(folder, onerror=lambda error: unreadable.append(error.filename),
                                         followlinks=True):
        status = os.stat(where)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders.sort()
        yield from (os.path.join(where, name) for name in sorted(files))
    yield from unreadable


def _look(folder: Path, path: str) -> Item:
    """What one file is; its kind is "slice" for one of CT."""
    name, lower = os.path.relpath(path, folder), os.path.basename(path).lower()
    try:
        mode = os.stat(path).st_mode
    except OSError:
        mode = stat.S_IFREG  # A dead link: as its name says, so that the reader refuses it.
    if not stat.S_ISREG(mode):
        return Item("other", name, "folder that cannot be read" if stat.S_ISDIR(mode) else "no regular file")
    start = _start(path)
    suffix = next((end for end in (".nii.gz", os.path.splitext(lower)[1]) if lower.endswith(end)), "")
    if lower == "dicomdir" or start[128:132] == b"DICM" or (suffix in (".dcm", ".dicom") and start):
        return _dicom(name, path, bare=start[128:132] != b"DICM")
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return Item("image", name, "png")
    if start.startswith(b"\xff\xd8\xff"):
        return Item("image", name, "jpeg")
    if start[344:348] in (b"n+1\0", b"ni1\0") or start[4:8] == b"n+2\0":
        return Item("volume", name, "nifti")
    if suffix in _VOLUME_SUFFIXES:
        return Item("volume", name, _VOLUME_SUFFIXES[suffix])
    if suffix in _IMAGE_SUFFIXES:
        return Item("image", name, _IMAGE_SUFFIXES[suffix])
    if _is_bare_dicom(start):
        return _dicom(name, path, bare=True)
    # A common suffix is named; any other could be a part of somebody's name.
    return Item("other", name, suffix[1:] if suffix in _SUFFIXES else "unknown")


def _start(path: str) -> bytes:
    """The first bytes, unzipped; b"" of a file that cannot be read."""
    try:
        with open(path, "rb") as file:
            start = file.read(_START)
        if start.startswith(b"\x1f\x8b"):
            with gzip.open(path) as unzipped:
                return unzipped.read(_START)
    except (OSError, EOFError, zlib.error):
        return b""
    return start


def _is_bare_dicom(start: bytes) -> bool:
    """Whether a file without DICOM's preamble begins with one of the first elements of group 2 or 8."""
    return start[:4] in (b"\x02\0\0\0", b"\x08\0\0\0", b"\x08\0\x05\0", b"\x08\0\x08\0", b"\x08\0\x16\0")


def _dicom(name: str, path: str, *, bare: bool) -> Item:
    """A DICOM file by its header."""
    pydicom = require("pydicom", "dicom", "reading DICOM")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS), force=bare)
            values = {tag: str(header.get(tag) or "").strip("\0 ") for tag in _TAGS}
            if header.file_meta.get("MediaStorageSOPClassUID") == _DIRECTORY_CLASS:
                return Item("other", name, "DICOMDIR")
            kind = pydicom.uid.UID(values["SOPClassUID"]).name if values["SOPClassUID"] else "Image Storage"
    except UserError:
        raise
    except Exception:  # Parsers meet damaged bytes here, and raise whatever they like: for the reader to name.
        return Item("image", name, "dicom")
    if "Storage" in kind and "Image Storage" not in kind:  # Presentation states, structured reports, plans, ...
        return Item("other", name, f"DICOM: {kind.removesuffix(' Storage')}")
    # An enhanced CT is a whole volume in one file.
    what = "image" if values["Modality"] != "CT" else "volume" if "Enhanced CT" in kind else "slice"
    return Item(what, name, "dicom", 1, values["PatientID"], values["StudyInstanceUID"], values["SeriesInstanceUID"],
                values["SOPInstanceUID"], values["Modality"])


def _volumes(slices: dict[str, list[Item]]) -> Iterator[Item]:
    """Folder -> its slices, to an item for each volume."""
    parts: dict[tuple[str, str], dict[str, list[str]]] = {}  # (folder, series) -> part in it -> its instances.
    for folder, own in slices.items():
        for item in own:
            for above in (folder, os.path.dirname(folder)) if folder else (folder,):
                if item.series:
                    parts.setdefault((above, item.series), {}).setdefault(folder, []).append(item.instance)
    home = {folder: folder for folder in slices}
    for (above, _), found in parts.items():
        instances = [instance for part in found.values() for instance in part]
        if len(found) > 1 and len(set(instances)) == len(instances):  # Otherwise these are copies, each a volume.
            home.update(dict.fromkeys(found, above))
    together: dict[str, list[Item]] = {}
    for folder, own in slices.items():
        together.setdefault(home[folder], []).extend(own)
    for folder, own in together.items():
        yield dataclasses.replace(own[0], kind="volume", path=folder or ".", files=len(own))
