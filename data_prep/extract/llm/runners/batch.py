"""Extraction through a service's batches (Gemini, OpenAI, or files for vLLM): submit, wait, collect.

A service answers within a day, at half the price of `online`.

Stopped at any moment, the same command goes on with the batches that are under way: their names lie in the reply cache
(`batch_ledger`). A batch of which only our label is known, because we were killed while it was being submitted, is
looked for at the server before anything is submitted again.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import json
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from data_prep.extract.llm.cache import FAILED, INVALID, VALID, Cache, Entry, Spent
from data_prep.extract.llm.clients import client as clients
from data_prep.extract.llm.clients.client import ClientError, Reply, Request
from data_prep.extract.llm.jobs import Job
from data_prep.extract.llm.limits import backoff
from data_prep.extract.llm.pricing import FREE
from data_prep.extract.llm.quarantine import CUT
from data_prep.extract.llm.questions.question import Question
from data_prep.extract.llm.repair import ReplyError
from data_prep.extract.llm.runners.batch_ledger import Batch, Ledger
from data_prep.extract.llm.runners.online import (
    KEPT_CHARACTERS,
    REASK,
    CostProgress,
    Summary,
    cost_bound,
    spent_on,
    valid_entry,
)
from data_prep.extract.llm.survey import Asked, unfinished
from lgdea_jax.errors import UserError
from lgdea_jax.runtime.files import lock

# A request to Gemini with everything in it may have 20 MB; the services take a hundred batches at a time.
_MOST_REQUESTS, _MOST_BYTES, _MOST_BATCHES = 1000, 12_000_000, 20
_LARGER = 16  # Times; of files that lie on our own disk.


@dataclasses.dataclass
class _Item:
    """A question: what is added to it after a reply that could not be used, how often it was asked, and how long the
    reply may be."""

    question: Question
    suffix: str = ""
    asked: int = 0
    limit: int = 0  # Tokens of the reply, 0 for as many as the job says.


class _Run:
    """One run; its counters."""

    def __init__(self, job: Job, cache: Cache, service: Any, progress: CostProgress, items: Iterator[_Item]) -> None:
        self._job, self._cache, self._service, self._progress = job, cache, service, progress
        self._ledger = Ledger(cache, job.scope)
        self._queue = deque(items)
        self._open: dict[Batch, list[_Item]] = {}
        self.spent = Spent()
        self.statuses: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.repairs: Counter[str] = Counter()
        self.flags: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()

    async def all(self) -> None:
        """Goes on with what is under way, then submits and collects until nothing is left, or no money."""
        for batch in self._ledger.under_way():
            name = batch.name or await self._patiently(lambda batch=batch: self._service.find(batch.label))
            if name is None:
                self._requeue(batch)
                continue
            self._ledger.submitted(batch.label, name)
            items = [_Item(self._job.recall(*item), asked=batch.asked) for item in self._ledger.items(batch.label)]
            self._open[Batch(batch.label, name)] = items
        while True:
            while self._queue and self._room() and await self._submit():
                pass
            if not self._open:
                return
            if self._service.waits:
                await asyncio.sleep(self._job.settings.batch_poll)
            for batch in list(self._open):
                await self._look(batch)
            if self._open and not self._service.waits and not self._queue:
                raise UserError(self._service.instruction([batch.name for batch in self._open]))

    def _room(self) -> bool:
        return len(self._open) < _MOST_BATCHES or not self._service.waits

    def _requeue(self, batch: Batch) -> None:
        self._queue.extendleft(_Item(self._job.recall(*item), asked=batch.asked - 1)
                               for item in reversed(self._ledger.items(batch.label)))
        self._ledger.strike_out(batch.label)

    async def _submit(self) -> bool:
        """Submits one batch from the queue; False where there is no money for its first report."""
        job, size, part = self._job, 0, []
        fixed = len(job.task.longest_prompt.encode()) + len(json.dumps(job.task.schema)) + 500
        times = 1 if self._service.waits else _LARGER
        for item in itertools.islice(self._queue, times * _MOST_REQUESTS):
            size += fixed + len(item.question.text.encode("utf-8", "surrogatepass"))
            if part and (size > times * _MOST_BYTES or item.asked != part[0].asked):
                break
            part.append(item)
        price = job.price or FREE
        label, count = self._ledger.write_down(
            [(item.question.key, item.question.text, cost_bound(job, price, item.question, self._limit(item)))
             for item in part], job.settings.max_cost, part[0].asked + 1)
        if not count:
            return False
        items = [self._queue.popleft() for _ in range(count)]
        name = await self._create(label, [self._request(item) for item in items])
        self._ledger.submitted(label, name)
        for item in items:
            item.asked += 1
        self._open[Batch(label, name)] = items
        return True

    def _request(self, item: _Item) -> Request:
        return self._job.request(item.question, item.suffix, self._limit(item))

    def _limit(self, item: _Item) -> int:
        return item.limit or self._job.max_tokens

    async def _create(self, label: str, requests: list[Request]) -> str:
        async def once() -> str:
            try:
                return await self._service.create(label, requests)
            except ClientError as error:
                # It may have been made all the same: that must not happen, or be paid, twice.
                found = await self._service.find(label) if error.kind in clients.MAYBE_CHARGED else None
                if found is None:
                    raise
                return found

        try:
            return await self._patiently(once)
        except UserError as error:
            # Otherwise it stays on the books, and the next run looks for it.
            if not isinstance(error.__cause__, ClientError) or error.__cause__.kind not in clients.MAYBE_CHARGED:
                self._ledger.strike_out(label)
            raise

    async def _patiently(self, call: Callable[[], Any]) -> Any:
        """What the call gives, tried again through passing failures.

        Raises:
          UserError: it fails for good; its cause is the last error.
        """
        job = self._job
        for attempt in range(job.settings.attempts):
            try:
                return await call()
            except ClientError as error:
                last = error
                if error.kind not in clients.TRANSIENT:
                    break
                if attempt < job.settings.attempts - 1:
                    await asyncio.sleep(backoff(attempt, error.retry_after, base=job.base_wait))
        where = job.endpoint.base_url or "the endpoint"
        if last.kind == clients.AUTH:
            raise clients.key_refused(job.endpoint, last.status) from last
        raise UserError(f"{where} does not take batches ({last}): what is under way is remembered; run the same "
                        "command again to go on") from last

    async def _look(self, batch: Batch) -> None:
        try:
            ended = await self._patiently(lambda: self._service.look(batch.name))
        except UserError as error:
            if not isinstance(error.__cause__, ClientError) or error.__cause__.kind != clients.NOT_FOUND:
                raise
            self._collect(batch, (), "the batch is not known any more")
            return
        if ended is not None:
            self._collect(batch, ended.replies, f"the batch has {ended.state}")
            await self._service.forget(batch.name)

    def _collect(self, batch: Batch, replies: tuple[Reply | ClientError, ...], otherwise: str) -> None:
        """Stores the replies of a batch that is over; where it has none, all its reports failed."""
        items, price = self._open.pop(batch), self._job.price or FREE
        again: list[_Item] = []
        entries: list[tuple[bytes, Entry]] = []
        spent = Spent()
        if len(replies) != len(items):  # Nobody can tell which belongs to which.
            lost = sum(cost_bound(self._job, price, item.question, self._limit(item)) for item in items)
            spent = Spent(cost=lost, lost=lost)
            replies = tuple(ClientError(clients.SERVER) for _ in items)
        else:
            otherwise = ""
        for item, reply in zip(items, replies):
            entry = self._entry(item, reply, otherwise)
            if isinstance(reply, Reply):
                spent = spent.plus(spent_on(price, self._request(item), reply))
            if entry.status != VALID and item.asked < self._job.settings.asks and not otherwise:
                entry = dataclasses.replace(entry, status=FAILED)
                cut = entry.reason.startswith(CUT)
                again.append(dataclasses.replace(
                    item, limit=2 * self._limit(item) if cut else 0,
                    suffix=REASK.format(reason=entry.reason) if isinstance(reply, Reply) and not cut else ""))
            else:
                self.statuses[entry.status] += 1
                if entry.status != VALID:
                    self.reasons[entry.reason] += 1
            entries.append((item.question.key, entry))
        self._ledger.strike_out(batch.label, entries, spent)
        self._queue.extend(again)
        self.spent = self.spent.plus(spent)
        self._progress.show(sum(self.statuses.values()), self.spent.cost)

    def _entry(self, item: _Item, reply: Reply | ClientError, otherwise: str) -> Entry:
        if isinstance(reply, ClientError):
            passing = otherwise or reply.kind in clients.TRANSIENT or reply.kind == clients.NOT_SERVED
            return Entry(FAILED if passing else INVALID, otherwise or str(reply), "")
        try:
            answer = self._job.read(reply, item.question, self._limit(item))
        except ReplyError as error:
            return Entry(INVALID, error.reason, reply.text[:KEPT_CHARACTERS], reply.form)
        self.dropped.update(answer.dropped)
        self.repairs.update(answer.repairs)
        self.flags.update(answer.flags)
        return valid_entry(answer, reply)


@contextlib.contextmanager
def _alone(job: Job) -> Iterator[None]:
    """One process at a time collects the batches of a cache."""
    path = Path(f"{job.cache}.batches.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with lock(path, f"another process is waiting for the batches of {job.cache}"):
        yield
        path.unlink()


def extract(reports: Callable[[], Iterable[Asked]], job: Job, *, progress: bool = False) -> Summary:
    """Asks about every report that has no answer yet, in batches; see `online.extract`.

    Raises:
      UserError: the endpoint refuses the key or takes no batches; another process waits for them.
    """
    started = time.monotonic()

    async def run() -> _Run:
        service = clients.open_batches(job.endpoint, job.settings.exchange)
        try:
            made = _Run(job, cache, service, bar, (item for item in items if item.question.key not in waiting))
            await made.all()
        finally:
            await service.close()
        return made

    with _alone(job), Cache(job.cache) as cache:
        cache.reap()
        items = [_Item(question) for question in unfinished(reports(), job, cache, Counter())]
        ledger = Ledger(cache, job.scope)
        waiting = {key for batch in ledger.under_way() for key, _ in ledger.items(batch.label)}
        pending = len({item.question.key for item in items} | waiting)
        bar = CostProgress(pending, (job.price or FREE).currency, active=progress)
        made = asyncio.run(run())
    done = sum(made.statuses.values())
    bar.show(done, made.spent.cost, last=True)
    spent = made.spent
    return Summary(pending, made.statuses[VALID], made.statuses[INVALID], made.statuses[FAILED], pending - done,
                   spent.calls, spent.tokens_in, spent.tokens_out, spent.cost, time.monotonic() - started, made.dropped,
                   made.repairs, made.flags, made.reasons)
