"""Silver labels that come from a file instead of the evidence: those that `data_prep.score --labels_out` writes.

A CSV with `uid`, the study's id, and a column per finding: 1, 0, -1 (uncertain), or nothing where the report does not
say. A language model that is asked for labels (`--task=labels`) gives others than one that is asked for evidence.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lgdea_jax.errors import UserError
from lgdea_jax.findings.vocabulary import find_label
from lgdea_jax.records import MISSING, NEGATIVE, POSITIVE, UNCERTAIN
from lgdea_jax.runtime.files import TableWriter, output_file, plain_cell, write_text_atomically

CELLS = {"1": POSITIVE, "0": NEGATIVE, "-1": UNCERTAIN, "": MISSING}
_TEXT = {value: cell for cell, value in CELLS.items()}


def write_labels(path: str | Path, uids: Sequence[str], names: Sequence[str], labels: np.ndarray) -> None:
    """Writes such a file.

    Args:
      uids: of the reports; names: of the findings.
      labels: int8 [uids, names] of POSITIVE, NEGATIVE, UNCERTAIN, MISSING.

    Raises:
      UserError: it cannot be written.
    """
    text = io.StringIO()
    rows = TableWriter(text)
    rows.writerow(["uid", *names])
    for uid, row in zip(uids, labels.tolist(), strict=True):
        rows.writerow([uid, *(_TEXT[value] for value in row)])
    with output_file(path) as file:
        write_text_atomically(file, text.getvalue())


def read_labels(path: str | Path, names: Sequence[str]) -> Mapping[str, dict[str, int]]:
    """{study id: {finding: label}} of such a file, for the findings `names` that it has.

    Raises:
      UserError: no such file, no CSV with `uid`, none of the findings, another value, or a study twice.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"config.silver_from={path}: not readable as CSV ({type(error).__name__})") from None
    columns = rows[0] if rows else []
    wanted = {column: name for column, cell in enumerate(columns) if (name := find_label(cell)) in names}
    if "uid" not in columns or not wanted:
        raise UserError(f"config.silver_from={path}: it needs a column uid, and columns of findings such as {names[0]}")
    labels: dict[str, dict[str, int]] = {}
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(columns) or any(row[column].strip() not in CELLS for column in wanted):
            raise UserError(f"config.silver_from={path}: row {number} has not 1, 0, -1 or nothing for every finding")
        uid = plain_cell(row[columns.index("uid")].strip())
        if uid in labels:
            raise UserError(f"config.silver_from={path}: the study of row {number} occurs twice")
        labels[uid] = {name: CELLS[row[column].strip()] for column, name in wanted.items()}
    return labels
