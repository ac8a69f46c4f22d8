"""A report with its language, and a question about it or about a part of it."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple


class Text(NamedTuple):
    """A report and its language (ISO 639-1), "" where that is not stated."""

    report: str
    language: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
    """One question: a text that is put to the model once.

    Attributes:
      key: the address of its reply; text: the report or a part of it, without outer white space.
      language: whose prompt is sent, "" where the prompt is the same for all; vote: number of the pass, from 0.
    """

    key: bytes
    text: str
    language: str = ""
    vote: int = 0
