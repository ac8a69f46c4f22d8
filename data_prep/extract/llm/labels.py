"""Silver labels from a language model: one value per name of a label set, with a probability where it is asked for.

An area under the ROC curve over hard 0/1 answers is the mean of sensitivity and specificity; only with probabilities
does it measure how well reports are ranked. The AUC of 0.96 in arXiv 2509.13175 is to be read with that in mind.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

from data_prep.extract.llm.repair import ReplyError
from lgdea_jax.errors import require
from lgdea_jax.findings.label_sets import LABEL_SETS
from lgdea_jax.findings.vocabulary import find
from lgdea_jax.records import MISSING, NEGATIVE, POSITIVE, UNCERTAIN

# Short keys for CT-RATE: eighteen names are most of what the model would have to write.
_CODES: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "ct_rate18": ("MM", "AC", "CM", "PE", "CC", "HH", "LA", "EM", "AT", "LN", "LO", "PF", "PL", "MA", "PT", "CO", "BR",
                  "IS"),
})
LABEL_TASKS = ("chexpert14", "ct_rate18")

_VALUES = {"present": POSITIVE, "absent": NEGATIVE, "uncertain": UNCERTAIN, "unmentioned": MISSING}
_WORDS = {"positive": "present", "yes": "present", "1": "present", "true": "present", "negative": "absent",
          "no": "absent", "0": "absent", "false": "absent", "possible": "uncertain", "equivocal": "uncertain",
          "-1": "uncertain", "not mentioned": "unmentioned", "none": "unmentioned", "null": "unmentioned",
          "": "unmentioned", "missing": "unmentioned"}

# Where a probability in percent stops being "absent" and begins to be "present"; the prompts state the same.
ABSENT_UP_TO, PRESENT_FROM = 20, 80


@dataclasses.dataclass(frozen=True)
class Labels:
    """Labels of one report.

    Attributes:
      values: one of POSITIVE, NEGATIVE, UNCERTAIN, MISSING (not mentioned) per name of the set.
      probabilities: in [0, 1] per name, None where it is not mentioned; empty when none were asked for.
    """

    values: tuple[int, ...]
    probabilities: tuple[float | None, ...] = ()


def keys(label_set: str) -> tuple[str, ...]:
    """The keys under which the model answers, in the order of the set."""
    return _CODES.get(label_set, LABEL_SETS[label_set])


def reply_model(label_set: str, probability: bool) -> Any:
    """The pydantic model of a reply: every key is required.

    Raises:
      UserError: pydantic is not installed.
    """
    pydantic = require("pydantic", "data", "an extractor that asks a language model")
    if probability:
        kind: Any = Annotated[int, pydantic.Field(ge=0, le=100, strict=True)] | None
    else:
        kind = Literal[tuple(_VALUES)]
    fields = {f"label{i}": (kind, pydantic.Field(alias=key)) for i, key in enumerate(keys(label_set))}
    return pydantic.create_model(f"{label_set}_reply", __config__=pydantic.ConfigDict(extra="forbid"), **fields)


def value_of(percent: int | None) -> int:
    """The label that a probability in percent stands for."""
    if percent is None:
        return MISSING
    return NEGATIVE if percent <= ABSENT_UP_TO else POSITIVE if percent >= PRESENT_FROM else UNCERTAIN


def read_labels(value: dict[str, Any], label_set: str, probability: bool,
                model: Any) -> tuple[Labels, Counter[str]]:
    """The labels of a decoded reply, and counts of values that were put right.

    Raises:
      ReplyError: a label is missing, or has a value that cannot be read. Nothing is filled in.
    """
    repaired: Counter[str] = Counter()
    for outer in ("labels", "label"):
        if isinstance(value.get(outer), dict):
            value = value[outer]
            repaired["nesting"] += 1
    wanted = keys(label_set)
    names = {find(name): key for name, key in zip(LABEL_SETS[label_set], wanted)}
    folded = {key.lower(): key for key in wanted}
    given: dict[str, Any] = {}
    for key, answer in value.items():
        known = key if key in wanted else folded.get(key.strip().lower()) or names.get(find(key) or "")
        if known is None:
            repaired["unknown label"] += 1
            continue
        if known in given:
            raise ReplyError("a label occurs twice in the reply")
        repaired["label name"] += known != key
        given[known] = answer
    if any(key not in given for key in wanted):
        raise ReplyError("a label is missing in the reply")
    # 0.97 can only mean a probability; then 1 beside it is certainty, not one percent.
    shares = any(isinstance(answer, float) and 0 < answer < 1 for answer in given.values())
    fixed = {key: _percent(given[key], shares, repaired) if probability else _word(given[key], repaired)
             for key in wanted}
    try:
        checked = model.model_validate(fixed)
    except ValueError:  # pydantic's; its text would show the reply.
        raise ReplyError("a label has a value that was not asked for") from None
    answers = list(checked.model_dump().values())
    repaired = +repaired
    if not probability:
        return Labels(tuple(_VALUES[answer] for answer in answers)), repaired
    return Labels(tuple(value_of(answer) for answer in answers),
                  tuple(None if answer is None else answer / 100 for answer in answers)), repaired


def right_answer(value: dict[str, Any], report: str, *, label_set: str, probability: bool, model: Any
                 ) -> dict[str, Any]:
    """The right reply that a line of the user's examples states, with the keys that the model is asked for.

    Raises:
      ValueError: with what is wrong with it.
    """
    del report
    if set(value) != {"labels"} or not isinstance(value["labels"], dict):
        raise ValueError("beside report and terms it has labels, and nothing else")
    try:
        read, repaired = read_labels(value["labels"], label_set, probability, model)
    except ReplyError as fault:
        raise ValueError(fault.reason.replace(" in the reply", "")) from None
    if repaired["unknown label"]:
        raise ValueError(f"a label that is not among those of {label_set}")
    words = {number: word for word, number in _VALUES.items()}
    answers = [None if p is None else round(100 * p) for p in read.probabilities] or [words[v] for v in read.values]
    return dict(zip(keys(label_set), answers, strict=True))


def _word(answer: Any, repaired: Counter[str]) -> Any:
    if isinstance(answer, str) and answer in _VALUES:
        return answer
    text = "" if answer is None else str(answer).strip().lower()
    fixed = text if text in _VALUES else _WORDS.get(text)
    if fixed is None:
        return answer
    repaired["value"] += 1
    return fixed


def _percent(answer: Any, shares: bool, repaired: Counter[str]) -> Any:
    if answer is None or isinstance(answer, bool):
        return answer
    if isinstance(answer, (int, float)) and shares and 0 <= answer <= 1:
        repaired["value"] += 1
        return round(100 * answer)
    if isinstance(answer, float) and 1 < answer <= 100:
        repaired["value"] += 1
        return round(answer)
    if isinstance(answer, str):
        text = answer.strip().rstrip("%").strip()
        repaired["value"] += 1
        if text.lower() in ("", "null", "none", "unmentioned", "not mentioned"):
            return None
        return int(text) if text.isdecimal() and len(text) <= 3 else answer
    return answer
