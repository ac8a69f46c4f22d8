"""A job: one task put to one model, with the cache of its replies. Picklable, so that workers can read from it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from data_prep.extract.llm import pricing
from data_prep.extract.llm.cache import FAILED, VALID, Cache, key_of, scope_of
from data_prep.extract.llm.clients.client import Endpoint, Reply
from data_prep.extract.llm.labels import Labels
from data_prep.extract.llm.pricing import Price, fewest_tokens
from data_prep.extract.llm.quarantine import CUT
from data_prep.extract.llm.repair import ReplyError
from data_prep.extract.llm.settings import Settings
from data_prep.extract.llm.tasks import EVIDENCE, Answer, Task, load_task
from data_prep.extract.schema import Extraction
from lgdea_jax.errors import UserError

PROMPT_CUT = "the server read only part of the question: raise its context length"


class Quarantined(Exception):
    """A report without a usable reply; `reason` holds no words of either."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclasses.dataclass(frozen=True)
class Job:
    """What is asked of whom.

    Attributes:
      backend: a key of `client.BACKENDS`; settings: how to ask.
      cache: file of the replies.
      kind, probability: of the task, see `tasks.load_task`.
      base_wait: seconds of the first wait after a passing failure.
    """

    backend: str
    settings: Settings
    cache: str
    kind: str = EVIDENCE
    probability: bool = False
    base_wait: float = 1.0

    def __getstate__(self) -> dict[str, Any]:
        # Without derived values: the pydantic model of a task cannot be pickled.
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @functools.cached_property
    def task(self) -> Task:
        """The question."""
        return load_task(self.kind, self.probability)

    @property
    def name(self) -> str:
        """As recorded with the data: "openai:MODEL/evidence@2"."""
        return f"{self.backend}:{self.settings.model}/{self.task.name}"

    @functools.cached_property
    def scope(self) -> bytes:
        """Of this job's replies in the cache."""
        return scope_of(self.task, self.settings.model)

    @functools.cached_property
    def endpoint(self) -> Endpoint:
        """Where the model is asked."""
        return self.settings.endpoint(self.backend)

    @functools.cached_property
    def price(self) -> Price | None:
        """Of the model, None where it is unknown.

        Raises:
          UserError: it is unknown, but a limit was set.
        """
        price = pricing.load_price(self.settings.model, self.settings.prices, local=self.endpoint.local)
        if price is None and self.settings.max_cost:
            raise UserError(f"--max_cost needs the price of {self.settings.model!r}: write it into a copy of "
                            "data_prep/extract/llm/prices.json and name that with llm.prices")
        return price.in_batches() if price and self.settings.batch else price

    @functools.cached_property
    def _prompt_tokens(self) -> int:
        return fewest_tokens(self.task.prompt)

    @property
    def max_tokens(self) -> int:
        """That a reply may have."""
        return self.settings.max_tokens or self.task.max_tokens

    def read(self, reply: Reply, report: str, limit: int) -> Answer:
        """Reads and verifies what came back about a report.

        Args:
          reply: as it came; report: that was sent; limit: tokens that the reply was allowed.

        Raises:
          ReplyError: it cannot be used.
        """
        if 0 < reply.tokens_in < self._prompt_tokens + fewest_tokens(report):
            # Ollama and others drop what does not fit, and say nothing.
            raise ReplyError(PROMPT_CUT)
        if reply.cut:
            raise ReplyError(f"{CUT}{limit} tokens: see llm.max_tokens")
        return self.task.read(reply.text, report)

    def key(self, report: str) -> bytes:
        """The address of the report's reply."""
        return key_of(self.scope, report)


class Replies:
    """Reads a job's answers from its cache. Nothing is asked here."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.name = job.name
        self._cache = Cache(job.cache)

    def answer(self, report: str) -> Answer:
        """The answer about a report (stripped of outer white space, as it was asked).

        Raises:
          Quarantined: there is none that can be used.
        """
        entry = self._cache.get(self.job.key(report))
        if entry is None:
            raise Quarantined("the extractor was not asked")
        if entry.status != VALID:
            what = "no reply from the extractor" if entry.status == FAILED else "quarantined reply of the extractor"
            raise Quarantined(f"{what}: {entry.reason}")
        try:
            return self.job.task.read(entry.reply, report, cross_check=True)
        except ReplyError as error:
            raise Quarantined(f"quarantined reply of the extractor: {error.reason}") from None

    def extract(self, report: str) -> Extraction:
        """The evidence of a report; of an empty one there is none. Raises `Quarantined`."""
        value = self._value(report, Extraction, lambda: Extraction((), False))
        return value

    def labels(self, report: str) -> Labels:
        """The labels of a report. Raises `Quarantined`."""
        return self._value(report, Labels, None)

    def _value(self, report: str, kind: type, empty: Callable[[], Any] | None) -> Any:
        text = report.strip()
        if not text and empty is not None:
            return empty()
        value = self.answer(text).value
        if not isinstance(value, kind):
            raise TypeError(f"the job {self.name} gives {type(value).__name__}, not {kind.__name__}")
        offset = len(report) - len(report.lstrip())
        if offset and isinstance(value, Extraction):
            value = Extraction(tuple(dataclasses.replace(item, start=item.start + offset, end=item.end + offset)
                                     for item in value.evidence), value.normal)
        return value
