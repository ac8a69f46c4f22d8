"""The words that state a mention, readable without the rest of the report."""

from __future__ import annotations

import re
from collections.abc import Sequence

from data_prep.extract.rules.mentions import Mention
from data_prep.extract.rules.sentences import Sentence, Status

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
_SITE = re.compile(
    r"\s+(?:is |are )?(?:seen |noted |present |identified |again |visualized )*(?:in|at|within|of|"
    r"involving|along|over|overlying|throughout|near|on|from|projecting over|adjacent to)\s+"
    r"(?:(?:the|both|a|an|either)\s+)?(?:[a-z0-9']+\s+){0,5}?"
    r"(?:lobes?|lungs?|bases?|ap(?:ex|ices)|hil(?:um|a)|lingula|zones?|sides?|angles?|sulc(?:us|i)|hemithorax|"
    r"(?:hemi)?diaphragms?|spine|aorta|ribs?|clavicle|fissures?|chest|thorax|bilaterally|(?:left|right)(?=\s*(?:[.,;]|$))|region|"
    r"joints?|knees?|hips?|ankles?|feet|foot|wrists?|hands?|elbows?|mediastinum|svc|atrium|shoulder|humerus|trachea)(?![a-z0-9])(?:\s+(?:lobe|lung|base|apex|side|bilaterally)\b)?")
_VERBAL = re.compile(r"may|might|could|can|would|suggest|versus|vs|represent|xxxx|favor|felt|suspicious|concerning")


def phrase_span(sentence: Sentence, mention: Mention, status: Status, mentions: Sequence[Mention]) -> tuple[int, int]:
    """Span of the words that state a mention, readable alone: its adjectives, the site after it, the deciding cue."""
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
    site = _SITE.match(text, end, sentence.end)
    if site and site.end() <= ceiling and not sentence.broken(end, site.end()):
        end = site.end()
    if status.start >= 0:
        start = min(start, status.start)
        if status.certainty == "uncertain":  # "opacity that may represent pneumonia": the verb needs its subject.
            low = max([at for at in sentence.breaks if at < status.start], default=sentence.start)
            before = [m.start for m in mentions if low <= m.start and m.end <= status.start]
            low = before[-1] if before else low
            if status.start - low < 60 and text[low].isalnum() and _VERBAL.match(text, status.start):
                start = min(start, low)
    if status.end >= 0:
        end = max(end, status.end)
    while start < mention.start and text[start] in "/,:( ":
        start += 1
    return start, end
