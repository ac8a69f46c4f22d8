"""A job: one task put to one model, with the cache of its replies. Picklable, so that workers can read from it."""

from __future__ import annotations

import dataclasses
import functools
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from data_prep.extract.llm import pricing
from data_prep.extract.llm.cache import FAILED, VALID, Cache, Entry, key_of, scope_of
from data_prep.extract.llm.clients.client import Endpoint, Reply, Request
from data_prep.extract.llm.labels import Labels
from data_prep.extract.llm.pricing import Price, fewest_tokens
from data_prep.extract.llm.quarantine import CUT
from data_prep.extract.llm.questions import parts, votes
from data_prep.extract.llm.questions.question import Question, Text
from data_prep.extract.llm.repair import REPEATS, ReplyError, repeats
from data_prep.extract.llm.settings import Settings
from data_prep.extract.llm.tasks import EVIDENCE, Answer, Task, load_task
from data_prep.extract.llm.verify import polarity
from data_prep.extract.rules import extractor as rules
from data_prep.extract.schema import Extraction
from lgdea_jax.errors import UserError
from lgdea_jax.findings.label_sets import LABEL_SETS

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
        return load_task(self.kind, self.probability, prompt=self.settings.prompt, examples=self.settings.examples)

    @property
    def name(self) -> str:
        """As recorded with the data: "openai:MODEL/evidence@2"."""
        return f"{self.backend}:{self.model}/{self.task.name}"

    @property
    def model(self) -> str:
        """As it is on record: of a local file, its name without the folder."""
        return Path(self.settings.model).name if self.backend == "local" else self.settings.model

    @functools.cached_property
    def scope(self) -> bytes:
        """Of this job's replies in the cache."""
        return scope_of(self.task, self.model)

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

    @property
    def max_tokens(self) -> int:
        """That a reply may have."""
        return self.settings.max_tokens or self.task.max_tokens

    def request(self, question: Question, suffix: str, limit: int) -> Request:
        """What is sent for a question, with words added to it and a reply of at most `limit` tokens."""
        seed = question.vote + 1 if self.settings.votes > 1 else None
        return Request(self.task.prompt_for(question.language), question.text + suffix, self.task.schema,
                       self.task.name, limit, seed)

    def read(self, reply: Reply, question: Question, limit: int) -> Answer:
        """Reads and verifies what came back.

        Args:
          reply: as it came; question: that was asked; limit: tokens that the reply was allowed.

        Raises:
          ReplyError: it cannot be used.
        """
        fewest = _fewest_tokens(self.task.prompt_for(question.language)) + fewest_tokens(question.text)
        if 0 < reply.tokens_in < fewest:
            # Ollama and others drop what does not fit, and say nothing.
            raise ReplyError(PROMPT_CUT)
        if reply.cut:
            raise ReplyError(REPEATS if repeats(reply.text) else f"{CUT}{limit} tokens: see llm.max_tokens")
        try:
            return self.task.read(reply.text, question.text)
        except ReplyError:
            if repeats(reply.text):
                raise ReplyError(REPEATS) from None
            raise

    # --- Questions ---

    def question(self, text: str, language: str = "", vote: int = 0) -> Question:
        """A question.

        Args:
          text: without outer white space; language: as `Task.language` gives it; vote: number of the pass.
        """
        told = [language] if language else []
        if self.settings.votes > 1:
            told.append(f"pass {vote + 1}, temperature {self.settings.temperature:g}")
        return Question(key_of(self.scope, "".join(f"{word}\0" for word in told) + text), text, language, vote)

    def passes(self, report: str | Text | Question) -> tuple[tuple[Question, ...], ...]:
        """The questions about a report: for each of its parts those of all passes; () for an empty report.

        Args:
          report: a bare string is one without a stated language; a question is asked as it is.

        Raises:
          UserError: there is no prompt for its language.
        """
        if isinstance(report, Question):
            return ((report,),)
        text, stated = (report, "") if isinstance(report, str) else report
        text = text.strip()
        if not text:
            return ()
        language = self.task.language(stated, text)
        return tuple(tuple(self.question(text[start:end], language, vote) for vote in range(self.settings.votes))
                     for start, end in self.parts(text))

    def parts(self, text: str) -> tuple[parts.Span, ...]:
        """Spans of the parts in which a report without outer white space is asked about."""
        return parts.cut(text, self.settings.part_tokens)

    def recall(self, key: bytes, text: str) -> Question:
        """The question with that key, of which the text is known."""
        for language in ("", *self.task.prompts):
            for vote in range(self.settings.votes):
                if (question := self.question(text, language, vote)).key == key:
                    return question
        return Question(key, text)  # It was asked with other settings.

    def vote(self, answers: Sequence[Answer]) -> votes.Verdict:
        """What the majority of passes states."""
        return votes.majority(answers, LABEL_SETS.get(self.kind, ()))


