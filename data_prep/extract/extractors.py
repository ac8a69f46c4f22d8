"""The evidence extractors by name. Each is loaded only when it is chosen, so that none needs another's packages."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType

from data_prep.extract.schema import Extraction
from lgdea_jax.cli import UserError, choose


@dataclasses.dataclass(frozen=True)
class Extractor:
    """What reads reports.

    Attributes:
      name: with its version, as recorded in the data ("rules@1").
      extract: report -> Extraction.
      assertion: (sentence, concept) -> "Negated" or "Affirmed"; None where the extractor has no such question.
    """

    name: str
    extract: Callable[[str], Extraction]
    assertion: Callable[[str, str], str] | None


def _rules() -> Extractor:
    from data_prep.extract import rules

    return Extractor(rules.NAME, rules.extract, rules.assertion)


def _unavailable(name: str) -> Callable[[], Extractor]:
    def load() -> Extractor:
        raise UserError(f"the extractor {name!r} is not available in this version; --extractor=rules is")

    return load


LOADERS: Mapping[str, Callable[[], Extractor]] = MappingProxyType({
    "rules": _rules,
    "gemini": _unavailable("gemini"),
    "genai": _unavailable("genai"),
    "openai": _unavailable("openai"),
})


def open_extractor(name: str) -> Extractor:
    """The extractor of that name; `UserError` where it is unknown or not available."""
    return LOADERS[choose("extractor", name, LOADERS)]()
