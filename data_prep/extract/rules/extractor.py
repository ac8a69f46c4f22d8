"""Rules extractor: diagnostic evidence from an English chest report without network, key or model.

Mentions are found with one regex over thousands of literals (`lexicon`); what negates or hedges them follows NegEx
(Chapman et al., J Biomed Inform 2001) and ConText (Harkema et al., 2009): cues act up to the next break of scope.
Unlike those, a cue's reach also ends at a comma that opens a new statement, and findings may be composed of a subject
and a predicate ("the heart is mildly enlarged").
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence

from data_prep.extract import sections
from data_prep.extract.rules import lexicon, lexicon_attributes, scanner
from data_prep.extract.rules.lexicon import (
    BREAK,
    DOUBTED,
    FINDING,
    HISTORY,
    HYPOTHETICAL,
    NEGATE,
    NEGATED,
    PREDICATE,
    SUBJECT,
    UNCERTAIN,
)
from data_prep.extract.schema import Extraction
from lgdea_jax.findings.vocabulary import BY_NAME
from lgdea_jax.records import Evidence

NAME = "rules@2"


@dataclasses.dataclass(frozen=True, slots=True)
class _Token:
    start: int
    end: int
    roles: Mapping[str, object]


@dataclasses.dataclass(frozen=True, slots=True)
class _Mention:
    """A finding in a sentence. `start:end` is what is said, `anchor` the place that cues act on."""

    names: tuple[str, ...]
    start: int
    end: int
    anchor: int
    certainty: str  # "present" unless the words themselves deny or hedge ("the heart is normal").


@dataclasses.dataclass(frozen=True, slots=True)
class _Status:
    certainty: str
    historical: bool
    hypothetical: bool
    start: int  # Of the cue that decided, so that the phrase can hold it; -1 without one.
    end: int


@functools.cache
def _lexicon() -> tuple[Mapping[str, Mapping[str, object]], re.Pattern[str]]:
    roles = lexicon.build()
    return roles, scanner.compile_literals(roles)


@functools.cache
def _attribute_lexicon() -> tuple[Mapping[str, Mapping[str, str]], re.Pattern[str]]:
    roles = lexicon_attributes.attributes()
    return roles, scanner.compile_literals(roles)


def _tokens(text: str, start: int, end: int) -> list[_Token]:
    roles, pattern = _lexicon()
    return [_Token(m.start(), m.end(), roles[scanner.key(m.group())]) for m in pattern.finditer(text, start, end)]


# A new statement after a comma: it begins with one of these words, or holds a verb and does not go on with "or".
_OPENS = re.compile(
    r",\s*(?!(?:and/or|or|nor)\b)(?:and\s+)?(?:(?:there|the|this|these|heart|lungs|bony|again|it|but|however|likely|possibly|"
    r"probably|suggesting)\b"
    r"|(?:mild|small|stable|unchanged|moderate|minimal|left|right|bilateral|persistent|old|new)\b(?!.*\b(?:or|nor)\b)"
    r"|(?:(?!\b(?:or|nor)\b)[^,])*?\b(?:is|are|was|were|has|have|appears?|remains?|demonstrates?)\b)")


# A form that is filled in: "Pneumothorax: none".
_ANSWER_NO = re.compile(r"\s*:\s*(?:no|none|nil|neg|negative|absent|never|denie[ds])\s*(?=[.,;]|$)")


# The same wherever it stands: a new subject after a comma.
_OPENS_ANEW = re.compile(r",\s*(?:and\s+|so\s+|then\s+)?(?:he|she|we|they|i|(?:the )?patient|this|these)\s")


class _Sentence:
    """One sentence's tokens, mentions and scopes. Offsets are those of the whole normalised text."""

    def __init__(self, text: str, start: int, end: int) -> None:
        self.text, self.start, self.end = text, start, end
        self.tokens = _tokens(text, start, end)
        self.breaks = sorted([t.start for t in self.tokens if BREAK in t.roles] + self._commas())
        self._attributes: list[tuple[int, int, Mapping[str, str]]] | None = None

    def _commas(self) -> list[int]:
        """Commas that open a new statement; before the first finding they part adjectives ("no acute, displaced")."""
        if "," not in self.text[self.start:self.end]:
            return []
        anew = [m.start() for m in _OPENS_ANEW.finditer(self.text, self.start, self.end)]
        said = min((t.start for t in self.tokens if FINDING in t.roles or SUBJECT in t.roles), default=self.end)
        return anew + [m.start() for m in _OPENS.finditer(self.text, self.start, self.end) if m.start() > said]

    def mentions(self) -> list[_Mention]:
        found, used = [], set()
        for token in self.tokens:
            names = token.roles.get(FINDING, ())
            for certainty, alike in (("present", tuple(name for name in names if name[0] != "?")),
                                     ("uncertain", tuple(name[1:] for name in names if name[0] == "?"))):
                if alike:
                    found.append(_Mention(alike, token.start, token.end, token.start, certainty))
        for i, token in enumerate(self.tokens):
            if PREDICATE in token.roles:
                for j in self._subjects(i):
                    self._statement(i, j, found, used)
        found.sort(key=lambda mention: (mention.start, mention.end))
        return found

    def _statement(self, i: int, j: int, found: list[_Mention], used: set) -> None:
        predicate, subject = self.tokens[i], self.tokens[j]
        for name in lexicon.STATEMENTS[subject.roles[SUBJECT], predicate.roles[PREDICATE]]:
            certainty = {"-": "absent", "?": "uncertain"}.get(name[0], "present")
            name = name.lstrip("-?")
            if (name, i, j) not in used:
                used.add((name, i, j))
                found.append(_Mention((name,), min(predicate.start, subject.start), max(predicate.end, subject.end),
                                      predicate.start, certainty))

    def _subjects(self, i: int) -> list[int]:
        """Indices of the subjects that predicate `i` speaks of: those since the last predicate, or the next one."""
        predicate = self.tokens[i]
        value = predicate.roles[PREDICATE]

        def fits(token: _Token) -> bool:
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
        return [after] if after is not None else before

    def _next(self, i: int, fits: Callable[[_Token], bool]) -> int | None:
        end = self.tokens[i].end
        for j in range(i + 1, len(self.tokens)):
            token = self.tokens[j]
            if token.start - end > 60 or self.broken(end, token.start) or "," in self.text[end:token.start]:
                return None
            if fits(token):
                # In "calcified hilar granuloma" the place is the granuloma's, which says itself what is calcified.
                following = self.tokens[j + 1] if j + 1 < len(self.tokens) else None
                named = following and FINDING in following.roles and following.start - token.end <= 1
                return None if named else j
        return None

    def broken(self, start: int, end: int) -> bool:
        """Whether the reach of a cue at `start` ends before `end`."""
        return any(start <= place < end for place in self.breaks)

    def status(self, mention: _Mention) -> _Status:
        """What the cues of the sentence make of a mention. Denial beats doubt; the nearest cue of a kind counts."""
        certainty, historical, hypothetical, cue_start, cue_end = mention.certainty, False, False, -1, -1
        for token in reversed(self.tokens):
            roles = token.roles
            if not (token.end <= mention.anchor or token.start >= mention.end):
                continue
            if token.end <= mention.anchor:
                if self.broken(token.end, mention.anchor):
                    continue
                if NEGATE in roles and certainty != "absent":
                    certainty, cue_start = "absent", token.start
                elif UNCERTAIN in roles and certainty == "present" and self._doubts(token, mention):
                    certainty, cue_start = "uncertain", token.start
                historical |= HISTORY in roles
                hypothetical |= HYPOTHETICAL in roles
            elif not self.broken(mention.end, token.start):
                if NEGATED in roles and certainty != "absent" and self._reaches_back(token, mention):
                    certainty, cue_end = "absent", token.end
                elif DOUBTED in roles and certainty == "present" and self._reaches_back(token, mention):
                    certainty, cue_end = "uncertain", token.end
        if certainty != "absent" and self.text[mention.end:mention.end + 2].strip() == "?":
            certainty, cue_end = "uncertain", mention.end + 1
        answer = _ANSWER_NO.match(self.text, mention.end, self.end)
        if answer:
            certainty, cue_end = "absent", answer.end()
        return _Status(certainty, historical, hypothetical and certainty != "absent", cue_start, cue_end)

    def _doubts(self, cue: _Token, mention: _Mention) -> bool:
        """Whether a hedge reaches the mention: through "or" and "versus", but not over a comma to a new noun."""
        between = self.text[cue.end:mention.anchor]
        return "," not in between or " or " in between or " versus " in between

    def _reaches_back(self, cue: _Token, mention: _Mention) -> bool:
        """Whether a cue after the mention is about it: a verb's subject reaches over a list, not over a preposition."""
        between = self.text[mention.end:cue.start]
        if any(SUBJECT in token.roles and mention.end <= token.start < cue.start for token in self.tokens):
            return False
        return len(between) < 60 and not re.search(r"\b(?:with|without|is|are|was|were|may|could)\b", between)

    def attributes(self, mention: _Mention, certainty: str, start: int, end: int) -> dict[str, str]:
        """Place, side, severity and change: in the phrase or else in its clause, or else in the sentence."""
        if self._attributes is None:
            roles, pattern = _attribute_lexicon()
            self._attributes = [(m.start(), m.end(), roles[scanner.key(m.group())])
                                for m in pattern.finditer(self.text, self.start, self.end)]
        low = max([place for place in self.breaks if place < mention.start], default=self.start)
        high = min([place for place in self.breaks if place >= mention.end], default=self.end)
        found: dict[str, str] = {}
        windows = [(start, end), (min(low, start), max(high, end))]
        if certainty != "absent":
            windows.append((self.start, self.end))
        for left, right in windows:
            sides = {}
            for a, b, kinds in self._attributes:
                if a >= left and b <= right:
                    for kind, value in kinds.items():
                        # Said elsewhere it may be another finding's size or organ, but seldom its side.
                        if kind not in found and (left == start or (kind != "severity" and value not in _ORGANS)):
                            sides.setdefault(kind, []).append(value)
            for kind, values in sides.items():
                found[kind] = _merge(kind, values)
        return found


