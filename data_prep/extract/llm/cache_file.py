"""The SQLite file of the reply cache: its tables, a checksum in every row, and what is done about damage.

Every row has a checksum that a trigger computes, so that writers need not know of it. At opening SQLite's own check
runs and every checksum is compared. Of a damaged file a new one is made from all rows that are as they were written;
what is gone counts as not asked. The damaged file stays beside it, as FILE.damaged.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lgdea_jax.errors import UserError
from lgdea_jax.runtime import sqlite_rows

VERSION = 3
_PATIENCE = 60  # Seconds that other processes are waited for.
# Table -> (columns with their types, how many of them are the key).
TABLES: dict[str, tuple[tuple[str, ...], int]] = {
    "replies": (("key BLOB", "scope BLOB", "status TEXT", "reason TEXT", "reply BLOB", "tokens_in INTEGER",
                 "tokens_out INTEGER", "created REAL", "form TEXT", "digest BLOB", "statements INTEGER",
                 "unsupported INTEGER", "flags TEXT DEFAULT NULL"), 1),
    "stuck": (("key BLOB", "scope BLOB", "runs INTEGER"), 1),
    "claims": (("key BLOB", "scope BLOB", "owner TEXT", "cost REAL"), 1),
    "spent": (("scope BLOB", "calls INTEGER", "tokens_in INTEGER", "tokens_out INTEGER", "estimated_in INTEGER",
               "cost REAL", "lost REAL"), 1),
    # Batches under way: see `runners.batch_ledger`.
    "batches": (("label TEXT", "scope BLOB", "name TEXT", "created REAL"), 1),
    "batch_items": (("label TEXT", "position INTEGER", "key BLOB", "report BLOB"), 2),
}
NAMES = {table: tuple(column.split()[0] for column in columns) for table, (columns, _) in TABLES.items()}
# Rows that are deleted in time: an old version of a page must not bring one back. Table -> what makes a row the newest.
_LASTING = {"replies": ("created", "flags"), "stuck": ("runs",), "spent": ("calls", "cost")}


def row_checksum(*values: Any) -> bytes:
    """8 bytes of a table's name and a row's values."""
    return hashlib.blake2b(repr(values).encode("utf-8", "surrogateescape"), digest_size=8).digest()


def checksum_of(table: str) -> str:
    """The SQL expression of a row's checksum."""
    return f"row_checksum('{table}', {', '.join(NAMES[table])})"


def _schema() -> str:
    out = []
    for table, (columns, keys) in TABLES.items():
        names = NAMES[table]
        stated = ", ".join(column if "DEFAULT" in column else f"{column} NOT NULL" for column in columns)
        same = " AND ".join(f"{name} = NEW.{name}" for name in names[:keys])
        change = f"BEGIN UPDATE {table} SET checksum = {checksum_of(table)} WHERE {same}; END;"
        out += [f"CREATE TABLE IF NOT EXISTS {table} ({stated}, checksum BLOB, PRIMARY KEY ({', '.join(names[:keys])}))"
                " WITHOUT ROWID;",
                f"CREATE TRIGGER IF NOT EXISTS {table}_added AFTER INSERT ON {table} {change}",
                f"CREATE TRIGGER IF NOT EXISTS {table}_changed AFTER UPDATE OF {', '.join(names)} ON {table} {change}"]
    return "\n".join(out)


def open_file(path: Path) -> sqlite3.Connection:
    """A connection to the cache file at `path`, made if it is not there, mended if it is damaged.

    Raises:
      UserError: the file is no reply cache, of another version, in use while it is damaged, or cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        version, whole = -1, False
        with _one_opens(path.parent):  # Else one finds the file, or its log, as another has made the half of it.
            _undo(path)
            db, file = _connect(path), os.stat(path).st_ino
            with _judging():
                version = db.execute("PRAGMA user_version").fetchone()[0]
                whole = _log_is_whole(path, db)  # Before anything is written: that begins the log anew.
                if whole and version == 0 and not db.execute("SELECT 1 FROM sqlite_master").fetchone():
                    db.executescript(f"BEGIN IMMEDIATE; {_schema()} PRAGMA user_version={VERSION}; COMMIT;")
                    version = VERSION
        with _judging():
            if whole and version == VERSION and _sound(db):
                return db
        # Open until all is read: the last one to close it removes the log.
        with contextlib.closing(db), _one_opens(path.parent):
            if os.stat(path).st_ino == file:  # Else another process has mended it.
                _refuse_asked(path)
                _mend(path, db, version)
    except (sqlite3.Error, OSError) as error:
        raise UserError(f"cannot use {path} as the reply cache ({type(error).__name__})") from None
    return open_file(path)


@contextlib.contextmanager
def _one_opens(folder: Path) -> Iterator[None]:
    """Holds a lock on the folder itself, which needs no file that stays: for opening, making and mending."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _judging() -> Iterator[None]:
    """Passes over SQLite's errors about the content of a file; not over those about the machine or other processes."""
    try:
        yield
    except UnicodeDecodeError:
        pass  # SQLite's message quotes what is damaged.
    except sqlite3.DatabaseError as error:
        if any(word in str(error) for word in ("locked", "busy", "unable to open", "disk I/O", "full", "readonly")):
            raise


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None)
    try:
        db.create_function("row_checksum", -1, row_checksum, deterministic=True)
        os.chmod(path, 0o600)  # It quotes reports.
        with _judging():
            db.execute(f"PRAGMA page_size={sqlite_rows.PAGE}")
            db.execute("PRAGMA journal_mode=WAL")
            # A commit is in the kernel's hands: it survives kill -9; only a power cut may take the last ones.
            db.execute("PRAGMA synchronous=NORMAL")
            db.execute("PRAGMA wal_autocheckpoint=8000")  # Pages: each checkpoint waits for the disk.
    except BaseException:
        db.close()
        raise
    return db


