"""Tokens of a report: the literals of the lexicons that occur in it, with their roles."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping

from data_prep.extract.rules import lexicon, lexicon_attributes, scanner


@dataclasses.dataclass(frozen=True, slots=True)
class Token:
    """A literal at `start:end` of the text; its roles (`lexicon`) with their values."""

    start: int
    end: int
    roles: Mapping[str, object]


@functools.cache
def _lexicon() -> tuple[Mapping[str, Mapping[str, object]], re.Pattern[str]]:
    roles = lexicon.build()
    return roles, scanner.compile_literals(roles)


@functools.cache
def attribute_lexicon() -> tuple[Mapping[str, Mapping[str, str]], re.Pattern[str]]:
    """(literal -> its attributes, the regex that finds them)."""
    roles = lexicon_attributes.attributes()
    return roles, scanner.compile_literals(roles)


def tokens(text: str, start: int, end: int) -> list[Token]:
    """The tokens of `text[start:end]` (normalised) in order; offsets are those of the whole text."""
    roles, pattern = _lexicon()
    return [Token(m.start(), m.end(), roles[scanner.key(m.group())]) for m in pattern.finditer(text, start, end)]
