"""The replies about some reports as one file, for workers on other machines: SQLite's WAL is not for network disks.

The file quotes reports: it is for its user's eyes only, and is removed when the shards are made.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from pathlib import Path

from data_prep.extract.llm.cache import Cache, Entry
from data_prep.extract.llm.jobs import Job
from data_prep.extract.llm.survey import Asked
from lgdea_jax.runtime.files import write_atomically


def write(path: Path, reports: Iterable[Asked], job: Job, cache: Cache) -> None:
    """Writes what the cache has about the reports."""
    found = {}
    for report in reports:
        for passes in job.passes(report):
            for question in passes:
                if (entry := cache.get(question.key)) is not None:
                    found[question.key.hex()] = (entry.status, entry.reason, entry.reply)
    packed = zlib.compress(json.dumps(found).encode("ascii"), 1)
    write_atomically(path, lambda file: file.write(packed), mode=0o600)


class StoredReplies:
    """Reads such a file in place of a `Cache`."""

    def __init__(self, path: Path) -> None:
        self._found = json.loads(zlib.decompress(path.read_bytes()))

    def get(self, key: bytes) -> Entry | None:
        """The stored reply, or None."""
        values = self._found.get(key.hex())
        return Entry(*values) if values else None

    def close(self) -> None:
        """Nothing is kept open."""
