"""The Gemini API's address, JSON schemas and error details in its dialect, shared by its two clients."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from data_prep.extract.llm.limits import parse_retry_after

VENDOR = "generativelanguage.googleapis.com"
FILTERED = ("SAFETY", "RECITATION", "PROHIBITED_CONTENT", "BLOCKLIST")  # Why an answer may have no text.
_TYPES = {"string": "STRING", "integer": "INTEGER", "number": "NUMBER", "boolean": "BOOLEAN", "array": "ARRAY",
          "object": "OBJECT"}
_RETRY_DELAY = re.compile(r'"?retry_?delay"?\s*:\s*"?([0-9.]+s)"?', re.IGNORECASE)


def gemini_schema(schema: Mapping[str, Any], *, ordered: bool) -> dict[str, Any]:
    """The schema as the API wants it: capital types, `nullable`, no empty enum value.

    "" among the values of an enum becomes "none", which the reader of replies takes for not stated.

    Args:
      schema: a plain JSON schema.
      ordered: state the order of the properties (otherwise the API writes them by the alphabet); google-generativeai
        does not know how to.
    """
    if "anyOf" in schema:
        inner = [gemini_schema(option, ordered=ordered) for option in schema["anyOf"] if option.get("type") != "null"]
        return {**inner[0], "nullable": True}
    found: dict[str, Any] = {"type": _TYPES[schema["type"]]}
    if "enum" in schema:
        found["enum"] = [value or "none" for value in schema["enum"]]
        found["format"] = "enum"
    if "items" in schema:
        found["items"] = gemini_schema(schema["items"], ordered=ordered)
    if "properties" in schema:
        found["properties"] = {name: gemini_schema(value, ordered=ordered)
                               for name, value in schema["properties"].items()}
        found["required"] = list(schema.get("required", ()))
        if ordered:
            found["property_ordering"] = list(schema["properties"])
    return found


def retry_delay(header: str | None, body: Any) -> float | None:
    """Seconds to wait, from the Retry-After header or the RetryInfo in the error's body."""
    seconds = parse_retry_after(header)
    if seconds is None and body:
        match = _RETRY_DELAY.search(body if isinstance(body, str) else json.dumps(body, default=str))
        seconds = parse_retry_after(match[1]) if match else None
    return seconds
