"""Where MIMIC-CXR keeps its files, for the data sets that stand on it: MIMIC-CXR, MIMIC-CXR-JPG and MS-CXR.

`files/p10/p10000032/s50414267/DICOM_ID.jpg` (MIMIC-CXR-JPG) or `.dcm` (MIMIC-CXR), and the report beside the study's
folder: `files/p10/p10000032/s50414267.txt` (mimic-cxr-reports.zip).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lgdea_jax.cli import UserError, choose

SUFFIXES = {"jpg": ".jpg", "dicom": ".dcm"}
_TRIED = 200  # Images to look for before saying that there are none: a partial download lacks some.

LICENCE, TERMS = "PhysioNet Credentialed Health Data License 1.5.0", "credentialed"


def subject_id(number: str) -> str:
    """The subject as in the folders' names, and so in every data set that stands on MIMIC-CXR: "p10000032"."""
    return f"p{number}"


def study_id(number: str) -> str:
    """The study as in the folders' names: "s50414267"."""
    return f"s{number}"


def study_path(subject: str, study: str) -> str:
    """Of a study's folder below files/; with ".txt" that of its report. The arguments are as in the tables: digits."""
    return f"p{subject[:2]}/p{subject}/s{study}"


def image_suffix(folder: Path, stems: Iterable[str], choice: str) -> str:
    """Which of SUFFIXES the images in `folder` have.

    Args:
      folder: what `stems` (image paths without suffix) are relative to.
      choice: a key of SUFFIXES, or "auto": that of the first image there is.

    Raises:
      UserError: none of the first images is there.
    """
    if choose("image_format", choice, ("auto", *SUFFIXES)) != "auto":
        return SUFFIXES[choice]
    for stem, _ in zip(stems, range(_TRIED), strict=False):
        for suffix in SUFFIXES.values():
            if (folder / f"{stem}{suffix}").is_file():
                return suffix
    raise UserError(f"none of the first images is in {folder} ({' or '.join(SUFFIXES.values())}): give the folder that "
                    "holds p10/, p11/, ... as images=..., or images=none for reports alone")
