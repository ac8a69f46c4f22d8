"""Puts a job's question about many reports to the model: bounded, resumable, and never dearer than allowed.

Whatever happens, every different report ends as one of: valid, quarantined with the raw reply, or without a reply (and
asked again next time). Run again after any stop, `kill -9` included, it asks only what has no answer yet.
"""

from __future__ import annotations

import asyncio
import dataclasses
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TextIO

from data_prep.extract import client as clients
from data_prep.extract.cache import FAILED, INVALID, OVER, TAKEN, VALID, Cache, Entry, Spent
from data_prep.extract.client import Client, ClientError, Reply, Request
from data_prep.extract.jobs import Job
from data_prep.extract.limits import RateLimiter, backoff
from data_prep.extract.pricing import FREE, most_tokens
from data_prep.extract.repair import MAX_CHARACTERS, ReplyError
from data_prep.extract.survey import Survey, question_tokens, survey, unfinished
from lgdea_jax.cli import UserError

_POLL = 0.2  # Seconds between looks at what another process is asking.
_KEPT_CHARACTERS = 16 * MAX_CHARACTERS  # Of a raw reply in quarantine.
_REASK = ("\n\nYour previous reply could not be used ({reason}). Reply again with one JSON object as described, and "
          "nothing else.")


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a run did.

    Attributes:
      asked: different reports that had to be asked; valid, quarantined, failed, left: what became of them (left: not
        asked because the money was over). asked = valid + quarantined + failed + left.
      calls: requests sent; tokens_in, tokens_out: as counted by the server; cost: of this run; seconds: it took.
      dropped, repairs, flags: counts over the valid replies of this run.
      reasons: of quarantined and failed reports.
    """

    asked: int
    valid: int
    quarantined: int
    failed: int
    left: int
    calls: int
    tokens_in: int
    tokens_out: int
    cost: float
    seconds: float
    dropped: Counter[str]
    repairs: Counter[str]
    flags: Counter[str]
    reasons: Counter[str]

    def lines(self, currency: str) -> list[str]:
        """The summary in words."""
        found = [f"asked {self.asked}: valid {self.valid}, quarantined {self.quarantined}, without a reply "
                 f"{self.failed}, left {self.left}; {self.calls} requests, {self.tokens_in:,} tokens in, "
                 f"{self.tokens_out:,} out, {self.cost:.4f} {currency}, {self.seconds:.0f} s"]
        for name, counts in (("dropped", self.dropped), ("repaired", self.repairs), ("flagged", self.flags),
                             ("not usable", self.reasons)):
            if counts:
                found.append(f"{name}: " + ", ".join(f"{n} x {what}" for what, n in counts.most_common(12)))
        return found


class _OutOfBudget(Exception):
    """The next request might cost more than is left."""


class Progress:
    """Live counts on stderr: a line that is rewritten on a terminal, one every half minute elsewhere."""

    def __init__(self, total: int, stream: TextIO | None) -> None:
        self._total, self._stream = total, stream
        self._started = self._shown = time.monotonic()
        self._terminal = bool(stream) and stream.isatty()

    def show(lines: Iterable[str], stream: TextIO) -> None:
    """Prints lines."""
    for line in lines:
        print(line, file=stream, flush=True)
