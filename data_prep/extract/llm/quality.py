"""What a run's replies are worth, in numbers and in warnings, as they are printed and stored with the data set.

A model that understands nothing may fill every form correctly: each of its replies is valid, and nothing in them is
true. What gives it away is seen over many replies only.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable
from typing import Any

from data_prep.extract.llm.cache import Cache, Entry, Totals
from data_prep.extract.llm.jobs import Job
from data_prep.extract.llm.repair import ReplyError
from data_prep.extract.llm.tasks import EVIDENCE

# Settings that decide about the answers, or that must be on record.
RECORDED = ("model", "temperature", "structured", "attest_data_use")
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


def cross_check(reports: Iterable[str], job: Job) -> None:
    """Flags the valid replies that contradict themselves or the rules; those that were looked at before are skipped."""
    texts = filter(None, map(str.strip, reports))
    with Cache(job.cache) as cache:
        while cache.unflagged(job.scope) and (part := {job.key(text): text for text in itertools.islice(texts, 500)}):
            cache.flag({key: _flags(cache.get(key), part[key], job) for key in cache.unflagged(job.scope, part)})


def _flags(entry: Entry, report: str, job: Job) -> tuple[str, ...]:
    try:
        return job.task.read(entry.reply, report, cross_check=True).flags
    except ReplyError:  # Readers change: whoever reads it next finds it unusable and says so.
        return ()


def record(job: Job) -> dict[str, Any]:
    """How the answers of a job were got, for the data set's metadata and for score.json."""
    with Cache(job.cache) as cache:
        totals = cache.totals(job.scope)
    endpoint = job.endpoint
    asked = job.settings.structured
    return {
        "settings": {key: getattr(job.settings, key) for key in RECORDED} | {"max_tokens": job.max_tokens},
        "endpoint": {"base_url": endpoint.base_url, "local": endpoint.local},
        "prompt": {"name": job.task.name, "sha256": hashlib.sha256(job.task.prompt.encode("utf-8")).hexdigest()},
        "asked_with": {form or f"structured {asked}": n for form, n in sorted(totals.forms.items())},
        "replies": totals.valid, "most_equal_replies": totals.equal, "statements": totals.statements,
        "unsupported": totals.unsupported, "flagged": dict(sorted(totals.flags.items())),
        "warnings": warnings(totals, job),
    }