_ORGANS = frozenset(("pleura", "heart", "aorta", "mediastinum", "hemidiaphragm", "abdomen"))


def _merge(kind: str, values: list[str]) -> str:
    if kind == "laterality":
        return "bilateral" if {"left", "right"} <= set(values) or "bilateral" in values else values[0]
    if kind == "anatomy":  # "lung" and "interstitial" say least.
        special = [value for value in values if value not in ("lung", "interstitial", "pleura")]
        return (special or values)[0]
    return values[-1] if kind == "severity" else values[0]


_WORD = re.compile(r"[^\s,;:()]+")
_LEFT_STOP = frozenset((
    "and/or", "is", "are", "was", "were", "be", "been", "being", "has", "have", "had", "there", "the", "a", "an",
    "of", "in", "on", "at", "with", "without", "and", "or", "but", "no", "not", "to", "for", "from", "by", "as",
    "which", "that", "this", "these", "those", "it", "its", "may", "might", "could", "can", "cannot", "would",
    "should", "will", "shows", "show", "demonstrates", "demonstrate", "seen", "noted", "identified", "present",
    "also", "again", "appears", "appear", "suggest", "suggests", "suggesting", "suggestive", "represent",
    "represents", "representing", "likely", "probably", "possibly", "possible", "probable", "consistent",
    "compatible", "due", "secondary", "versus", "vs", "than", "if", "about", "involving", "within", "over", "under",
    "near", "reflect", "reflects", "related", "nor", "either", "neither", "any", "reveals", "reveal", "remain",
    "remains"))
