"""Where MIMIC-CXR keeps its files, for the data sets that stand on it: MIMIC-CXR itself and those of `sources/mimic`.

`files/p10/p10000032/s50414267/DICOM_ID.jpg` (MIMIC-CXR-JPG) or `.dcm` (MIMIC-CXR), and the report beside the study's
folder: `files/p10/p10000032/s50414267.txt` (mimic-cxr-reports.zip). The two releases lie side by side where PhysioNet's
commands put them: `physionet.org/files/mimic-cxr-jpg/2.1.0` and `physionet.org/files/mimic-cxr/2.1.0` (wget), or
`mimic-cxr-jpg-2.1.0.physionet.org` and `mimic-cxr-2.1.0.physionet.org` (the cloud buckets).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from data_prep.sources.shared.official import image_folder
from data_prep.sources.shared.tables import find_table
from lgdea_jax.errors import UserError, choose

SUFFIXES = {"jpg": ".jpg", "dicom": ".dcm"}
_PATH = re.compile(r"(?:.*/)?(p\d{2}/(p\d+)/(s\d+)/([^/]+?))(?:\.jpg|\.dcm)?")
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


def parse_path(path: str) -> tuple[str, str, str, str] | None:
    """(path below files/ without suffix, subject id, study id, image id) of an image's path; None for anything else."""
    match = _PATH.fullmatch(path)
    return (match[1], match[2], match[3], match[4]) if match else None


def images_below(folder: Path, choice: str, name: str) -> Path:
    """The folder that holds p10/, p11/, ... of a data set that annotates MIMIC-CXR's images and has none of its own.

    Args:
      folder: of the annotations; choice: `images` of its config; name: of the config's group.

    Raises:
      UserError: there is none.
    """
    images = image_folder(folder, choice, ("files",))
    if images is None:
        raise UserError(f"annotations without images are of no use here: give the folder as config.{name}.images=...")
    return images / "files" if (images / "files").is_dir() else images


def find_release(folder: Path, name: str) -> Path:
    """The newest release of MIMIC-CXR-JPG in `folder` that holds the table `name`; `folder` where there is none."""
    patterns = ("2.*", "mimic-cxr-jpg/2.*", "files/mimic-cxr-jpg/2.*", "physionet.org/files/mimic-cxr-jpg/2.*",
                "mimic-cxr-jpg-2.*.physionet.org")
    releases = [folder, *(found for pattern in patterns for found in sorted(folder.glob(pattern), reverse=True))]
    return next((release for release in releases if find_table(release, name)), folder)


def neighbours(release: Path) -> list[Path]:
    """The releases of MIMIC-CXR (DICOM and reports) beside one of MIMIC-CXR-JPG, newest first."""
    release = Path(os.path.abspath(release))
    return [*sorted(release.parent.parent.glob("mimic-cxr/2.*"), reverse=True),
            *sorted(release.parent.glob("mimic-cxr-2.*.physionet.org"), reverse=True)]


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
