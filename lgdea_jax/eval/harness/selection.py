"""Which records of a split are evaluated, with which labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from lgdea_jax.evaluators.data import EvalData
from lgdea_jax.records import Record

VIEWS = ("all", "frontal")


@dataclasses.dataclass(frozen=True)
class Selection:
    """Rows of a split, ascending; and, where the benchmark redefines them, their labels.

    Attributes:
      rows: int64 [N].
      label_names: of `labels`, () to keep the data set's.
      labels: int8 [N, L] or None.
      note: what was selected, in words.
    """

    rows: np.ndarray
    label_names: tuple[str, ...] = ()
    labels: np.ndarray | None = None
    note: str = ""

    def sample(self, wanted: int, seed: int) -> Selection:
        """A seeded sample of `wanted` rows; 0 keeps all."""
        if not wanted or wanted >= len(self.rows):
            return self
        kept = np.sort(np.random.default_rng(seed).choice(len(self.rows), wanted, replace=False))
        labels = None if self.labels is None else self.labels[kept]
        return dataclasses.replace(self, rows=self.rows[kept], labels=labels)

    def relabel(self, data: EvalData) -> EvalData:
        """`data`, read from these rows, with these labels; a report has those of its study's first image."""
        if self.labels is None:
            return data
        labels = self.labels[data.record_rows]
        of_report = np.zeros((len(data.reports), len(self.label_names)), np.int8)
        with_report = np.flatnonzero(data.report_of >= 0)[::-1]
        of_report[data.report_of[with_report]] = labels[with_report]
        return dataclasses.replace(data, label_names=self.label_names, labels=labels, report_labels=of_report,
                                   label_set="reference")


def all_rows(count: int) -> Selection:
    """Every record."""
    return Selection(np.arange(count))


def matching(records: Sequence[Record], keep: Callable[[Record], bool], note: str,
             progress: Callable[[str, int, int], None]) -> Selection:
    """The records for which `keep` is true; a report alone is judged like any other."""
    rows = []
    for row, record in enumerate(records):
        if keep(record):
            rows.append(row)
        progress("selecting", row + 1, len(records))
    return Selection(np.array(rows, np.int64), note=note)
