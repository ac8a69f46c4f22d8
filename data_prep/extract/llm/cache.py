"""Replies that were paid for: a content-addressed SQLite file that several processes may share.

A reply is keyed by report, prompt, schema and model. It is committed the moment it is there: `kill -9` loses none
that has arrived. Before a question is sent it is claimed, so that two processes never ask the same at the same
time; claims of a process that died are void, and what they may have cost is booked as spent.

The file holds replies, which quote reports: protect it as you protect the reports. SQLite's WAL needs a local disk, and
all processes that share it on one machine.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import time
import uuid
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from data_prep.extract.llm.cache_file import NAMES, checksum_of, open_file
from data_prep.extract.llm.tasks import Task
from lgdea_jax.errors import UserError

VALID, INVALID, FAILED = "valid", "invalid", "failed"
CLAIMED, TAKEN, OVER = "claimed", "taken", "over"
BATCH_OWNER = "batch-"  # Claims of batches under way (`batch_ledger`) begin so: they outlive their process.
_REPLIES = ", ".join(NAMES["replies"][:-1])  # All but the flags, which come later.
_SPENT = ", ".join(NAMES["spent"])
_BATCH = 500  # Keys per query: SQLite takes at least 999 parameters.

@dataclasses.dataclass(frozen=True)
class Spent:
    """What questions of one task to one model have used, over all runs that share the cache.

    Attributes:
      calls: answered requests; tokens_in, tokens_out: as the server counted them.
      estimated_in: our offline estimate of the same `tokens_in`, so that estimates can be corrected.
      cost: in the price table's currency; lost: the part of it that requests of killed processes may have cost.
    """

    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    estimated_in: int = 0
    cost: float = 0.0
    lost: float = 0.0

    def plus(self, other: Spent) -> Spent:
        """The sum."""
        return Spent(*(a + b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other))))


@dataclasses.dataclass(frozen=True)
class Entry:
    """A stored reply.

    Attributes:
      status: VALID, INVALID (quarantined) or FAILED (no reply came; asked again next time).
      reason: why it is not valid; reply: as it came.
      form: see `client.Reply`; statements, unsupported: see `tasks.Answer`.
    """

    status: str
    reason: str
    reply: str
    form: str = ""
    statements: int = 0
    unsupported: int = 0


@dataclasses.dataclass(frozen=True)
class Totals:
    """What the valid replies of a scope are like, taken together.

    Attributes:
      valid: their number; equal: how many of them share the most common text.
      statements, unsupported: sums; forms, flags: counts.
    """

    valid: int
    equal: int
    statements: int
    unsupported: int
    forms: Counter[str]
    flags: Counter[str]


def scope_of(task: Task, model: str) -> bytes:
    """What all questions of one task to one model share: prompt, schema and model, hashed."""
    return hashlib.sha256(task.digest + model.encode("utf-8")).digest()[:16]


def key_of(scope: bytes, report: str) -> bytes:
    """The address of the reply to a report, 16 bytes."""
    return hashlib.sha256(scope + report.encode("utf-8", "surrogatepass")).digest()[:16]


class Cache:
    """The cache file at `path`, made if it is not there. Use it from one thread; open it again in every process.

    A damaged file is mended at opening (`cache_file`): a reply that is not as it was stored counts as not asked.

    Raises:
      UserError: the file is no reply cache, of another version, or cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._db = open_file(self.path)
        self._owner = uuid.uuid4().hex
        self._lock: IO[str] | None = None

    def close(self) -> None:
        """Gives up this process's claims and closes the file."""
        if self._lock is not None:
            with self._transaction():
                self._db.execute("DELETE FROM claims WHERE owner = ?", (self._owner,))
            self._lock.close()
            self._lock = None
            self._owner_file(self._owner).unlink(missing_ok=True)
        self._db.close()

    def __enter__(self) -> Cache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    # --- Replies ---

    def statuses(self, keys: Iterable[bytes]) -> dict[bytes, str]:
        """Key -> status of those keys that are stored."""
        found: dict[bytes, str] = {}
        keys = list(keys)
        for i in range(0, len(keys), _BATCH):
            part = keys[i:i + _BATCH]
            marks = ",".join("?" * len(part))
            found.update(self._db.execute(f"SELECT key, status FROM replies WHERE key IN ({marks})", part))
        return found

    def get(self, key: bytes) -> Entry | None:
        """The stored reply, or None."""
        row = self._db.execute("SELECT status, reason, reply FROM replies WHERE key = ? AND checksum = "
                               + checksum_of("replies"), (key,)).fetchone()
        return Entry(row[0], row[1], zlib.decompress(row[2]).decode("utf-8", "surrogatepass")) if row else None

    def put(self, key: bytes, scope: bytes, entry: Entry, spent: Spent | None = None) -> None:
        """Stores a reply for good, books what it took, and gives up the claim on its key."""
        spent = spent or Spent()
        with self._transaction():
            self._store(key, scope, entry, spent)
            if spent.calls:
                self._book(scope, (spent.calls, spent.tokens_in, spent.tokens_out, spent.estimated_in, spent.cost,
                                   spent.lost))
            self._db.execute("DELETE FROM claims WHERE key = ? AND owner = ?", (key, self._owner))

    def _store(self, key: bytes, scope: bytes, entry: Entry, spent: Spent) -> None:
        encoded = entry.reply.encode("utf-8", "surrogatepass")
        digest = hashlib.sha256(b" ".join(encoded.split())).digest()[:8]
        self._db.execute(
            f"INSERT OR REPLACE INTO replies ({_REPLIES}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (key, scope, entry.status, entry.reason, zlib.compress(encoded, 1), spent.tokens_in, spent.tokens_out,
             time.time(), entry.form, digest, entry.statements, entry.unsupported))

    def unflagged(self, scope: bytes, keys: Iterable[bytes] | None = None) -> list[bytes]:
        """Keys of the valid replies that have not been looked at by `flag` yet: one of the scope, or all among `keys`.

        At most _BATCH keys can be asked for at a time.
        """
        query, values = "SELECT key FROM replies WHERE flags IS NULL AND scope = ? AND status = ?", (scope, VALID)
        if keys is None:
            return [row[0] for row in self._db.execute(f"{query} LIMIT 1", values)]
        keys = tuple(keys)
        return [row[0] for row in self._db.execute(f"{query} AND key IN ({','.join('?' * len(keys))})",
                                                   (*values, *keys))]

    def flag(self, flags: Mapping[bytes, Sequence[str]]) -> None:
        """Stores what is odd about replies, by their keys; see `tasks.Answer`."""
        with self._transaction():
            self._db.executemany("UPDATE replies SET flags = ? WHERE key = ?",
                                 [("\n".join(found), key) for key, found in flags.items()])

    def totals(self, scope: bytes) -> Totals:
        """What the valid replies are like."""
        which, values = "FROM replies WHERE scope = ? AND status = ?", (scope, VALID)
        valid, statements, unsupported = self._db.execute(
            f"SELECT COUNT(*), COALESCE(SUM(statements), 0), COALESCE(SUM(unsupported), 0) {which}", values).fetchone()
        equal = self._db.execute(f"SELECT COUNT(*) AS n {which} GROUP BY digest ORDER BY n DESC LIMIT 1",
                                 values).fetchone()
        forms = self._db.execute(f"SELECT form, COUNT(*) {which} GROUP BY form", values)
        flags: Counter[str] = Counter()
        for (text,) in self._db.execute(f"SELECT flags {which} AND flags != ''", values):
            flags.update(text.split("\n"))
        return Totals(valid, equal[0] if equal else 0, statements, unsupported, Counter(dict(forms.fetchall())), flags)

    def quarantined(self, scope: bytes) -> Iterator[tuple[bytes, Entry]]:
        """Key and entry of everything that is not valid."""
        rows = self._db.execute("SELECT key, status, reason, reply FROM replies WHERE scope = ? AND status != ?",
                                (scope, VALID))
        for key, status, reason, reply in rows:
            yield key, Entry(status, reason, zlib.decompress(reply).decode("utf-8", "surrogatepass"))

    def count(self, scope: bytes) -> Counter[str]:
        """Status -> number of stored replies."""
        return Counter(dict(self._db.execute("SELECT status, COUNT(*) FROM replies WHERE scope = ? GROUP BY status",
                                             (scope,))))

    # --- Money ---

    def book_lost(self, scope: bytes, cost: float) -> None:
        """Adds a request without an answer that the server may have counted all the same."""
        with self._transaction():
            self._book(scope, (0, 0, 0, 0, cost, cost))

    def _book(self, scope: bytes, values: tuple) -> None:
        self._db.execute(
            f"INSERT INTO spent ({_SPENT}) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (scope) DO UPDATE SET "
            "calls = calls + excluded.calls, tokens_in = tokens_in + excluded.tokens_in, "
            "tokens_out = tokens_out + excluded.tokens_out, estimated_in = estimated_in + excluded.estimated_in, "
            "cost = cost + excluded.cost, lost = lost + excluded.lost", (scope, *values))

    def spent(self, scope: bytes) -> Spent:
        """What questions of this scope have used so far."""
        row = self._db.execute("SELECT calls, tokens_in, tokens_out, estimated_in, cost, lost FROM spent "
                               "WHERE scope = ?", (scope,)).fetchone()
        return Spent(*row) if row else Spent()

    # --- Claims ---

    def _owner_file(self, owner: str) -> Path:
        return self.path.with_name(f"{self.path.name}-owner-{owner}")

    def claim(self, key: bytes, scope: bytes, cost: float, limit: float = 0.0) -> str:
        """Reserves a key for this process, at what its request may cost at most.

        Args:
          key, scope: of the question.
          cost: an upper bound.
          limit: what may be spent in all, 0 for no limit; checked together with the claims of all processes.

        Returns:
          CLAIMED; TAKEN, if the key is answered or claimed by another process (a FAILED reply is no answer); or OVER,
          if it might cost more than is left.
        """
        self._hold_lock()
        with self._transaction():
            if self._db.execute("SELECT 1 FROM replies WHERE key = ? AND status != ? UNION ALL "
                                "SELECT 1 FROM claims WHERE key = ?", (key, FAILED, key)).fetchone():
                return TAKEN
            if limit and self._committed(scope) + cost > limit:
                return OVER
            self._db.execute("INSERT INTO claims (key, scope, owner, cost) VALUES (?, ?, ?, ?)",
                             (key, scope, self._owner, cost))
            return CLAIMED

    def reserve(self, keys: Sequence[bytes], scope: bytes) -> int:
        """Claims many keys at no cost, for work whose costs are limited elsewhere; returns how many are ours now."""
        self._hold_lock()
        with self._transaction():
            return self._db.executemany("INSERT OR IGNORE INTO claims (key, scope, owner, cost) VALUES (?, ?, ?, 0)",
                                        [(key, scope, self._owner) for key in keys]).rowcount

    def _hold_lock(self) -> None:
        """Shows other processes that this one is alive, for as long as it has the cache open."""
        if self._lock is None:
            self._lock = open(self._owner_file(self._owner), "w")  # noqa: SIM115 (held until close)
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def _committed(self, scope: bytes) -> float:
        """Spent and claimed, by all processes."""
        row = self._db.execute("SELECT (SELECT COALESCE(SUM(cost), 0) FROM spent WHERE scope = ?) + "
                               "(SELECT COALESCE(SUM(cost), 0) FROM claims WHERE scope = ?)", (scope, scope)).fetchone()
        return float(row[0])

    def batches_under_way(self, scope: bytes) -> bool:
        """Whether reports of this scope wait for batches."""
        return bool(self._db.execute("SELECT 1 FROM claims WHERE scope = ? AND owner LIKE ? LIMIT 1",
                                     (scope, BATCH_OWNER + "%")).fetchone())

    def claim_more(self, key: bytes, scope: bytes, cost: float, limit: float = 0.0) -> bool:
        """Raises what our claim on a key may cost; False, and nothing changes, where that might exceed the limit."""
        with self._transaction():
            now, = self._db.execute("SELECT COALESCE(SUM(cost), 0) FROM claims WHERE key = ? AND owner = ?",
                                    (key, self._owner)).fetchone()
            if limit and self._committed(scope) + cost - now > limit:
                return False
            self._db.execute("UPDATE claims SET cost = ? WHERE key = ? AND owner = ?", (cost, key, self._owner))
            return True

    def affordable(self, scope: bytes, limit: float) -> bool:
        """Whether every claimed request may be sent once more, after what was booked since they were claimed."""
        return self._committed(scope) <= limit

    def release(self, key: bytes) -> None:
        """Gives up a claim without an answer."""
        self._db.execute("DELETE FROM claims WHERE key = ? AND owner = ?", (key, self._owner))

    def reap(self) -> int:
        """Voids the claims of processes that are gone and books what they may have cost; returns their number."""
        voided = 0
        owners = [row[0] for row in self._db.execute(
            "SELECT DISTINCT owner FROM claims WHERE owner != ? AND owner NOT LIKE ?",
            (self._owner, BATCH_OWNER + "%"))]
        for owner in owners:
            file = self._owner_file(owner)
            with contextlib.ExitStack() as stack:
                try:
                    lock = stack.enter_context(open(file))
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except FileNotFoundError:
                    pass  # Closed between our two looks, or removed by hand: gone in any case.
                except BlockingIOError:
                    continue
                with self._transaction():
                    rows = self._db.execute("SELECT scope, COUNT(*), SUM(cost) FROM claims WHERE owner = ? "
                                            "GROUP BY scope", (owner,)).fetchall()
                    for scope, count, cost in rows:
                        voided += count
                        self._book(scope, (0, 0, 0, 0, cost, cost))
                    self._db.execute("DELETE FROM claims WHERE owner = ?", (owner,))
                file.unlink(missing_ok=True)
        return voided

    def absorb(self, path: Path) -> None:
        """Takes the replies and costs of another cache file, and removes that file.

        Usable replies of our own stay. Killed in between, it books costs twice rather than not at all.

        Raises:
          UserError: a process is still asking through that file.
        """
        with Cache(path) as other:
            other.reap()
            if other._db.execute("SELECT 1 FROM claims").fetchone():
                raise UserError(f"a worker of an earlier run is still asking ({path.name}): wait until it has ended")
        self._db.execute("ATTACH ? AS other", (str(path),))
        try:
            with self._transaction():
                self._db.execute("INSERT OR REPLACE INTO main.replies SELECT * FROM other.replies WHERE key NOT IN "
                                 "(SELECT key FROM main.replies WHERE status = ?)", (VALID,))
                for scope, *values in self._db.execute(f"SELECT {_SPENT} FROM other.spent").fetchall():
                    self._book(scope, tuple(values))
        finally:
            self._db.execute("DETACH other")
        for file in (path, *(path.with_name(path.name + ending) for ending in ("-wal", "-shm"))):
            file.unlink(missing_ok=True)
