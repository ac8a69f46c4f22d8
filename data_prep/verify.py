"""Checks whether a data set is what was written: every file, and in a damaged shard every record.

    python -m data_prep.verify DATA
    python -m data_prep.verify data/mimic_cxr

Compares all files with DATA/SHA256SUMS and prints a line for each that is missing or damaged; of a damaged shard it
names the records that cannot be used. Training and evaluation check the small files and every record that they read
anyway; this reads everything, also what they would come to only after hours. Exit status 2: something is damaged.

There is no configuration file; the keys of data sets are in docs/reference/configuration.md.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tqdm import tqdm

from lgdea_jax import cli
from lgdea_jax.data.dataset import METADATA_FILE, Shard, load_metadata
from lgdea_jax.data.source import RecordSource
from lgdea_jax.data.sums import AGAIN, DamagedData, read_sums
from lgdea_jax.errors import UserError

_PIECE = 1 << 22


def main(argv: list[str]) -> int:
    """Parses the flags, checks; returns the exit status."""
    parser = cli.Parser(prog="python -m data_prep.verify", description=__doc__)
    parser.add_argument("data", metavar="DATA", help="folder written by data_prep.build")
    folder = Path(parser.parse_args(argv).data)
    if not (folder / METADATA_FILE).is_file():
        load_metadata(folder)  # Says what is missing: it raises.
    sums = read_sums(folder)
    size = sum((folder / name).stat().st_size for name in sums if (folder / name).is_file())
    with tqdm(total=size, unit="B", unit_scale=True, desc="reading", disable=None) as bar:
        faults = dict(damaged(folder, sums, bar.update))
    for name, fault in faults.items():
        print(f"{folder / name}: {fault}")
    if faults:
        raise UserError(f"{len(faults)} of {len(sums)} files of {folder} are damaged or missing: {AGAIN}")
    print(f"{len(sums)} files, {size / 1e9:.3f} GB: all as they were written")
    return cli.OK


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


if __name__ == "__main__":
    cli.run(main, sys.argv[1:])
