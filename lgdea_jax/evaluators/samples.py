"""Per-sample results of an evaluator, from which all intervals and paired tests are made."""

from __future__ import annotations

import abc
import dataclasses
import json
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from lgdea_jax.evaluators.encoder import Encoder, Model


@dataclasses.dataclass(frozen=True)
class Samples(abc.ABC):
    """Per-sample results of one task.

    Attributes:
      subjects: [N] keys.
      arrays: name -> array whose first axis is N.
      names: the names of the arrays' columns or codes: findings, metrics, categories.
      info: what the numbers depend on, as JSON values: gallery size, chance level, scoring, what was left out. The keys
        are in the docstring of each subclass; results.json contains them, `eval.harness.notes` prints them.
    """

    task: ClassVar[str]
    subjects: np.ndarray
    arrays: Mapping[str, np.ndarray]
    names: Mapping[str, tuple[str, ...]]
    info: Mapping[str, Any]

    @property
    def key(self) -> str:
        """The first part of the names of its metrics and of its entries on disk."""
        return self.task

    @abc.abstractmethod
    def metrics(self, weights: np.ndarray | None = None) -> dict[str, Any]:
        """{metric: float}, or {metric: float64 [B]} for weights [B, N]; NaN where undefined."""

    @abc.abstractmethod
    def sizes(self) -> dict[str, int]:
        """{metric: number of samples that it rests on}."""

    def image_rows(self) -> np.ndarray:
        """int64 [N], the row of the image that each sample belongs to, -1 for samples that are reports."""
        return np.arange(len(self.subjects))

    def only(self, rows: np.ndarray) -> Samples:
        """The samples in `rows`."""
        return dataclasses.replace(self, subjects=self.subjects[rows],
                                   arrays={name: array[rows] for name, array in self.arrays.items()})

    def dump(self, prefix: str) -> dict[str, np.ndarray]:
        """Entries for `numpy.savez`, all below `prefix`; `load_samples` reads them."""
        meta = json.dumps({"names": self.names, "info": self.info})
        return {f"{prefix}{self.key}/meta": np.array(meta), f"{prefix}{self.key}/subjects": self.subjects,
                **{f"{prefix}{self.key}/array/{name}": array for name, array in self.arrays.items()}}


def weighted_mean(values: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """Means of the columns of [N, M] over their defined (not NaN) rows: [M], or [B, M] with weights [B, N]."""
    known = ~np.isnan(values)
    rows = np.ones((1, len(values))) if weights is None else weights.astype(np.float64)
    size, summed = rows @ known, rows @ np.where(known, values, 0.0)
    means = np.divide(summed, size, out=np.full(summed.shape, np.nan), where=size > 0)
    return means[0] if weights is None else means


class Evaluator(abc.ABC):
    """A task on an `EvalData`."""

    @abc.abstractmethod
    def run(self, model: Model | Encoder) -> Samples:
        """Scores the data with the model."""
