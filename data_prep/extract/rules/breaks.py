"""Where in a sentence the reach of a cue ends: at words like "but", and where a new statement begins.

A new statement may begin at a comma, at a dash, or without any mark ("no effusion small nodule").
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from data_prep.extract.rules.lexicon import FINDING, PREDICATE, SUBJECT
from data_prep.extract.rules.lexicon_cues import BREAK, NEGATE
from data_prep.extract.rules.tokens import Token

# A new statement after a comma: it begins with one of these words, or holds a verb and does not go on with "or".
_OPENS = re.compile(
    r",(?!\s*(?:is|are|was|were|has|have)\b)\s*(?!(?:and/or|or|nor)\b)(?:and\s+)?"
    r"(?:(?:there|the|this|these|heart|lungs|bony|again|it|but|however|likely|only|just|merely|"
    r"possibly|probably|possible|probable|suspected|questionable|suggesting)\b"
    r"|(?:mild|small|stable|unchanged|moderate|minimal|left|right|bilateral|persistent|old|new)\b(?!.*\b(?:or|nor)\b)"
    r"|(?:(?!\b(?:or|nor)\b)[^,])*?\b(?P<verb>is|are|was|were|has|have|appears?|remains?|demonstrates?)\b)")
# The same wherever it stands: a new subject after a comma.
_OPENS_ANEW = re.compile(r",\s*(?:and\s+|so\s+|then\s+)?(?:he|she|we|they|i|(?:the )?patient|this|these)\s")
# The last of a list with its verb: "..., effusion and mass are not seen".
_ENUMERATED = re.compile(r"\band\b.*\b(?:are|were|have)$")
_COMMA = re.compile(r",\s+(?:(?:mildly|slightly|moderately|severely|markedly|grossly)\s+)?")
_STATED = re.compile(r"(?:enlarged|widened|elevated|raised|blunted|tortuous|unfolded|ectatic|flattened|hyper\w+)\b")
_CONJOINED = re.compile(r"\s+(?:and|or|nor)\s+(?:no\s+)?(?:[a-z]+\s+)?")
_LIST_GOES_ON = re.compile(r"\b(?:or|nor|no|not|and)\b|\b(?:is|are|was|were)\s+(?:seen|noted|present|identified)\b")
_ITEM, _NO = re.compile(","), re.compile(r",?\s*(?:and\s+)?(?:no|without)\b")
_STROKE, _STROKE_NO = re.compile(r"[|/]"), re.compile(r"/\s*(?:no|without)\b")
# Between a finding and another one that begins a statement, or between a subject and its predicate.
_SIZED = re.compile(
    r"\s+(?:tiny|small|mild|minimal|trace|subtle|moderate|large|severe|stable|unchanged|new|old|left|right|bilateral)\s+"
    r"(?:(?!and\b|or\b|of\b|in\b|with\b|to\b|at\b)[a-z]+\s+){0,3}")
_LINKED = re.compile(r"\s+(?:(?:is|are|remains?|appears?|size|mildly|slightly|moderately|severely)\s+)*")


def breaks(text: str, start: int, end: int, tokens: Sequence[Token]) -> list[int]:
    """Offsets in order at which the reach of a cue ends in the sentence `text[start:end]` (normalised)."""
    return sorted([token.start for token in tokens if BREAK in token.roles] + _commas(text, start, end, tokens)
                  + _dashes(text, start, end, tokens) + _unparted(text, tokens) + _strokes(text, start, end, tokens))


def _commas(text: str, start: int, end: int, tokens: Sequence[Token]) -> list[int]:
    """Commas that open a new statement; before the first finding they part adjectives ("no acute, displaced")."""
    if "," not in text[start:end]:
        return []
    anew = [match.start() for match in _OPENS_ANEW.finditer(text, start, end)]
    first = min((token.start for token in tokens if FINDING in token.roles or SUBJECT in token.roles), default=end)
    anew += _sized_up(text, end, tokens) + _closed(text, end, tokens) + _each_denied(text, start, end, tokens)
    return anew + [match.start() for match in _OPENS.finditer(text, start, end)
                   if match.start() > first and not (match["verb"] and _ENUMERATED.search(match.group()))]


def _closed(text: str, end: int, tokens: Sequence[Token]) -> list[int]:
    """The comma behind the last item of a list: "no effusion or edema, scarring at the apex"."""
    named = [token for token in tokens if FINDING in token.roles]
    for before, item in itertools.pairwise(named):
        if (_CONJOINED.fullmatch(text, before.end, item.start) and text[item.end:item.end + 1] == ","
                and not _LIST_GOES_ON.search(text, item.end, end)):
            return [item.end]
    return []


def _each_denied(text: str, start: int, end: int, tokens: Sequence[Token]) -> list[int]:
    """The comma before an item without a "no", where those before have one each: "no edema, no mass, kyphosis"."""
    commas = [match.start() for match in _ITEM.finditer(text, start, end)]
    items = [start, *commas, end]
    denied = [_NO.match(text, left, right) is not None for left, right in itertools.pairwise(items)]
    return [at for i, at in enumerate(commas, 1) if i > 1 and denied[i - 2] and denied[i - 1] and not denied[i]
            and not _LIST_GOES_ON.search(text, at, end)]


def _sized_up(text: str, end: int, tokens: Sequence[Token]) -> list[int]:
    """The comma before a predicate with its subject that ends the sentence: "no effusion, enlarged heart"."""
    for size in range(1, min(3, len(tokens))):
        before, *last = tokens[-size - 1:]
        stated = [set(token.roles) for token in last] == [{PREDICATE}, {SUBJECT}] or (
            len(last) == 1 and FINDING in last[0].roles and _STATED.match(text, last[0].start))
        if (stated and FINDING in before.roles and not text[last[-1].end:end].strip(" .")
                and _COMMA.fullmatch(text, before.end, last[0].start)):
            return [before.end]
    return []


def _dashes(text: str, start: int, end: int, tokens: Sequence[Token]) -> list[int]:
    """Dashes between statements: one with "not seen" behind it goes on with the first."""
    opening = (FINDING, SUBJECT, PREDICATE, NEGATE)
    found, at = [], text.find(" - ", start, end)
    if at >= 0 and _is_label(at, tokens):
        at = text.find(" - ", at + 2, end)
    while at >= 0:
        following = next((token for token in tokens if token.start > at), None)
        if following and not following.roles.keys().isdisjoint(opening):
            found.append(at)
        at = text.find(" - ", at + 2, end)
    return found


def _strokes(text: str, start: int, end: int, tokens: Sequence[Token]) -> list[int]:
    """Strokes between statements: "|" before a finding, and "/" in "no effusion/no edema/kyphosis"."""
    found = []
    for match in _STROKE.finditer(text, start, end):
        following = next((token for token in tokens if token.start >= match.end()), None)
        if following and not following.roles.keys().isdisjoint((FINDING, SUBJECT, NEGATE)) and (
                match.group() == "|" or _STROKE_NO.search(text, start, end)):
            found.append(match.start())
    return found


def _is_label(at: int, tokens: Sequence[Token]) -> bool:
    """Whether only a subject stands before a dash, and its predicate behind ("heart - enlarged")."""
    before = [token for token in tokens if token.start < at]
    following = tokens[len(before)] if len(before) < len(tokens) else None
    return (len(before) == 1 and SUBJECT in before[0].roles and at - before[0].end <= 1
            and following is not None and PREDICATE in following.roles)


def _unparted(text: str, tokens: Sequence[Token]) -> list[int]:
    """Ends of findings after which a statement begins without any mark."""
    found = []
    for one, other in itertools.pairwise(token for token in tokens if set(token.roles) != {PREDICATE}):
        if FINDING not in one.roles:
            continue
        between = text[one.end:other.start]
        if FINDING in other.roles:
            begins = _SIZED.fullmatch(between) is not None or (not between.strip() and "\t" in between)
        else:
            begins = SUBJECT in other.roles and between == " " and _states(text, other, tokens)
        if begins:
            found.append(one.end)
    return found


def _states(text: str, subject: Token, tokens: Sequence[Token]) -> bool:
    """Whether a predicate follows a subject directly ("heart enlarged", "lungs are clear")."""
    following = next((token for token in tokens if token.start >= subject.end), None)
    return (following is not None and PREDICATE in following.roles
            and _LINKED.fullmatch(text, subject.end, following.start) is not None)
