"""Names of runs: digests of what decides their numbers, so that a finished run is found again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

# Keys that came after committed runs: they are left out where they have the value that does what was done before.
LATER: Mapping[str, Any] = {"data.images": 1.0, "data.reports": 1.0, "data.keep_tokens": False, "augment.device": False}


def decisive(config: Any, leave_out: Sequence[str]) -> dict[str, Any]:
    """A config as plain values, without keys that cannot change a run's numbers and without other methods' options.

    Args:
      config: a ConfigDict; leave_out: "part.key" or "part".
    """
    kept = json.loads(config.to_json_best_effort())
    kept["methods"] = {config.method: kept["methods"][config.method]}
    for name in (*leave_out, *LATER):
        *parents, last = name.split(".")
        node = kept
        for part in parents:
            node = node[part]
        if name in leave_out or node[last] == LATER[name]:
            del node[last]
    return kept


def digest(content: Any) -> str:
    """16 hex digits of the SHA-256 of `content` as JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
