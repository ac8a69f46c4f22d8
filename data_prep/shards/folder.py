"""The folder of a data set while it is built: its lock, the fingerprint of the build, and what is there already."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lgdea_jax.data.dataset import BUILD_FOLDER, METADATA_FILE, DatasetMetadata, load_metadata
from lgdea_jax.errors import UserError
from lgdea_jax.runtime.files import LOCK, lock, write_atomically

FINGERPRINT_FILE = "build.json"


def check_complete(folder: Path, fingerprint: dict[str, Any]) -> DatasetMetadata:
    """The metadata of a finished data set that has the same fingerprint and all its shards.

    Raises:
      UserError: it was built from another configuration, or a shard is damaged.
    """
    metadata = load_metadata(folder)
    _compare(folder, {key: getattr(metadata, key) for key in fingerprint}, fingerprint)
    for shard in (shard for shards in metadata.shards.values() for shard in shards):
        file = folder / shard.file
        if not file.is_file() or file.stat().st_size != shard.bytes:
            raise UserError(f"the data set at {folder} is damaged ({shard.file}): delete the folder and build it again")
    return metadata


def _compare(folder: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Raises a UserError that names the first difference between two builds' fingerprints."""
    def flat(value: Any, prefix: str = "") -> dict[str, Any]:
        if isinstance(value, dict):
            return {k: v for key, item in value.items() for k, v in flat(item, f"{prefix}{key}.").items()}
        return {prefix[:-1]: value}

    a, b = flat(old), flat(json.loads(json.dumps(new)))
    for key in sorted({*a, *b}):
        if a.get(key) != b.get(key):
            what = f"{key.removeprefix('config.')} was {a.get(key)!r}, now {b.get(key)!r}"
            if key.startswith("input."):
                what = "the input has changed"
            raise UserError(f"{folder} was begun with another configuration ({what}): give another --out, or delete it")


def forget_fingerprint(folder: Path) -> None:
    """Lets a build of which nothing is finished continue with another configuration."""
    (folder / BUILD_FOLDER / FINGERPRINT_FILE).unlink()


@contextmanager
def own(folder: Path, fingerprint: dict[str, Any]) -> Iterator[None]:
    """Makes or reopens the folder of an unfinished data set, and holds its lock.

    Raises:
      UserError: it holds something else or was begun with another fingerprint, or another command holds the lock.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out={folder} is a file, not a folder")
    work = folder / BUILD_FOLDER
    known = work.is_dir() or (folder / METADATA_FILE).is_file()  # The second: another command has just finished.
    if folder.is_dir() and any(folder.iterdir()) and not known:
        raise UserError(f"--out={folder} is not empty and holds no data set of ours: give an empty or a new folder")
    work.mkdir(parents=True, exist_ok=True)
    with lock(work / LOCK):
        file = work / FINGERPRINT_FILE
        if file.is_file():
            _compare(folder, json.loads(file.read_text(encoding="utf-8")), fingerprint)
        else:
            write_atomically(file, lambda f: f.write(json.dumps(fingerprint, sort_keys=True).encode("utf-8")))
        for stale in (*work.glob("*.tmp"), *work.glob(".*.tmp"), *folder.glob(".*.tmp")):
            stale.unlink(missing_ok=True)
        yield
