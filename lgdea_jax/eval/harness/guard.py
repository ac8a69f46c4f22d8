"""Refuses to evaluate a checkpoint on subjects that it was trained on.

A checkpoint names the data sets of its training (its config) and carries a digest of their shards. Their indexes hold a
hash of every subject id, so the check reads no images. Data sets of one origin must use the same subject ids, as ours
do: MS-CXR's are MIMIC-CXR's, 5x200 comes from CheXpert's training split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lgdea_jax.data import dataset
from lgdea_jax.data.plan import parse_weights
from lgdea_jax.errors import UserError


def check(spec: Mapping[str, Any], data_dir: Path, split: str | Sequence[str], rows: np.ndarray, *,
          trained_on: Sequence[str] = (), allow: bool = False) -> dict[str, Any]:
    """Checks for subjects in common between the training data and what is evaluated.

    Args:
      spec: of the checkpoint.
      data_dir, split, rows: what is evaluated; of several splits, rows count from the first one's on.
      trained_on: where the training data are now, if they have moved.
      allow: continue in spite of a leak, or of training data that cannot be read; the result records it.

    Returns:
      For results.json: {"checked": whether, "trained_on": data sets, "subjects_in_common": number or None, "note"}.

    Raises:
      UserError: subjects in common, or unreadable training data.
    """
    config = spec.get("config", {})
    folders = list(trained_on) or training_folders(config.get("data", {}))
    found: dict[str, Any] = {"checked": False, "trained_on": list(spec.get("data", {}).get("names", ())),
                             "subjects_in_common": None, "note": ""}
    try:
        subjects = _training_subjects(folders, config.get("data", {}).get("split", "train"), spec)
    except UserError as error:
        if not allow:
            raise UserError(f"cannot check for subjects that the checkpoint was trained on: {error}. Name the folders "
                            "of its training data with --trained_on=DIR, or continue with --allow_leaks") from None
        return {**found, "note": f"not checked: {error}"}
    splits = (split,) if isinstance(split, str) else tuple(split)
    evaluated = np.concatenate([dataset.load_index(data_dir, name)["subject"] for name in splits])[rows]
    common = len(np.intersect1d(subjects, evaluated))
    if common and not allow:
        raise UserError(f"{common} subjects of {data_dir} ({', '.join(splits)}) are in the training data of this "
                        "checkpoint: its numbers here would mean nothing (--allow_leaks continues and records it)")
    start = config.get("init_from", "")
    return {**found, "checked": True, "subjects_in_common": common,
            "note": f"what {start} was trained on, from which this run started, is not checked" if start else ""}


def training_folders(data: Mapping[str, Any]) -> list[str]:
    """The data sets that a run's `config.data` names, each once."""
    entries = [entry for key in ("pairs_from", "images_from", "reports_from") for entry in data.get(key) or ()]
    named = [data["dir"]] if data.get("dir") else []
    return list(dict.fromkeys(named + [folder for folder, _ in parse_weights(entries)]))


def _training_subjects(folders: Sequence[str], split: str, spec: Mapping[str, Any]) -> np.ndarray:
    if not folders:
        raise UserError("the checkpoint names no training data")
    metadata = [dataset.load_metadata(folder) for folder in folders]
    known = set(spec.get("data", {}).get("names", ()))
    if known and {meta.name for meta in metadata} != known:
        raise UserError(f"it was trained on {', '.join(sorted(known))}, not on "
                        f"{', '.join(sorted(meta.name for meta in metadata))}")
    return np.unique(np.concatenate([dataset.load_index(folder, split)["subject"] for folder in folders]))