_fewest_tokens = functools.lru_cache(64)(fewest_tokens)  # Of prompts.


class Store(Protocol):
    """Where replies are read from: a `Cache`, or a file of some of its replies (`runners.replies_file`)."""

    def get(self, key: bytes) -> Entry | None:
        """The stored reply, or None."""

    def close(self) -> None:
        """Frees it."""


class Replies:
    """Reads a job's answers, from its cache where no other store is given. Nothing is asked here."""

    def __init__(self, job: Job, store: Store | None = None) -> None:
        self.job = job
        self.name = job.name
        self._cache = store or Cache(job.cache)
        # A connection of sqlite3 is in a cycle of references: left to the collector, its files would stay for a while.
        weakref.finalize(self, self._cache.close)

    def answer(self, report: str, language: str = "") -> Answer:
        """The answer about a report (stripped of outer white space, as it was asked).

        Raises:
          Quarantined: there is none that can be used.
        """
        asked = self.job.passes(Text(report, language))
        found: list[Answer] = []
        for number, passes in enumerate(asked, 1):
            try:
                found.append(self._part(passes))
            except Quarantined as error:
                raise Quarantined(f"part {number} of {len(asked)}: {error.reason}" if len(asked) > 1
                                  else error.reason) from None
        answer = found[0] if len(found) == 1 else parts.merge(self.job.parts(report), found)
        if isinstance(answer.value, Extraction) and answer.value.evidence:
            checked = polarity(answer.value.evidence, rules.extract(report).evidence)
            answer = dataclasses.replace(answer, flags=(*answer.flags, *(f"polarity {name}" for name in checked)))
        return answer

    def _part(self, passes: Sequence[Question]) -> Answer:
        """The answer about a part: of its only pass, or of their majority. Raises `Quarantined`."""
        usable, reasons = [], []
        for question in passes:
            try:
                usable.append(self._read(question))
            except Quarantined as error:
                reasons.append(error.reason)
        if 2 * len(usable) <= len(passes):
            raise Quarantined(reasons[0])
        return usable[0] if len(passes) == 1 else self.job.vote(usable).answer

    def _read(self, question: Question) -> Answer:
        entry = self._cache.get(question.key)
        if entry is None:
            raise Quarantined("the extractor was not asked")
        if entry.status != VALID:
            what = "no reply from the extractor" if entry.status == FAILED else "quarantined reply of the extractor"
            raise Quarantined(f"{what}: {entry.reason}")
        try:
            return self.job.task.read(entry.reply, question.text)
        except ReplyError as error:
            raise Quarantined(f"quarantined reply of the extractor: {error.reason}") from None

    def extract(self, report: str, language: str = "") -> Extraction:
        """The evidence of a report; of an empty one there is none. Raises `Quarantined`."""
        value = self._value(report, language, Extraction, lambda: Extraction((), False))
        return value

    def labels(self, report: str, language: str = "") -> Labels:
        """The labels of a report. Raises `Quarantined`."""
        return self._value(report, language, Labels, None)

    def _value(self, report: str, language: str, kind: type, empty: Callable[[], Any] | None) -> Any:
        text = report.strip()
        if not text and empty is not None:
            return empty()
        value = self.answer(text, language).value
        if not isinstance(value, kind):
            raise TypeError(f"the job {self.name} gives {type(value).__name__}, not {kind.__name__}")
        offset = len(report) - len(report.lstrip())
        if offset and isinstance(value, Extraction):
            value = Extraction(tuple(dataclasses.replace(item, start=item.start + offset, end=item.end + offset)
                                     for item in value.evidence), value.normal, value.votes)
        return value
