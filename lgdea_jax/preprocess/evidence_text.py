"""Extracted evidence as text: which items a text tower reads, and how an item reads without the report's own words."""

from __future__ import annotations

from collections.abc import Sequence

from lgdea_jax.records import Evidence

# What stands for a study whose normality is stated: its evidence is this one phrase.
NO_FINDING = "no acute cardiopulmonary abnormality"


def usable_evidence(evidence: Sequence[Evidence], *, limit: int) -> list[Evidence]:
    """Items that state a finding: present before uncertain, in the report's order, at most `limit`.

    Absent findings never enter: an evidence distribution is of what the image shows. Repetitions of one statement
    (findings and impression often repeat each other) count once.
    """
    items, counted = [], set()
    for certainty in ("present", "uncertain"):
        for item in evidence:
            key = (item.finding, item.laterality, item.anatomy)
            if item.certainty == certainty and item.temporality != "historical" and key not in counted:
                counted.add(key)
                items.append(item)
    return items[:limit]


def canonical_phrase(item: Evidence) -> str:
    """The item in canonical words, for example "mild left lower lobe atelectasis"."""
    words = (item.severity, item.laterality, item.anatomy, item.finding.lower())
    return " ".join(word for word in words if word)
