"""Splits a report into its sections by their headings, keeping character spans.

A heading is a known section name followed by a colon or a dash ("FINDINGS:", "Impression :", "Report - "), at the start
of a line or after the end of a sentence, or a known name in capitals alone on its line. A report without headings is
one "body".
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

_HEADINGS = {
    "findings": ("findings", "finding", "chest findings", "observations", "chest", "lungs and pleura", "report",
                 "result", "results", "radiological findings", "imaging findings", "ct findings", "description",
                 "narrative", "answer", "reply"),
    "impression": ("impression", "impressions", "conclusion", "conclusions", "opinion", "assessment", "summary",
                   "interpretation", "findings and impression", "findings/impression", "diagnosis", "final impression",
                   "preliminary impression", "provisional findings impression (pfi)", "pfi", "comment", "comments",
                   "conclusion/impression", "impression/conclusion", "impression and plan", "final diagnosis"),
    "indication": ("indication", "indications", "clinical indication", "reason for exam", "reason for examination",
                   "reason for study", "reason for the exam", "reason for this examination", "clinical information",
                   "clinical data", "clinical question", "clinical statement", "exam reason", "symptoms",
                   "clinical details", "clinical notes", "clinical context", "clinical concern", "clinical problem",
                   "reason for referral", "reason for request", "reason for the study", "referral", "request",
                   "indication for exam", "indication for study", "presenting complaint", "question", "reason",
                   "clinical diagnosis", "provisional diagnosis", "referring diagnosis", "diagnosis on referral"),
    "history": ("history", "clinical history", "medical history", "clinical history/indication",
                "past medical history", "pmh", "history of present illness", "hx", "patient history",
                "relevant history", "brief history", "surgical history", "past history"),
    "technique": ("technique", "procedure", "views", "protocol", "procedure comments", "method", "methods", "contrast",
                  "limitations", "quality", "image quality", "technical quality"),
    "examination": ("examination", "exam", "study", "type of examination", "exam type", "examination type"),
    "comparison": ("comparison", "comparisons", "comparison studies", "comparison exam", "prior studies",
                   "prior study", "previous studies", "previous study", "prior report", "previous report",
                   "prior examination", "previous examination", "prior exam", "previous exam", "compared with",
                   "priors", "comparison is made", "comparison made"),
    "recommendation": ("recommendation", "recommendations", "advice", "notification", "notifications",
                       "recommendations and follow up", "follow up", "plan", "suggestion", "suggestions", "disclaimer"),
    "addendum": ("addendum",),
    "other": ("attending", "signed", "dictated by", "electronically signed by", "wet read"),
}
_NAME = {text: name for name, texts in _HEADINGS.items() for text in texts}
_WORDS = "|".join(re.escape(text).replace(r"\ ", r"[ \t]+") for text in sorted(_NAME, key=len, reverse=True))
# A heading ends with a colon, or with a dash between spaces; it may be set off with asterisks.
_STOP = r"[ \t]*\**(?::\**|[ \t][-\u2013\u2014][ \t])"
_REPORT = r"(?i:(?:final|preliminary)[ \t]+report[ \t]*:?\s*)?"
_LINE = rf"(?im:^[ \t*#]*{_REPORT}(?P<a>{_WORDS}){_STOP})"
# Within a line in capitals, or after the end of a sentence with a capital.
_INLINE = rf"(?:(?<=[.!?;])|(?<=\s))[ \t]*(?P<b>{_WORDS.upper()})[ \t]*:"
_SENTENCE = rf"(?<=[.!?;])\s+{_REPORT}(?P<d>(?=[A-Z])(?i:{_WORDS})){_STOP}"
_ALONE = rf"(?m:^[ \t]*(?P<c>{_WORDS.upper()})[ \t]*$)"
# `upper` also raises the class `[ \t]` to `[ \T]`; mend it before compiling.
_HEADING = re.compile("|".join((_LINE, _INLINE, _SENTENCE, _ALONE)).replace(r"\T", r"\t"))

_MAY_HAVE_HEADINGS = re.compile(r"[:\n]|\s[-\u2013\u2014]\s")

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
    headings = list(_HEADING.finditer(report)) if _MAY_HAVE_HEADINGS.search(report) else []
    pieces = [(BODY, 0, headings[0].start() if headings else len(report))]
    for i, match in enumerate(headings):
        text = match["a"] or match["b"] or match["c"] or match["d"]
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
