"""Puts a job's question about many reports to the model: bounded, resumable, and never dearer than allowed.

Whatever happens, every different report ends as one of: valid, quarantined with the raw reply, or without a reply (and
asked again next time). Run again after any stop, `kill -9` included, it asks only what has no answer yet.
"""

from __future__ import annotations

import asyncio
import dataclasses
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TextIO

from data_prep.extract.llm.cache import FAILED, INVALID, OVER, TAKEN, VALID, Cache, Entry, Spent
from data_prep.extract.llm.clients import client as clients
from data_prep.extract.llm.clients.client import Client, ClientError, Reply, Request
from data_prep.extract.llm.jobs import PROMPT_CUT, Job
from data_prep.extract.llm.limits import RateLimiter, backoff
from data_prep.extract.llm.pricing import FREE, Price, most_tokens
from data_prep.extract.llm.quarantine import CUT
from data_prep.extract.llm.questions.question import Question
from data_prep.extract.llm.repair import MAX_CHARACTERS, ReplyError
from data_prep.extract.llm.survey import Asked, Survey, question_tokens, survey, unfinished
from data_prep.extract.llm.tasks import Answer
from lgdea_jax.errors import UserError
from lgdea_jax.runtime.progress import Progress

_POLL = 0.2  # Seconds between looks at what another process is asking.
_UNSAID = 5.0  # Seconds of a wait that need no words.
KEPT_CHARACTERS = 16 * MAX_CHARACTERS  # Of a raw reply in quarantine.
REASK = ("\n\nYour previous reply could not be used ({reason}). Reply again with one JSON object as described, and "
          "nothing else.")


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a run did.

    Attributes:
      asked: questions, one for each different report, or for each part and pass of it; valid, quarantined, failed,
        left: what became of them (left: not asked because the money was over). asked = valid + quarantined + failed +
        left.
      calls: requests sent; tokens_in, tokens_out: as counted by the server; cost: of this run; seconds: it took.
      dropped, repairs, flags: counts over the valid replies of this run.
      reasons: of quarantined and failed questions.
      loading: seconds of `seconds` until the first question could be asked.
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
    loading: float = 0.0

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


class CostProgress:
    """The progress bar of a run with the money spent and an estimate of the rest, at the rates so far."""

    def __init__(self, total: int, currency: str, *, active: bool) -> None:
        self._bar = Progress(total, "report", active=active and total > 0)
        self._total, self._currency, self._started = total, currency, time.monotonic()

    def show(self, done: int, cost: float, *, last: bool = False) -> None:
        """Shows reports that are done and what they cost; `last` leaves the line."""
        rest = (self._total - done) / done if done else 0.0
        self._bar.show(done, seconds_left=(time.monotonic() - self._started) * rest, force=last,
                       note=f"spent {cost:.4f} {self._currency}, about {cost * rest:.4f} more")
        if last:
            self._bar.end()


