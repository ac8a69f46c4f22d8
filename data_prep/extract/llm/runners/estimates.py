"""What 10,000 reports would take, in hours and money: measured on a sample, and from the price table."""

from __future__ import annotations

import random
from collections.abc import Iterable

from data_prep.extract.llm.jobs import Job
from data_prep.extract.llm.pricing import FREE, load_prices
from data_prep.extract.llm.questions.question import Text
from data_prep.extract.llm.runners.online import Summary
from data_prep.extract.llm.survey import Asked, Survey

REPORTS = 10_000
# Tokens of a reply in a second, of one request. Nobody promises it; the table says that it is assumed.
ASSUMED_SPEED = 50


def sample(reports: Iterable[Asked], size: int) -> list[Asked]:
    """So many different non-empty reports, the same ones each time, drawn evenly from all."""
    rng, chosen, seen = random.Random(0), [], 0
    known: set[int] = set()
    for report in reports:
        text = (report.report if isinstance(report, Text) else str(report)).strip()
        if not text or hash(text) in known:
            continue
        known.add(hash(text))
        seen += 1
        if len(chosen) < size:
            chosen.append(report)
        elif (place := rng.randrange(seen)) < size:
            chosen[place] = report
    return chosen


def measured(summary: Summary, reports: int, found: Survey, job: Job) -> list[str]:
    """What a sample took, and what all reports and 10,000 would take, in words."""
    seconds = max(0.0, summary.seconds - summary.loading) / reports
    price = job.price or FREE
    cost = price.cost(summary.tokens_in, summary.tokens_out) / reports
    return [f"measured on {reports} reports: {seconds:.2f} s, {summary.tokens_in / reports:.0f} tokens in and "
            f"{summary.tokens_out / reports:.0f} out a report; of {summary.asked} replies {summary.valid} valid"
            + (f" ({summary.reasons.most_common(1)[0][0]})" if summary.reasons else ""),
            *(f"{what}: {_hours(seconds * number)}, {cost * number:.2f} {price.currency}"
              for what, number in ((f"the {found.pending} to ask", found.pending), (f"{REPORTS:,} reports", REPORTS)))]


def table(found: Survey, job: Job) -> list[str]:
    """Hours and money for 10,000 reports like these by each model of the price table; [] without any to ask."""
    prices = load_prices(job.settings.prices)
    if not found.pending or not prices:
        return []
    scale = REPORTS / found.pending
    tokens_in, tokens_out, questions = found.tokens_in * scale, found.tokens_out * scale, found.questions * scale
    settings = job.settings
    hours = tokens_out / ASSUMED_SPEED / settings.concurrency / 3600
    for rate, amount in ((settings.requests_per_minute, questions),
                         (settings.tokens_per_minute, tokens_in + tokens_out)):
        hours = max(hours, amount / rate / 60 if rate else 0.0)
    price = next(iter(prices.values()))
    lines = [f"{REPORTS:,} such reports by the models of the price table (list prices in {price.currency}"
             + (f", {price.as_of}" if price.as_of else "") + "):",
             f"  {'model':<28}{'one by one':>12}{'hours':>9}{'in batches':>12}{'hours':>9}"]
    lines += [f"  {name:<28}{each.cost(tokens_in, tokens_out):>12.2f}{hours:>9.1f}"
              f"{each.in_batches().cost(tokens_in, tokens_out):>12.2f}{'up to 24':>9}" for name, each in prices.items()]
    return [*lines, f"  (hours one by one: {ASSUMED_SPEED} tokens a second for each of llm.concurrency="
                    f"{settings.concurrency} requests, an assumption, and the limits a minute; llm.sample=10 measures)"]


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds / 60:.1f} minutes"
