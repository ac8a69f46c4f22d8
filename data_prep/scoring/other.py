"""The labels of another labeler, from a file, for `data_prep.score --other`."""

from __future__ import annotations

import dataclasses

import numpy as np

from data_prep.scoring import measures
from data_prep.scoring.inputs import VALUES, Inputs, by_uid, read_table
from data_prep.scoring.ordinal import of_labels
from lgdea_jax.errors import UserError
from lgdea_jax.findings.vocabulary import find_label
from lgdea_jax.records import MISSING
from lgdea_jax.runtime.files import plain_cell


def read_other(path: str, inputs: Inputs, rejected: list[dict]) -> tuple[Inputs, np.ndarray, np.ndarray | None]:
    """Labels of the reports to score.

    Args:
      path: a CSV with `uid` and a column per finding: 1, 0, -1 (uncertain), nothing (the report does not say), or
        probabilities, that is decimals within [0, 1], of which those from 0.5 on are positive.
      inputs: the reports and their reference; rejected: gets the rows that cannot be read.

    Returns:
      (the reports that have labels, without the reference of findings that the file does not have; levels int8 [n,
      findings]; float64 [n, findings] of probabilities or None).

    Raises:
      UserError: no such file, other values, or no report or finding in common.
    """
    rows, columns = read_table(path, ("uid",), rejected)
    table = {plain_cell(uid): row for uid, row in by_uid(rows, path, rejected).items()}
    column_of = {name: column for column in columns if (name := find_label(column)) in inputs.names}
    chosen = [i for i, uid in enumerate(inputs.uids) if uid in table]
    if not chosen or not column_of:
        raise UserError(f"--other={path}: it has none of the {'findings' if chosen else 'uids'} that are scored")
    cells = [[table[inputs.uids[i]].cells[column].strip() for column in column_of.values()] for i in chosen]
    known = [list(inputs.names).index(name) for name in column_of]
    part = inputs.only(chosen)
    truth = np.full_like(part.truth, MISSING)
    truth[:, known] = part.truth[:, known]
    levels, scores = np.full(truth.shape, measures.UNMENTIONED, np.int8), None
    try:
        if all(cell in VALUES for row in cells for cell in row):
            levels[:, known] = of_labels(np.array([[VALUES[cell] for cell in row] for row in cells], np.int8))
        else:
            scores = np.zeros(truth.shape)
            scores[:, known] = np.array(cells, np.float64)
            if not ((scores >= 0) & (scores <= 1)).all():
                raise ValueError
            levels[:, known] = np.where(scores[:, known] >= 0.5, measures.PRESENT, measures.ABSENT)
    except ValueError:
        raise UserError(f"--other={path}: its cells are neither 1, 0, -1 and nothing, nor probabilities") from None
    return dataclasses.replace(part, truth=truth), levels, scores
