"""The evidence extractors by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType

from data_prep.extract.language import LANGUAGE_NAMES, foreign
from data_prep.extract.rules import extractor as rules
from data_prep.extract.schema import Extraction
from lgdea_jax.errors import choose


@dataclasses.dataclass(frozen=True)
class Extractor:
    """An extractor that needs no settings.

    Attributes:
      name: with its version, as recorded in the data ("rules@4").
      extract: report -> Extraction.
      assertion: (sentence, concept) -> "Negated" or "Affirmed".
    """

    name: str
    extract: Callable[[str], Extraction]
    assertion: Callable[[str, str], str]


EXTRACTORS: Mapping[str, Extractor] = MappingProxyType(
    {"rules": Extractor(rules.NAME, rules.extract, rules.assertion)})

# Languages (ISO 639-1) of extractors that read some only; a language model may be given any.
LANGUAGES: Mapping[str, tuple[str, ...]] = MappingProxyType({"rules": ("en",)})

# Language models need settings and a cache: see `llm.jobs`, `llm.stage`.
LLM_EXTRACTORS = ("gemini", "genai", "local", "openai")
NAMES = (*EXTRACTORS, *LLM_EXTRACTORS)


def open_extractor(name: str) -> Extractor:
    """The extractor of that name. Raises `UserError` for an unknown name."""
    return EXTRACTORS[choose("extractor", name, EXTRACTORS)]


def reads(name: str, language: str, report: str = "") -> bool:
    """Whether the extractor called `name` reads a report.

    Args:
      language: as it is stated ("en", also "en-GB"), "" where it is not; report: its text, which may tell another one.
    """
    return not unread(name, language, report)


def unread(name: str, language: str, report: str = "") -> str:
    """Why the extractor called `name` does not read a report, with the remedy; "" where it does. As `reads`."""
    if name not in LANGUAGES:
        return ""
    code = language.replace("_", "-").partition("-")[0].strip().lower()
    if code and code not in LANGUAGES[name]:
        what = f"a report in {language!r}"
    else:
        code = foreign(report)
        if not code:
            return ""
        what = f"a report that looks {LANGUAGE_NAMES[code]}"
    return (f"{what}: the extractor {EXTRACTORS[name].name} reads {', '.join(LANGUAGES[name])} only; have a language "
            f"model read it (--config.extractor=openai, and for a table --config.table.language={code})")
