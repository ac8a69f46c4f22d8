"""Errors that the user can mend, and the words that name the remedy."""

from __future__ import annotations

import difflib
import errno
import importlib
import json
import re
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

DISTRIBUTION = "lgdea-jax"  # Of setup.py. No package index need have it.


class UserError(Exception):
    """Wrong use, or a fault of the whole run, that the user can mend: one line, exit status 2."""


# What the environment of a program can do to it, whatever the program: errno -> what to tell.
FAULTS = {
    errno.ENOSPC: "no space left on the disk", errno.EDQUOT: "no space left on the disk (the quota is used up)",
    errno.EFBIG: "the file is larger than the file system or ulimit -f allows",
    errno.EROFS: "the file system is read-only", errno.EACCES: "no permission", errno.EPERM: "not permitted",
    errno.ENOTDIR: "a file stands where a folder is needed", errno.EISDIR: "a folder stands where a file is needed",
    errno.ENAMETOOLONG: "the file name is too long", errno.ELOOP: "the links lead in a circle",
    errno.EIO: "the disk or the file system reports an input/output error",
    errno.ESTALE: "the network file system has lost the file", errno.ENOLCK: "the file system has no locks",
    errno.EMFILE: "too many open files: raise ulimit -n", errno.ENFILE: "too many open files on this machine",
    errno.ENOMEM: "out of memory"}
OUT_OF_MEMORY = "out of memory"
# The same in the words of SQLite (the reply cache), and what only it has.
DATABASE_FAULTS = {
    "database or disk is full": FAULTS[errno.ENOSPC], "disk I/O error": FAULTS[errno.EIO],
    "readonly database": FAULTS[errno.EROFS],
    "database is locked": "another command holds the reply cache: wait for it",
    "malformed": "the reply cache is damaged: run the same command again, it mends it at the start"}
DEVICE_MEMORY = ("the device is out of memory: try smaller config.batch.* or --batch_size, --config.batch.micro=4, "
                 "--config.model.remat=True, --config.mesh.fsdp=-1; --config.dry_run=True states how much a step takes")


def environment_fault(error: BaseException) -> str:
    """What the environment did (a key of `FAULTS`, no memory left) if an error, or one that it came from, is of that
    kind; otherwise "". Names the file where it is known."""
    chain: BaseException | None = error
    while chain is not None:
        if isinstance(chain, OSError) and chain.errno in FAULTS:
            return FAULTS[chain.errno] + (f": {chain.filename}" if chain.filename else "")
        if isinstance(chain, MemoryError):
            return OUT_OF_MEMORY
        if type(chain).__module__ == "sqlite3":
            for words, fault in DATABASE_FAULTS.items():
                if words in str(chain):
                    return fault
        # Libraries wrap the system's errors in their own: its number is left in the text.
        number = re.search(r"[\[(](?:OS error|os error|Errno) (\d+)", str(chain))
        if number and int(number[1]) in FAULTS:
            return FAULTS[int(number[1])]
        if type(chain).__name__ in ("JaxRuntimeError", "XlaRuntimeError") and "RESOURCE_EXHAUSTED" in str(chain):
            return DEVICE_MEMORY
        chain = chain.__cause__ or (None if chain.__suppress_context__ else chain.__context__)
    return ""


def nearest(name: str, known: Iterable[str]) -> str:
    """`" (did you mean 'x'?)"` for the known name most like `name`, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def choose(kind: str, name: str, known: Iterable[str]) -> str:
    """`name` if it is known; otherwise a `UserError` that lists what is and names the nearest."""
    known = sorted(known)
    if name not in known:
        raise UserError(f"unknown {kind} {name!r}{nearest(name, known)}; known: {', '.join(known)}")
    return name


def require(module: str, extra: str, what: str) -> Any:
    """Imports an optional `module`, or raises a `UserError` with the pip line of the `extra` it comes with."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and not module.startswith(error.name.split(".")[0]):
            raise
        raise UserError(f"{what} needs {module}: {pip_line(extra)}") from None


def pip_line(extra: str) -> str:
    """The command that adds an extra to this installation, wherever it came from: a checkout, a wheel, a repository."""
    checkout = Path(__file__).resolve().parents[1]
    if (checkout / "setup.py").is_file():
        folder = "." if Path.cwd() == checkout else checkout
        return f'pip install -e "{folder}[{extra}]"'
    try:
        origin = json.loads(metadata.distribution(DISTRIBUTION).read_text("direct_url.json") or "{}")
    except metadata.PackageNotFoundError:
        origin = {}
    return f'pip install "{DISTRIBUTION}[{extra}]{_source(origin)}"'


def _source(origin: Mapping[str, Any]) -> str:
    """" @ URL" of what pip noted in direct_url.json (PEP 610); "" of an installation from a package index."""
    if "url" not in origin:
        return ""
    repository = origin.get("vcs_info")
    return f" @ {repository['vcs']}+{origin['url']}@{repository['commit_id']}" if repository else f" @ {origin['url']}"
