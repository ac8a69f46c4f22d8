"""The page to judge and correct extracted evidence on: reports with their evidence marked, and the agreement of two.

What a person does there is done by `templates/audit.js`; the page is one file, loads nothing and sends nothing.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from lgdea_jax.findings.vocabulary import BY_NAME
from lgdea_jax.pages.elements import Table, render, script_digest
from lgdea_jax.records import CERTAINTIES, LATERALITIES, SEVERITIES, TEMPORALITIES, Evidence

_COLUMNS = ("evidence", "certainty", "side", "anatomy", "severity", "change", "quote")


@dataclasses.dataclass(frozen=True)
class Item:
    """A report of the sample.

    Attributes:
      study_id, report, evidence, normal: of the record.
      dropped: (reason, finding, certainty, quote) of statements that were dropped; flags: contradictions and the like.
      lines: column -> cell of each of its lines of the table of evidence; extractor: its name.
    """

    study_id: str
    report: str
    evidence: tuple[Evidence, ...]
    normal: bool
    dropped: tuple[tuple[str, str, str, str], ...] = ()
    flags: tuple[str, ...] = ()
    lines: tuple[Mapping[str, str], ...] = ()
    extractor: str = ""


def page(title: str, items: Sequence[Item], rows: Mapping[str, Mapping[str, Any]], names: tuple[str, str],
         notes: Sequence[str], columns: Sequence[str] = ()) -> str:
    """The HTML document.

    Args:
      title: of the page.
      items: the sample.
      rows: of `data_prep.scoring.agreement.agreement`, by finding; empty without a second extractor.
      names: of both extractors; the second "" where there is none.
      notes: sentences for the top of the page.
      columns: of the table that the page saves.
    """
    agreement = None
    if names[1]:
        header = ("finding", "both", f"only {names[0]}", f"only {names[1]}", "neither", "kappa", "kappa of the levels")
        agreement = Table(header, [
            (name, *(str(row[key]) for key in ("both", "first", "second", "neither")), _kappa(row["kappa"]),
             _kappa(row["kappa_certainty"])) for name, row in rows.items()], name="agreement")
    data = {"columns": columns, "findings": list(BY_NAME), "values": {
        "certainty": CERTAINTIES, "side": LATERALITIES, "severity": SEVERITIES, "change": TEMPORALITIES}, "studies": [
            {"study": item.study_id, "report": item.report, "extractor": item.extractor, "lines": item.lines}
            for item in items]}
    return render("audit", title=title, notes=notes, names=names, agreement=agreement, items=[_view(i) for i in items],
                  data=data, digest=script_digest("audit"))


def _view(item: Item) -> dict[str, Any]:
    evidence = Table(_COLUMNS, [(e.finding, e.certainty, e.laterality, e.anatomy, e.severity, e.temporality, e.phrase)
                                for e in item.evidence], numeric_from=len(_COLUMNS), name="evidence")
    dropped = Table(("dropped", "finding", "certainty", "quote"), item.dropped, numeric_from=4, name="dropped")
    return {"study_id": item.study_id, "normal": item.normal, "flags": item.flags,
            "marks": marks(item.report, item.evidence), "evidence": evidence if item.evidence else None,
            "dropped": dropped if item.dropped else None}


def marks(report: str, evidence: Sequence[Evidence]) -> list[tuple[str, str, str]]:
    """The report in pieces: (text, certainty, description of its evidence); both "" where there is none.

    Where spans overlap, the strongest statement gives the certainty.
    """
    cuts = sorted({0, len(report), *(item.start for item in evidence), *(item.end for item in evidence)})
    pieces = []
    for start, end in itertools.pairwise(cuts):
        here = [item for item in evidence if item.start <= start and end <= item.end]
        certainty = next((c for c in ("present", "uncertain", "absent") if any(e.certainty == c for e in here)), "")
        pieces.append((report[start:end], certainty, "; ".join(map(_describe, here))))
    return pieces


def _describe(item: Evidence) -> str:
    more = ", ".join(filter(None, (item.certainty, item.laterality, item.anatomy, item.severity, item.temporality)))
    return f"{item.finding} ({more})"


def _kappa(item: Mapping[str, float | None]) -> str:
    if item["value"] is None:
        return "-"
    if item["low"] is None:
        return f"{item['value']:.3f}"
    return f"{item['value']:.3f} [{item['low']:.3f}, {item['high']:.3f}]"
