"""The user's own prompt and examples: files in place of the package's prompt, or added to it.

    --config.llm.prompt=prompt.txt --config.llm.examples=examples.jsonl
    --config.llm.prompt=prompt.{language}.txt           # prompt.en.txt, prompt.de.txt, ... by the report's language

A prompt is text with the placeholder `{findings}` (for labels `{labels}`), and `{examples}` where the examples are to
stand; without it they are added at the end. A line of the examples is a report with the right answer about it:

    {"report": "No effusion.", "terms": "own", "normal": false,
     "evidence": [{"quote": "No effusion", "finding": "Pleural Effusion", "certainty": "absent"}]}

or, for labels, {"report": ..., "terms": ..., "labels": {"Pleural Effusion": "absent", ...}} with all labels of the set.
Examples quote reports. They go to the endpoint that the user names, under the same terms of use as the reports do.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from data_prep.extract.language import foreign
from data_prep.extract.llm.data_use import Screening
from data_prep.extract.llm.verify import Report
from lgdea_jax.errors import UserError, nearest
from lgdea_jax.findings.vocabulary import NO_FINDING, find
from lgdea_jax.records import CERTAINTIES, LATERALITIES, SEVERITIES, TEMPORALITIES, TERMS

LANGUAGE = "{language}"
_PLACEHOLDER = re.compile(r"\{[a-z_]+\}")
_VALUES = {"certainty": CERTAINTIES, "laterality": LATERALITIES, "severity": SEVERITIES, "temporality": TEMPORALITIES}
_NEEDED = ("quote", "finding", "certainty")
_FIELDS = (*_NEEDED, "laterality", "severity", "temporality", "anatomy")
_EXAMPLES = "{examples}"


@dataclasses.dataclass(frozen=True)
class Own:
    """What the user gave, checked.

    Attributes:
      prompts: language -> the whole prompt, its list of names still to be filled in; under "" the one for all, or for
        languages without a file of their own.
      digest: of prompts and examples, hexadecimal.
      record: the files with their SHA-256, for the data set.
      terms: that the reports of the examples are under; screening: of these reports.
    """

    prompts: Mapping[str, str]
    digest: str
    record: Mapping[str, Any]
    terms: frozenset[str]
    screening: Screening


@dataclasses.dataclass(frozen=True)
class _Example:
    report: str
    answer: str
    terms: str


def language_of(language: str, report: str) -> str:
    """The two-letter language of a report: as stated, or else as its words tell."""
    return language.replace("_", "-").partition("-")[0].strip().lower() or foreign(report) or "en"


def load(prompt: str, examples: str, default: str, placeholder: str, answer: Callable[[dict, str], dict]) -> Own:
    """Reads and checks the user's files.

    Args:
      prompt, examples: the files, "" where there is none; both may hold LANGUAGE in their last part.
      default: the package's prompt; placeholder: what every prompt must hold.
      answer: (a line of the examples, its report) -> the right reply; raises ValueError with what is wrong with it.

    Raises:
      UserError: the first fault, with file and line; never with words of a report.
    """
    texts = {code: _prompt(path, placeholder) for code, path in _files("llm.prompt", prompt).items()}
    shown = {code: _examples(path, answer) for code, path in _files("llm.examples", examples).items()}
    texts = texts or {"": default}
    prompts = {code: _with_examples(text, shown.get(code, shown.get("", []))) for code, text in texts.items()}
    if "" in texts:  # One prompt, with the examples of each language.
        prompts |= {code: _with_examples(texts[""], found) for code, found in shown.items()}
    elif strange := sorted(set(shown) - set(texts) - {""}):
        raise UserError(f"llm.examples={examples}: {strange[0]!r} has examples, and no file of llm.prompt")
    record: dict[str, Any] = {}
    for key, pattern in (("prompt", prompt), ("examples", examples)):
        if pattern:
            record[key] = {path.name: hashlib.sha256(path.read_bytes()).hexdigest()
                           for path in _files(f"llm.{key}", pattern).values()}
    every = [example for found in shown.values() for example in found]
    if every:
        record["number_of_examples"] = len(every)
    screening = Screening()
    for number, example in enumerate(every):
        screening.add(example.report, number)
    digest = hashlib.sha256(json.dumps(sorted(prompts.items())).encode("utf-8")).hexdigest()
    return Own(prompts, digest, record, frozenset(example.terms for example in every), screening)


def _files(key: str, pattern: str) -> dict[str, Path]:
    """Language -> file; "" for one without LANGUAGE in its name."""
    if not pattern:
        return {}
    path = Path(pattern)
    if LANGUAGE not in pattern:
        if not path.is_file():
            raise UserError(f"{key}={pattern}: no such file")
        return {"": path}
    if pattern.count(LANGUAGE) > 1 or LANGUAGE not in path.name:
        raise UserError(f"{key}={pattern}: {LANGUAGE} stands once, in the file's name")
    name = re.compile(re.escape(path.name).replace(re.escape(LANGUAGE), "([a-z]{2})"))
    found = {match[1]: file for file in sorted(path.parent.glob("*")) if (match := name.fullmatch(file.name))}
    if not found:
        raise UserError(f"{key}={pattern}: no such file for any language, like {pattern.replace(LANGUAGE, 'en')}")
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path} as text in UTF-8 ({type(error).__name__})") from None


def _prompt(path: Path, placeholder: str) -> str:
    text = _read(path).strip()
    if placeholder not in text:
        raise UserError(f"{path}: the placeholder {placeholder} is missing: the names that may be answered are put "
                        "there")
    for other in _PLACEHOLDER.findall(text):
        if other not in (placeholder, _EXAMPLES):
            raise UserError(f"{path}: unknown placeholder {other}{nearest(other, (placeholder, _EXAMPLES))}")
    return text


def _examples(path: Path, answer: Callable[[dict, str], dict]) -> list[_Example]:
    found = []
    for number, line in enumerate(_read(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            found.append(_example(line, answer))
        except ValueError as fault:
            raise UserError(f"{path}, line {number}: {fault}") from None
    if not found:
        raise UserError(f"{path}: no example; each line is a JSON object with report and its answer")
    return found


def _example(line: str, answer: Callable[[dict, str], dict]) -> _Example:
    try:
        value = json.loads(line)
    except ValueError:
        raise ValueError("no JSON") from None
    if not isinstance(value, dict):
        raise ValueError("no JSON object")
    report, terms = value.pop("report", None), value.pop("terms", "unstated")
    if not isinstance(report, str) or not report.strip():
        raise ValueError("report is no text")
    if terms not in TERMS:
        raise ValueError(f"terms is not one of {', '.join(TERMS)}")
    return _Example(report.strip(), json.dumps(answer(value, report), ensure_ascii=False), terms)


def evidence_answer(value: dict[str, Any], report: str) -> dict[str, Any]:
    """The right reply about evidence that a line of the examples states. Raises ValueError with what is wrong."""
    _known(value, ("evidence", "normal"))
    items, normal = value.get("evidence"), value.get("normal", False)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise ValueError("evidence is no list of objects")
    if not isinstance(normal, bool):
        raise ValueError("normal is not true or false")
    text, found = Report(report), []
    for number, item in enumerate(items, 1):
        try:
            found.append(_item(item, report, text))
        except ValueError as fault:
            raise ValueError(f"item {number}: {fault}") from None
    if normal and any(item["certainty"] != "absent" and item["temporality"] != "historical" for item in found):
        raise ValueError("normal, although a finding is present or uncertain")
    return {"normal": normal, "evidence": found}


def _item(item: dict[str, Any], report: str, text: Report) -> dict[str, Any]:
    _known(item, _FIELDS)
    for name in _NEEDED:
        if name not in item:
            raise ValueError(f"no field {name!r}")
    for name, value in item.items():
        if not isinstance(value, str):
            raise ValueError(f"{name} is no text")
        if value not in _VALUES.get(name, (value,)):
            raise ValueError(f"{name} is not one of {', '.join(filter(None, _VALUES[name]))}")
    finding = find(item["finding"])
    if finding is None or finding == NO_FINDING:
        raise ValueError("unknown finding")
    if item["quote"] not in report or not text.find(item["quote"]):
        raise ValueError("its quote is not in its report")
    return {name: item.get(name, "") for name in _FIELDS} | {"finding": finding}


def _known(value: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for name in value:
        if name not in known:
            raise ValueError(f"unknown field {name!r}{nearest(name, known)}")


def _with_examples(text: str, examples: list[_Example]) -> str:
    shown = "\n\n".join(f"Report:\n{example.report}\nAnswer:\n{example.answer}" for example in examples)
    if _EXAMPLES in text:
        return text.replace(_EXAMPLES, shown).strip()
    return f"{text}\n\nExamples of reports with the right answers:\n\n{shown}" if shown else text
