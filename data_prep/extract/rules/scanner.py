"""Text plumbing of the rules extractor: normalised text of equal length, a matcher of many literals, sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")

_SPACES = str.maketrans(dict.fromkeys("\n\r\f\v\u00a0-\u2010\u2011\u2012\u2013\u2014_*`", " ") | {"\u2019": "'"})


# Between a label and its answer in a table, or on the line below.
_CELL = re.compile(
    r"(?<=[a-z)])[\t\n](?=(?:yes|no|none|nil|neg|pos|negative|positive|absent|present|normal)\s*(?:[\t\n\r]|$))")
_DASH = re.compile(r"(?<=\s)[-\u2010-\u2014](?=\s|$)")


def normalise(text: str) -> str:
    """The text in lower case, where every character keeps its offset.

    White space (but tabs), hyphens and marks of emphasis are spaces, a dash between spaces is "-", and what parts an
    answer from its label, a tab or the end of the line, is "|".
    """
    lowered = text.lower()
    if len(lowered) != len(text):  # A few letters grow when lowered; spans must not move.
        lowered = "".join(c.lower() if len(c.lower()) == 1 else c for c in text)
    spaced = lowered.translate(_SPACES)
    for match in _CELL.finditer(lowered):
        spaced = f"{spaced[:match.start()]}|{spaced[match.end():]}"
    for match in _DASH.finditer(lowered):  # It parts statements, where one within a word does not.
        spaced = f"{spaced[:match.start()]}-{spaced[match.end():]}"
    return spaced


def expand(pattern: str) -> list[str]:
    """All literals of a pattern with alternatives: `"(a|an|) big (dog|cat)s"` gives six. Groups may nest."""
    texts, position = [""], 0
    while position < len(pattern):
        if pattern[position] != "(":
            texts = [text + pattern[position] for text in texts]
            position += 1
            continue
        depth, start, options = 1, position + 1, []
        for end in range(start, len(pattern)):
            depth += (pattern[end] == "(") - (pattern[end] == ")")
            if depth == 0 or (depth == 1 and pattern[end] == "|"):
                options += expand(pattern[start:end])
                start = end + 1
            if depth == 0:
                break
        texts = [text + option for text in texts for option in options]
        position = end + 1
    return list(dict.fromkeys(" ".join(text.split()) for text in texts)) if "(" in pattern else texts


Piece = tuple[str, int, int]  # A word or a sign, with its start and end in the text.
_PIECE = re.compile(r"[a-z0-9]+|[^a-z0-9\s]")
_END = ""  # In a trie: what the literal that ends here stands for.


def split(text: str, start: int, end: int) -> list[Piece]:
    """The words and signs of `text[start:end]` (normalised)."""
    return [(match.group(), *match.span()) for match in _PIECE.finditer(text, start, end)]


class Literals(Generic[T]):
    """Finds the longest of many literals at each word of a text, as whole words; runs of spaces match one space."""

    def __init__(self, values: Mapping[str, T]) -> None:
        self._trie: dict = {}
        for literal, value in values.items():
            node = self._trie
            for piece in _PIECE.findall(literal):
                node = node.setdefault(piece, {})
            node[_END] = value

    def find(self, pieces: Sequence[Piece]) -> Iterator[tuple[int, int, T]]:
        """(start, end, value) of the literals in a text, in order and without overlaps."""
        i = 0
        while i < len(pieces):
            node, after, found = self._trie.get(pieces[i][0]), i + 1, None
            while node is not None:
                if _END in node:
                    found = (after, node[_END])
                if after == len(pieces):
                    break
                node = node.get(pieces[after][0])
                after += 1
            if found is None:
                i += 1
                continue
            yield pieces[i][1], pieces[found[0] - 1][2], found[1]
            i = found[0]


_ABBREVIATIONS = frozenset(("dr", "mr", "mrs", "ms", "vs", "approx", "e.g", "i.e", "cf", "resp", "a.p", "p.a"))
_BOUNDARY = re.compile(
    r"[.!?]+(?=\s|$|[A-Z(])|[.!](?=[)\]])|[.!?]*;+|\.{2,}|&(?:bull|middot|#8226);|[\u2026\u2022\u25cf\u25aa]"
    r"|</?(?:p|br|li|ul|ol|div|tr|td|th|h\d)\b[^>\n]{0,40}>|\\n(?![a-z])"
    r"|\n\s*\n|\n(?=\s*(?:[-*•]|\(?(?:\d+|[A-Ka-k])[.)])\s)|(?P<line>\n)(?=\s*\S)"
    r"|\|{2,}|(?<=\s)(?=\d{1,2}[.)]\s+[A-Z])|(?P<item>(?<=\s)(?=\(?\d{1,2}\)\s*[A-Za-z]))"
    r"|(?<=[a-z)] )(?P<run_on>)(?=[A-Z][a-z]+ [a-z])")
_ITEM = re.compile(r"\s*(?:(?:[-*•]+|\(?(?:\d{1,2}|[A-Ka-k])[.)])\s+|\(?\d{1,2}\)\s*(?=[A-Za-z]))")
# A line that ends with one of these words goes on in the next line, and so does one before a line that begins so.
_GOES_ON = frozenset((
    "a", "about", "above", "acute", "adjacent", "along", "an", "and", "anterior", "any", "are", "as", "at", "basilar",
    "be", "been", "below", "bilateral", "but", "by", "chronic", "consistent", "definite", "due", "evidence", "focal",
    "for", "from", "has", "have", "in", "interval", "into", "is", "large", "lateral", "left", "lower", "may", "middle",
    "mild", "minimal", "moderate", "new", "no", "nor", "not", "of", "old", "on", "or", "over", "pleural", "posterior",
    "pulmonary", "right", "severe", "small", "than", "that", "the", "their", "these", "this", "to", "trace",
    "unchanged", "upper", "versus", "vs", "was", "were", "which", "with", "within", "without"))
_GOES_ON_AFTER = frozenset((
    "about", "above", "along", "and", "are", "as", "at", "below", "but", "by", "due", "for", "from", "has", "have",
    "in", "is", "lobe", "lobes", "may", "measuring", "nor", "of", "on", "or", "over", "than", "that", "to", "versus",
    "vs", "was", "were", "which", "with", "within"))
# Words that begin a statement, in capitals, where a full stop was left out.
_BEGINS = frozenset((
    "bilateral", "bones", "cardiac", "cardiomediastinal", "costophrenic", "heart", "large", "left", "lung", "lungs",
    "mediastinal", "mediastinum", "mild", "minimal", "moderate", "no", "normal", "pleural", "right", "small", "stable",
    "the", "there", "trachea", "unchanged"))
_WRAP_WIDTH = 60  # Text is hardly ever wrapped to shorter lines.


_ENTITY = re.compile(r"&(?:[a-z]{2,5}|#\d{2,4});$")
_ANSWER = re.compile(r"\s*(?i:yes|no|none|nil|negative|absent|present)\s*(?:[.;,|]|$)")


def sentences(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """Spans of the sentences of `text[start:end]`, without list numbers, bullets, outer white space and full stops.

    Decimals, abbreviations ("Dr. Hall", "approx. 3 cm") and the wrapping of lines do not end a sentence; semicolons,
    blank lines, list items, a line that nobody wrapped, and a full stop without a following space ("apex.There") do.
    """
    spans, left, width = [], start, 0
    for match in _BOUNDARY.finditer(text, start, end):
        mark = match.group()[:1]
        if mark == "." and _is_abbreviation(text, left, match):
            continue
        if mark == ";" and _ENTITY.search(text, max(left, match.start() - 8), match.end()):
            continue
        if mark == "." and _leads(text, match):
            continue
        if mark in ".?" and match.group() != "." and _ANSWER.match(text, match.end()):
            continue  # "Pneumothorax? No.", "Effusion .... none"
        if mark == "?" and not text[max(left, match.start() - 1):match.start()].strip():
            continue  # "? pneumonia" asks about what follows.
        if match["item"] is not None and text.count("(", left, match.start()) > text.count(")", left, match.start()):
            continue
        if match["line"]:
            width = width or max(_WRAP_WIDTH, *map(len, text[start:end].split("\n")))
            if _is_wrapped(text, left, match.start(), end, width):
                continue
        elif match["run_on"] is not None and not _is_run_on(text, left, match.start()):
            continue
        _append(spans, text, left, match.start())
        left = match.end()
    _append(spans, text, left, end)
    return spans


_WORD = re.compile(r"[A-Za-z]+")
_LEADER = re.compile(
    r"\s*[A-Za-z][a-z]*(?: [A-Za-z]+)?\s?\.{3,}\s?[^.\n]{1,40}\.?\s*|\s*[A-Z /]{2,30}\.{3,}\s?[^.\n]{1,40}\s*")


def _leads(text: str, match: re.Match) -> bool:
    """Whether dots lead from a label to its value in a line of its own ("Nodule .... right apex")."""
    start, end = text.rfind("\n", 0, match.start()) + 1, text.find("\n", match.end())
    return match.end() - match.start() > 2 and _LEADER.fullmatch(text, start, len(text) if end < 0 else end) is not None


def _is_wrapped(text: str, left: int, at: int, end: int, width: int) -> bool:
    """Whether the sentence that begins at `left` goes on after the end of a line at `at`."""
    line = text[max(left, text.rfind("\n", 0, at) + 1):at].strip()
    following = text[at:end].lstrip().split("\n", 1)[0]
    last, first = line.rsplit(None, 1)[-1:], following.split(None, 1)[0]
    if _CELLS.search(line) or _ONLY_ANSWER.fullmatch(line):
        return False
    if _ONLY_ANSWER.fullmatch(following.strip()) and line[-1:].isalpha():
        return True  # The answer to the label above.
    if not last or last[0][-1] in ",-/&(" or last[0].lower() in _GOES_ON or not text[left:at].strip():
        return True
    if last[0][-1] in ":|=":
        return not _label(following)
    if first[0].isupper() or _label(following):
        return False
    if not first[0].isalpha() or first.lower().strip(",.;:()") in _GOES_ON_AFTER:
        return True
    return len(line) + 1 + len(first) > width  # The word would not have fitted.


# A line of a table, whose last word is a cell of its own.
_CELLS = re.compile(
    r"\w(?:\t|\s*\|)\s*\S+$|\w\s*(?:\s[-\u2013\u2014]|\.{3,}|[:=])\s+(?i:yes|no|none|nil)$")
_ONLY_ANSWER = re.compile(r"(?i:yes|no|none|nil|negative|positive|absent|present)")
_LABEL = re.compile(r"\s*[A-Za-z][A-Za-z /,&-]{1,40}?\s*[:|=]")


def _label(line: str) -> bool:
    return _LABEL.match(line) is not None


def _is_run_on(text: str, left: int, at: int) -> bool:
    """Whether a capital at `at` begins a statement after one without a full stop ("No effusion Heart normal")."""
    before, word = text[left:at].split(), _WORD.match(text, at)
    return (word.group().lower() in _BEGINS and len(before) > 1 and before[-1].lower() not in _GOES_ON
            and not any(item[0].isupper() for item in before[1:]))


def _is_abbreviation(text: str, left: int, match: re.Match) -> bool:
    word = text[max(left, match.start() - 8):match.start()].rsplit(None, 1)
    following = text[match.end():match.end() + 2].strip()[:1]
    if not word or match.end() - match.start() > 1:
        return False
    last = word[-1].lower().lstrip("(")
    if last in ("no", "fig"):
        return following.isdigit()
    if last in ("l", "r", "lt", "rt", "bilat", "st", "al", "etc", "inc"):
        return following.islower()
    number = len(last) <= 2 and last.isdigit() and not text[left:match.start() - len(last)].strip()
    return number or last in _ABBREVIATIONS


def _append(spans: list[tuple[int, int]], text: str, start: int, end: int) -> None:
    item = _ITEM.match(text, start, end)
    if item:
        start = item.end()
    while start < end and (text[start].isspace() or text[start] in ".,:"):
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    if start < end:
        spans.append((start, end))


def concept_span(sentence: str, concept: str) -> tuple[int, int] | None:
    """The span of a concept in `sentence`: its words, or else its longest word that occurs; None without any.

    White space and case do not matter, but of several spans the first one in capitals is meant, as test sets mark it.
    """
    text = normalise(sentence)
    wanted = normalise(concept).split()
    whole = r"\s+".join(re.escape(word) for word in wanted)
    # "mi" is not sought in "admission"; a concept cut from its word ("tender" of "tenderness") is found all the same.
    tries = [rf"(?<![a-z0-9]){whole}(?![a-z0-9])", whole] if wanted else []
    tries += [rf"\b{re.escape(word)}\b" for word in sorted(wanted, key=len, reverse=True)]
    for pattern in tries:
        spans = [match.span() for match in re.finditer(pattern, text)]
        if spans:
            return next((span for span in spans if sentence[slice(*span)].isupper()), spans[0])
    return None


def masked(text: str, span: tuple[int, int]) -> str:
    """`text` without the words of `span`, which are then no cues nor parts of one ("without complications")."""
    return text[:span[0]] + "\0" * (span[1] - span[0]) + text[span[1]:]
