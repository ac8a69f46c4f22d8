"""Files that are whole or not there: atomic writes, digests, locks."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any


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


def write_text_atomically(path: Path, text: str, *, mode: int = 0o666) -> None:
    """Writes UTF-8 text with `write_atomically`."""
    write_atomically(path, lambda file: file.write(text.encode("utf-8")), mode=mode)
