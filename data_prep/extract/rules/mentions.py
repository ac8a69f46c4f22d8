"""The findings that a sentence mentions: by their names, by a subject and a predicate, or by a measure."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence

from data_prep.extract.rules import lexicon
from data_prep.extract.rules.lexicon import BARE, FINDING, PREDICATE, SUBJECT
from data_prep.extract.rules.lexicon_cues import BREAK
from data_prep.extract.rules.tokens import Token
from lgdea_jax.findings.vocabulary import BY_NAME

_SHORT_AXIS = re.compile(
    r"\bshort(?:est)? (?:axis|axes|diameter)\b"
    r"(?:(?!\b(?:less|smaller|below|under|not|than)\b)[^;:\d]){0,40}(?P<size>\d+(?:[.,]\d+)?)\s*(?P<unit>mm|cm)\b"
    r"|(?<!than )(?<!below )(?<!under )(?<![<\d.,])(?P<size2>\d+(?:[.,]\d+)?)\s*"
    r"(?P<unit2>mm|cm)\s+in\s+(?:(?:its|the|their)\s+)?short(?:est)? (?:axis|axes|diameter)\b")
_RATIO = re.compile(r"\b(?:cardiothoracic (?:ratio|index)|ctr)\b[^;\d<>]{0,25}(?P<value>0[.,]\d+|"
    r"\d\d(?=\s*%))\s*(?P<percent>%)?")
_ASCENDING = re.compile(
    r"\bascending (?:thoracic )?aorta"
    r"(?:(?!\b(?:less|smaller|below|under|not|than|pulmonary|descending)\b)[^;:\d]){0,40}"
    r"(?P<size>\d+(?:[.,]\d+)?)\s*(?P<unit>mm|cm)\b")
_AND_IS = re.compile(r"and\s+(?:is|are|was|were|has|have|remains?)")
_AND = re.compile(r"\s*(?:,|/|,?\s*\b(?:and|or)\b)\s*(?:in\s+)?(?:the\s+)?(?:left\s+|right\s+)?")


@dataclasses.dataclass(frozen=True, slots=True)
class Mention:
    """A finding in a sentence: `start:end` are its words, `anchor` the offset that cues act on."""

    names: tuple[str, ...]
    start: int
    end: int
    anchor: int
    certainty: str  # "present" unless the words themselves deny or hedge ("the heart is normal").

    @property
    def is_device(self) -> bool:
        """Whether medical material is mentioned, which can be removed."""
        return bool(self.names) and all(BY_NAME[name].kind == "device" for name in self.names)


class Finder:
    """Finds the mentions of one sentence, `text[start:end]` (normalised).

    Args:
      broken: whether the reach of a word at one offset ends before another one.
    """

    def __init__(self, text: str, start: int, end: int, tokens: Sequence[Token],
                 broken: Callable[[int, int], bool]) -> None:
        self._text, self._start, self._end, self._tokens, self._broken = text, start, end, tokens, broken

    def find(self) -> list[Mention]:
        """The findings that the sentence names, or states by a subject and a predicate, in the order of the text."""
        found, used = [], set()
        for token in self._tokens:
            names = token.roles.get(FINDING, ())
            if BARE in token.roles:
                membrane = (lexicon.MEMBRANES.search(self._text[self._start:token.start])
                            or lexicon.MEMBRANE_BEHIND.match(self._text, token.end, self._end))
                named = f"{membrane.lastgroup} {token.roles[BARE]}" if membrane else ""
                names = (named,) if named in BY_NAME else names
            for mark, certainty in (("", "present"), ("?", "uncertain"), ("-", "absent")):
                alike = tuple(name.lstrip("?-") for name in names if (name[0] if name[0] in "?-" else "") == mark)
                if alike:
                    found.append(Mention(alike, token.start, token.end, token.start, certainty))
        for i, token in enumerate(self._tokens):
            if PREDICATE in token.roles:
                for j in self._subjects(i):
                    self._statement(i, j, found, used)
        found += self._large_nodes() + self._measured()
        found.sort(key=lambda mention: (mention.start, mention.end))
        return found

    def _large_nodes(self) -> list[Mention]:
        """Lymph nodes that are measured: enlarged from a short axis of 10 mm on."""
        nodes = next((token for token in self._tokens if token.roles.get(SUBJECT) == "nodes"), None)
        found = []
        for size in _SHORT_AXIS.finditer(self._text, self._start, self._end) if nodes else ():
            if float((size["size"] or size["size2"]).replace(",", ".")) * (
                    10 if "cm" in (size["unit"], size["unit2"]) else 1) >= 10:
                start, end = min(nodes.start, size.start()), max(nodes.end, size.end())
                found.append(Mention(("Lymphadenopathy",), start, end, start, "present"))
        return found

    def _measured(self) -> list[Mention]:
        """What the width of the heart within the chest, and that of the ascending aorta, say."""
        found = []
        for match in _RATIO.finditer(self._text, self._start, self._end):
            ratio = float(match["value"].replace(",", ".")) / (100 if match["percent"] else 1)
            certainty = "present" if ratio > 0.5 else "absent"
            found.append(Mention(("Cardiomegaly",), *match.span(), match.start(), certainty))
        for match in _ASCENDING.finditer(self._text, self._start, self._end):
            if float(match["size"].replace(",", ".")) * (10 if match["unit"] == "cm" else 1) >= 40:
                found.append(Mention(("Aortic Abnormality",), *match.span(), match.start(), "present"))
        return found

    def _statement(self, i: int, j: int, found: list[Mention], used: set) -> None:
        predicate, subject = self._tokens[i], self._tokens[j]
        for name in lexicon.STATEMENTS[subject.roles[SUBJECT], predicate.roles[PREDICATE]]:
            certainty = {"-": "absent", "?": "uncertain"}.get(name[0], "present")
            name = name.lstrip("-?")
            if (name, i, j) not in used:
                used.add((name, i, j))
                found.append(Mention((name,), min(predicate.start, subject.start), max(predicate.end, subject.end),
                                      predicate.start, certainty))

    def _subjects(self, i: int) -> list[int]:
        """Indices of the subjects that predicate `i` is about: those since the last predicate, or the next one."""
        predicate = self._tokens[i]
        value = predicate.roles[PREDICATE]

        def fits(token: Token) -> bool:
            stated = lexicon.STATEMENTS.get((token.roles.get(SUBJECT), value), ())
            # "Widening on the basis of adenopathy" names what an enlarged node would be.
            return bool(stated) and token is not predicate and not set(stated) <= set(token.roles.get(FINDING, ()))

        before, crossed = [], False
        for j in range(i - 1, -1, -1):
            token = self._tokens[j]
            if self._broken(self._joined(i, token.end), predicate.start):
                break
            if fits(token):
                before.append(j)
                if crossed:
                    break
            elif PREDICATE in token.roles and not before:
                crossed = True  # "the aorta is tortuous and calcified": look past one predicate for one subject.
            elif PREDICATE in token.roles or FINDING in token.roles:
                break
        if before and not (crossed and self._next(i, fits) is not None):
            return before
        after = self._next(i, fits)
        if after is None:
            return before
        subjects = [after]
        for j in range(after + 1, len(self._tokens)):  # "calcified plaques in the aorta and the coronary arteries"
            one, other = self._tokens[j - 1], self._tokens[j]
            if not fits(other) or not _AND.fullmatch(self._text, one.end, other.start):
                break
            subjects.append(j)
        return subjects

    def _joined(self, i: int, offset: int) -> int:
        """`offset`, or the end of an "and is" between it and predicate `i`: the subject is that of the verb before."""
        joined = self._tokens[i - 1] if i else None
        if joined and BREAK in joined.roles and _AND_IS.fullmatch(self._text, joined.start, joined.end):
            return max(offset, joined.end)
        return offset

    def _next(self, i: int, fits: Callable[[Token], bool]) -> int | None:
        end = self._tokens[i].end
        for j in range(i + 1, len(self._tokens)):
            token = self._tokens[j]
            if token.start - end > 60 or self._broken(end, token.start) or "," in self._text[end:token.start]:
                return None
            if fits(token):
                # In "calcified hilar granuloma" the site is that of the granuloma, which is calcified itself.
                following = self._tokens[j + 1] if j + 1 < len(self._tokens) else None
                named = following and FINDING in following.roles and following.start - token.end <= 1
                return None if named else j
        return None