_PLACE = re.compile(
    r"\s+(?:is |are )?(?:seen |noted |present |identified |again |visualized )*(?:in|at|within|of|"
    r"involving|along|over|overlying|throughout|near|on|from|projecting over|adjacent to)\s+"
    r"(?:(?:the|both|a|an|either)\s+)?(?:[a-z0-9']+\s+){0,5}?"
    r"(?:lobes?|lungs?|bases?|ap(?:ex|ices)|hil(?:um|a)|lingula|zones?|sides?|angles?|sulc(?:us|i)|hemithorax|"
    r"(?:hemi)?diaphragms?|spine|aorta|ribs?|clavicle|fissures?|chest|thorax|bilaterally|(?:left|right)(?=\s*(?:[.,;]|$))|region|"
    r"joints?|knees?|hips?|ankles?|feet|foot|wrists?|hands?|elbows?|mediastinum|svc|atrium|shoulder|humerus|trachea)(?![a-z0-9])(?:\s+(?:lobe|lung|base|apex|side|bilaterally)\b)?")


_VERBAL = re.compile(r"may|might|could|can|would|suggest|versus|vs|represent|xxxx|favor|felt|suspicious|concerning")


def _phrase(sentence: _Sentence, mention: _Mention, status: _Status, mentions: Sequence[_Mention]) -> tuple[int, int]:
    """Span of the words that state a mention, readable alone: its adjectives, the place after it, the deciding cue."""
    text = sentence.text
    floor = max([m.end for m in mentions if m.end <= mention.start], default=sentence.start)
    start = mention.start
    words = list(_WORD.finditer(text, max(floor, sentence.start), start))
    for word in reversed(words[-7:]):
        gap = text[word.end():start]
        if gap.strip() or word.group().lstrip("/") in _LEFT_STOP:
            break
        start = word.start()
    end = mention.end
    ceiling = min([m.start for m in mentions if m.start >= end], default=sentence.end)
    place = _PLACE.match(text, end, sentence.end)
    if place and place.end() <= ceiling and not sentence.broken(end, place.end()):
        end = place.end()
    if status.start >= 0:
        start = min(start, status.start)
        if status.certainty == "uncertain":  # "opacity that may represent pneumonia": the verb needs what it speaks of.
            low = max([place for place in sentence.breaks if place < status.start], default=sentence.start)
            before = [m.start for m in mentions if low <= m.start and m.end <= status.start]
            low = before[-1] if before else low
            if status.start - low < 60 and text[low].isalnum() and _VERBAL.match(text, status.start):
                start = min(start, low)
    if status.end >= 0:
        end = max(end, status.end)
    while start < mention.start and text[start] in "/,:( ":
        start += 1
    return start, end


