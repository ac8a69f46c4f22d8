"""The evidence extractors by name. Each is loaded only when it is chosen, so that none needs another's packages."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType

from data_prep.extract.schema import Extraction
from lgdea_jax.cli import choose


@dataclasses.dataclass(frozen=True)
class Extractor:
    """What reads reports.

    Attributes:
      name: with its version, as recorded in the data ("rules@2").
      extract: report -> Extraction.
      assertion: (sentence, concept) -> "Negated" or "Affirmed"; None where the extractor has no such question.
    """

    name: str
    extract: Callable[[str], Extraction]
    assertion: Callable[[str, str], str] | None


def _rules() -> Extractor:
    from data_prep.extract.rules import extractor

    return Extractor(extractor.NAME, extractor.extract, extractor.assertion)


LOADERS: Mapping[str, Callable[[], Extractor]] = MappingProxyType({"rules": _rules})

# Languages (ISO 639-1) of those that read some only; a language model is not held to any.
LANGUAGES: Mapping[str, tuple[str, ...]] = MappingProxyType({"rules": ("en",)})

# Those that ask a language model need settings and a cache: see `jobs`, `stage`.
LLM_EXTRACTORS = ("gemini", "genai", "openai")
NAMES = (*LOADERS, *LLM_EXTRACTORS)


def open_extractor(name: str) -> Extractor:
    """The extractor of that name that needs no settings; `UserError` where it is unknown."""
    return LOADERS[choose("extractor", name, LOADERS)]()


def reads(name: str, language: str) -> bool:
    """Whether the extractor called `name` reads reports in a language ("en", also as "en-GB"); "" is not stated."""
    code = language.replace("_", "-").partition("-")[0].strip().lower()
    return not code or name not in LANGUAGES or code in LANGUAGES[name]
