"""Text from data in Markdown documents (cards, data sheets): it is shown, never read as markup, HTML or a link."""

from __future__ import annotations

import re


def plain(value: object) -> str:
    """`value` as text of one line."""
    return re.sub(r"([\\`*\[\]|<>&])", lambda found: f"&#{ord(found[1])};", " ".join(str(value).split()))


def code(value: object) -> str:
    """`value` as a code span, in which HTML means nothing; also in a table."""
    return f"`{' '.join(str(value).split()).replace('`', chr(39)).replace('|', '/')}`"


def block(text: str, language: str = "bash") -> str:
    """`text` as a block of code that it cannot end."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"
