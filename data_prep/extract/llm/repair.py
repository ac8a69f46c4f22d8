"""Bounded repair of a language model's JSON: fences, words around it, a lost end. Never guesses a value.

Whatever is repaired is named, so that it can be counted. What cannot be mended within these bounds is a `ReplyError`.
"""

from __future__ import annotations

import json
import re
from typing import Any

# A reply far beyond what any report needs is a fault of the server or a model that repeats itself.
MAX_CHARACTERS = 64_000
_MAX_STARTS = 8  # "{" that are tried before a reply counts as prose.
_MAX_CUTS = 16  # Places at which a truncated reply is cut back before it is given up.

_DECODER = json.JSONDecoder(strict=False)  # Not strict: raw line breaks inside quotes are common and harmless.
_FENCE = re.compile(r"```[A-Za-z]*[ \t]*\n?(.*?)(?:```|\Z)", re.DOTALL)
_TRAILING_COMMA = re.compile(r",(\s*[}\]])")


class ReplyError(Exception):
    """A reply that cannot be used. `reason` is one of few fixed phrases: it never holds words of the reply."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def load_object(text: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The first JSON object of a reply.

    Args:
      text: the reply as it came.

    Returns:
      (object, repairs): repairs are names among "fence", "prose", "trailing comma", "truncated".

    Raises:
      ReplyError: empty, too long, or no object can be read.
    """
    if not text.strip():
        raise ReplyError("empty reply")
    if len(text) > MAX_CHARACTERS:
        raise ReplyError("reply too long")
    repairs: list[str] = []
    body = text.strip().lstrip("\ufeff")
    fence = _FENCE.search(body)
    if fence and "{" in fence[1] and "{" not in body[:fence.start()]:
        if fence.start() or body[fence.end():].strip():
            repairs.append("prose")
        repairs.append("fence")
        body = fence[1].strip()
    starts = [match.start() for _, match in zip(range(_MAX_STARTS), re.finditer(r'\{(?=\s*(?:"|\}|\Z))', body))]
    for start in starts:  # The first that is an object; a lost end before the next one, which lies inside it.
        value, end, repair = _decode(body, start) or _close(body, start) or (None, 0, "")
        if not value:
            continue
        if start or body[end:].strip():
            repairs.append("prose")
        return value, tuple(dict.fromkeys([*repairs, *filter(None, [repair])]))
    raise ReplyError("JSON that cannot be repaired" if starts else "no JSON in the reply")


def _decode(body: str, start: int) -> tuple[dict[str, Any], int, str] | None:
    """(object, its end, repair) of a complete object at `start`."""
    for repair in ("", "trailing comma"):
        candidate = body[:start] + _TRAILING_COMMA.sub(r"\1", body[start:]) if repair else body
        try:
            value, end = _DECODER.raw_decode(candidate, start)
        except (json.JSONDecodeError, RecursionError):
            continue
        return (value, end + len(body) - len(candidate), repair) if isinstance(value, dict) else None
    return None


def _close(body: str, start: int) -> tuple[dict[str, Any], int, str] | None:
    """A truncated object without its unfinished last element: what is kept was complete."""
    text = body[start:]
    ends = [match.end() for match in re.finditer(r"[}\]]|(?<=[\w\"])(?=\s*,)", text)]
    for cut in reversed(ends[-_MAX_CUTS:]):
        opened, in_string = _open_brackets(text[:cut])
        if in_string or not opened:
            continue
        closing = "".join("}" if bracket == "{" else "]" for bracket in reversed(opened))
        try:
            value = json.loads(text[:cut] + closing, strict=False)
        except (json.JSONDecodeError, RecursionError):
            continue
        if isinstance(value, dict) and value:
            return value, len(body), "truncated"
    return None


def _open_brackets(text: str) -> tuple[list[str], bool]:
    opened: list[str] = []
    in_string = escaped = False
    for character in text:
        if escaped:
            escaped = False
        elif in_string:
            if character == "\\":
                escaped = True
            elif character == '"':
                in_string = False
        elif character == '"':
            in_string = True
        elif character in "{[":
            opened.append(character)
        elif character in "}]" and opened:
            opened.pop()
    return opened, in_string
