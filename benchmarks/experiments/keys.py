"""Names of runs: digests of what decides their numbers, so that a finished run is found again."""

from __future__ import annotations

import functools
import hashlib
import json
import operator
from collections.abc import Mapping, Sequence
from typing import Any

from lgdea_jax.experiment import IMAGE_TOWERS, OPEN, TEXT_TOWERS

# Keys that came after committed runs: they are left out where they have the value that does what was done before.
LATER: Mapping[str, Any] = {"data.images": 1.0, "data.reports": 1.0, "data.keep_tokens": False, "augment.device": False,
                            "optim.frozen": 0.0, "model.scan": False, "model.image.resnet.pyramid": 0}


def decisive(config: Any, leave_out: Sequence[str]) -> dict[str, Any]:
    """A config as plain values, without keys that cannot change a run's numbers.

    Options of other methods and of other towers are left out, and what the tower leaves open is filled in.

    Args:
      config: a ConfigDict; leave_out: "part.key" or "part".
    """
    kept = json.loads(config.to_json_best_effort())
    kept["methods"] = {config.method: kept["methods"][config.method]}
    for side in ("image", "text"):
        tower = kept["model"][side]
        for name in {**IMAGE_TOWERS, **TEXT_TOWERS}.keys() & tower.keys() - {tower["name"]}:
            del tower[name]
        own = tower[tower["name"]]
        own |= {name: own[name] or value for name, value in OPEN.get(tower["name"], {}).items()}
    for name in leave_out:
        *parents, last = name.split(".")
        del functools.reduce(operator.getitem, parents, kept)[last]
    for name, value in LATER.items():
        *parents, last = name.split(".")
        node = functools.reduce(lambda node, part: node.get(part, {}), parents, kept)  # Of another tower: not there.
        if last in node and node[last] == value:
            del node[last]
    return kept


def digest(content: Any) -> str:
    """16 hex digits of the SHA-256 of `content` as JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
