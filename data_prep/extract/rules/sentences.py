"""One sentence: the findings that it mentions, the scopes of its cues, and the attributes of a finding.

What negates or hedges a finding follows NegEx (Chapman et al., J Biomed Inform 2001) and ConText (Harkema et al.,
2009): cues act up to the next break of scope. Here a scope also ends at a comma that opens a new statement.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Mapping

from data_prep.extract.rules import scanner
from data_prep.extract.rules.breaks import breaks
from data_prep.extract.rules.forms import Form
from data_prep.extract.rules.lexicon import FINDING, SUBJECT
from data_prep.extract.rules.lexicon_cues import (
    DISCLAIMED,
    DOUBTED,
    HISTORY,
    HYPOTHETICAL,
    NEGATE,
    NEGATED,
    OUTDATED,
    PSEUDO,
    REMOVED,
    UNCERTAIN,
)
from data_prep.extract.rules.mentions import Finder, Mention
from data_prep.extract.rules.tokens import Token, attribute_literals, tokens


@dataclasses.dataclass(frozen=True, slots=True)
class Status:
    """What the cues of a sentence make of a mention."""

    certainty: str
    historical: bool
    hypothetical: bool
    start: int  # Of the cue that decided, so that the phrase can hold it; -1 without one.
    end: int


# Between a finding and the cue behind it.
_AUXILIARY = re.compile(r"\b(?:(?:is|are|was|were|has|have|had|could|can|be|been|being|both|all)\s+)+$")
_VERB = re.compile(r"\b(?:with|without|is|are|was|were|may|could|has|have|shows?|remains?)\b")
_COORDINATED = re.compile(r",|/|\b(?:and|or|nor)\b")
# What they say of a finding is no denial when a verb is between ("the pressure was within normal limits").
_OF_MEASURES = frozenset(("within normal limits", "within limits of normal", "free", "none"))
_PART_OF = re.compile(r"\b(?:of|in|at|along|within|involving|behind|beneath|under|over|near)\s+(?:[a-z]+\s+){0,3}$")
# "The previously seen nodule persists" is about today, "pneumonia as a child" is not.
_CURRENT = re.compile(
    r"\b(?:persists?|persisted|remains?|unchanged|stable|still|again"
    r"|(?:is|are) (?:now |slightly |mildly )*"
    r"(?:larger|smaller|better|worse|less|more|redemonstrated|visible|seen|noted|similar|present)"
    r"|(?:has|have) (?:slightly |mildly )*"
    r"(?:increased|decreased|improved|worsened|progressed|enlarged|grown|become))\b")
_AGO = re.compile(
    r"\s*(?:(?:was|were|of|from|seen|noted|diagnosed|treated|about|some)\s+)*"
    r"(?:(?:\d+|a|one|two|three|four|five|six|few|several|many)\s+(?:days?|weeks?|months?|years?)\s+(?:ago|earlier|before)\b"
    r"|as a (?:child|teenager|young)|in (?:19|20)\d\d\b|in childhood\b|last (?:week|month|year|winter|spring|summer|"
    r"autumn)\b)")
# Before a finding that is there, whatever is denied of it or around it.
_GIVEN = re.compile(
    r"\b(?:within|around|surrounding|adjacent to|next to|near|alongside|beside|behind|beyond|along|superimposed on)\s+"
    r"(?:the|this|these|that|those|his|her|known)\s+(?:[a-z0-9]+\s+){0,4}$")
_GROWTH = re.compile(
    r"\s*(?:[a-z]+\s+){0,2}(?:enlargement|growth|expansion|displacement|extension|spread|migration|angulation|healing|"
    r"widening|shift|malposition|kinking|dislocation|loosening|complications?|worsening|progression|evolution)\s+"
    r"(?:of|in|from|to)\s+(?:(?!and|or)[a-z0-9]+\s+){0,5}$")
# "Infiltrates, either old or recent, have not been seen": what stands between two commas.
_ASIDE = re.compile(r"^\s*,(?:\s+(?:either|whether|old|new|recent|acute|chronic|or|nor|large|small|focal|diffuse|"
    r"left|right|bilateral|"
                    r"fresh|healed|solid|calcified|of|any|size|kind|type|even|in|particular|also|too|though|however))+\s*,\s*")
# "Neither the nodule nor the mass has grown": they are there.
_CHANGED = re.compile(
    r"(?:\s+(?:or|nor|and)\s+(?:the\s+)?[a-z]+(?:\s+[a-z]+)?)?\s+(?:has|have)\s+(?:significantly\s+)?"
    r"(?:changed|increased|grown|decreased|progressed|enlarged)\b")
# "For rib fracture assessment": looked for, not stated.
_SOUGHT = re.compile(r"\s+(?:assessment|evaluation|detection|exclusion|screening|surveillance)\b")
_ADJECTIVES = re.compile(r"\s+(?:(?!with\b|in\b|at\b|and\b|but\b|on\b|given\b)[a-z]+\s+){0,3}")
_IS_NOT = re.compile(r"\s+(?:is|are|was|were|does|do)\s+not\s*$")
_OR = re.compile(r",?\s+or\s+(?:[a-z]+\s+){0,3}")
# "It is not certain that the edema is gone": here too.
_WHETHER = re.compile(r"\b(?:that|whether|if)\b")
_UNPROVEN = re.compile(r"\bnot (?:been )?(?:confirmed|proven|established|verified)$")
_IF = re.compile(r"\b(?:if|when|where|should|unless)\b")
_NO_LIST = re.compile(r"[:|=\[(.]|\b(?:with|without|is|are|was|were|has|have)\b")


class Sentence:
    """One sentence's tokens, mentions and scopes. Offsets are those of the whole normalised text."""

    def __init__(self, text: str, start: int, end: int) -> None:
        self.text, self.start, self.end = text, start, end
        self._pieces = scanner.split(text, start, end)
        self.tokens = tokens(text, start, end, self._pieces)
        self.breaks = breaks(text, start, end, self.tokens)
        self._form = Form(text, start, end)
        self._attributes: list[tuple[int, int, Mapping[str, str]]] | None = None

    def mentions(self) -> list[Mention]:
        """The findings that the sentence mentions, in the order of the text."""
        return Finder(self.text, self.start, self.end, self.tokens, self.broken).find()

    def broken(self, start: int, end: int) -> bool:
        """Whether the reach of a cue at `start` ends before `end`."""
        return any(start <= position < end for position in self.breaks)

    def status(self, mention: Mention) -> Status:
        """What the cues of the sentence make of a mention. Denial beats doubt; the nearest cue of a kind counts."""
        certainty, historical, hypothetical, cue_start, cue_end = mention.certainty, False, False, -1, -1
        doubted = False
        for token in reversed(self.tokens):
            roles = token.roles
            if token.end <= mention.anchor:
                if self.broken(token.end, mention.anchor) or self._given(token, mention):
                    continue
                if NEGATE in roles and (certainty != "absent" or doubted) and not self._form.holds(token.start):
                    # "Absence of pneumothorax cannot be confirmed": here the denial itself is doubted.
                    denied = not (doubted and self.text.startswith(("absence", "lack", "non"), token.start))
                    certainty, cue_start = "absent" if denied else "uncertain", token.start
                elif UNCERTAIN in roles and self._makes_uncertain(token, mention, certainty):
                    certainty, cue_start = "uncertain", token.start
                historical |= HISTORY in roles
                hypothetical |= HYPOTHETICAL in roles
            elif token.start >= mention.end and self._acts_back(token, mention):
                doubted |= DOUBTED in roles or _UNPROVEN.search(self.text, token.start, token.end) is not None
                hypothetical |= DISCLAIMED in roles
                if DOUBTED in roles:
                    hypothetical |= _IF.search(self.text[self.start:mention.start]) is not None
                    if certainty == "present":
                        certainty, cue_end = "uncertain", token.end
                elif certainty != "absent" and (
                        NEGATED in roles or OUTDATED in roles or (REMOVED in roles and mention.is_device)):
                    certainty, cue_end = "absent", token.end
            elif certainty == "present" and self._alternative(token, mention):
                certainty = "uncertain"
        if certainty == "present" and self._form.asks(mention.start, mention.end):
            certainty, cue_end = "uncertain", mention.end + (self.text[mention.end:mention.end + 1] == "?")
        if _IS_NOT.match(self.text, mention.end, self.end):
            certainty, cue_end = "absent", self.end
        if certainty == "present" and self._left_open(mention):
            certainty = "uncertain"
        hypothetical |= _SOUGHT.match(self.text, mention.end, self.end) is not None
        if (historical or _AGO.match(self.text, mention.end, self.end)):
            historical = not _CURRENT.search(self.text, mention.end, self.end)
        answer = self._answer(mention)
        if answer >= 0:
            certainty, cue_end, hypothetical = "absent", answer, False
        return Status(certainty, historical, hypothetical and certainty != "absent", cue_start, cue_end)

    def _answer(self, mention: Mention) -> int:
        """The end of a "no" that a form gives to a mention, or to a list that the mention is in; -1 without one."""
        if self._form.unticked(mention.start):
            return mention.end
        answer = self._form.first_no(mention.end)
        if answer is None:
            return -1
        between = self.text[mention.end:answer[0]]
        listed = _COORDINATED.search(between) and not _NO_LIST.search(between) and self._lists(mention.end, answer[0])
        return answer[1] if listed or not between.strip() else -1

    def _left_open(self, mention: Mention) -> bool:
        """Whether a mention is one of two that the report leaves the choice of ("edema or fibrosis")."""
        named = [token for token in self.tokens if FINDING in token.roles or PSEUDO in token.roles]
        return any(_OR.fullmatch(self.text, one.end, other.start) is not None and FINDING in one.roles
                   for one, other in itertools.pairwise(named) if FINDING in other.roles
                   and (one.end == mention.end or other.start == mention.start)) and PSEUDO not in named[0].roles

    def _given(self, cue: Token, mention: Mention) -> bool:
        """Whether a mention is taken for known: "no cavity within the opacity", "no growth of the nodule"."""
        between = self.text[cue.end:mention.start]
        return mention.anchor == mention.start and bool(
            _GIVEN.search(between) or _GROWTH.match(between) or _CHANGED.match(self.text, mention.end, self.end))

    def _alternative(self, cue: Token, mention: Mention) -> bool:
        """Whether a mention is the first of two that the report leaves the choice of ("edema versus pneumonia")."""
        return (cue.start >= mention.end and self.text[cue.start:cue.end] in ("versus", "vs", "vs.")
                and len(self.text[mention.end:cue.start].split()) < 2 and not self.broken(mention.end, cue.start))

    def _acts_back(self, cue: Token, mention: Mention) -> bool:
        """Whether a cue behind the mention is about it."""
        if OUTDATED in cue.roles:  # It is, unless another finding is between.
            return not any(FINDING in token.roles and mention.end <= token.start < cue.start for token in self.tokens)
        if DOUBTED in cue.roles and UNCERTAIN in cue.roles and self._names_next(cue):
            return False  # "Nodule and possible effusion."
        return (not cue.roles.keys().isdisjoint((NEGATED, DOUBTED, REMOVED, DISCLAIMED))
                and not self.broken(mention.end, cue.start) and self._reaches_back(cue, mention))

    def _names_next(self, cue: Token) -> bool:
        """Whether a finding follows a cue, as its noun."""
        behind = next((token for token in self.tokens if token.start >= cue.end), None)
        return behind is not None and FINDING in behind.roles and _ADJECTIVES.fullmatch(
            self.text, cue.end, behind.start) is not None

    def _makes_uncertain(self, cue: Token, mention: Mention, certainty: str) -> bool:
        """Whether a hedge before a mention acts on it: on a denial only by a clause ("not certain that it is gone")."""
        if certainty == "present":
            return self._doubts(cue, mention)
        return certainty == "absent" and _WHETHER.search(self.text, cue.start, cue.end) is not None

    def _doubts(self, cue: Token, mention: Mention) -> bool:
        """Whether a hedge reaches the mention: through "or" and "versus", but not over a comma to a new noun."""
        between = self.text[cue.end:mention.anchor]
        return "," not in between or " or " in between or " versus " in between

    def _reaches_back(self, cue: Token, mention: Mention) -> bool:
        """Whether a cue after the mention is about it: a verb's subject is one finding or a list of them."""
        between = _ASIDE.sub(" ", self.text[mention.end:cue.start])
        if self.text[cue.start:cue.end] not in _OF_MEASURES:
            between = _AUXILIARY.sub("", between)
        for token in self.tokens:
            # "Fracture of the ribs is not seen" is about the fracture, "effusion, the heart is not" is not.
            if (SUBJECT in token.roles and FINDING not in token.roles and mention.end <= token.start < cue.start
                    and not _PART_OF.search(self.text[mention.end:token.start])):
                return False
        if _VERB.search(between):
            return False
        if not _COORDINATED.search(between):
            return len(between) < 60
        begins = max([at for at in self.breaks if at < mention.start], default=self.start)
        return not _VERB.search(self.text[begins:mention.start]) and (
            len(between) < 60 or self._lists(mention.end, mention.end + len(between)))

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
            self._attributes = list(attribute_literals().find(self._pieces))
        low = max([position for position in self.breaks if position < mention.start], default=self.start)
        high = min([position for position in self.breaks if position >= mention.end], default=self.end)
        found: dict[str, str] = {}
        comma = self.text.find(",", end, self.end)
        near = (self.text.rfind(",", self.start, start) + 1 or self.start, comma if comma >= 0 else self.end)
        windows = [(start, end), (max(low, near[0]), min(high, near[1])), (min(low, start), max(high, end))]
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
        return found


_ORGANS = frozenset(("pleura", "heart", "aorta", "mediastinum", "hemidiaphragm", "abdomen"))


def _merge(kind: str, values: list[str]) -> str:
    if kind == "laterality":
        return "bilateral" if {"left", "right"} <= set(values) or "bilateral" in values else values[0]
    if kind == "anatomy":  # "lung" and "interstitial" are the least specific.
        special = [value for value in values if value not in ("lung", "interstitial", "pleura")]
        return (special or values)[0]
    return values[-1] if kind == "severity" else values[0]
