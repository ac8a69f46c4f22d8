"""Batches under way, in the reply cache's file: what was submitted, under which name, and what it may cost.

A batch is written down before it is submitted and struck out in the same transaction that stores its replies, so that
`kill -9` at any moment neither loses a batch nor books it twice. Its reports are claimed as long as it is under way.
The file holds these reports until then.
"""

from __future__ import annotations

import dataclasses
import time
import uuid
import zlib
from collections.abc import Iterable, Sequence

from data_prep.extract.llm.cache import BATCH_OWNER, Cache, Entry, Spent


@dataclasses.dataclass(frozen=True)
class Batch:
    """A batch under way: our label, and the server's name, "" where we were stopped before we knew it."""

    label: str
    name: str


class Ledger:
    """The batches of one scope in an open cache."""

    def __init__(self, cache: Cache, scope: bytes) -> None:
        self._cache, self._db, self._scope = cache, cache._db, scope

    def under_way(self) -> list[Batch]:
        """All of them, oldest first."""
        return [Batch(*row) for row in self._db.execute(
            "SELECT label, name FROM batches WHERE scope = ? ORDER BY created", (self._scope,))]

    def items(self, label: str) -> list[tuple[bytes, str]]:
        """(key, report) of a batch in order."""
        rows = self._db.execute("SELECT key, report FROM batch_items WHERE label = ? ORDER BY position", (label,))
        return [(key, zlib.decompress(report).decode("utf-8", "surrogatepass")) for key, report in rows]

    def write_down(self, items: Sequence[tuple[bytes, str, float]], limit: float) -> tuple[str, int]:
        """Claims the first items that the limit allows and writes them down as a batch that is about to be submitted.

        Args:
          items: (key, report, what its request may cost at most).
          limit: what may be spent in all, 0 for no limit.

        Returns:
          (label, how many): 0 items where there is no money, or a process has claimed the first of them.
        """
        label, count = BATCH_OWNER + uuid.uuid4().hex, 0
        with self._cache._transaction():
            committed = self._cache._committed(self._scope)
            for key, report, cost in items:
                committed += cost
                if limit and committed > limit:
                    break
                made = self._db.execute("INSERT OR IGNORE INTO claims (key, scope, owner, cost) "
                                        "VALUES (?, ?, ?, ?)",
                                        (key, self._scope, label, cost)).rowcount
                if not made:
                    break
                packed = zlib.compress(report.encode("utf-8", "surrogatepass"), 1)
                self._db.execute("INSERT INTO batch_items (label, position, key, report) VALUES (?, ?, ?, ?)",
                                 (label, count, key, packed))
                count += 1
            if count:
                self._db.execute("INSERT INTO batches (label, scope, name, created) VALUES (?, ?, '', ?)",
                                 (label, self._scope, time.time()))
        return label, count

    def submitted(self, label: str, name: str) -> None:
        """Notes the server's name."""
        self._db.execute("UPDATE batches SET name = ? WHERE label = ?", (name, label))

    def strike_out(self, label: str, entries: Iterable[tuple[bytes, Entry]] = (), spent: Spent | None = None) -> None:
        """Stores what a batch brought and what it took, and forgets it; without entries it was never submitted."""
        with self._cache._transaction():
            for key, entry in entries:
                self._cache._store(key, self._scope, entry, Spent())
            if spent is not None:
                self._cache._book(self._scope, dataclasses.astuple(spent))
            for statement in ("DELETE FROM claims WHERE owner = ?", "DELETE FROM batch_items WHERE label = ?",
                              "DELETE FROM batches WHERE label = ?"):
                self._db.execute(statement, (label,))
