"""Forms that are filled in: "Pneumothorax: none", "Effusion | no", "Mass [No]", "Nodule (-)", "[ ] Fracture"."""

from __future__ import annotations

import re

_NO = (r"(?:no(?: evidence| signs?)?|none|nil|neg|negative|absent|never|denie[ds]|n|0|false|"
       r"not (?:seen|present|identified|detected|found|evident|visible|observed|visualized)|[\u2610\u2717\u2718]|"
       r"-(?=\s*$))")
# A dash within brackets is a space in normalised text.
_ANSWER_NO = re.compile(
    r"(?:(?:\s+(?:seen|present|noted))?\s*[:|=?>\u2192\u21d2]\s*\**\s*|\s*\.{2,}\s*|\s{2,}|\s+-\s+"
    r"|\s*(?=[\u2610\u2717\u2718])|,\s*(?=no\s*$))"
    rf"[\[(]?\s*{_NO}\s*[\])]?\s*(?=[.,;|]|$|(?<=[\u2610\u2717\u2718]\s))|\s*[:|=]?\s*[\[(]\s*(?:{_NO}|-)?\s*[\])]")
# Without one of these there is no answer.
_SEPARATED = re.compile(r"[:|=?\[(>\u2192\u21d2\u2610\u2717\u2718]|\.\.|\s\s| - |,\s*no\s*$")
_ANSWER_YES = re.compile(r"\s*\?\s*(?:yes|present|positive)\b")
_UNTICKED = re.compile(r"(?:[\[(]\s*[\])]|\u2610)\s*(?:[a-z]+\s+){0,4}$")
_BOX_FIRST = re.compile(r"\s*(?:[\[(]\s*[x\u2713\u2714]?\s*[\])]|[\u2610-\u2612])\s*[a-z]")
# "? pneumonia" and "?PNA" ask, a question mark behind the finding, bare or in brackets, as well.
_ASKED_BEHIND = re.compile(r"\s*[\[(]\s*\?+\s*[\])]|\s?\?")
_LEFT_OPEN = re.compile(
    r"\s*(?:[:|=]|\s-\s)\s*(?:possibl[ey]|probabl[ey]|likely|questionable|equivocal|indeterminate|suspected|uncertain|"
    r"unclear|maybe|(?:cannot|can't|not) exclude[d]?)\b|,\s*(?:possibly|probably|likely|presumably|perhaps|maybe|"
    r"suspected)\s*\.?$")
_ASKED = re.compile(r"\?\s*(?:(?!and\b|or\b)[a-z/]+\s+){0,4}$")


class Form:
    """The answers in a sentence, `text[start:end]` (normalised)."""

    def __init__(self, text: str, start: int, end: int) -> None:
        self._text, self._start, self._end = text, start, end
        self._boxes_first = _BOX_FIRST.match(text, start, end) is not None
        self._answers = ([match.span() for match in _ANSWER_NO.finditer(text, start, end)]
                         if _SEPARATED.search(text, start, end) and not self._boxes_first else [])

    def first_no(self, offset: int) -> tuple[int, int] | None:
        """The span of the first "no" that stands behind `offset`, with its colon or brackets."""
        return next((span for span in self._answers if span[0] >= offset), None)

    def unticked(self, offset: int) -> bool:
        """Whether what begins at `offset` has an empty box before it."""
        return self._boxes_first and _UNTICKED.search(self._text[self._start:offset]) is not None

    def holds(self, offset: int) -> bool:
        """Whether the word at `offset` is an answer, and so says nothing of what follows it."""
        return any(start <= offset < end for start, end in self._answers)

    def asks(self, start: int, end: int) -> bool:
        """Whether the words `start:end` have a question mark without a "yes", or an answer that leaves them open."""
        return not _ANSWER_YES.match(self._text, end) and (
            _LEFT_OPEN.match(self._text, end, self._end) or
            _ASKED_BEHIND.match(self._text, end) or _ASKED.search(self._text[self._start:start])) is not None
