"""Published numbers, which stand beside ours of the same benchmark, mode, metric and protocol."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from lgdea_jax.errors import UserError, choose
from lgdea_jax.evaluators import tasks
from lgdea_jax.pages.elements import Table
from lgdea_jax.pages.runs import Run, cell, has_value, label

# In a checkout, or in the installed package.
_ROOTS = (Path(__file__).parents[2] / "benchmarks", Path(__file__).parents[1])
PUBLISHED = next((root / "published.csv" for root in _ROOTS if (root / "published.csv").is_file()),
                 _ROOTS[0] / "published.csv")
COLUMNS = ("benchmark", "mode", "metric", "method", "value", "source")
OPTIONAL = ("protocol", "pool", "labels")


@dataclasses.dataclass(frozen=True)
class Published:
    """A number from the literature, of a protocol (`eval.harness.protocol`; "" where the file does not say).

    `pool` is what it was measured on, `labels` how many labels were averaged.
    """

    benchmark: str
    mode: str
    metric: str
    method: str
    value: float
    source: str
    protocol: str = ""
    pool: str = ""
    labels: str = ""


def load_published(path: Path) -> list[Published]:
    """Reads published numbers.

    Raises:
      UserError: a column is missing, a value is no number, a mode is unknown, or a source is not given.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path} ({type(error).__name__})") from None
    out = []
    for number, row in enumerate(rows, start=2):
        if any(not (row.get(column) or "").strip() for column in COLUMNS):
            raise UserError(f"{path}, line {number}: every row needs {', '.join(COLUMNS)}")
        choose(f"mode in line {number} of {path.name}", row["mode"], tasks.RESULT_MODES)
        try:
            value = float(row["value"])
        except ValueError:
            raise UserError(f"{path}, line {number}: {row['value']!r} is no number") from None
        out.append(Published(row["benchmark"], row["mode"], row["metric"], row["method"], value, row["source"],
                             **{column: row.get(column) or "" for column in OPTIONAL}))
    return out


def tables(run: Run, published: Sequence[Published]) -> list[tuple[str, Table]]:
    """(mode, table) for each mode that has a published number."""
    out = []
    for mode, result in run.modes.items():
        protocol = result.get("info", {}).get("protocol", {}).get("name", "")
        rows = [[item.method, label(item.metric), f"{item.value:.3f}", cell(result["metrics"].get(item.metric)),
                 item.labels, item.pool, item.source] for item in published
                if (item.benchmark, item.mode) == (run.title, mode) and has_value(result["metrics"].get(item.metric))
                and item.protocol in ("", protocol)]
        if rows:
            out.append((mode, Table(("method", "metric", "published", f"ours ({mode})", "labels", "pool", "source"),
                                    rows, numeric_from=2, name=f"published numbers, {mode} mode")))
    return out
