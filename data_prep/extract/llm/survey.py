"""Looks at all reports before any is sent: how many, how many equal, what is answered, what the rest may cost."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Iterable, Iterator

from data_prep.extract.llm.cache import FAILED, VALID, Cache, Spent
from data_prep.extract.llm.data_use import Screening
from data_prep.extract.llm.jobs import Job
from data_prep.extract.llm.pricing import ESTIMATE_ERROR, Price, estimate_all, estimate_tokens

_CHUNK = 2000
_MARKS = 12  # Tokens of the chat's own around prompt and report.
_ENOUGH = 20  # Answers from which on the server's counts correct the estimate.


@dataclasses.dataclass(frozen=True)
class Survey:
    """What lies ahead.

    Attributes:
      reports: non-empty ones; unique: different texts among them.
      valid, invalid: texts with a usable or a quarantined reply; pending: texts to be asked.
      tokens_in, tokens_out: estimate for the pending; measured: whether the server's counts corrected it.
      price: of the model, None where unknown.
      spent: by earlier runs with the same cache.
      screening: likely identifiers.
    """

    reports: int
    unique: int
    valid: int
    invalid: int
    pending: int
    tokens_in: int
    tokens_out: int
    measured: bool
    price: Price | None
    spent: Spent
    screening: Screening

    @property
    def cost(self) -> float | None:
        """Estimate for the pending reports, None where the price is unknown."""
        return None if self.price is None else self.price.cost(self.tokens_in, self.tokens_out)

    def lines(self, job: Job) -> list[str]:
        """The estimate in words."""
        endpoint = job.endpoint
        own = "this process" if endpoint.backend == "local" else f"{endpoint.backend}'s own endpoint"
        where = endpoint.base_url or own
        kind = ("corrected by what the server counted before" if self.measured
                else f"offline estimate, error about {ESTIMATE_ERROR:.0%}")
        lines = [
            f"{job.name} at {where} ({'local' if endpoint.local else 'remote'})",
            f"reports {self.reports}, different {self.unique} ({self.reports - self.unique} duplicates), "
            f"answered {self.valid}, quarantined {self.invalid}, to ask {self.pending}",
            f"tokens: {self.tokens_in:,} in, {self.tokens_out:,} out ({kind}; a reply's length is typical, not known)"]
        if self.price is None:
            lines.append(f"cost: unknown, no price for {job.settings.model!r} (see llm.prices)")
        else:
            price = self.price
            batch = ", batch price" if job.settings.batch else ""
            date = f", list prices of {price.as_of}" if price.as_of else ""
            lines.append(
                f"cost: {self.tokens_in / 1e6:.3f}M x {price.input:g} + {self.tokens_out / 1e6:.3f}M x "
                f"{price.output:g} = {self.cost:.2f} {price.currency}{batch}{date}; "
                f"spent before {self.spent.cost:.2f}"
                + (f"; limit {job.settings.max_cost:.2f}" if job.settings.max_cost else ""))
        return lines


def question_tokens(job: Job, report: str) -> int:
    """Offline estimate of what a question about the report has."""
    return _fixed_tokens(job.task.prompt) + estimate_tokens(report)


@functools.lru_cache(64)
def _fixed_tokens(prompt: str) -> int:
    return estimate_tokens(prompt) + _MARKS


def unfinished(reports: Iterable[str], job: Job, cache: Cache, finished: Counter[str]) -> Iterator[tuple[bytes, str]]:
    """(key, text) of each different report that has no answer yet, in order; equal texts once.

    `finished` counts the statuses of the others.
    """
    for part, statuses in _fresh(reports, job, cache):
        finished.update(status for status in statuses.values() if status != FAILED)
        yield from ((key, text) for key, text in part if statuses.get(key, FAILED) == FAILED)


def _fresh(reports: Iterable[str], job: Job, cache: Cache) -> Iterator[tuple[list[tuple[bytes, str]], dict]]:
    seen: set[bytes] = set()
    part: list[tuple[bytes, str]] = []
    for report in reports:
        text = report.strip()
        key = job.key(text)
        if text and key not in seen:
            seen.add(key)
            part.append((key, text))
            if len(part) == _CHUNK:
                yield part, cache.statuses(key for key, _ in part)
                part = []
    yield part, cache.statuses(key for key, _ in part)


def survey(reports: Iterable[str], job: Job, cache: Cache, *, screen: bool = True) -> Survey:
    """Counts and estimates; sends nothing.

    Args:
      reports: all texts; empty ones are left out.
      job: what would be asked; cache: its replies.
      screen: look for likely identifiers, too.

    Returns:
      The survey.
    """
    spent = cache.spent(job.scope)
    screening = Screening()
    count = unique = valid = pending = tokens = 0

    def counted() -> Iterator[str]:
        nonlocal count
        for report in reports:
            if report.strip():
                count += 1
                yield report

    for part, statuses in _fresh(counted(), job, cache):
        asked = [(i, text) for i, (key, text) in enumerate(part, unique) if statuses.get(key, FAILED) == FAILED]
        unique += len(part)
        pending += len(asked)
        tokens += len(asked) * _fixed_tokens(job.task.prompt) + estimate_all([text for _, text in asked])
        valid += sum(status == VALID for status in statuses.values())
        if screen:
            for i, text in asked:
                screening.add(text, i)
    invalid = unique - pending - valid
    measured = spent.calls >= _ENOUGH and spent.estimated_in > 0 and spent.tokens_in > 0
    ratio = spent.tokens_in / spent.estimated_in if measured else 1.0
    per_reply = spent.tokens_out / spent.calls if measured else job.task.typical_tokens
    return Survey(count, unique, valid, invalid, pending, round(tokens * ratio), round(pending * per_reply), measured,
                  job.price, spent, screening)
