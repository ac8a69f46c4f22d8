"""The files of a CT series: every file of its folder is a slice, known to be harmless, or a reason to refuse it.

A slice that was not copied, not fetched or cut off must not make a shorter chest. Harmless is what a file says of
itself (a DICOMDIR, a report, a localizer, a picture, a text), never what merely cannot be read.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

from lgdea_jax.errors import UserError
from lgdea_jax.io.dicom_file import is_dicom, object_kind, open_pydicom, read_dataset
from lgdea_jax.io.image_info import UnreadableImage
from lgdea_jax.io.opening import file_kind, open_regular

MAX_FILES = 5_000  # Of a folder that is one series.
# What is read of a slice before its pixels.
_HEADER = (
    "SOPClassUID", "SOPInstanceUID", "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "ImageType",
    "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated", "ImagePositionPatient",
    "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence",
    "AcquisitionNumber", "ConvolutionKernel", "SliceThickness", "InstanceNumber", "ImagesInAcquisition", "PatientSex",
    "PatientAge", "InConcatenationTotalNumber", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_NUMBERS = re.compile(r"\d+")
_LARGEST = 1 << 26  # Bytes of one element of it.
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
# Files that are no slices whatever is in them, by name and by suffix.
_SYSTEM = frozenset({".ds_store", "thumbs.db", "desktop.ini", ".nomedia", "autorun.inf", "dicomdir", "lockfile"})
_SLICES = (".dcm", ".dicom", ".ima")
_SUFFIXES = (
    ".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".xsl", ".html", ".htm", ".css", ".js", ".md", ".rst", ".log",
    ".yaml", ".yml", ".ini", ".cfg", ".inf", ".py", ".ipynb", ".sh", ".bat", ".pdf", ".doc", ".docx", ".xls", ".xlsx",
    ".ppt", ".pptx", ".rtf", ".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".svg", ".ico", ".webp", ".mp4",
    ".avi", ".exe", ".dll", ".jar", ".so", ".dylib", ".lnk", ".url", ".nii", ".nii.gz", ".nrrd", ".mha", ".mhd", ".npy",
    ".npz", ".zip", ".tar", ".rar", ".7z", ".md5", ".sha1", ".sha256", ".lock", ".db", ".sqlite")
_OTHER, _DICOMDIR = "other files", "the directory of a disc, a DICOMDIR"
# What macOS writes beside every file of a foreign disc; programs for Windows and Linux.
_MARKS = (b"\0\x05\x16\x07", b"MZ", b"\x7fELF")
# Of what `opening.file_kind` tells, these may have been meant for a slice.
_FAULTS = ("a file filled with zeros", "a Git LFS pointer", "a git-annex pointer", "a web page", "a gz")


def find_slices(source: Path) -> tuple[list[tuple[Path, Any]], list[str]]:
    """The slices of a folder, at any depth, or of one file.

    Returns:
      ([(path, pydicom.Dataset without pixels)], the kinds of harmless files beside them).

    Raises:
      UnreadableImage: no slices, or files that may have been slices and cannot be read, with their number.
      UserError: the extra `dicom` is not installed.
    """
    open_pydicom()
    slices: list[tuple[Path, Any]] = []
    beside: list[tuple[Path, str]] = []
    faults: Counter[str] = Counter()
    paths = _walk(source) if source.is_dir() else [source]
    for path in paths:
        fault, kind, header = _classify(path)
        if fault:
            faults[fault] += 1
        elif kind:
            beside.append((path, kind))
        else:
            slices.append((path, header))
    # Slices of the folder itself are the series; its subfolders may hold others.
    own = {str(header.get("SeriesInstanceUID")) for path, header in slices if path.parent == source}
    for path, header in slices if own else ():
        if str(header.get("SeriesInstanceUID")) not in own:
            beside.append((path, "another series in a subfolder"))
    slices = [(path, header) for path, header in slices if not own or str(header.get("SeriesInstanceUID")) in own]
    # "007" beside "001" to "006" was meant for a slice, whatever is in it.
    alike = {_NUMBERS.sub("0", path.name) for path, _ in slices}
    faults["not DICOM"] = sum(kind == _OTHER and _NUMBERS.sub("0", path.name) in alike for path, kind in beside)
    if +faults:
        count = sum(faults.values())
        listed = ", ".join(f"{number} {fault}" for fault, number in faults.most_common() if number)
        raise UnreadableImage(
            f"the series would be incomplete: of {len(paths)} files {count} may be slices and cannot be read ({listed})"
            if source.is_dir() else f"a DICOM file that cannot be read ({listed})")
    if not slices:
        raise UnreadableImage("the folder has no DICOM files with slices")
    return slices, list(dict.fromkeys(f"beside: {kind}" for _, kind in beside))


def check_headers(headers: list[Any]) -> None:
    """Raises UnreadableImage where slices cannot be of one complete series by what they state of it."""
    patients = {str(header.get("PatientID") or "").strip() for header in headers} - {""}
    if 1 < len(patients) < len(headers):
        raise UnreadableImage(f"the series mixes {len(patients)} patients")
    scaled = [any(header.get(name) not in (None, "") for name in ("RescaleSlope", "ModalityLUTSequence"))
              for header in headers if "PerFrameFunctionalGroupsSequence" not in header]
    if len(set(scaled)) > 1:
        raise UnreadableImage(f"{scaled.count(False)} of {len(scaled)} slices of the series lack the slope that makes "
                              "Hounsfield units")
    total = max(int(header.get("InConcatenationTotalNumber") or 1) for header in headers)
    if total > len(headers):
        raise UnreadableImage(f"{len(headers)} of the {total} parts of an enhanced DICOM: the series is incomplete")


def series_identity(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """(PatientID, StudyInstanceUID, SeriesInstanceUID) of a DICOM file; () where it cannot be read or has no series."""
    try:
        header = read_file(Path(path), pixels=False)
        found = tuple(str(header.get(name) or "") for name in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID"))
    except UserError:
        raise
    except Exception:  # It will be refused when it is read.
        return ()
    return found if found[-1] else ()


def _walk(folder: Path) -> list[Path]:
    """Every file below a folder, in order; folders that are links are entered once."""
    found: list[Path] = []
    entered = set()

    def fail(error: OSError) -> None:
        raise UnreadableImage(f"a folder of the series cannot be opened ({type(error).__name__})")

    for here, folders, names in os.walk(folder, followlinks=True, onerror=fail):
        place = os.path.realpath(here)
        if place in entered:
            folders.clear()
            continue
        entered.add(place)
        folders.sort()
        found += [Path(here) / name for name in sorted(names)]
        if len(found) > MAX_FILES or len(entered) > MAX_FILES:
            raise UnreadableImage(f"a folder of more than {MAX_FILES} files is not one series")
    return found


def _classify(path: Path) -> tuple[str, str, Any]:
    """(fault, harmless kind, header): one of the three is given."""
    name = path.name.lower()
    try:
        with open_regular(path, "file") as (file, size):
            start = file.read(4096)
    except UnreadableImage as error:
        return error.reason.removeprefix("the file is "), "", None
    if is_dicom(start):
        return _classify_dicom(path, name)
    if name in _SYSTEM or name.endswith(_SUFFIXES) or start.startswith(_MARKS):
        return "", _DICOMDIR if name == "dicomdir" else _OTHER, None
    if not size:
        return "empty", "", None
    kind = file_kind(start)
    if not kind or kind.startswith(_FAULTS) or name.endswith(_SLICES):
        return kind.partition(":")[0] or "of an unknown kind", "", None
    return "", _OTHER, None


def _classify_dicom(path: Path, name: str) -> tuple[str, str, Any]:
    if name == "dicomdir":
        return "", _DICOMDIR, None
    try:
        header = read_file(path, pixels=False)
        modality = str(header.get("Modality") or "").strip().upper()
        grey = str(header.get("SamplesPerPixel") or 1) == "1"
        kind = object_kind(header)
        if not kind and "LOCALIZER" in str(header.get("ImageType")).upper():
            kind = "a localizer"
        capture = str(header.get("SOPClassUID") or "").startswith(_SECONDARY_CAPTURE)
        # Some writers store slices as captures.
        if not kind and not (grey and modality == "CT" and "ImagePositionPatient" in header) and (capture or not grey):
            kind = "a secondary capture"
        return "", kind, header
    except UserError:
        raise
    except Exception as error:  # Parsers meet damaged bytes here, and raise whatever they like.
        return f"truncated or damaged ({type(error).__name__})", "", None


def read_file(path: Path, *, pixels: bool) -> Any:
    """The `pydicom.Dataset` of a file: what is needed of its header, or all of it.

    Raises:
      UserError: the extra `dicom` is not installed. Anything: the file is damaged.
    """
    pydicom = open_pydicom()
    with open_regular(path, "file") as (file, size):
        if _DEFLATED in file.read(4096):
            if size > _LARGEST:
                raise UnreadableImage("a deflated DICOM file that is far larger than an image")
            file.seek(0)
            return read_dataset(file.read())
    if pixels:
        return pydicom.dcmread(path, force=True)
    return pydicom.dcmread(path, force=True, stop_before_pixels=True, specific_tags=list(_HEADER), defer_size=_LARGEST)
