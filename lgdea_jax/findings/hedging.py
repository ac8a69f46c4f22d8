"""How much doubt the words of a statement carry: "probably" is more likely than not, "cannot be excluded" is not.

Radiologists use "may represent" and "cannot be excluded" for what they leave open, and coders of findings leave such
statements out, while they do write down what is "probable" or "borderline". Evidence has the certainty "uncertain"
only; the kind of doubt follows from its phrase, whatever extracted it, since a phrase contains the deciding words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from lgdea_jax.records import Evidence

# Leaves the finding open. Matched first: "most likely artefact, cannot exclude a nodule" leaves the nodule open.
_OPEN = re.compile(
    r"\b(?:may|might|could|would|can ?not|can|not|difficult to|possib\w+|question\w*|suspi\w+|suspect\w*|concern\w*|"
    r"worrisome|suggest\w*|perhaps|equivocal|indeterminate|consider\w*|differential|vs|versus|less likely|unlikely|"
    r"raises?|uncertain|unclear|nodular (?:opacit|densit)\w+)\b|\?")
_LIKELY = re.compile(r"\b(?:likely|probabl[ey]|presum\w+|favou?r\w*|felt to|borderline|apparent\w*|xxxx)\b")


def is_merely_possible(item: Evidence) -> bool:
    """Whether an uncertain statement leaves its finding open instead of calling it likely.

    A phrase without any word of doubt that is known here counts as likely: its doubt is of an unknown kind.
    """
    if item.certainty != "uncertain":
        return False
    words = item.phrase.lower()
    return _OPEN.search(words) is not None


def without_possibilities(evidence: Sequence[Evidence]) -> tuple[Evidence, ...]:
    """The evidence without what is merely possible."""
    return tuple(item for item in evidence if not is_merely_possible(item))