# What was put in, broken or scarred before is still seen today ("status post valve replacement").
_LASTING = frozenset(("Fracture", "Granuloma", "Scar"))


def _blocked(sentence: _Sentence, name: str, start: int, end: int) -> bool:
    words = lexicon.BLOCKED.get(name)
    return bool(words) and not words.isdisjoint(re.findall(r"[a-z]+", sentence.text[start:end]))


_CALCIFIED = re.compile(r"(?<!non )\bcalcified\b(?!.*(?:,|\bor\b|\band\b))")


def _instances(name: str, certainty: str, words: str) -> tuple[str, ...]:
    """What a named finding is: a nodule called calcified, though at a distance ("calcified 5 mm nodule"), is three.

    Args:
      words: what is said of it, from the phrase's first word to the finding's name.
    """
    if name == "Nodule" and _CALCIFIED.search(words):
        # Without calcified nodules there may still be others.
        return ("Granuloma",) if certainty == "absent" else ("Nodule", "Calcification Other", "Granuloma")
    return (name,)


def extract(report: str) -> Extraction:
    """Evidence of one report.

    Args:
      report: any text; sections that ask or compare (indication, history, technique, comparison) hold no evidence.

    Returns:
      The statements in the order of the text. The same finding said twice in the same way is kept once, in its most
      specific wording; what a report affirms in one place and denies in another is kept both times.
    """
    text = scanner.normalise(report)
    found: list[Evidence] = []
    stated = set()
    for start, end in sections.evidence_spans(report):
        for left, right in scanner.sentences(report, start, end):
            _sentence_evidence(report, _Sentence(text, left, right), found, stated)
    evidence = _collapse(found)
    normal = ("normal" in stated or {"lungs", "heart"} <= stated) and all(
        item.certainty == "absent" or item.temporality == "historical" for item in evidence)
    return Extraction(tuple(evidence), normal)