class _Run:
    """One run over the reports of a job; its counters."""

    def __init__(self, job: Job, cache: Cache, client: Client, progress: CostProgress) -> None:
        self._job, self._cache, self._client, self._progress = job, cache, client, progress
        settings = job.settings
        self._price = job.price or FREE
        self._limiter = RateLimiter(settings.requests_per_minute, settings.tokens_per_minute)
        self._later: list[Question] = []
        self._under_way = self._waiting = 0
        self._failures_in_a_row = 0
        self._answered = False
        self._refused: list[tuple[bytes, Entry]] = []  # Before the first answer: by whose fault is not known yet.
        self.stopped = False
        self.loading = 0.0
        self.finished: Counter[str] = Counter()  # Answered before their turn came, by earlier runs or other processes.
        self.calls = self.tokens_in = self.tokens_out = 0
        self.cost = 0.0
        self.statuses: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.repairs: Counter[str] = Counter()
        self.flags: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()

    async def all(self, questions: Iterator[Question]) -> None:
        """Asks every question, so many at a time; then handles those that another process had claimed."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._client.at_once):
                group.create_task(self._worker(questions))
        while self._later and not self.stopped:
            waiting, self._later = self._later, []
            self._cache.reap()
            statuses = self._cache.statuses(question.key for question in waiting)
            for question in waiting:
                if statuses.get(question.key, FAILED) == FAILED:
                    await self._one(question)
                else:
                    self.statuses[statuses[question.key]] += 1
            if self._later:
                await asyncio.sleep(_POLL)
        for key, entry in self._refused if self._answered else ():  # It answers others: the reports' fault.
            self._cache.put(key, self._job.scope, dataclasses.replace(entry, status=INVALID))
            self.statuses += Counter({INVALID: 1, FAILED: -1})

    async def _worker(self, questions: Iterator[Question]) -> None:
        for question in questions:  # Shared by the workers: each takes the next one.
            await self._one(question)
            if self.stopped:
                return

    async def _one(self, question: Question) -> None:
        key = question.key
        bound = cost_bound(self._job, self._price, question, self._job.max_tokens)
        while True:
            claimed = self._cache.claim(key, self._job.scope, bound, self._job.settings.max_cost)
            if claimed != OVER:
                break
            if self.stopped or not self._under_way:
                self.stopped = True
                return
            await asyncio.sleep(0.05)  # Requests under way are claimed at more than they will cost.
        if claimed == TAKEN:
            self._later.append(question)
            return
        self._under_way += 1
        try:
            entry, used = await self._answer(question)
        except _OutOfBudget:  # Its claim is free for the others, and its turn comes again.
            self._cache.release(key)
            self._later.append(question)
            return
        except asyncio.CancelledError:
            self._cache.book_lost(self._job.scope, bound)  # The server may charge what it was asked.
            self._cache.release(key)
            raise
        except BaseException:
            self._cache.release(key)
            raise
        finally:
            self._under_way -= 1
        self._cache.put(key, self._job.scope, entry, used)
        self.statuses[entry.status] += 1
        if entry.status != VALID:
            self.reasons[entry.reason] += 1
        if entry.reason.startswith((clients.REFUSED, clients.TOO_LONG)) and entry.status == FAILED:
            self._refused.append((key, entry))
        self._progress.show(sum(self.statuses.values()), self.cost)

    async def _answer(self, question: Question) -> tuple[Entry, Spent]:
        """The entry to store and what its replies took: asks, reads, and asks again where the reply cannot be used."""
        job, suffix, reason, reply, limit = self._job, "", "", Reply("", 0, 0), self._job.max_tokens
        used = Spent()
        for ask in range(job.settings.asks):
            request = job.request(question, suffix, limit)
            bound = cost_bound(job, self._price, question, limit)
            try:
                # What the first reply took is not booked yet, and one with more room may cost more than was claimed.
                if ask and not self._cache.claim_more(question.key, job.scope, bound + used.cost,
                                                      job.settings.max_cost):
                    raise _OutOfBudget
                reply = await self._ask(request, bound)
            except _OutOfBudget:
                if not ask:
                    raise
                return Entry(FAILED, f"{reason}, and no money for another try", reply.text), used
            except ClientError as error:
                return self._unanswered(error, reply.text), used
            used = self._charge(used, request, reply)
            try:
                answer = job.read(reply, question, limit)
            except ReplyError as error:
                reason = error.reason
                if reason == PROMPT_CUT:
                    break  # It would be cut again.
                if reason.startswith(CUT):
                    limit *= 2
                else:
                    suffix = REASK.format(reason=reason)
                continue
            self.dropped.update(answer.dropped)
            self.repairs.update(answer.repairs)
            self.flags.update(answer.flags)
            return valid_entry(answer, reply), used
        return Entry(INVALID, reason, reply.text[:KEPT_CHARACTERS], reply.form), used

    def _unanswered(self, error: ClientError, reply: str) -> Entry:
        """What a request that finally failed means for its report, or for the whole run."""
        where = self._job.endpoint.base_url or "the endpoint"
        if error.kind == clients.AUTH:
            raise clients.key_refused(self._job.endpoint, error.status)
        if error.kind == clients.NOT_FOUND:
            raise UserError(f"{where} does not know the model {self._job.settings.model!r}, or its path is wrong (404)")
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= max(8, 2 * self._job.settings.concurrency):
            raise UserError(f"the last {self._failures_in_a_row} requests to {where} failed ({error}): what was "
                            "answered is kept; run the same command again to go on")
        if error.kind in clients.TRANSIENT:
            return Entry(FAILED, f"{error} after {self._job.settings.attempts} tries", reply)
        if error.kind == clients.NOT_SERVED or not self._answered:
            return Entry(FAILED, str(error), reply)  # Perhaps it refuses everything: not the report's fault.
        return Entry(INVALID, str(error), reply)

    async def _ask(self, request: Request, bound: float) -> Reply:
        """One reply, through passing failures; `bound` is what it may cost."""
        settings = self._job.settings
        tokens = question_tokens(request.prompt, request.report)
        for attempt in range(settings.attempts):
            await self._limiter.acquire(tokens + self._job.task.typical_tokens)
            await self._afford()
            self.calls += 1
            try:
                reply = await self._client.ask(request)
            except ClientError as error:
                if error.kind in clients.MAYBE_CHARGED and bound:
                    self._cache.book_lost(self._job.scope, bound)
                    self.cost += bound
                if error.kind not in clients.TRANSIENT or attempt == settings.attempts - 1:
                    raise
                delay = backoff(attempt, error.retry_after, base=self._job.base_wait)
                if error.retry_after is not None and self._limiter.pause(delay) and delay > _UNSAID:
                    show([f"the server asks for a wait of {error.retry_after:.0f} s: waiting {delay:.0f} s"],
                         sys.stderr)
                await asyncio.sleep(delay)
                continue
            self._failures_in_a_row, self._answered = 0, True
            return reply
        raise AssertionError("attempts is at least 1")

    async def _afford(self) -> None:
        """Waits until another request may be sent. Raises `_OutOfBudget` where no request under way can free money."""
        limit = self._job.settings.max_cost
        self._waiting += 1
        try:
            while limit and not self._cache.affordable(self._job.scope, limit):
                if self._waiting >= self._under_way:
                    raise _OutOfBudget
                await asyncio.sleep(0.02)  # They are claimed at more than they will cost.
        finally:
            self._waiting -= 1

    def _charge(self, used: Spent, request: Request, reply: Reply) -> Spent:
        """`used` and what this reply took."""
        took = spent_on(self._price, request, reply)
        self.tokens_in += took.tokens_in
        self.tokens_out += took.tokens_out
        self.cost += took.cost
        return used.plus(took)


def cost_bound(job: Job, price: Price, question: Question, limit: int) -> float:
    """What one request with a question may cost at most, with a reply of at most `limit` tokens."""
    prompt = job.task.prompt_for(question.language)
    return price.cost(most_tokens(prompt) + most_tokens(question.text) + len(REASK) + 64, limit)


def valid_entry(answer: Answer, reply: Reply) -> Entry:
    """A usable reply as it is stored."""
    return Entry(VALID, "", reply.text, reply.form, answer.statements, answer.unsupported)


def spent_on(price: Price, request: Request, reply: Reply) -> Spent:
    """What a reply took. A server that counts nothing is charged by our estimate."""
    estimate = question_tokens(request.prompt, request.report)
    tokens_in = reply.tokens_in or estimate
    tokens_out = reply.tokens_out or most_tokens(reply.text[:MAX_CHARACTERS]) // 3
    return Spent(1, tokens_in, tokens_out, estimate, price.cost(tokens_in, tokens_out))


async def _run(reports: Iterable[Asked], job: Job, cache: Cache, progress: CostProgress) -> _Run:
    started = time.monotonic()
    client = clients.open_client(job.endpoint)
    run = _Run(job, cache, client, progress)
    run.loading = time.monotonic() - started
    try:
        await run.all(unfinished(reports, job, cache, run.finished))
    finally:
        await client.close()
    return run


def extract(reports: Callable[[], Iterable[Asked]], job: Job, *, surveyed: Survey | None = None,
            progress: bool = False) -> Summary:
    """Asks about every report that has no answer yet.

    Args:
      reports: gives them, each time from the beginning; equal and empty ones may occur.
      job: what to ask of whom; its cache receives every reply as it comes.
      surveyed: what `survey` found, if it has been called.
      progress: show progress on stderr.

    Returns:
      The summary; answers are read with `jobs.Replies`.

    Raises:
      UserError: the endpoint refuses the key or the model, or does not answer any more; no price for a limit.
    """
    started = time.monotonic()
    with Cache(job.cache) as cache:
        cache.reap()
        ahead = surveyed or survey(reports(), job, cache, screen=False)
        if not ahead.questions:
            empty: Counter[str] = Counter()
            return Summary(0, 0, 0, 0, 0, 0, 0, 0, 0.0, time.monotonic() - started, empty, empty, empty, empty)
        bar = CostProgress(ahead.questions, (job.price or FREE).currency, active=progress)
        try:
            run = asyncio.run(_run(reports(), job, cache, bar))
        except BaseExceptionGroup as group:
            mistakes = group.subgroup(UserError)
            full = group.subgroup(sqlite3.Error)
            if mistakes is None and full is not None:
                raise _unwritable(job, _first(full)) from None
            if mistakes is None:
                raise
            raise _first(mistakes) from None  # Workers fail together: one error is enough.
        except sqlite3.Error as error:
            raise _unwritable(job, error) from None
        if not run.stopped:  # Another process answered some since they were surveyed.
            run.statuses[VALID] += max(0, run.finished[VALID] - ahead.answered.get(VALID, 0))
            run.statuses[INVALID] += max(0, run.finished[INVALID] - ahead.answered.get(INVALID, 0))
        done = sum(run.statuses.values())
        bar.show(done, run.cost, last=True)
        return Summary(
            ahead.questions, run.statuses[VALID], run.statuses[INVALID], run.statuses[FAILED],
            max(0, ahead.questions - done), run.calls, run.tokens_in, run.tokens_out, run.cost,
            time.monotonic() - started, run.dropped, run.repairs, run.flags, run.reasons,
            run.loading)


def _unwritable(job: Job, error: BaseException) -> UserError:
    return UserError(f"cannot write the reply cache {job.cache} ({error}): what was answered is kept")


def _first(group: BaseExceptionGroup) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def show(lines: Iterable[str], stream: TextIO) -> None:
    """Prints lines."""
    for line in lines:
        print(line, file=stream, flush=True)
