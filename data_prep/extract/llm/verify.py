"""Checks the statements of a language model about a report against the report itself.

Every statement must quote the report verbatim: only white space, the case of letters and de-identification marks
("XXXX", "___", "[** ... **]") may differ. What is not in the report is dropped and counted; what contradicts itself
is kept and flagged.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from data_prep.extract import sections
from data_prep.extract.schema import Extraction
from lgdea_jax.findings.vocabulary import BY_NAME
from lgdea_jax.records import Evidence

# Why a statement was dropped.
UNSUPPORTED, DUPLICATE, UNKNOWN_FINDING, UNKNOWN_CERTAINTY, MALFORMED = (
    "unsupported", "duplicate", "unknown finding", "unknown certainty", "malformed")

_MARK = re.compile(r"\[\*\*.*?\*\*\]|_{2,}|\bX{3,}\b|<[A-Z_]{3,}>|\[[A-Z_]{3,}\]", re.DOTALL)
_WORD = re.compile(r"\S+")
_LETTERS = re.compile(r"[^\W\d_]+")
_EDGE = " \t\r\n\"'.,;:`\u201c\u201d\u2026"


@dataclasses.dataclass(frozen=True)
class Statement:
    """A statement as the model gave it, its fields already among the known values.

    Attributes:
      quote: the words that the model quotes from the report; the others as in `records.Evidence`.
    """

    finding: str
    anatomy: str
    laterality: str
    severity: str
    certainty: str
    temporality: str
    quote: str


@dataclasses.dataclass(frozen=True)
class Verified:
    """What is left after the check.

    Attributes:
      extraction: supported statements with their spans, in the order of the text.
      dropped: reason -> number of statements dropped.
      flags: "contradiction FINDING" for a finding that is present and absent at the same site, "normal overruled" where
        normality was claimed beside a finding that is present or uncertain, and "polarity FINDING", see `polarity`.
      lost: (reason, statement) of those that were dropped here, for a human to look at.
    """

    extraction: Extraction
    dropped: Mapping[str, int]
    flags: tuple[str, ...]
    lost: tuple[tuple[str, Statement], ...] = ()


def _lower(text: str) -> str:
    """Lower case of the same length: a few letters would grow, and offsets must not move."""
    lowered = text.lower()
    return lowered if len(lowered) == len(text) else "".join(c.lower() if len(c.lower()) == 1 else c for c in text)


def _letters(text: str) -> str:
    """The text in lower case without white space and de-identification marks."""
    return "".join(_lower(_MARK.sub(" ", text)).split())


def _offsets(text: str) -> list[int]:
    """Where each character of `_letters(text)` stands."""
    blanked = _MARK.sub(lambda mark: " " * len(mark.group()), text)
    return [offset for word in _WORD.finditer(blanked) for offset in range(*word.span())]


class Report:
    """A report prepared for finding quotes in it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._letters, self._offsets = _letters(text), _offsets(text)
        self._evidence: tuple[tuple[int, int], ...] | None = None

    def find(self, quote: str) -> list[tuple[int, int]]:
        """Spans at which the quote stands as whole words; those in sections that hold evidence come first."""
        wanted = _letters(quote.strip(_EDGE))
        if sum(map(len, _LETTERS.findall(wanted))) < 3:
            return []  # "no" or "3 cm" supports nothing.
        found, at = [], self._letters.find(wanted)
        while at >= 0:
            start, end = self._offsets[at], self._offsets[at + len(wanted) - 1] + 1
            if self._whole(start, end):
                found.append((start, end))
            at = self._letters.find(wanted, at + 1)
        return found if len(found) < 2 else sorted(found, key=lambda span: (not self._is_evidence(*span), span))

    def _whole(self, start: int, end: int) -> bool:
        text = self.text
        return not ((start and text[start - 1].isalnum() and text[start].isalnum())
                    or (end < len(text) and text[end].isalnum() and text[end - 1].isalnum()))

    def _is_evidence(self, start: int, end: int) -> bool:
        if self._evidence is None:
            self._evidence = sections.evidence_spans(self.text)
        return any(left <= start and end <= right for left, right in self._evidence)


def verify(report: str, statements: Sequence[Statement], normal: bool,
           dropped: Mapping[str, int] | None = None) -> Verified:
    """Keeps the statements that the report supports.

    Args:
      report: the text that was sent.
      statements: of the reply; every enumerated field is one of the known values.
      normal: whether the reply calls the study normal.
      dropped: what had to be dropped before, by reason.

    Returns:
      The verified extraction; `schema.problems` finds nothing wrong with it.
    """
    text, lost = Report(report), []
    kept: list[Evidence] = []
    stated: set[tuple] = set()
    for item in statements:
        spans = text.find(item.quote)
        if not spans:
            lost.append((UNSUPPORTED, item))
            continue
        statement = (item.finding, item.certainty, item.anatomy, item.laterality, item.severity, item.temporality)
        free = [span for span in spans if (item.finding, item.certainty, span) not in stated]
        if statement in stated or not free:
            lost.append((DUPLICATE, item))
            continue
        start, end = free[0]
        stated.update((statement, (item.finding, item.certainty, (start, end))))
        kept.append(Evidence(item.finding, item.anatomy, item.laterality, item.severity, item.certainty,
                             item.temporality, report[start:end], start, end))
    kept.sort(key=lambda item: (item.start, item.end))
    flags = [f"contradiction {name}" for name in contradictions(kept)]
    abnormal = any(item.certainty != "absent" and item.temporality != "historical" for item in kept)
    if normal and abnormal:
        flags.append("normal overruled")
    counts = Counter(dropped or {}) + Counter(reason for reason, _ in lost)
    return Verified(Extraction(tuple(kept), normal and not abnormal), dict(counts), tuple(flags), tuple(lost))


def polarity(evidence: Sequence[Evidence], rules: Sequence[Evidence]) -> tuple[str, ...]:
    """Findings that are called present where the rules read the same words as a denial, or the other way round.

    A model that quotes "pneumothorax" out of "no pneumothorax" quotes verbatim, and is wrong.

    Args:
      evidence: to be checked; rules: what the rules find in the same report.
    """
    found = set()
    for item in evidence:
        family = {item.finding, *BY_NAME[item.finding].members}
        same = {other.certainty for other in rules if other.start < item.end and item.start < other.end
                and (other.finding in family or item.finding in BY_NAME[other.finding].members)}
        if (item.certainty, same) in (("present", {"absent"}), ("absent", {"present"})):
            found.add(item.finding)
    return tuple(sorted(found))


def contradictions(evidence: Sequence[Evidence]) -> tuple[str, ...]:
    """Findings that are called both present and absent at the same site and on the same side."""
    certainties: dict[tuple[str, str, str], set[str]] = {}
    for item in evidence:
        if item.temporality != "historical":
            certainties.setdefault((item.finding, item.anatomy, item.laterality), set()).add(item.certainty)
    return tuple(sorted({key[0] for key, found in certainties.items() if {"present", "absent"} <= found}))
