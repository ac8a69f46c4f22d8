"""Reading the JSON files of official releases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lgdea_jax.errors import UserError


def read_json(path: Path, kind: type, what: str) -> Any:
    """The content of a JSON file.

    Args:
      path: the file; kind: list or dict, of its content; what: it should be, in words.

    Raises:
      UserError: there is no such file, or it is something else.
    """
    if not path.is_file():
        raise UserError(f"no {path.name} in {path.parent}")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError:
        content = None
    if not isinstance(content, kind):
        raise UserError(f"{path.name} is no {what}: download it again")
    return content
