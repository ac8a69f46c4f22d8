"""Tokens of a report: the literals of the lexicons that occur in it, with their roles."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence

from data_prep.extract.rules import lexicon, lexicon_attributes, scanner


@dataclasses.dataclass(frozen=True, slots=True)
class Token:
    """A literal at `start:end` of the text; its roles (`lexicon`) with their values."""

    start: int
    end: int
    roles: Mapping[str, object]


@functools.cache
def _literals() -> scanner.Literals[Mapping[str, object]]:
    return scanner.Literals(lexicon.build())


@functools.cache
def attribute_literals() -> scanner.Literals[Mapping[str, str]]:
    """The literals with the attributes that they state."""
    return scanner.Literals(lexicon_attributes.attributes())


def tokens(pieces: Sequence[scanner.Piece]) -> list[Token]:
    """The tokens of a normalised text, in order; offsets are those of the whole text."""
    return [Token(*found) for found in _literals().find(pieces)]
