"""Misspelt names of findings: a word that is none of ours and a slip away from one of them is taken for it.

A slip is a letter too many, too few, wrong, or two that changed places; a long word may have two. Words that reports
spell on purpose are left alone, so that "perfusion" stays what it is.
"""

from __future__ import annotations

import functools
import itertools
import re
import unicodedata
from collections.abc import Iterator, Mapping

from data_prep.extract.rules import lexicon

# Shorter words have too many neighbours.
_SHORTEST = 6
_TWO_SLIPS = 11
# Words that are a slip away from a finding and mean something else.
_OTHER_WORDS = frozenset((
    "clarification", "clarifications", "consolidating", "densify", "destiny", "empyema", "enlarge", "enlarges",
    "granulomatosis", "hernial", "infiltrated", "infiltrating", "infiltrative", "interlobar", "intralobular", "lesson",
    "lessons", "module", "modules", "opacifies", "opacify", "pericardium", "spondylitis", "spondylolysis", "starring"))
# Soft hyphens and zero-width spaces within a word, and ligatures, come with text that was copied from a page.
_HIDDEN = dict.fromkeys(map(ord, "\u00ad\u200b\u200c\u200d\ufeff"))
_LETTER = "A-Za-z\u00ad\u200b-\u200d\ufb00-\ufb06"
_WORD = re.compile(rf"(?<![{_LETTER}\\])[{_LETTER}]{{{_SHORTEST - 1},}}")


def _shortened(word: str) -> Iterator[str]:
    """The word, and it without any one letter (any two of a long word)."""
    for left_out in range(2 if len(word) < _TWO_SLIPS - 1 else 3):
        for places in itertools.combinations(range(len(word)), left_out):
            yield "".join(letter for i, letter in enumerate(word) if i not in places)


@functools.cache
def _known() -> tuple[frozenset[str], Mapping[str, tuple[str, ...]]]:
    """(all words that the rules know, what is left of a finding's word with letters left out -> the words)."""
    known = {*_OTHER_WORDS, *(word for text in lexicon.build() for word in re.findall(r"[a-z]+", text))}
    shortened: dict[str, tuple[str, ...]] = {}
    for word in sorted(lexicon.SPELT):
        for less in set(_shortened(word)):
            shortened[less] = (*shortened.get(less, ()), word)
    return frozenset(known), shortened


@functools.lru_cache(maxsize=100_000)
def _meant(word: str) -> str:
    """The finding's word that a lower-case word is a slip away from, or ""."""
    known, shortened = _known()
    if word in known:
        return ""
    derived = any(word.endswith(end) and word[:-len(end)] in known for end in ("s", "es", "ed", "ly"))
    near = {other for less in _shortened(word) for other in shortened.get(less, ())}
    close = sorted((slips, other) for other in near for slips in (_slips(word, other),)
                   if slips <= (1 if len(other) < _TWO_SLIPS else 2) and (slips < 2 or word[0] == other[0]))
    # "Cardiomegly" is no adverb of "cardiomeg"; of shorter words either may be meant.
    return close[0][1] if close and not (derived and (close[0][0] > 1 or len(word) < _TWO_SLIPS)) else ""


def _slips(a: str, b: str) -> int:
    """Letters to insert, leave out, replace or swap with their neighbour to make `b` of `a`."""
    before, last = [], list(range(len(b) + 1))
    for i in range(1, len(a) + 1):
        row = [i]
        for j in range(1, len(b) + 1):
            least = min(row[-1] + 1, last[j] + 1, last[j - 1] + (a[i - 1] != b[j - 1]))
            if i > 1 and j > 1 and a[i - 2:i] == b[j - 1] + b[j - 2]:
                least = min(least, before[j - 2] + 1)
            row.append(least)
        before, last = last, row
    return last[-1]


class Corrected:
    """A report with its misspelt findings corrected, and the way back to its own offsets.

    Attributes:
      text: the corrected report.
    """

    def __init__(self, report: str) -> None:
        self._edits: list[tuple[int, int, int]] = []  # Start in `text`, letters there, letters in the report.
        parts, end, start = [], 0, 0
        for match in _WORD.finditer(report):
            word = match.group()
            plain = word if word.isascii() else unicodedata.normalize("NFKC", word.translate(_HIDDEN))
            meant = _meant(plain.lower()) or (plain if plain != word else "")
            if meant:
                meant = meant.upper() if word.isupper() else meant
                meant = meant.capitalize() if word[1:].islower() and word[0].isupper() else meant
                parts += [report[end:match.start()], meant]
                start += match.start() - end
                self._edits.append((start, len(meant), match.end() - match.start()))
                start += len(meant)
                end = match.end()
        self.text = "".join((*parts, report[end:])) if parts else report

    def offset(self, position: int) -> int:
        """The offset in the report of one in `text`; inside a corrected word it is that of the word's start or end."""
        shift = 0
        for start, letters, before in self._edits:
            if position <= start:
                break
            if position < start + letters:
                return start + shift + min(position - start, before)
            shift += before - letters
        return position + shift
