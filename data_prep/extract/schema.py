"""What every extractor returns, and the check that it is well formed."""

from __future__ import annotations

import dataclasses

from lgdea_jax.findings.vocabulary import BY_NAME
from lgdea_jax.records import CERTAINTIES, LATERALITIES, SEVERITIES, TEMPORALITIES, Evidence

__all__ = ["Evidence", "Extraction", "problems"]


@dataclasses.dataclass(frozen=True)
class Extraction:
    """The evidence of one report.

    Attributes:
      evidence: diagnostic statements in the order of the text; spans are character offsets in the report as given.
      normal: True where the report states normality and nothing is present or uncertain.
      votes: for each statement how many passes of a language model have it ("2/3"); () where there was only one pass.
    """

    evidence: tuple[Evidence, ...]
    normal: bool
    votes: tuple[str, ...] = ()


def problems(extraction: Extraction, report: str) -> list[str]:
    """What is wrong with `extraction` as a description of `report`; empty when it is well formed.

    The messages name fields and positions, never words of the report.
    """
    found = []
    for i, item in enumerate(extraction.evidence):
        if item.finding not in BY_NAME:
            found.append(f"evidence {i}: unknown finding")
        for field, known in (("laterality", LATERALITIES), ("severity", SEVERITIES), ("certainty", CERTAINTIES),
                             ("temporality", TEMPORALITIES)):
            if getattr(item, field) not in known:
                found.append(f"evidence {i}: {field} is not one of {', '.join(filter(None, known))}")
        if not item.phrase or report[item.start:item.end] != item.phrase:
            found.append(f"evidence {i}: the phrase is not the text at {item.start}:{item.end}")
    if extraction.normal and any(item.certainty != "absent" and item.temporality != "historical"
                                 for item in extraction.evidence):
        found.append("normal, although a finding is present or uncertain")
    return found