def _log_is_whole(path: Path, db: sqlite3.Connection) -> bool:
    """`sqlite_rows.log_is_whole`, while nobody writes: the log of a writer is between two states for a moment."""
    with contextlib.closing(sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")  # Another connection, as one in a transaction gives no checkpoint.
        end = time.monotonic() + _PATIENCE
        while True:
            busy, frames, _ = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            if not busy:
                return sqlite_rows.log_is_whole(path, frames)
            if time.monotonic() > end:
                raise sqlite3.OperationalError("database is locked")
            time.sleep(0.02)  # Another process copies the log into the file, which a writer does when it has written.


def _sound(db: sqlite3.Connection) -> bool:
    """Whether SQLite finds nothing wrong, and every row is as it was written; may raise SQLite's errors too."""
    return db.execute("PRAGMA quick_check(1)").fetchone() == ("ok",) and not any(
        db.execute(f"SELECT 1 FROM {table} WHERE checksum IS NOT {checksum_of(table)} LIMIT 1").fetchone()
        for table in TABLES)


def _kept(path: Path, db: sqlite3.Connection) -> dict[str, list[tuple[Any, ...]]]:
    """{table: its intact rows} of a damaged file; {} where there is none."""
    found: dict[str, dict[tuple[Any, ...], tuple[Any, ...]]] = {table: {} for table in TABLES}
    widths = {len(NAMES[table]) + 1: [table] for table in _LASTING}
    for row in sqlite_rows.rows(path, widths):
        for table in widths[len(row)]:
            _keep(found, table, row)
    for table in TABLES.keys() - _LASTING.keys():
        keys = NAMES[table][:TABLES[table][1]]
        for order in ("ASC", "DESC"):  # Up to the damage, from both ends.
            with contextlib.suppress(sqlite3.Error, UnicodeDecodeError):
                for row in db.execute(f"SELECT * FROM {table} ORDER BY " + ", ".join(f"{key} {order}" for key in keys)):
                    _keep(found, table, row)
    return {table: list(rows.values()) for table, rows in found.items() if rows}


def _keep(found: dict[str, dict[tuple[Any, ...], tuple[Any, ...]]], table: str, row: tuple[Any, ...]) -> None:
    names = NAMES[table]
    # SQLite stores a real number that is whole as an integer.
    values = tuple(float(value) if kind.split()[1] == "REAL" and isinstance(value, int) else value
                   for value, kind in zip(row[:-1], TABLES[table][0], strict=True))
    if row_checksum(table, *values) != row[-1]:
        return
    key = values[:TABLES[table][1]]
    before = found[table].get(key)
    newest = [names.index(name) for name in _LASTING.get(table, ())]
    if before is None or [_rank(values[i]) for i in newest] > [_rank(before[i]) for i in newest]:
        found[table][key] = values


def _rank(value: Any) -> tuple[bool, Any]:
    return value is not None, value


def _mend(path: Path, db: sqlite3.Connection, version: int) -> None:
    """Puts a new file with the intact rows of the damaged one, open as `db`, in its place.

    Raises:
      UserError: it holds no row of ours.
    """
    kept = _kept(path, db)
    if not kept:
        raise UserError(f"cannot use {path} as the reply cache: no reply of ours can be read from it" if version in (
            -1, VERSION) else f"{path} is a reply cache of version {version}, this code uses version {VERSION}")
    fresh, aside = path.with_name(f"{path.name}.mending"), _aside(path)
    for part in _parts(fresh) + _parts(aside):
        part.unlink(missing_ok=True)
    with contextlib.closing(_connect(fresh)) as new:
        new.executescript(f"{_schema()} PRAGMA user_version={VERSION}; BEGIN;")
        for table, rows in kept.items():
            names, marks = ", ".join(NAMES[table]), ", ".join("?" * len(NAMES[table]))
            new.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", rows)
        new.execute("COMMIT")
        new.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    os.link(path, aside)
    for part, new_name in zip(_parts(path)[1:], _parts(aside)[1:], strict=True):  # No log beside another's file.
        if part.exists():
            part.rename(new_name)
    fresh.rename(path)
    print(f"the reply cache {path} was damaged: {len(kept.get('replies', ()))} replies are kept, what is gone is asked "
          f"again; the damaged file is {aside.name}", file=sys.stderr)


def _undo(path: Path) -> None:
    """Puts a file that was being mended when the process was killed back as it was: its log may lie aside already."""
    aside = _aside(path)
    if path.exists() and aside.exists() and aside.samefile(path):
        for part, moved in zip(_parts(path)[1:], _parts(aside)[1:], strict=True):
            if moved.exists():
                moved.rename(part)
        aside.unlink()


def _refuse_asked(path: Path) -> None:
    """Raises a UserError where a process asks through the file."""
    for owner in path.parent.glob(f"{path.name}-owner-*"):
        with contextlib.suppress(FileNotFoundError), open(owner) as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f"the reply cache {path} is damaged while another command asks through it: wait until "
                                "that has ended, and run this again") from None


def _aside(path: Path) -> Path:
    """Where a damaged file goes."""
    return path.with_name(f"{path.name}.damaged")


def _parts(path: Path) -> list[Path]:
    """The file, its log and the log's index."""
    return [path.with_name(path.name + ending) for ending in ("", "-wal", "-shm")]
