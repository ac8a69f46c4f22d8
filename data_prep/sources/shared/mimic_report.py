"""Sections of MIMIC-CXR's free-text reports.

Findings and impression are what the field trains on. Where a report has neither, the last paragraph stands for them, as
in the data set's own section parser (github.com/MIT-LCP/mimic-cxr). Its list of corrections for single studies is not
repeated here: those studies' texts can differ.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from data_prep.extract import sections

_TITLE = re.compile(r"^\s*(?:FINAL|WET READ|PRELIMINARY)\s+(?:REPORT|EXAMINATION)\b.*$", re.MULTILINE)
_PARAGRAPHS = re.compile(r"\n\s*\n")
LAST_PARAGRAPH = "last_paragraph"


def read_report(text: str, names: Sequence[str]) -> str:
    """The sections called `names` under their headings, in the report's order, white space made single.

    Args:
      text: the file's content.
      names: of `sections`' canonical names, and "last_paragraph": what stands in for findings and impression, without a
        heading, where the report has neither.

    Returns:
      The text; "" where nothing of it is left.
    """
    text = _TITLE.sub("", text)
    parts = sections.split(text)
    if LAST_PARAGRAPH in names and not any(part.name in ("findings", "impression") for part in parts):
        paragraphs = [" ".join(piece.split()) for piece in _PARAGRAPHS.split(text)]
        paragraphs = [piece for piece in paragraphs if piece]
        if not paragraphs:
            return ""
        # The last paragraph may carry the heading of a section that is not wanted ("RECOMMENDATION: ...").
        last = sections.split(paragraphs[-1])
        return " ".join(paragraphs[-1][part.start:part.end] for part in last if part.name == sections.BODY)
    kept = [(part.name, " ".join(text[part.start:part.end].split())) for part in parts if part.name in names]
    return "\n".join(f"{name.upper()}: {content}" for name, content in kept)
