"""Errors that the user can mend, and the words that name the remedy."""

from __future__ import annotations

import difflib
import importlib
import json
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

DISTRIBUTION = "lgdea-jax"  # Of setup.py. No package index need have it.


class UserError(Exception):
    """Wrong use, or a fault of the whole run, that the user can mend: one line, exit status 2."""


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
