"""What a run's replies are worth, in numbers and in warnings, as they are printed and stored with the data set.

A model that understands nothing may fill every form correctly: each of its replies is valid, and nothing in them is
true. What gives it away is seen over many replies only.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from data_prep.extract.llm.cache import VALID, Cache, Totals
from data_prep.extract.llm.jobs import Job
from data_prep.extract.llm.questions.question import Question
from data_prep.extract.llm.questions.votes import OUTVOTED, SPLIT
from data_prep.extract.llm.repair import ReplyError
from data_prep.extract.llm.survey import Asked, seeds
from data_prep.extract.llm.tasks import EVIDENCE, Answer, Task

# Settings that decide about the answers, or that must be on record.
RECORDED = ("model", "temperature", "structured", "attest_data_use", "prompt", "examples", "votes", "part_tokens")
_FEWEST = 10  # Replies or statements below which a share means little.
# The share of equal replies that is too much. Labels of many reports are equal for good reasons: all are absent.
_MOST_EQUAL = {EVIDENCE: 0.5}
_MOST_EQUAL_LABELS = 0.95
_MOST_UNSUPPORTED = 0.5
_MOST_POLARITY = 0.05  # Of the statements: the rules err in fewer.


def warnings(totals: Totals, job: Job) -> list[str]:
    """What gives a useless or careless model away; empty where nothing does."""
    found = []
    if totals.valid >= _FEWEST and totals.equal > _MOST_EQUAL.get(job.kind, _MOST_EQUAL_LABELS) * totals.valid:
        found.append(f"{totals.equal} of {totals.valid} replies to different reports are equal: the model may not read "
                     "them")
    if totals.statements >= _FEWEST and totals.unsupported > _MOST_UNSUPPORTED * totals.statements:
        found.append(f"{totals.unsupported} of {totals.statements} statements do not quote their report: the model may "
                     "not be fit for this")
    polarity = sum(n for flag, n in totals.flags.items() if flag.startswith("polarity "))
    if totals.statements >= _FEWEST and polarity > _MOST_POLARITY * totals.statements:
        found.append(f"{polarity} of {totals.statements} statements call present what the rules read as denied, or the "
                     "other way round: look at them with data_prep.audit")
    return found


def cross_check(reports: Iterable[Asked], job: Job) -> None:
    """Flags the valid replies that contradict themselves, the rules, or most passes; known flags are not made again."""
    parts = (passes for report in reports for passes in job.passes(report))
    with Cache(job.cache) as cache:
        while cache.unflagged(job.scope) and (some := list(itertools.islice(parts, 500 // job.settings.votes))):
            wanted = set(cache.unflagged(job.scope, [question.key for passes in some for question in passes]))
            cache.flag({key: flags for passes in some if any(question.key in wanted for question in passes)
                        for key, flags in _flags(passes, cache, job)})


def _flags(passes: Sequence[Question], cache: Cache, job: Job) -> Iterator[tuple[bytes, tuple[str, ...]]]:
    """(key, flags) of the valid replies about one text."""
    answers: dict[bytes, Answer] = {}
    unreadable = []
    for question in passes:
        entry = cache.get(question.key)
        if entry is not None and entry.status == VALID:
            try:
                answers[question.key] = job.task.read(entry.reply, question.text, cross_check=True)
            except ReplyError:  # Readers change: whoever reads it next finds it unusable and says so.
                unreadable.append(question.key)
    flags = {key: answer.flags for key, answer in answers.items()} | dict.fromkeys(unreadable, ())
    if len(passes) > 1 and answers:
        verdict = job.vote(list(answers.values()))
        first = next(iter(answers))
        flags[first] += tuple(flag for flag in verdict.answer.flags if flag.startswith(f"{SPLIT} "))
        for key, names in zip(answers, verdict.outvoted):
            flags[key] += tuple(f"{OUTVOTED} {name}" for name in names)
    yield from flags.items()


def record(job: Job) -> dict[str, Any]:
    """How the answers of a job were got, for the data set's metadata and for score.json."""
    with Cache(job.cache) as cache:
        totals = cache.totals(job.scope)
    endpoint = job.endpoint
    asked = job.settings.structured
    return {
        "settings": {key: getattr(job.settings, key) for key in RECORDED} | {"max_tokens": job.max_tokens},
        "endpoint": {"base_url": endpoint.base_url, "local": endpoint.local},
        "prompt": {"name": job.task.name, **_prompt(job.task)}, **_votes(job, totals),
        "asked_with": {form or f"structured {asked}": n for form, n in sorted(totals.forms.items())},
        "replies": totals.valid, "most_equal_replies": totals.equal, "statements": totals.statements,
        "unsupported": totals.unsupported, "flagged": dict(sorted(totals.flags.items())),
        "warnings": warnings(totals, job),
    }


def _prompt(task: Task) -> dict[str, Any]:
    """The prompts' SHA-256 as they were sent, and the user's files."""
    hashes = {code: hashlib.sha256(text.encode("utf-8")).hexdigest()
              for code, text in {"": task.prompt, **task.prompts}.items() if text}
    sent = {"sha256": hashes[""]} if set(hashes) == {""} else {"sha256_by_language": hashes}
    return sent | (dict(task.own.record) if task.own else {})


def _votes(job: Job, totals: Totals) -> dict[str, Any]:
    """What the passes disagreed about; {} where there was one."""
    if job.settings.votes == 1:
        return {}
    split, outvoted = (sum(n for flag, n in totals.flags.items() if flag.startswith(f"{kind} "))
                       for kind in (SPLIT, OUTVOTED))
    return {"votes": {"passes": job.settings.votes, "sampling": seeds(job), "by_majority": split,
                      "outvoted": outvoted}}