def _sentence_evidence(report: str, sentence: _Sentence, found: list[Evidence], stated: set[str]) -> None:
    if lexicon.NORMALITY.search(sentence.text, sentence.start, sentence.end):
        stated.add("normal")
    mentions = sentence.mentions()
    for mention in mentions:
        status = sentence.status(mention)
        if mention.certainty == "absent" and status.start < 0:
            stated.add({"Lung Opacity": "lungs", "Cardiomegaly": "heart"}.get(mention.names[0], ""))
        if status.hypothetical:
            continue
        start, end = _phrase(sentence, mention, status, mentions)
        attributes = sentence.attributes(mention, status.certainty, start, end)
        for name in mention.names:
            if _blocked(sentence, name, start, end):
                continue
            found += [Evidence(
                finding=finding, anatomy=attributes.get("anatomy", ""), laterality=attributes.get("laterality", ""),
                severity=attributes.get("severity", "") if status.certainty != "absent" else "",
                certainty=status.certainty,
                temporality=_temporality(finding, status, attributes),
                phrase=report[start:end], start=start, end=end)
                for finding in _instances(name, status.certainty, sentence.text[start:mention.end])]


def _temporality(name: str, status: _Status, attributes: Mapping[str, str]) -> str:
    if status.certainty == "absent":
        return ""
    if status.historical and not (name in _LASTING or BY_NAME[name].kind == "device"):
        return "historical"
    return attributes.get("temporality", "")


def _collapse(found: Sequence[Evidence]) -> list[Evidence]:
    """Drops statements that another one of the same finding and certainty says at least as exactly."""
    kept: list[Evidence] = []
    for item in found:
        if any(_covers(other, item) for other in kept):
            continue
        kept = [other for other in kept if not _covers(item, other)]
        kept.append(item)
    return sorted(kept, key=lambda item: (item.start, item.end))


def _covers(one: Evidence, other: Evidence) -> bool:
    fields = ("anatomy", "laterality", "severity")
    return (one.finding == other.finding and one.certainty == other.certainty
            and (one.temporality == "historical") == (other.temporality == "historical")
            and all(getattr(other, field) in ("", getattr(one, field)) for field in fields))


def assertion(sentence: str, concept: str) -> str:
    """Whether `sentence` denies `concept`: "Negated", or "Affirmed" (present, uncertain or asked for).

    The concept need not be of the vocabulary. It is sought by its words, white space and case aside; where it does not
    stand in the sentence as such, the place of its longest word counts; without any the answer is "Affirmed".
    """
    text = scanner.normalise(sentence)
    place = scanner.place(sentence, concept)
    if place is None:
        return "Affirmed"
    text = scanner.masked(text, place)
    for start, end in scanner.sentences(sentence, 0, len(sentence)):
        if start <= place[0] < end:
            mention = _Mention((), *place, place[0], "present")
            return "Negated" if _Sentence(text, start, end).status(mention).certainty == "absent" else "Affirmed"
    return "Affirmed"
