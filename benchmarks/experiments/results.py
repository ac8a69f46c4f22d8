"""What an experiment keeps of each run: its metrics and their replicates over the test subjects, as a row of JSON."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from lgdea_jax.data.dataset import load_metadata
from lgdea_jax.data.plan import make_plan
from lgdea_jax.data.source import open_records
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


def auroc_by_finding(folder: Path, config: Path) -> dict[str, list[float | int | None]]:
    """{finding: [AUROC of the evaluation in `folder`, pairs that were positive in the training of that config]}."""
    found = json.loads((folder / "results.json").read_text(encoding="utf-8"))["results"][0]["metrics"]
    run = ConfigDict(json.loads(config.read_text(encoding="utf-8")))
    positive: Counter[str] = Counter()
    for part in make_plan(run.data, seed=run.seed).parts["pairs"]:
        records = open_records(part.directory, part.split)
        names = load_metadata(part.directory).label_names
        for row in part.rows:
            positive.update(name for name, value in zip(names, records[int(row)].labels) if value == 1)
    prefix = "zero_shot/auroc/"
    return {name: [found[prefix + name]["value"], positive[name]]
            for name in (key.removeprefix(prefix) for key in found if key.startswith(prefix))}


def runs_of(rows: Sequence[Mapping[str, Any]], metric: str) -> Runs:
    """One metric of the runs of `rows`; those that leave it undefined are left out."""
    kept = sorted((row for row in rows if row["metrics"][metric] is not None), key=lambda row: row["seed"])
    replicates = np.array([row["replicates"][metric] for row in kept], np.float64)  # None becomes NaN.
    return Runs(tuple(row["seed"] for row in kept), np.array([row["metrics"][metric] for row in kept], np.float64),
                replicates.reshape(len(kept), -1) if kept else np.zeros((0, 0)))
