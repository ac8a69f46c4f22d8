"""Names and SHA-256 digests of a checkpoint's arrays: what is read is compared with what was saved, bit for bit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from lgdea_jax.errors import UserError
from lgdea_jax.runtime import sharding


def layout_digest(leaves: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of the names, dtypes and shapes of {path: array}."""
    return hashlib.sha256("\n".join(f"{path} {np.dtype(leaf.dtype)} {tuple(leaf.shape)}" for path, leaf in
                                    sorted(leaves.items())).encode()).hexdigest()


def values_digest(leaves: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of the values of {path: array}, whatever their sharding; all processes of a run call it."""
    def one(path: str) -> str:
        array = np.ascontiguousarray(sharding.whole_on_host(leaves[path]))
        return hashlib.sha256(array.reshape(-1).view(np.uint8)).hexdigest()

    # Gathering from other processes needs one order for all; hashing releases the interpreter.
    with ThreadPoolExecutor(4 if jax.process_count() == 1 else 1) as pool:
        return hashlib.sha256("\n".join(pool.map(one, sorted(leaves))).encode()).hexdigest()


def check_names(have: Mapping[str, tuple], want: Mapping[str, tuple], where: str) -> None:
    """Refuses names or shapes that differ, naming the first few.

    Raises:
      UserError: something is missing, left over, or of another shape.
    """
    problems = [f"missing {name}" for name in sorted(set(want) - set(have))]
    problems += [f"left over {name}" for name in sorted(set(have) - set(want))]
    problems += [f"{name} is {have[name]}, not {want[name]}" for name in sorted(set(have) & set(want))
                 if have[name] != want[name]]
    if problems:
        more = f" (+{len(problems) - 3} more)" if len(problems) > 3 else ""
        raise UserError(f"{where} does not fit the model: {'; '.join(problems[:3])}{more}")
