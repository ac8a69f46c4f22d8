"""What an experiment keeps of each run: its metrics and their replicates over the test subjects, as a row of JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lgdea_jax.evaluators.tasks import load_samples
from lgdea_jax.metrics.hierarchical import Runs, subject_replicates


def read_results(folder: Path, metrics: Sequence[str]) -> dict[str, Any]:
    """What a row keeps of an evaluation: metrics, and their replicates to 5 digits; undefined numbers are null."""
    found = json.loads((folder / "results.json").read_text(encoding="utf-8"))["results"][0]["metrics"]
    samples = load_samples(folder / "samples.npz").values()
    drawn, subjects = subject_replicates([(task.metrics, task.subjects) for task in samples], tuple(metrics))
    replicates = {name: [None if math.isnan(value) else round(value, 5) for value in values.tolist()]
                  for name, values in drawn.items()}
    return {"metrics": {name: found[name]["value"] for name in metrics}, "subjects": subjects,
            "replicates": replicates}


def runs_of(rows: Sequence[Mapping[str, Any]], metric: str) -> Runs:
    """One metric of the runs of `rows`; those that leave it undefined are left out."""
    kept = sorted((row for row in rows if row["metrics"][metric] is not None), key=lambda row: row["seed"])
    replicates = np.array([row["replicates"][metric] for row in kept], np.float64)  # None becomes NaN.
    return Runs(tuple(row["seed"] for row in kept), np.array([row["metrics"][metric] for row in kept], np.float64),
                replicates.reshape(len(kept), -1) if kept else np.zeros((0, 0)))
