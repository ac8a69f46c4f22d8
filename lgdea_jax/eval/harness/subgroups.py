"""Metrics by sex, age band and view: the headline metrics of each task on a part of the images.

A gap between groups is not yet bias: groups differ in prevalence, severity and views too (AUROC does not adjust for
any of them), and the smaller a group the wider its interval. Groups of few subjects are left out: their numbers
would be noise, and could disclose something about a person.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lgdea_jax.eval.harness.output import entry
from lgdea_jax.evaluators.data import EvalData
from lgdea_jax.evaluators.samples import Samples
from lgdea_jax.metrics import bootstrap

FEWEST_SUBJECTS = 10
AGE_BANDS = ((0, 20), (20, 40), (40, 60), (60, 80), (80, 200))
# By the metric's name without "@..." and without the finding.
HEADLINE = ("classifier/auroc", "classifier/average_precision", "classifier/ece", "zero_shot/auroc",
            "zero_shot/average_precision", "zero_shot/ece", "zero_shot/accuracy", "grounding/cnr",
            "grounding/pointing", "grounding/miou", "retrieval/recall@10/image_to_text",
            "retrieval/precision@5", "progression/auroc", "progression/accuracy", "auroc")


def groups(data: EvalData) -> dict[str, dict[str, np.ndarray]]:
    """{attribute: {group: rows of the images}}; unknown values belong to no group."""
    sexes = {name: np.flatnonzero(data.sexes == name) for name in ("F", "M")}
    ages = {f"{low}-{high - 1}" if high < 200 else f"{low}+": np.flatnonzero((data.ages >= low) & (data.ages < high))
            for low, high in AGE_BANDS}
    views = {str(name): np.flatnonzero(data.views == name) for name in np.unique(data.views) if name}
    return {"sex": sexes, "age": ages, "view": views}


def measure(samples: Sequence[Samples], data: EvalData, *, resamples: int, seed: int) -> dict[str, Any]:
    """{attribute: {group: {"images", "n_subjects", "metrics": {name: entry}}}}.

    Groups of fewer than FEWEST_SUBJECTS subjects have their counts only. Attributes with a single group are left out:
    there is nothing to compare.
    """
    out: dict[str, Any] = {}
    for attribute, members in groups(data).items():
        members = {name: rows for name, rows in members.items() if len(rows)}
        if len(members) < 2:
            continue
        out[attribute] = {}
        for name, images in members.items():
            subjects = len(np.unique(data.subjects[images]))
            metrics = {} if subjects < FEWEST_SUBJECTS else _metrics(samples, images, resamples, seed)
            out[attribute][name] = {"images": len(images), "n_subjects": subjects, "metrics": metrics}
    return out


def _metrics(samples: Sequence[Samples], images: np.ndarray, resamples: int, seed: int) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for item in samples:
        part = item.only(np.flatnonzero(np.isin(item.image_rows(), images)))
        if not len(part.subjects):
            continue
        def headline(weights: np.ndarray | None, part: Samples = part) -> dict[str, Any]:
            return {name: value for name, value in part.metrics(weights).items() if _is_headline(name)}

        sizes = part.sizes()
        found = bootstrap.intervals(headline, part.subjects, resamples=resamples, seed=seed)
        out |= {name: entry(interval, sizes[name]) for name, interval in found.items()}
    return out


def _is_headline(name: str) -> bool:
    return name in HEADLINE or (name.startswith("probe@") and name.split("/", 1)[1] in HEADLINE)
