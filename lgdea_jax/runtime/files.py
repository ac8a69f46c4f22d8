"""Files that are whole or not there: atomic writes, locks; tables that no spreadsheet takes for formulas."""

from __future__ import annotations

import csv
import errno
import fcntl
import glob
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lgdea_jax.errors import UserError

LOCK = ".lock"


def sync_folder(path: Path) -> None:
    """Makes renames inside the folder `path` last."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomically(path: Path, write: Callable[[Any], None], *, mode: int = 0o666) -> None:
    """Calls `write(file)` on a temporary binary file, syncs it and renames it to `path`.

    Args:
      path: of the file; several processes and threads may write it at the same time, the last one wins.
      write: fills an open binary file.
      mode: permissions of a new file, less the process's umask.

    Raises:
      OSError: as `open` and `write` do; a full disk with the file's name. Nothing is left behind then.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT) and error.filename is None:
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def leftovers(path: Path) -> list[Path]:
    """Temporary files of `write_atomically` for `path`: of killed processes, where nobody is writing it."""
    return list(path.parent.glob(f".{glob.escape(path.name)}.*.tmp"))


def write_text_atomically(path: Path, text: str, *, mode: int = 0o666) -> None:
    """Writes UTF-8 text with `write_atomically`."""
    write_atomically(path, lambda file: file.write(text.encode("utf-8")), mode=mode)


@contextmanager
def output_file(path: str | Path) -> Iterator[Path]:
    """Makes the folder of a command's one output file; what is written there atomically is whole, or not there.

    Two commands at once need no lock then: the last one wins.

    Raises:
      UserError: a folder stands in its place, or a file in that of its folder.
      OSError: of other kinds, with the file's name (`errors.environment_fault` makes one line of it).
    """
    file = Path(path)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        yield file
    except (FileExistsError, FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


@contextmanager
def lock(file: Path, busy: str = "") -> Iterator[None]:
    """Holds the lock `file`, made if need be, of its folder; the system gives it back whatever ends the process.

    Raises:
      UserError: another process (or another place of this one) holds it, in the words `busy` if there are any.
    """
    refusal = UserError(busy or f"another command is writing to {file.parent}: wait for it, or give another folder")
    try:
        opened = open(file, "a")  # noqa: SIM115 (the next statement closes it)
    except FileNotFoundError:  # Its folder was removed by the one that has just finished.
        raise refusal from None
    with opened as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = os.fstat(handle.fileno()).st_ino == os.stat(file).st_ino
        except (BlockingIOError, FileNotFoundError):  # The second: removed by the one that has just finished.
            mine = False
        if not mine:
            raise refusal
        yield


def remove_locked(folder: Path) -> None:
    """Removes a folder whose LOCK this process holds: the lock last, so that nobody finds a part of the rest."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()
    (folder / LOCK).unlink()
    with suppress(OSError):  # Another command has put its own lock there meanwhile.
        folder.rmdir()


@contextmanager
def own_folder(path: str | Path, flag: str = "--out") -> Iterator[Path]:
    """Makes an output folder and holds its lock: two commands at once would mix or destroy their files.

    Raises:
      UserError: it is a file, or another command writes to it.
      OSError: it cannot be made or written to.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise UserError(f"{flag}={path} is a file, not a folder") from None
    with lock(folder / LOCK):
        try:
            yield folder
        finally:
            (folder / LOCK).unlink(missing_ok=True)  # Still held: `lock` refuses a file that is gone when it has it.


_FORMULA = tuple("=+-@\t\r")


class TableWriter:
    """Writes rows of CSV to an open text file; text that a spreadsheet would take for a formula begins with a quote.

    Names of files, ids, prompts and reports come from anywhere. Numbers stay as they are, also negative ones. What is
    read again goes through `plain_cell`.
    """

    def __init__(self, file: Any) -> None:
        self._rows = csv.writer(file, lineterminator="\n")

    def writerow(self, cells: Iterable[Any]) -> None:
        """Adds a row."""
        self._rows.writerow([safe_cell(cell) if isinstance(cell, str) else cell for cell in cells])


def safe_cell(text: str) -> str:
    """`text`, after a quote where it begins like a formula (=, +, -, @, a tab or a carriage return; quotes before it
    do not count)."""
    if text.lstrip("'")[:1] not in _FORMULA:
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def plain_cell(text: str) -> str:
    """The text that `safe_cell` was given."""
    return text[1:] if text[:1] == "'" and text.lstrip("'")[:1] in _FORMULA else text


def json_digest(content: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of `content` as canonical JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
