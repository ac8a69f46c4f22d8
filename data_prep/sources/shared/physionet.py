"""Checksums of PhysioNet releases: every project has a SHA256SUMS.txt with a line for every file."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lgdea_jax.cli import UserError, choose

SUMS_FILE = "SHA256SUMS.txt"
CHECKS = ("tables", "all", "none")


def verify(folder: Path, tables: Iterable[Path], check: str) -> int:
    """Compares files with the release's checksums.

    Args:
      folder: the release, with SHA256SUMS.txt.
      tables: the tables that are read.
      check: "tables": those, where SHA256SUMS.txt is there and lists them; "all": every listed file that is on the disk
        (for MIMIC-CXR this reads half a terabyte); "none".

    Returns:
      The number of files that were compared.

    Raises:
      UserError: a file differs, or "all" without SHA256SUMS.txt.
    """
    if choose("verify", check, CHECKS) == "none":
        return 0
    sums = folder / SUMS_FILE
    if not sums.is_file():
        if check == "all":
            raise UserError(f"verify=all needs {sums}, which the release has beside its tables")
        return 0
    listed = _read_sums(sums)
    if check == "all":
        wanted = [name for name in listed if (folder / name).is_file()]
    else:
        wanted = [os.path.relpath(path, folder) for path in tables]
        wanted = [name for name in wanted if name in listed]
    with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:  # Hashing lets go of the lock.
        for name, digest in zip(wanted, pool.map(lambda name: _digest(folder / name), wanted)):
            if digest != listed[name]:
                raise UserError(f"{folder / name} is not the released file (its SHA-256 differs from {SUMS_FILE}): "
                                "download it again, or set verify=none")
    return len(wanted)


def _read_sums(path: Path) -> dict[str, str]:
    found = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        match = re.fullmatch(r"([0-9a-fA-F]{64})\s+\*?(.+?)\s*", line)
        if match:
            found[match[2].removeprefix("./")] = match[1].lower()
        elif line.strip():
            raise UserError(f"{path} line {number} is no checksum: download it again")
    return found


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
