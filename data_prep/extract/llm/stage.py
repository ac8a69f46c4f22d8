"""The stage of a build that asks a language model, before any shard is written: look, check, ask, account.

Workers later read the answers from the cache, so a build that was stopped asks nothing twice, and a build of the same
reports with the same cache asks nothing at all.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from data_prep.extract.llm import data_use, quality, quarantine
from data_prep.extract.llm.cache import VALID, Cache
from data_prep.extract.llm.clients.client import BACKENDS, read_key
from data_prep.extract.llm.jobs import Job
from data_prep.extract.llm.pricing import FREE
from data_prep.extract.llm.questions.question import Text
from data_prep.extract.llm.runners import batch, beam, chunks, estimates
from data_prep.extract.llm.runners.online import Summary, extract, show
from data_prep.extract.llm.settings import Settings
from data_prep.extract.llm.survey import Asked, Survey, survey
from data_prep.study import Reject
from lgdea_jax.errors import UserError, choose

_SAMPLE = 10  # Reports that a model in this process is tried on in a dry run.


def make_job(backend: str, values: Mapping[str, Any], beside: str | Path, **task: Any) -> Job:
    """The job of a config group `llm`.

    Args:
      backend: gemini, genai or openai; values: of `Settings`.
      beside: the output; replies are kept in a file beside it unless `values["cache"]` names one.
      task: kind and probability, see `Job`.

    Raises:
      UserError: a value that makes no sense.
    """
    settings = Settings.read(values)
    if settings.batch and not BACKENDS[choose("extractor", backend, BACKENDS)].batches:
        raise UserError(f"llm.batch is for the extractors genai and openai: {backend!r} has no batches")
    beside = Path(beside)
    return Job(backend, settings, settings.cache or str(beside.with_name(beside.name + ".replies.sqlite")), **task)


def check(terms: Iterable[str], job: Job, where: str) -> None:
    """Everything that can be refused before reports are looked at twice: terms of use, price, key."""
    data_use.check_terms(terms, local=job.endpoint.local, attestation=job.settings.attest_data_use, where=where)
    own = job.task.own
    if own and own.terms:
        data_use.check_terms(own.terms, local=job.endpoint.local, attestation=job.settings.attest_data_use,
                             where='the field "terms" of each line of llm.examples')
    _ = job.price  # Raises where a limit was set but the price is unknown.
    read_key(job.endpoint)


@dataclasses.dataclass
class SourceReports:
    """The reports of a build's sources, read again on every call; remembers the terms that it met."""

    sources: Mapping[str, Any]
    terms: set[str] = dataclasses.field(default_factory=set)

    def __call__(self) -> Iterator[Text]:
        for source in self.sources.values():
            for index in range(len(source)):
                try:
                    study = source[index]
                except Reject:
                    continue
                if study.report.strip():
                    self.terms.add(study.terms)
                    yield Text(study.report, study.language)


def estimate(reports: Callable[[], Iterable[Asked]], job: Job, *, terms: Callable[[], Iterable[str]], where: str,
             stream: TextIO | None = None) -> tuple[Survey, int]:
    """The dry run: prints what would be asked, how long it may take and what it may cost, and leaves no file behind.

    Only a model in this process is asked, about a sample of reports, or a server where `llm.sample` says so.

    Args:
      reports, terms, where: see `ask`; stream: to print to, standard output by default.

    Returns:
      (what was found, the number of reports that a server was asked about).
    """
    out = stream or sys.stdout
    with tempfile.TemporaryDirectory() as folder:
        path = Path(job.cache)
        if not path.is_file():
            path = Path(folder) / "empty.sqlite"
        with Cache(path) as cache:
            found = survey(reports(), job, cache)
        show([*found.lines(job), *warnings_before(found, job)], out)
        size = job.settings.sample if job.settings.sample >= 0 else _SAMPLE * (job.backend == "local")
        asks = size and found.unique and not job.settings.exchange
        if asks:
            check(terms(), job, where)
            sampled = estimates.sample(reports(), size)
            measured = extract(lambda: sampled, dataclasses.replace(job, cache=str(Path(folder) / "sample.sqlite")))
            show(estimates.measured(measured, len(sampled), found, job), out)
    show(estimates.table(found, job), out)
    return found, len(sampled) if asks and job.backend != "local" else 0


