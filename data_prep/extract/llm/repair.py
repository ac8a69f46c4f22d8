"""Bounded repair of a language model's JSON: reasoning, fences, words around it. Never guesses a value.

Whatever is repaired is named, so that it can be counted. What cannot be mended within these bounds is a `ReplyError`;
so is a reply that lost its end: what is missing might be what matters.
"""

from __future__ import annotations

import json
import re
from typing import Any

# A reply far beyond what any report needs is a fault of the server or a model that repeats itself.
MAX_CHARACTERS, MAX_REASONING = 64_000, 1_000_000
_MAX_STARTS = 200  # "{" that are tried.

_DECODER = json.JSONDecoder(strict=False)  # Not strict: raw line breaks inside quotes are common and harmless.
_START = re.compile(r'\{(?=\s*")')
_TRAILING_COMMA = re.compile(r",(\s*[}\]])")
# What a model thinks before it answers, in the marks of DeepSeek, Qwen, Magistral and gpt-oss. A template may have
# written the opening mark already; one without an end was cut off, and everything after it is thought.
_THOUGHT = "think|thinking|thought|thoughts|reasoning|reflection|analysis|scratchpad"
_MARK = re.compile(r"<|\[/?[A-Za-z]|\Aanalysis")  # What any of them begins with.
_REASONING = (
    re.compile(rf"<(?:\|begin_of_)?({_THOUGHT})\|?>.*?(?:</\1>|<\|end_of_\1\|>|\Z)", re.DOTALL | re.IGNORECASE),
    re.compile(rf"\[({_THOUGHT})\].*?(?:\[/\1\]|\Z)", re.DOTALL | re.IGNORECASE),
    re.compile(r"<\|channel\|>\s*(?:analysis|commentary).*?(?=<\|channel\|>\s*final|\Z)", re.DOTALL),
    re.compile(r"\Aanalysis(?=[^{]).*?(?:assistantfinal|\Z)", re.DOTALL),
    re.compile(rf"\A.*(?:</(?:{_THOUGHT})>|<\|end_of_(?:{_THOUGHT})\|>|\[/(?:{_THOUGHT})\])",
               re.DOTALL | re.IGNORECASE),
)


# The same words time and again at the end: a model that will not come to one. Of whole statements three in a row do.
_REPEATED = re.compile(r"(?:(.{12,99}?)\1{5,}|(.{100,480}?)\2{2,}).{0,480}\Z", re.DOTALL)
_REPEATED_TAIL = 2400

REPEATS = "the reply repeats itself"


def repeats(text: str) -> bool:
    """Whether a reply that has no end says the same words over and over."""
    return _REPEATED.search(text[-_REPEATED_TAIL:]) is not None


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
    repairs: list[str] = []
    body = text.strip().lstrip("\ufeff")
    for pattern in _REASONING if _MARK.search(body) else ():
        cut = pattern.sub(" ", body)
        repairs += ["reasoning"] * (cut != body)
        body = cut
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


def _decode(body: str, start: int) -> tuple[dict[str, Any] | None, int, str]:
    """(object or None, its end, repair) of a complete object at `start`."""
    for repair in ("", "trailing comma"):
        candidate = body[:start] + _TRAILING_COMMA.sub(r"\1", body[start:]) if repair else body
        try:
            value, end = _DECODER.raw_decode(candidate, start)
        except (json.JSONDecodeError, RecursionError):
            continue
        return value, end + len(body) - len(candidate), repair
    return None, start, ""
