"""Several passes over one text, with seeds of their own: what most of them state counts.

A statement is a finding with its certainty, quoted from the same words. What passes disagree about is kept on record:
of each statement how many of them have it, and what was outvoted.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from data_prep.extract.llm.labels import Labels, value_of
from data_prep.extract.llm.tasks import Answer
from data_prep.extract.llm.verify import Statement, contradictions
from data_prep.extract.schema import Extraction
from lgdea_jax.records import UNCERTAIN, Evidence

OUTVOTED = "outvoted"  # A reason in `Answer.dropped`; a flag of the reply begins so.
SPLIT = "split"  # A flag: kept, but not by all passes.


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the majority of passes states.

    Attributes:
      answer: of all passes together.
      outvoted: of each pass the findings of its statements (or labels) that the majority does not share.
    """

    answer: Answer
    outvoted: tuple[tuple[str, ...], ...]


def majority(answers: Sequence[Answer], names: Sequence[str] = ()) -> Verdict:
    """What more than half of the passes state.

    Args:
      answers: of the passes that brought a usable reply, at least one; names: of the labels, for tasks that label.
    """
    dropped = sum((Counter(answer.dropped) for answer in answers), Counter())
    repairs = dict(sum((Counter(answer.repairs) for answer in answers), Counter()))
    lost = [item for answer in answers for item in answer.lost]
    if isinstance(answers[0].value, Labels):
        labels, outvoted = _labels([answer.value for answer in answers], names)
        return Verdict(Answer(labels, repairs, dict(dropped), lost=tuple(lost)), outvoted)
    extraction, outvoted, split = _evidence([answer.value for answer in answers])
    flags = [f"contradiction {name}" for name in contradictions(extraction.evidence)]
    flags += [f"{SPLIT} {name}" for name in split]
    dropped[OUTVOTED] += sum(map(len, outvoted))
    lost += [(OUTVOTED, Statement(item.finding, item.anatomy, item.laterality, item.severity, item.certainty,
                                  item.temporality, item.phrase)) for items in outvoted for item in items]
    return Verdict(Answer(extraction, repairs, dict(+dropped), tuple(flags), tuple(lost)),
                   tuple(tuple(item.finding for item in items) for items in outvoted))


def _evidence(passes: Sequence[Extraction]) -> tuple[Extraction, tuple[tuple[Evidence, ...], ...], list[str]]:
    """(what the majority states, what it does not by pass, findings of statements that not all have)."""
    groups: list[dict[int, Evidence]] = []
    for number, extraction in enumerate(passes):
        for item in extraction.evidence:
            near = [(_alike(item, group), group) for group in groups if number not in group]
            best, group = max(near, key=lambda pair: pair[0], default=((0, 0), {}))
            if best == (0, 0):
                groups.append({number: item})
            else:
                group[number] = item
    kept, outvoted = {}, [[] for _ in passes]
    for group in groups:
        if 2 * len(group) > len(passes):
            item = _common(list(group.values()))
            kept.setdefault((item.finding, item.certainty, item.laterality, item.start, item.end), (item, len(group)))
        else:
            for number, item in group.items():
                outvoted[number].append(item)
    chosen = sorted(kept.values(), key=lambda pair: (pair[0].start, pair[0].end))
    evidence = tuple(item for item, _ in chosen)
    abnormal = any(item.certainty != "absent" and item.temporality != "historical" for item in evidence)
    normal = 2 * sum(extraction.normal for extraction in passes) > len(passes)
    extraction = Extraction(evidence, normal and not abnormal, tuple(f"{n}/{len(passes)}" for _, n in chosen))
    return extraction, tuple(map(tuple, outvoted)), [item.finding for item, n in chosen if n < len(passes)]


def _alike(item: Evidence, group: dict[int, Evidence]) -> tuple[int, int]:
    """How well a statement fits a group of other passes' statements; (0, 0) where it is another one."""
    scores = [(1 + (item.laterality == other.laterality), min(item.end, other.end) - max(item.start, other.start))
              for other in group.values() if (item.finding, item.certainty) == (other.finding, other.certainty)
              and item.start < other.end and other.start < item.end]
    return max(scores, default=(0, 0))


def _common(items: Sequence[Evidence]) -> Evidence:
    """The statement with the commonest words and fields of all; of equally common ones those of the first pass."""
    def most(value: Callable[[Evidence], Hashable]) -> Any:
        return Counter(map(value, items)).most_common(1)[0][0]

    phrase, start, end = most(lambda item: (item.phrase, item.start, item.end))
    fields = {name: most(lambda item, name=name: getattr(item, name))
              for name in ("anatomy", "laterality", "severity", "temporality")}
    return dataclasses.replace(items[0], phrase=phrase, start=start, end=end, **fields)


def _labels(passes: Sequence[Labels], names: Sequence[str]) -> tuple[Labels, tuple[tuple[str, ...], ...]]:
    """The label that most passes give, uncertain where there is none; probabilities are means."""
    values, probabilities = [], []
    for i, column in enumerate(zip(*(labels.values for labels in passes))):
        value, count = Counter(column).most_common(1)[0]
        values.append(value if 2 * count > len(passes) else UNCERTAIN)
        if passes[0].probabilities:
            given = [p for labels in passes if (p := labels.probabilities[i]) is not None]
            mean = sum(given) / len(given) if 2 * len(given) > len(passes) else None
            probabilities.append(mean)
            values[-1] = value_of(None if mean is None else round(100 * mean))
    outvoted = tuple(tuple(name for name, mine, value in zip(names, labels.values, values) if mine != value)
                     for labels in passes)
    return Labels(tuple(values), tuple(probabilities)), outvoted
