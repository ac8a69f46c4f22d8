"""One sentence: the findings that it mentions, the scopes of its cues, and the attributes of a finding.

What negates or hedges a finding follows NegEx (Chapman et al., J Biomed Inform 2001) and ConText (Harkema et al.,
2009): cues act up to the next break of scope. Here a scope also ends at a comma that opens a new statement.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping

from data_prep.extract.rules import lexicon
from data_prep.extract.rules.lexicon import BARE, FINDING, PREDICATE, SUBJECT
from data_prep.extract.rules.lexicon_cues import (
    BREAK,
    DISCLAIMED,
    DOUBTED,
    HISTORY,
    HYPOTHETICAL,
    NEGATE,
    NEGATED,
    OUTDATED,
    REMOVED,
    UNCERTAIN,
)
from data_prep.extract.rules.tokens import Token, attribute_literals, tokens
from lgdea_jax.findings.vocabulary import BY_NAME


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
        return bool(self.names) and all(BY_NAME[name].kind == "device" for name in self.names)


@dataclasses.dataclass(frozen=True, slots=True)
class Status:
    """What the cues of a sentence make of a mention."""

    certainty: str
    historical: bool
    hypothetical: bool
    start: int  # Of the cue that decided, so that the phrase can hold it; -1 without one.
    end: int


# A new statement after a comma: it begins with one of these words, or holds a verb and does not go on with "or".
_OPENS = re.compile(
    r",\s*(?!(?:and/or|or|nor)\b)(?:and\s+)?(?:(?:there|the|this|these|heart|lungs|bony|again|it|but|however|likely|possibly|"
    r"probably|suggesting)\b"
    r"|(?:mild|small|stable|unchanged|moderate|minimal|left|right|bilateral|persistent|old|new)\b(?!.*\b(?:or|nor)\b)"
    r"|(?:(?!\b(?:or|nor)\b)[^,])*?\b(?P<verb>is|are|was|were|has|have|appears?|remains?|demonstrates?)\b)")
# The last of a list with its verb: "..., effusion and mass are not seen".
_ENUMERATED = re.compile(r"\band\b.*\b(?:are|were|have)$")
_SHORT_AXIS = re.compile(
    r"(?:(?!\b(?:less|smaller|below|under|not|without|no|than)\b)[^;:]){0,60}?\bshort (?:axis|axes|diameter)\b"
    r"(?:(?!\b(?:less|smaller|below|under|not|than)\b)[^;:\d]){0,40}(?P<size>\d+(?:[.,]\d+)?)\s*(?P<unit>mm|cm)\b")
_SIZED = re.compile(
    r"\s+(?:tiny|small|mild|minimal|trace|subtle|moderate|large|severe|stable|unchanged|new|old|left|right|bilateral)\s+"
    r"(?:(?!and\b|or\b|of\b|in\b|with\b|to\b|at\b)[a-z]+\s+){0,3}")
_LINKED = re.compile(r"\s+(?:(?:is|are|remains?|appears?|size|mildly|slightly|moderately|severely)\s+)*")
_AND = re.compile(r"\s*(?:,|/|,?\s*\b(?:and|or)\b)\s*(?:in\s+)?(?:the\s+)?(?:left\s+|right\s+)?")
# Between a finding and the cue behind it.
_AUXILIARY = re.compile(r"\b(?:is|are|was|were|has|have|had|could|can|be|been|being|both|all)(?:\s+(?:is|are|was|were|has|have|"
                        r"be|been|being|all|both))*\s*$")
_VERB = re.compile(r"\b(?:with|without|is|are|was|were|may|could|has|have|shows?|remains?)\b")
_COORDINATED = re.compile(r",|/|\b(?:and|or|nor)\b")
# What they say of a finding is no denial when a verb is between ("the pressure was within normal limits").
_OF_MEASURES = frozenset(("within normal limits", "within limits of normal", "free", "none"))
_PART_OF = re.compile(r"\b(?:of|in|at|along|within|involving)\s+(?:(?:the|a|any|left|right|both|[a-z]+)\s+){0,3}$")
# "The previously seen nodule persists" is about today, "pneumonia as a child" is not.
_CURRENT = re.compile(
    r"\b(?:persists?|persisted|remains?|unchanged|stable|still|again|(?:is|are) (?:now |slightly |mildly )*(?:larger|smaller|better|"
    r"worse|less|more|redemonstrated|visible|seen|noted|similar|present)|(?:has|have) (?:slightly |mildly )*(?:increased|decreased|"
    r"improved|worsened|progressed|enlarged|grown|become))\b")
_AGO = re.compile(
    r"\s*(?:(?:was|were|of|from|seen|noted|diagnosed|treated|about|some)\s+)*(?:(?:\d+|a|one|two|three|four|five|six|few|several|many)\s+"
    r"(?:days?|weeks?|months?|years?)\s+(?:ago|earlier|before)\b|as a (?:child|teenager|young)|in (?:19|20)\d\d\b|in childhood\b)")
# Before a finding that is there, whatever is denied of it or around it.
_GIVEN = re.compile(r"\b(?:within|around|surrounding|adjacent to|next to|near|alongside|beside|behind|beyond|along|superimposed on)"
                    r"\s+(?:the|this|these|that|those|his|her|known)\s+(?:[a-z0-9]+\s+){0,4}$")
_GROWTH = re.compile(r"\s*(?:[a-z]+\s+){0,2}(?:enlargement|growth|expansion)\s+(?:of|in)\s+(?:(?!and|or)[a-z0-9]+\s+){0,5}$")
# A form that is filled in: "Pneumothorax: none", "Effusion | no", "Mass [No]", "Nodule (-)" (a dash is a space here).
_NO = (r"(?:no|none|nil|neg|negative|absent|never|denie[ds]|n|0|false|not (?:seen|present|identified|detected|found|evident|"
       r"visible|observed|visualized))")
_ANSWER_NO = re.compile(rf"(?:\s*[:|=?]\s*\**\s*|\s*\.{{2,}}\s*|\s{{2,}}|\s+-\s+)[\[(]?\s*{_NO}\s*[\])]?\s*(?=[.,;|]|$)"
                        rf"|\s*[\[(]\s*(?:{_NO}|-)?\s*[\])]")
_ANSWER_YES = re.compile(r"\s*\?\s*(?:yes|present|positive)\b")
_NO_LIST = re.compile(r"[:|=\[(.]|\b(?:with|without|is|are|was|were|has|have)\b")
_UNTICKED = re.compile(r"[\[(]\s*[\])]\s*(?:[a-z]+\s+){0,4}$")
_BOX_FIRST = re.compile(r"\s*[\[(]\s*[x✓✔]?\s*[\])]\s*[a-z]")
# "? pneumonia" and "?PNA" ask, a question mark behind the finding as well.
_ASKED = re.compile(r"\?\s*(?:(?!and\b|or\b)[a-z/]+\s+){0,4}$")
# The same wherever it stands: a new subject after a comma.
_OPENS_ANEW = re.compile(r",\s*(?:and\s+|so\s+|then\s+)?(?:he|she|we|they|i|(?:the )?patient|this|these)\s")


class Sentence:
    """One sentence's tokens, mentions and scopes. Offsets are those of the whole normalised text."""

    def __init__(self, text: str, start: int, end: int) -> None:
        self.text, self.start, self.end = text, start, end
        self.tokens = tokens(text, start, end)
        self.breaks = sorted([t.start for t in self.tokens if BREAK in t.roles] + self._commas() + self._dashes() + self._unparted())
        self._attributes: list[tuple[int, int, Mapping[str, str]]] | None = None
        self._unticked = _BOX_FIRST.match(text, start, end) is not None
        self._answers = [] if self._unticked else [m.span() for m in _ANSWER_NO.finditer(text, start, end)]

    def _commas(self) -> list[int]:
        """Commas that open a new statement; before the first finding they part adjectives ("no acute, displaced")."""
        if "," not in self.text[self.start:self.end]:
            return []
        anew = [m.start() for m in _OPENS_ANEW.finditer(self.text, self.start, self.end)]
        first = min((t.start for t in self.tokens if FINDING in t.roles or SUBJECT in t.roles), default=self.end)
        return anew + [m.start() for m in _OPENS.finditer(self.text, self.start, self.end)
                       if m.start() > first and not (m["verb"] and _ENUMERATED.search(m.group()))]

    def _dashes(self) -> list[int]:
        """Dashes between statements: one with "not seen" behind it goes on with the first."""
        opening = (FINDING, SUBJECT, PREDICATE, NEGATE)
        found, at = [], self.text.find(" - ", self.start, self.end)
        while at >= 0:
            following = next((token for token in self.tokens if token.start > at), None)
            if following and not following.roles.keys().isdisjoint(opening):
                found.append(at)
            at = self.text.find(" - ", at + 2, self.end)
        return found

    def _unparted(self) -> list[int]:
        """Ends of findings after which a statement begins without any mark ("no effusion small nodule")."""
        found = []
        others = [token for token in self.tokens if set(token.roles) != {PREDICATE}]
        for one, other in zip(others, others[1:]):
            if FINDING in one.roles:
                between = self.text[one.end:other.start]
                if (FINDING in other.roles and _SIZED.fullmatch(between)) or (
                        SUBJECT in other.roles and FINDING not in other.roles and between == " " and self._states(other)):
                    found.append(one.end)
        return found

    def _states(self, subject: Token) -> bool:
        """Whether a predicate follows a subject directly ("heart enlarged", "lungs are clear")."""
        following = next((token for token in self.tokens if token.start >= subject.end), None)
        return (following is not None and PREDICATE in following.roles
                and _LINKED.fullmatch(self.text, subject.end, following.start) is not None)

    def mentions(self) -> list[Mention]:
        """The findings that the sentence names, or states by a subject and a predicate, in the order of the text."""
        found, used = [], set()
        for token in self.tokens:
            names = token.roles.get(FINDING, ())
            if BARE in token.roles:
                membrane = (lexicon.MEMBRANES.search(self.text[self.start:token.start])
                            or lexicon.MEMBRANE_BEHIND.match(self.text, token.end, self.end))
                names = (f"{membrane.lastgroup} Effusion",) if membrane else names
            for mark, certainty in (("", "present"), ("?", "uncertain"), ("-", "absent")):
                alike = tuple(name.lstrip("?-") for name in names if (name[0] if name[0] in "?-" else "") == mark)
                if alike:
                    found.append(Mention(alike, token.start, token.end, token.start, certainty))
        for i, token in enumerate(self.tokens):
            if PREDICATE in token.roles:
                for j in self._subjects(i):
                    self._statement(i, j, found, used)
        found += self._large_nodes()
        found.sort(key=lambda mention: (mention.start, mention.end))
        return found

    def _large_nodes(self) -> list[Mention]:
        """Lymph nodes that are measured: enlarged from a short axis of 10 mm on."""
        found = []
        for token in self.tokens:
            size = token.roles.get(SUBJECT) == "nodes" and _SHORT_AXIS.match(self.text, token.end, self.end)
            if size and float(size["size"].replace(",", ".")) * (10 if size["unit"] == "cm" else 1) >= 10:
                found.append(Mention(("Lymphadenopathy",), token.start, size.end(), token.start, "present"))
        return found

    def _statement(self, i: int, j: int, found: list[Mention], used: set) -> None:
        predicate, subject = self.tokens[i], self.tokens[j]
        for name in lexicon.STATEMENTS[subject.roles[SUBJECT], predicate.roles[PREDICATE]]:
            certainty = {"-": "absent", "?": "uncertain"}.get(name[0], "present")
            name = name.lstrip("-?")
            if (name, i, j) not in used:
                used.add((name, i, j))
                found.append(Mention((name,), min(predicate.start, subject.start), max(predicate.end, subject.end),
                                      predicate.start, certainty))

    def _subjects(self, i: int) -> list[int]:
        """Indices of the subjects that predicate `i` is about: those since the last predicate, or the next one."""
        predicate = self.tokens[i]
        value = predicate.roles[PREDICATE]

        def fits(token: Token) -> bool:
            return (SUBJECT in token.roles and token is not predicate
                    and (token.roles[SUBJECT], value) in lexicon.STATEMENTS)

        before, crossed = [], False
        for j in range(i - 1, -1, -1):
            token = self.tokens[j]
            if self.broken(token.end, predicate.start):
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
        for j in range(after + 1, len(self.tokens)):  # "calcified plaques in the aorta and the coronary arteries"
            if not fits(self.tokens[j]) or not _AND.fullmatch(self.text, self.tokens[j - 1].end, self.tokens[j].start):
                break
            subjects.append(j)
        return subjects

    def _next(self, i: int, fits: Callable[[Token], bool]) -> int | None:
        end = self.tokens[i].end
        for j in range(i + 1, len(self.tokens)):
            token = self.tokens[j]
            if token.start - end > 60 or self.broken(end, token.start) or "," in self.text[end:token.start]:
                return None
            if fits(token):
                # In "calcified hilar granuloma" the site is that of the granuloma, which is calcified itself.
                following = self.tokens[j + 1] if j + 1 < len(self.tokens) else None
                named = following and FINDING in following.roles and following.start - token.end <= 1
                return None if named else j
        return None

    def broken(self, start: int, end: int) -> bool:
        """Whether the reach of a cue at `start` ends before `end`."""
        return any(start <= position < end for position in self.breaks)

    def status(self, mention: Mention) -> Status:
        """What the cues of the sentence make of a mention. Denial beats doubt; the nearest cue of a kind counts."""
        certainty, historical, hypothetical, cue_start, cue_end = mention.certainty, False, False, -1, -1
        doubted = False
        for token in reversed(self.tokens):
            roles = token.roles
            if not (token.end <= mention.anchor or token.start >= mention.end):
                continue
            if token.end <= mention.anchor:
                if self.broken(token.end, mention.anchor) or self._given(token, mention):
                    continue
                if NEGATE in roles and certainty != "absent" and not self._answers_another(token):
                    # "Absence of pneumothorax cannot be confirmed": here the denial itself is doubted.
                    denied = not (doubted and self.text.startswith("absence", token.start))
                    certainty, cue_start = "absent" if denied else "uncertain", token.start
                elif UNCERTAIN in roles and certainty == "present" and self._doubts(token, mention):
                    certainty, cue_start = "uncertain", token.start
                historical |= HISTORY in roles
                hypothetical |= HYPOTHETICAL in roles
            elif OUTDATED in roles or not self.broken(mention.end, token.start):
                hypothetical |= DISCLAIMED in roles and self._reaches_back(token, mention)
                denies = NEGATED in roles or OUTDATED in roles or (REMOVED in roles and mention.is_device)
                reaches = self._was(token, mention) if OUTDATED in roles else ((denies or DOUBTED in roles) and self._reaches_back(token, mention))
                doubted |= DOUBTED in roles and reaches
                if denies and DOUBTED not in roles and certainty != "absent" and reaches:
                    certainty, cue_end = "absent", token.end
                elif DOUBTED in roles and certainty == "present" and reaches:
                    certainty, cue_end = "uncertain", token.end
                elif certainty == "present" and self._alternative(token, mention):
                    certainty = "uncertain"
        if certainty == "present" and not _ANSWER_YES.match(self.text, mention.end) and (
                self.text[mention.end:mention.end + 2].strip() == "?" or _ASKED.search(
                self.text[self.start:mention.start])):
            certainty, cue_end = "uncertain", mention.end + (self.text[mention.end:mention.end + 1] == "?")
        if historical and _CURRENT.search(self.text, mention.end, self.end) or (
                not historical and _AGO.match(self.text, mention.end, self.end) and not _CURRENT.search(
                    self.text, mention.end, self.end)):
            historical = not historical
        answer = self._answer(mention)
        if answer >= 0:
            certainty, cue_end, hypothetical = "absent", answer, False
        return Status(certainty, historical, hypothetical and certainty != "absent", cue_start, cue_end)

    def _answer(self, mention: Mention) -> int:
        """The end of a "no" that a form gives to a mention, or to a list that the mention is in; -1 without one."""
        if self._unticked and _UNTICKED.search(self.text[self.start:mention.start]):
            return mention.end
        for start, end in self._answers:
            if start >= mention.end:
                between = self.text[mention.end:start]
                listed = bool(_COORDINATED.search(between)) and self._lists(mention.end, start)
                return end if not between.strip() or (listed and not _NO_LIST.search(between)) else -1
        return -1

    def _answers_another(self, cue: Token) -> bool:
        return any(start <= cue.start < end for start, end in self._answers)

    def _given(self, cue: Token, mention: Mention) -> bool:
        """Whether a mention is taken for known: "no cavity within the opacity", "no growth of the nodule"."""
        between = self.text[cue.end:mention.start]
        return mention.anchor == mention.start and bool(_GIVEN.search(between) or _GROWTH.match(between))

    def _alternative(self, cue: Token, mention: Mention) -> bool:
        """Whether a mention is the first of two between which the report leaves the choice ("edema versus pneumonia")."""
        return (self.text[cue.start:cue.end] in ("versus", "vs", "vs.")
                and len(self.text[mention.end:cue.start].split()) < 2)

    def _doubts(self, cue: Token, mention: Mention) -> bool:
        """Whether a hedge reaches the mention: through "or" and "versus", but not over a comma to a new noun."""
        between = self.text[cue.end:mention.anchor]
        return "," not in between or " or " in between or " versus " in between

    def _reaches_back(self, cue: Token, mention: Mention) -> bool:
        """Whether a cue after the mention is about it: a verb's subject is one finding or a list of them."""
        between = self.text[mention.end:cue.start]
        if self.text[cue.start:cue.end] not in _OF_MEASURES:
            between = _AUXILIARY.sub("", between)
        for token in self.tokens:
            if SUBJECT in token.roles and FINDING not in token.roles and mention.end <= token.start < cue.start:
                # "Fracture of the ribs is not seen" is about the fracture, "effusion, the heart is not" is not.
                if not _PART_OF.search(self.text[mention.end:token.start]):
                    return False
        if _VERB.search(between):
            return False
        if not _COORDINATED.search(between):
            return len(between) < 60
        begins = max([at for at in self.breaks if at < mention.start], default=self.start)
        return not _VERB.search(self.text[begins:mention.start]) and (
            len(between) < 60 or self._lists(mention.end, mention.end + len(between)))

    def _was(self, cue: Token, mention: Mention) -> bool:
        """Whether a cue that dates a finding is about this one: no other is between."""
        return not any(FINDING in token.roles and mention.end <= token.start < cue.start for token in self.tokens)

    def _lists(self, start: int, end: int) -> bool:
        """Whether `text[start:end]` goes on with a list of findings that one before it began."""
        items = _COORDINATED.split(self.text[start:end])[1:]
        for item in filter(str.strip, items):
            start = self.text.index(item, start)
            if not any(FINDING in token.roles and start <= token.start < start + len(item) for token in self.tokens):
                return False
        return True

    def attributes(self, mention: Mention, certainty: str, start: int, end: int) -> dict[str, str]:
        """Anatomy, side, severity and change: in the phrase or else in its clause, or else in the sentence."""
        if self._attributes is None:
            self._attributes = list(attribute_literals().find(self.text, self.start, self.end))
        low = max([position for position in self.breaks if position < mention.start], default=self.start)
        high = min([position for position in self.breaks if position >= mention.end], default=self.end)
        found: dict[str, str] = {}
        windows = [(start, end), (min(low, start), max(high, end))]
        if certainty != "absent":
            windows.append((self.start, self.end))
        for left, right in windows:
            sides = {}
            for a, b, kinds in self._attributes:
                if a >= left and b <= right:
                    for kind, value in kinds.items():
                        # Stated elsewhere it may be another finding's size or organ, but seldom its side.
                        if kind not in found and (left == start or (kind != "severity" and value not in _ORGANS)):
                            sides.setdefault(kind, []).append(value)
            for kind, values in sides.items():
                found[kind] = _merge(kind, values)
        if "laterality" not in found and found.get("anatomy") in _ONE_SIDED:
            found["laterality"] = _ONE_SIDED[found["anatomy"]]
        return found


_ONE_SIDED = {"lingula": "left", "middle lobe": "right"}
_ORGANS = frozenset(("pleura", "heart", "aorta", "mediastinum", "hemidiaphragm", "abdomen"))


def _merge(kind: str, values: list[str]) -> str:
    if kind == "laterality":
        return "bilateral" if {"left", "right"} <= set(values) or "bilateral" in values else values[0]
    if kind == "anatomy":  # "lung" and "interstitial" are the least specific.
        special = [value for value in values if value not in ("lung", "interstitial", "pleura")]
        return (special or values)[0]
    return values[-1] if kind == "severity" else values[0]