def ask(reports: Callable[[], Iterable[Asked]], job: Job, *, terms: Callable[[], Iterable[str]], where: str,
        progress: bool = True, pipeline: Sequence[str] | None = None) -> Summary:
    """Surveys, checks, warns, and asks what has no answer yet.

    Args:
      reports: gives all texts, each time from the beginning; job: what to ask.
      terms: called after the reports were read once: the terms they are under; where: how the user states them.
      progress: show counts on stderr.
      pipeline: options of Beam, to ask in a pipeline (`runners.beam`); None asks from this process.

    Returns:
      The summary; every report is valid or quarantined.

    Raises:
      UserError: sending is not allowed, the endpoint fails, money or replies are missing.
    """
    chunks.take_over(job)
    started = time.time()
    with Cache(job.cache) as cache:
        cache.reap()
        quarantine.reopen(cache, job.scope, job.settings.max_runs, job.max_tokens)
        ahead = survey(reports(), job, cache)
        waiting = cache.batches_under_way(job.scope)
    if ahead.pending:
        check(terms(), job, where)
        show(ahead.lines(job), sys.stdout)
        show(warnings_before(ahead, job), sys.stderr)
        if not job.endpoint.takes_key and os.environ.keys() & set(BACKENDS[job.backend].key_variables):
            show(["the key is not sent: it would go over plain http to another machine"], sys.stderr)
    try:
        if job.settings.batch or job.settings.exchange:
            if pipeline is not None:
                raise UserError("llm.batch and llm.exchange have ways of their own: leave out --runner=beam")
            summary = batch.extract(reports, job, progress=progress)
        elif waiting:
            raise UserError("some of these reports are in batches that are under way: collect them with llm.batch or "
                            "llm.exchange first")
        elif pipeline is None or not ahead.pending:
            summary = extract(reports, job, surveyed=ahead, progress=progress)
        else:
            summary = beam.extract(reports, job, pipeline, progress=progress)
    except UserError:
        _give_up(job, started)
        raise
    given_up = _give_up(job, started)
    lost = given_up.total()
    summary = dataclasses.replace(summary, failed=summary.failed - lost, quarantined=summary.quarantined + lost)
    currency = (job.price or FREE).currency
    quality.cross_check(reports(), job)
    if summary.asked:
        show(summary.lines(currency), sys.stdout)
        show(_reports(reports, job) if ahead.questions != ahead.pending else (), sys.stdout)
        show(_remarks(job), sys.stderr)
    if summary.left:
        raise UserError(f"stopped before llm.max_cost={job.settings.max_cost:g} {currency} is exceeded: {summary.left} "
                        "reports are left; raise it and run the same command again to go on")
    if summary.failed:
        most = (summary.reasons - given_up).most_common(1)
        raise UserError(f"{summary.failed} reports got no reply ({most[0][0] if most else 'no reply'}): run the same "
                        f"command again to ask about them; after llm.max_runs={job.settings.max_runs} runs they are "
                        "quarantined")
    return summary


def warnings_before(found: Survey, job: Job) -> list[str]:
    """Likely identifiers in what would be sent."""
    own = job.task.own
    examples = own.screening.warning().replace("warning: ", "warning: llm.examples: ", 1) if own else ""
    return list(filter(None, (found.screening.warning(), examples)))


def _reports(reports: Callable[[], Iterable[Asked]], job: Job) -> list[str]:
    """What became of the reports where questions are about parts of them, or several about each."""
    with Cache(job.cache) as cache:
        found = survey(reports(), job, cache, screen=False)
    return [f"reports {found.unique}: valid {found.valid}, quarantined {found.invalid}, not complete {found.pending}"]


def _give_up(job: Job, since: float) -> Counter[str]:
    """Quarantines what has got no reply in too many runs, and says so. An endpoint that never answered counts none."""
    with Cache(job.cache) as cache:
        if not cache.count(job.scope)[VALID]:
            return Counter()
        given_up = quarantine.give_up(cache, job.scope, since, job.settings.max_runs)
    if given_up:
        show([f"{given_up.total()} reports got no reply in {job.settings.max_runs} runs and are quarantined: raise "
              "llm.max_runs to ask about them again"], sys.stderr)
    return given_up


def _remarks(job: Job) -> list[str]:
    """How the server was asked where it refused what was set, and warnings."""
    found = quality.record(job)
    asked = [f"{n} replies were asked for with {form}: the server refused what was set"
             for form, n in found["asked_with"].items() if form != f"structured {job.settings.structured}"]
    return asked + [f"warning: {text}" for text in found["warnings"]]
