"""Long reports in overlapping parts: where they are cut, and how the answers about the parts become one.

A model that reads five pages at once passes over some of them. Parts end at the ends of sentences or lines and repeat
the last sentences of the part before, so that a statement across a cut is whole in one of them.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Sequence

from data_prep.extract.llm.labels import Labels, value_of
from data_prep.extract.llm.pricing import estimate_tokens
from data_prep.extract.llm.tasks import Answer
from data_prep.extract.llm.verify import DUPLICATE, contradictions
from data_prep.extract.schema import Extraction
from lgdea_jax.records import MISSING, NEGATIVE, POSITIVE, UNCERTAIN, Evidence

OVERLAP = 8  # One part in so many is repeated.
_END = re.compile(r"(?<=[.!?;])\s+|\s*\n\s*|(?<=[。！？；])")
_WORD = re.compile(r"\s*\S{1,60}")
# Of the labels of two parts the one that says more counts.
_STRENGTH = {MISSING: 0, NEGATIVE: 1, UNCERTAIN: 2, POSITIVE: 3}

Span = tuple[int, int]


def cut(report: str, tokens: int) -> tuple[Span, ...]:
    """The parts of a report: one where it has at most so many tokens (by our estimate), or `tokens` is 0.

    Args:
      report: without outer white space; tokens: that a part may have.

    Returns:
      Spans in order, without outer white space; together they hold every word.
    """
    whole = ((0, len(report)),)
    if not tokens or len(report) <= tokens or estimate_tokens(report) <= tokens:
        return whole
    units = [piece for unit in _units(report) for piece in _fitting(report, unit, max(1, tokens // OVERLAP))]
    # With what stands between it and the next one: line breaks are tokens, too.
    ends = [*(start for start, _ in units[1:]), len(report)]
    sizes = [estimate_tokens(report[start:end]) for (start, _), end in zip(units, ends)]
    parts, first = [], 0
    while True:
        last, size = first, sizes[first]
        while last + 1 < len(units) and size + sizes[last + 1] <= tokens:
            last += 1
            size += sizes[last]
        parts.append((units[first][0], units[last][1]))
        if last + 1 == len(units):
            return tuple(parts)
        following, repeated = last + 1, 0
        while following - 1 > first and repeated + sizes[following - 1] <= tokens // OVERLAP:
            following -= 1
            repeated += sizes[following]
        first = following


def _units(report: str) -> list[Span]:
    """Sentences and lines."""
    spans, start = [], 0
    for match in _END.finditer(report):
        if match.start() > start:
            spans.append((start, match.start()))
        start = match.end()
    return [*spans, (start, len(report))] if start < len(report) else spans


def _fitting(report: str, unit: Span, tokens: int) -> list[Span]:
    """The unit, or runs of its words where it has more than so many tokens."""
    if estimate_tokens(report[unit[0]:unit[1]]) <= tokens:
        return [unit]
    runs: list[Span] = []
    size = 0
    for match in _WORD.finditer(report, *unit):
        start = match.end() - len(match.group().lstrip())
        more = estimate_tokens(match.group())
        if runs and size + more <= tokens:
            runs[-1] = (runs[-1][0], match.end())
            size += more
        else:
            runs.append((start, match.end()))
            size = more
    return runs


def merge(spans: Sequence[Span], answers: Sequence[Answer]) -> Answer:
    """The answer about a report from the answers about its parts; what two parts state alike counts once.

    Args:
      spans: of the parts; answers: theirs, in the same order.
    """
    dropped = sum((Counter(answer.dropped) for answer in answers), Counter())
    repairs = dict(sum((Counter(answer.repairs) for answer in answers), Counter()))
    lost = tuple(item for answer in answers for item in answer.lost)
    if isinstance(answers[0].value, Labels):
        return Answer(_labels([answer.value for answer in answers]), repairs, dict(dropped), lost=lost)
    kept: list[tuple[Evidence, str, int]] = []
    for number, ((start, _), answer) in enumerate(zip(spans, answers)):
        votes = answer.value.votes or ("",) * len(answer.value.evidence)
        for item, vote in zip(answer.value.evidence, votes):
            moved = dataclasses.replace(item, start=item.start + start, end=item.end + start)
            if any(other != number and _same(moved, known) for known, _, other in kept):
                dropped[DUPLICATE] += 1
            else:
                kept.append((moved, vote, number))
    kept.sort(key=lambda item: (item[0].start, item[0].end))
    evidence = tuple(item for item, *_ in kept)
    abnormal = any(item.certainty != "absent" and item.temporality != "historical" for item in evidence)
    normal = any(answer.value.normal for answer in answers)
    flags = [f"contradiction {name}" for name in contradictions(evidence)]
    flags += ["normal overruled"] * (normal and abnormal)
    flags += [flag for answer in answers for flag in answer.flags if flag.startswith("split ")]
    votes = tuple(vote for _, vote, _ in kept) if any(answer.value.votes for answer in answers) else ()
    return Answer(Extraction(evidence, normal and not abnormal, votes), repairs, dict(dropped), tuple(flags), lost)


def _same(one: Evidence, other: Evidence) -> bool:
    """Whether two parts state the same: a finding with its certainty and side in the same words."""
    return ((one.finding, one.certainty, one.laterality) == (other.finding, other.certainty, other.laterality)
            and one.start < other.end and other.start < one.end)


def _labels(parts: Sequence[Labels]) -> Labels:
    if parts[0].probabilities:
        # What one part does not mention another may.
        chosen = tuple(max((p for p in column if p is not None), default=None)
                       for column in zip(*(part.probabilities for part in parts)))
        return Labels(tuple(value_of(None if p is None else round(100 * p)) for p in chosen), chosen)
    return Labels(tuple(max(column, key=_STRENGTH.__getitem__) for column in zip(*(part.values for part in parts))))
