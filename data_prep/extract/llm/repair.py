"""Bounded repair of a language model's JSON: reasoning, fences, words around it. Never guesses a value.

Whatever is repaired is named, so that it can be counted. What cannot be mended within these bounds is a `ReplyError`;
so is a reply that lost its end: what is missing might be what matters.
"""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np

# A reply far beyond what any report needs is a fault of the server or a model that repeats itself.
MAX_CHARACTERS, MAX_REASONING = 64_000, 1_000_000
_MAX_STARTS = 200  # "{" that are tried.

_START = re.compile(r'\{(?=\s*")')
_TRAILING_COMMA = re.compile(r",(\s*[}\]])")
# What a model thinks before it answers stands between marks: those of DeepSeek, Qwen, Seed, Kimi, Cohere and others are
# tags with such a word in their name; Magistral's are in square brackets, MedGemma's are two tokens of no name.
_WORD = r"(?:think|thought|reason|reflect|analysis|scratchpad)"
_MARK = re.compile(rf"(?:[<\u25c1]|&lt;)\s?\|?\s?(/?)\s?(?=[\w:.-]{{0,30}}{_WORD})([\w:.-]{{1,60}})"
                   r"(?:\s[^<>\u25c1\u25b7&]{0,100})?\|?(?:[>\u25b7]|&gt;)"
                   r"|\[(/?)(?:think(?:ing)?|thoughts?|reasoning|reflection|analysis|scratchpad)\]|<unused9(?:4|(5))>",
                   re.IGNORECASE)
_CHANNELS = (  # Those of gpt-oss: its answer is in the channel "final".
    re.compile(r"<\|channel\|>\s*(?:analysis|commentary).*?(?=<\|channel\|>\s*final|\Z)", re.DOTALL),
    re.compile(r"\Aanalysis(?=[^{]).*?(?:assistantfinal|\Z)", re.DOTALL),
)


# The same words time and again at the end: a model that will not come to one. Of whole statements three in a row do.
_SHORT, _LONG, _LONGEST = 12, 100, 480  # Characters of what is repeated: six times, from the second on three times.
_AFTER, _TAIL = 480, 2400  # Characters that may follow, and that are looked at.

REPEATS = "the reply repeats itself"


def repeats(text: str) -> bool:
    """Whether a reply that has no end says the same words over and over."""
    # No regular expression: where the same letter stands a thousand times one takes seconds.
    tail = np.frombuffer(text[-_TAIL:].encode("utf-32-le", "surrogatepass"), "<u4")
    for period in range(_SHORT, min(_LONGEST, len(tail) // 3) + 1):
        differs = np.flatnonzero(tail[period:] != tail[:-period])
        edges = np.concatenate(([-1], differs, [len(tail) - period]))
        long_enough = np.diff(edges) > (5 if period < _LONG else 2) * period
        if np.any(long_enough & (edges[1:] + period >= len(tail) - _AFTER)):
            return True
    return False


class ReplyError(Exception):
    """A reply that cannot be used. `reason` is one of few fixed phrases: it never holds words of the reply."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def load_objects(text: str) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """The JSON objects of a reply, without its reasoning.

    A model may write drafts before its answer: the last object that is what was asked for counts.

    Args:
      text: the reply as it came.

    Returns:
      (objects, repairs): the objects, none inside another, in the order of the text, at least one; repairs are names
      among "reasoning", "fence", "prose", "trailing comma".

    Raises:
      ReplyError: empty, too long, or no object can be read.
    """
    if not text.strip():
        raise ReplyError("empty reply")
    if len(text) > MAX_REASONING:
        raise ReplyError("reply too long")
    stripped = text.strip().lstrip("\ufeff")
    body = _without_thoughts(stripped)
    repairs = ["reasoning"] * (body != stripped)
    if len(body) > MAX_CHARACTERS:
        raise ReplyError("reply too long")
    objects, between, at, tries = [], "", 0, 0
    while start := _START.search(body, at):
        tries += 1
        if tries > _MAX_STARTS:
            raise ReplyError("JSON that cannot be repaired")
        value, end, repair = _decode(body, start.start())
        between += body[at:start.start()]
        if value is None:
            # A draft does not count in place of the broken or unfinished object that follows it.
            objects, at = [], start.start() + 1
            continue
        objects.append(value)
        repairs += [repair] if repair else []
        at = end
    between += body[at:]
    if not objects:
        raise ReplyError("JSON that cannot be repaired" if tries else "no JSON in the reply")
    words = re.sub(r"```[A-Za-z]*", " ", between)
    repairs += ["fence"] * ("```" in between) + ["prose"] * bool(words.strip())
    return objects, tuple(dict.fromkeys(repairs))


def _without_thoughts(text: str) -> str:
    """`text` without what stands between marks of thought.

    A template may have written the opening mark already: all before a closing mark without one is thought. So is all
    after an opening mark that is never closed: the answer is missing.
    """
    for pattern in _CHANNELS if "analysis" in text or "commentary" in text else ():
        text = pattern.sub(" ", text)
    kept, start, inside = [], 0, False
    for mark in _MARK.finditer(text):
        closes = bool(mark[1] or mark[3] or mark[4] or (mark[2] or "").lower().startswith("end"))
        if closes and not inside:
            kept = []
        elif not inside:
            kept += [text[start:mark.start()], " "]
        inside, start = not closes, mark.end()
    return "".join(kept) + ("" if inside else text[start:])


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys differ: of two equal ones nobody can tell which is meant."""
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key occurs twice")
    return value


# Not strict: raw line breaks inside quotes are common and harmless.
_DECODER = json.JSONDecoder(strict=False, object_pairs_hook=_unambiguous)


def _decode(body: str, start: int) -> tuple[dict[str, Any] | None, int, str]:
    """(object or None, its end, repair) of a complete object at `start`."""
    for repair in ("", "trailing comma"):
        candidate = body[:start] + _TRAILING_COMMA.sub(r"\1", body[start:]) if repair else body
        try:
            value, end = _DECODER.raw_decode(candidate, start)
        except (ValueError, RecursionError):  # No JSON, a number with thousands of digits, a key twice.
            continue
        return value, end + len(body) - len(candidate), repair
    return None, start, ""
