"""Tokens of a report: the literals of the lexicons that occur in it, with their roles."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
from collections.abc import Mapping, Sequence

from data_prep.extract.rules import lexicon, lexicon_attributes, scanner
from data_prep.extract.rules.lexicon import FINDING, SITED


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


_LISTED = re.compile(r"\s*(?:,|/|\band\b|\bor\b|\bnor\b|,\s*(?:and|or|nor)\b)\s*(?:[a-z]+\s+){0,2}")


def tokens(text: str, start: int, end: int, pieces: Sequence[scanner.Piece]) -> list[Token]:
    """The tokens of the sentence `text[start:end]` (normalised), in order; offsets are those of the whole text."""
    found = [Token(*item) for item in _literals().find(pieces)]
    if any(SITED in token.roles for token in found):
        sited = lexicon.in_lungs(text[start:end])
        found = [_resolved(text, token, sited, found[max(i - 1, 0):i + 2]) if SITED in token.roles else token
                 for i, token in enumerate(found)]
    return found


def _of_chest(token: Token) -> bool:
    return FINDING in token.roles and "Fracture" not in token.roles[FINDING]  # A lesion beside it is one of the bone.


def _resolved(text: str, token: Token, sited: bool, near: Sequence[Token]) -> Token:
    """A token with SITED as a finding, where it is one."""
    listed = any(_of_chest(one) or _of_chest(other) for one, other in itertools.pairwise(near)
                 if _LISTED.fullmatch(text, one.end, other.start))
    roles = {role: value for role, value in token.roles.items() if role != SITED}
    if (sited or listed) and FINDING not in roles:
        roles[FINDING] = (token.roles[SITED],)
    return dataclasses.replace(token, roles=roles)
