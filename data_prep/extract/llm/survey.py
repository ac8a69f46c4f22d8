"""Looks at all reports before any is sent: how many, how many equal, what is answered, what the rest may cost."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from data_prep.extract.llm.cache import FAILED, INVALID, VALID, Cache, Spent
from data_prep.extract.llm.data_use import Screening
from data_prep.extract.llm.jobs import Job
from data_prep.extract.llm.pricing import ESTIMATE_ERROR, Price, estimate_all, estimate_tokens
from data_prep.extract.llm.questions.question import Question, Text

Asked = str | Text | Question  # See `Job.passes`.

_CHUNK = 2000
_MARKS = 12  # Tokens of the chat's own around prompt and report.
_ENOUGH = 20  # Answers from which on the server's counts correct the estimate.


@dataclasses.dataclass(frozen=True)
class Survey:
    """What lies ahead.

    Attributes:
      reports: non-empty ones; unique: different ones among them; cut: how many of these are asked about in parts.
      valid, invalid: different reports with a usable or a quarantined answer; pending: those to be asked about.
      questions: to be asked about them, one for each part and pass; answered: status -> number of other questions.
      tokens_in, tokens_out: estimate for these questions; measured: whether the server's counts corrected it.
      price: of the model, None where unknown.
      spent: by earlier runs with the same cache.
      screening: likely identifiers.
    """

    reports: int
    unique: int
    cut: int
    valid: int
    invalid: int
    pending: int
    questions: int
    answered: Mapping[str, int]
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
        where = endpoint.base_url or (f"files in {job.settings.exchange}" if job.settings.exchange else own)
        kind = ("corrected by what the server counted before" if self.measured
                else f"offline estimate, error about {ESTIMATE_ERROR:.0%}")
        lines = [
            f"{job.name} at {where} ({'local' if endpoint.local else 'remote'})",
            f"reports {self.reports}, different {self.unique} ({self.reports - self.unique} duplicates), "
            f"answered {self.valid}, quarantined {self.invalid}, to ask {self.pending}",
            *self._questions(job),
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

    def _questions(self, job: Job) -> list[str]:
        """How many there are, where it is not one for each report."""
        settings, why = job.settings, []
        if self.cut:
            why.append(f"{self.cut} reports are longer than llm.part_tokens={settings.part_tokens} and asked about in "
                       "overlapping parts")
        if settings.votes > 1:
            why.append(f"{settings.votes} passes, {seeds(job)}")
        return [f"questions: {self.questions} ({'; '.join(why)})"] if why else []


def seeds(job: Job) -> str:
    """With what the passes of a job are asked, in words."""
    temperature = job.settings.temperature
    sampled = f"temperature {temperature:g}" if temperature >= 0 else "the server's temperature"
    return sampled + ("" if job.backend == "gemini" else f", seeds 1 to {job.settings.votes}")


def question_tokens(prompt: str, report: str) -> int:
    """Offline estimate of what a question about the report has."""
    return _fixed_tokens(prompt) + estimate_tokens(report)


@functools.lru_cache(64)
def _fixed_tokens(prompt: str) -> int:
    return estimate_tokens(prompt) + _MARKS


@dataclasses.dataclass(frozen=True)
class _Report:
    """A report that none before equals: its questions by part and pass, and those that no report before it has."""

    passes: tuple[tuple[Question, ...], ...]
    new: tuple[Question, ...]

    def status(self, statuses: Mapping[bytes, str]) -> str:
        """VALID, INVALID (quarantined), or FAILED (there is something left to be asked)."""
        found = [[statuses.get(question.key, FAILED) for question in passes] for passes in self.passes]
        if any(FAILED in part for part in found):
            return FAILED
        return VALID if all(2 * part.count(VALID) > len(part) for part in found) else INVALID


def unfinished(reports: Iterable[Asked], job: Job, cache: Cache, finished: Counter[str]) -> Iterator[Question]:
    """Every question about the reports that has no answer yet, in order; equal ones once.

    `finished` counts the statuses of the others.
    """
    for part, statuses in _fresh(reports, job, cache, Counter()):
        for report in part:
            for question in report.new:
                if (status := statuses.get(question.key, FAILED)) == FAILED:
                    yield question
                else:
                    finished[status] += 1


def _fresh(reports: Iterable[Asked], job: Job, cache: Cache, counts: Counter[str]
           ) -> Iterator[tuple[list[_Report], dict[bytes, str]]]:
    """The different reports, some at a time, with the statuses of their questions; `counts` counts all of them."""
    seen: set[bytes] = set()
    part: list[_Report] = []

    def looked_up() -> tuple[list[_Report], dict[bytes, str]]:
        return part, cache.statuses(question.key for report in part for passes in report.passes for question in passes)

    for report in reports:
        passes = job.passes(report)
        counts["reports"] += bool(passes)
        if not passes or (identity := _identity(passes)) in seen:
            continue
        new = tuple(question for questions in passes for question in questions if question.key not in seen)
        seen.add(identity)
        seen.update(question.key for question in new)
        part.append(_Report(passes, new))
        if len(part) == _CHUNK:
            yield looked_up()
            part = []
    yield looked_up()


def _identity(passes: Sequence[Sequence[Question]]) -> bytes:
    if len(passes) == 1:
        return passes[0][0].key
    return hashlib.sha256(b"".join(questions[0].key for questions in passes)).digest()[:16]


def survey(reports: Iterable[Asked], job: Job, cache: Cache, *, screen: bool = True) -> Survey:
    """Counts and estimates; sends nothing.

    Args:
      reports: all of them; empty ones are left out.
      job: what would be asked; cache: its replies.
      screen: look for likely identifiers, too.

    Returns:
      The survey.
    """
    spent = cache.spent(job.scope)
    screening = Screening()
    counts: Counter[str] = Counter()
    answered: Counter[str] = Counter()
    cut = unique = questions = tokens = 0
    states: Counter[str] = Counter()
    for part, statuses in _fresh(reports, job, cache, counts):
        asked: list[Question] = []
        for number, report in enumerate(part, unique):
            states[status := report.status(statuses)] += 1
            cut += len(report.passes) > 1
            for question in report.new:
                state = statuses.get(question.key, FAILED)
                if state == FAILED:
                    asked.append(question)
                else:
                    answered[state] += 1
            if screen and status == FAILED:
                for passes in report.passes:
                    screening.add(passes[0].text, number)
        unique += len(part)
        questions += len(asked)
        prompts = Counter(job.task.prompt_for(question.language) for question in asked)
        tokens += sum(n * _fixed_tokens(prompt) for prompt, n in prompts.items())
        tokens += estimate_all([question.text for question in asked])
    measured = spent.calls >= _ENOUGH and spent.estimated_in > 0 and spent.tokens_in > 0
    ratio = spent.tokens_in / spent.estimated_in if measured else 1.0
    per_reply = spent.tokens_out / spent.calls if measured else job.task.typical_tokens
    return Survey(counts["reports"], unique, cut, states[VALID], states[INVALID], states[FAILED], questions, answered,
                  round(tokens * ratio), round(questions * per_reply), measured, job.price, spent, screening)
