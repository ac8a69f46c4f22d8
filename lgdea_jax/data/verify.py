"""Whether data sets are what was written: every file, and in a damaged shard every record.

`data_prep.verify DATA`, and `--verify` of training and of the evaluation scripts. Without it the small files and every
record are checked when they are read, so that damage may come to light after hours.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tqdm import tqdm

from lgdea_jax.data.dataset import METADATA_FILE, Shard, load_metadata
from lgdea_jax.data.source import RecordSource
from lgdea_jax.data.sums import VERIFY, DamagedData, read_sums
from lgdea_jax.errors import UserError
from lgdea_jax.runtime.progress import clock_text

_PIECE = 1 << 22


@dataclasses.dataclass(frozen=True)
class Check:
    """What was checked: the number of `files` with their `size` in bytes, and {path: what is wrong} of `faults`."""

    files: int
    size: int
    faults: dict[Path, str]


def check(folder: str | Path) -> Check:
    """Reads all files of a data set and compares them with SHA256SUMS; in a terminal, a bar shows how far it is.

    Raises:
      UserError: no data set at `folder`.
      DamagedData: SHA256SUMS itself is missing or damaged.
    """
    folder = Path(folder)
    if not (folder / METADATA_FILE).is_file():
        load_metadata(folder)  # Says what is missing: it raises.
    sums = read_sums(folder)
    size = sum((folder / name).stat().st_size for name in sums if (folder / name).is_file())
    with tqdm(total=size, unit="B", unit_scale=True, desc="reading", disable=None) as bar:
        faults = {folder / name: fault for name, fault in damaged(folder, sums, bar.update)}
    return Check(len(sums), size, faults)


def verified(folders: Iterable[str | Path]) -> str:
    """Checks whole data sets before anything is read from them.

    Returns:
      a line on what was checked and how long it took.

    Raises:
      UserError: as of `check`.
      DamagedData: a file is damaged or missing; the first is named.
    """
    start, folders = time.monotonic(), list(dict.fromkeys(Path(folder) for folder in folders))
    checks = [check(folder) for folder in folders]
    faults = [(path, fault) for each in checks for path, fault in each.faults.items()]
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise DamagedData(f"{faults[0][0]}: {faults[0][1]}{more}: {VERIFY}")
    return (f"verified: {sum(each.files for each in checks)} files, {sum(each.size for each in checks) / 1e9:.3f} GB, "
            f"of {', '.join(map(str, folders))}, in {clock_text(time.monotonic() - start)}")


def damaged(folder: Path, sums: dict[str, str], progress: Callable[[int], object] = lambda count: None
            ) -> Iterator[tuple[str, str]]:
    """(name, what is wrong) of every file that is not the one that was written.

    Args:
      folder: the data set; sums: its SHA256SUMS.
      progress: gets the numbers of bytes that were read.
    """
    try:
        shards = {shard.file: shard for parts in load_metadata(folder).shards.values() for shard in parts}
    except UserError:  # It is among the damaged files.
        shards = {}
    for name, expected in sums.items():
        try:
            digest = _digest(folder / name, progress)
        except OSError as error:
            yield name, f"missing or not readable ({type(error).__name__})"
            continue
        if digest != expected:
            yield name, _records(folder, shards[name]) if name in shards else "damaged"


def _digest(path: Path, progress: Callable[[int], object]) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
            progress(len(piece))
    return digest.hexdigest()


def _records(folder: Path, shard: Shard) -> str:
    """Which records of a damaged shard cannot be used."""
    size = (folder / shard.file).stat().st_size
    source, found = RecordSource(folder, [shard]), []
    for row in range(shard.records):
        try:
            source.read_bytes(row)
        except DamagedData:
            found.append(row)
    what = f"damaged, {size} bytes instead of {shard.bytes}" if size != shard.bytes else "damaged"
    if not found:
        return f"{what}; all of its {shard.records} records can be read"
    return f"{what}; records that cannot be read, from 0: {ranges(found)} (of {shard.records})"


def ranges(numbers: Iterable[int]) -> str:
    """Ascending numbers in few words: "0, 3-5"."""
    found: list[list[int]] = []
    for number in numbers:
        if found and found[-1][1] == number - 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in found)
