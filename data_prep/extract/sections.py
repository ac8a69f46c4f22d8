"""Splits a report into its sections by their headings, keeping character spans.

A heading is a known section name followed by a colon ("FINDINGS:", "Impression :"), at the start of a line or in
capitals after the end of a sentence, or a known name in capitals alone on its line. A report without headings is one
"body".
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

_HEADINGS = {
    "findings": ("findings", "finding", "chest findings", "observations", "chest", "lungs and pleura"),
    "impression": ("impression", "impressions", "conclusion", "conclusions", "opinion", "assessment", "summary",
                   "interpretation", "findings and impression", "findings/impression", "diagnosis"),
    "indication": ("indication", "indications", "clinical indication", "reason for exam", "reason for examination",
                   "reason for study", "reason for the exam", "reason for this examination", "clinical information",
                   "clinical data", "clinical question", "clinical statement", "exam reason", "symptoms"),
    "history": ("history", "clinical history", "medical history", "clinical history/indication",
                "past medical history"),
    "technique": ("technique", "procedure", "views", "protocol", "procedure comments"),
    "examination": ("examination", "exam", "study", "type of examination", "exam type", "examination type"),
    "comparison": ("comparison", "comparisons", "comparison studies", "comparison exam", "prior studies"),
    "recommendation": ("recommendation", "recommendations", "advice", "notification", "notifications"),
    "addendum": ("addendum",),
    "other": ("attending", "signed", "dictated by", "electronically signed by", "wet read"),
}
_NAME = {text: name for name, texts in _HEADINGS.items() for text in texts}
_WORDS = "|".join(re.escape(text).replace(r"\ ", r"[ \t]+") for text in sorted(_NAME, key=len, reverse=True))
_LINE = rf"(?im:^[ \t]*(?:final[ \t]+report[ \t]*:?\s*)?(?P<a>{_WORDS})[ \t]*:)"
_INLINE = rf"(?:(?<=[.!?;])|(?<=\s))[ \t]*(?P<b>{_WORDS.upper()})[ \t]*:"
_ALONE = rf"(?m:^[ \t]*(?P<c>{_WORDS.upper()})[ \t]*$)"
# `upper` also raises the class `[ \t]` to `[ \T]`; mend it before compiling.
_HEADING = re.compile("|".join((_LINE, _INLINE, _ALONE)).replace(r"\T", r"\t"))

BODY = "body"
# Only these sections describe this study. The others are about the question, the technique, or earlier studies.
EVIDENCE_SECTIONS = frozenset({"findings", "impression", "addendum", BODY})


@dataclasses.dataclass(frozen=True)
class Section:
    """A section: its canonical name and the span of its text, without the heading and outer white space."""

    name: str
    start: int
    end: int


def heading_name(text: str) -> str | None:
    """The canonical section name of a heading ("Reason for exam" -> "indication"), or None."""
    return _NAME.get(" ".join(text.lower().replace("_", " ").split()))


def keep(report: str, names: Sequence[str]) -> str:
    """The sections `names` of a report under their headings, in its order; the whole report without headings."""
    parts = split(report)
    if [part.name for part in parts] == [BODY]:
        return report
    return "\n".join(f"{part.name.upper()}: {report[part.start:part.end]}" for part in parts if part.name in names)


def split(report: str) -> tuple[Section, ...]:
    """Sections in the order of the text; text before the first heading is "body"; empty sections are left out."""
    headings = list(_HEADING.finditer(report)) if ":" in report or "\n" in report else []
    pieces = [(BODY, 0, headings[0].start() if headings else len(report))]
    for i, match in enumerate(headings):
        text = match["a"] or match["b"] or match["c"]
        end = headings[i + 1].start() if i + 1 < len(headings) else len(report)
        pieces.append((_NAME[" ".join(text.lower().split())], match.end(), end))
    sections = []
    for name, start, end in pieces:
        inner = report[start:end]
        left = len(inner) - len(inner.lstrip())
        right = len(inner) - len(inner.rstrip())
        if start + left < end - right:
            sections.append(Section(name, start + left, end - right))
    return tuple(sections)


def evidence_spans(report: str) -> tuple[tuple[int, int], ...]:
    """Spans of the text that may hold evidence: findings, impression, addendum and text under no heading.

    When a report has a findings section, text before its first heading is taken as a title and skipped.
    """
    sections = split(report)
    titled = any(section.name == "findings" for section in sections)
    skipped = {BODY} if titled else set()
    return tuple((s.start, s.end) for s in sections if s.name in EVIDENCE_SECTIONS - skipped)
