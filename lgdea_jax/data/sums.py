"""Checksums of a data set's files (SHA256SUMS): small files are compared with them whenever they are opened.

Shards are not: their records are checked one by one when they are read (`data.source`). `data_prep.verify` checks all.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from lgdea_jax.errors import UserError

SUMS_FILE = "SHA256SUMS"
AGAIN = "copy the data set again, or build it again"
VERIFY = f"python -m data_prep.verify lists what is damaged; {AGAIN}"


class DamagedData(UserError):
    """A file of a data set, or a record in it, that is not what was written."""


def read_sums(folder: Path) -> dict[str, str]:
    """{file name: SHA-256 (hex)} of SHA256SUMS.

    Raises:
      DamagedData: it is missing, or a line of it is damaged.
    """
    file = folder / SUMS_FILE
    try:
        lines = file.read_text(encoding="utf-8").split("\n")[:-1]
    except (OSError, UnicodeDecodeError) as error:
        raise DamagedData(f"{file} is missing or damaged ({type(error).__name__}): {AGAIN}") from None
    found = [re.fullmatch(r"([0-9a-f]{64})  ([^/\x00]+)", line) for line in lines]
    if not all(found):
        raise DamagedData(f"line {1 + found.index(None)} of {file} is damaged: {AGAIN}")
    return {match[2]: match[1] for match in found if match}


def read_checked(folder: str | Path, name: str) -> bytes:
    """The content of a file of a data set.

    Raises:
      DamagedData: it is missing, or not the one that was written.
    """
    path = Path(folder) / name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DamagedData(f"{path} is missing or damaged ({type(error).__name__}): {VERIFY}") from None
    if read_sums(Path(folder)).get(name) != hashlib.sha256(content).hexdigest():
        raise DamagedData(f"{path} is damaged (not the file of {SUMS_FILE}): {VERIFY}")
    return content
