"""Text plumbing of the rules extractor: normalised text of equal length, one regex for all literals, sentences."""

from __future__ import annotations

import re
from collections.abc import Iterable

_SPACES = str.maketrans(dict.fromkeys("\n\r\t\f\v\u00a0-\u2010\u2011\u2012\u2013\u2014_", " ") | {"\u2019": "'"})


def normalise(text: str) -> str:
    """Lower case, with hyphens, dashes and white space as spaces; every character keeps its offset."""
    lowered = text.lower()
    if len(lowered) != len(text):  # A few letters grow when lowered; spans must not move.
        lowered = "".join(c.lower() if len(c.lower()) == 1 else c for c in text)
    return lowered.translate(_SPACES)


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


def compile_literals(literals: Iterable[str]) -> re.Pattern[str]:
    """One regex that finds the longest of many literals at each offset, as whole words.

    The literals share their prefixes (a trie), so that time hardly depends on their number. A space matches a run.
    """
    trie: dict = {}
    for literal in literals:
        node = trie
        for c in literal:
            node = node.setdefault(c, {})
        node[""] = {}
    # (?![a-z0-9]) sits inside the pattern: a literal that ends inside a word gives way to a shorter one that does not.
    return re.compile(rf"(?<![a-z0-9]){_pattern(trie)}")


def _pattern(node: dict) -> str:
    options = [(" +" if c == " " else re.escape(c)) + _pattern(child) for c, child in node.items() if c]
    if not options:
        return "(?![a-z0-9])"
    if "" in node:
        options.append("(?![a-z0-9])")
    return options[0] if len(options) == 1 else f"(?:{'|'.join(options)})"


def key(text: str) -> str:
    """The literal that a match of `compile_literals` stands for."""
    return " ".join(text.split()) if "  " in text else text


_ABBREVIATIONS = frozenset(("dr", "mr", "mrs", "ms", "vs", "approx", "e.g", "i.e", "cf", "resp", "a.p", "p.a"))
_BOUNDARY = re.compile(r"[.!?;]+(?=\s|$|[A-Z(])|\n\s*\n|\n(?=\s*(?:[-*•]|\d+[.)])\s)|(?<=\s)(?=\d{1,2}[.)]\s+[A-Z])")
_ITEM = re.compile(r"\s*(?:[-*•]+|\(?\d{1,2}[.)])\s+")


def sentences(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """Spans of the sentences of `text[start:end]`, without list numbers, bullets, outer white space and full stops.

    Decimals, abbreviations ("Dr. Hall", "approx. 3 cm") and the wrapping of lines do not end a sentence; semicolons,
    blank lines, list items and a full stop without a following space ("apex.There") do.
    """
    spans, left = [], start
    for match in _BOUNDARY.finditer(text, start, end):
        if match.group()[:1] == "." and _is_abbreviation(text, left, match):
            continue
        _append(spans, text, left, match.start())
        left = match.end()
    _append(spans, text, left, end)
    return spans


def _is_abbreviation(text: str, left: int, match: re.Match) -> bool:
    word = text[max(left, match.start() - 8):match.start()].rsplit(None, 1)
    following = text[match.end():match.end() + 2].strip()[:1]
    if not word or match.end() - match.start() > 1:
        return False
    last = word[-1].lower().lstrip("(")
    if last in ("no", "fig"):
        return following.isdigit()
    if last in ("l", "r", "st", "al", "etc", "inc"):
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
