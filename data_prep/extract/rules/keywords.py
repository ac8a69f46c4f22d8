"""A deliberately weak labeler: a finding is positive where the report names it, in any context.

Negation, doubt and history are not looked at, so "no pleural effusion" is an effusion. It is the lower control beside
`rules` and language models in studies of label quality; never a labeler to use.
"""

from __future__ import annotations

import functools
import re

from lgdea_jax.findings.vocabulary import FINDINGS


@functools.cache
def _patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple((finding.name, re.compile(rf"\b(?:{'|'.join(map(re.escape, finding.synonyms))})s?\b"))
                 for finding in FINDINGS if finding.kind != "none")


def findings(report: str) -> frozenset[str]:
    """The canonical names of the findings that the report names, denied or not; members count for their group."""
    text = " ".join(report.lower().split())
    found = {name for name, pattern in _patterns() if pattern.search(text)}
    for finding in FINDINGS:
        if not found.isdisjoint(finding.members):
            found.add(finding.name)
    return frozenset(found)
