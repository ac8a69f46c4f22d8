"""Errors that the user can mend, and the words that name the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


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
    import importlib

    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and not module.startswith(error.name.split(".")[0]):
            raise
        raise UserError(f"{what} needs {module}: pip install 'lgdea-jax[{extra}]'") from None
