"""Writes an HTML page on which a person can judge extracted evidence: a sample of reports with the evidence marked.

    python -m data_prep.audit --data_dir=DATA --html=audit.html
    python -m data_prep.audit --data_dir=DATA --html=audit.html --replies=DATA.replies.sqlite --sample=100 --seed=1

With `--replies` (the cache of a language model's replies) the page also shows the statements that were dropped, the
flags, and how many replies were unusable. The agreement with a second extractor is over all reports of the split, up to
`--agree_on` (see `python -m data_prep.agreement --help`); reports in a language that it does not read are left out and
counted. Agreement is not truth: two extractors may share an error. The page quotes reports: protect it as you protect
them.

There is no configuration file; the keys of data sets are in docs/reference/configuration.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import html
import itertools
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep.extract.extractors import LANGUAGES, reads
from data_prep.extract.llm.cache import Cache
from data_prep.extract.llm.verify import contradictions
from data_prep.extract.schema import Extraction
from data_prep.scoring import agreement
from data_prep.scoring.inputs import distinct_reports
from lgdea_jax import cli
from lgdea_jax.data.dataset import load_metadata
from lgdea_jax.data.source import open_records
from lgdea_jax.errors import UserError, choose
from lgdea_jax.findings.vocabulary import BY_NAME, NO_FINDING
from lgdea_jax.records import Evidence

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:68em;margin:2em auto;padding:0 1em;color:#222}
pre{white-space:pre-wrap;font:inherit;background:#f7f7f7;padding:.8em;border-radius:6px}
.present{background:#ffd0c8}.uncertain{background:#ffeaa8}.absent{background:#d3ecd0}
mark{color:inherit;border-radius:3px;padding:0 1px}
table{border-collapse:collapse;margin:.6em 0;font-size:14px}td,th{border:1px solid #ccc;padding:2px 8px;text-align:left}
td.n{text-align:right;white-space:nowrap}.flag{color:#a00}.dropped{color:#666}
"""


@dataclasses.dataclass(frozen=True)
class Item:
    """A report of the sample.

    Attributes:
      study_id, report, evidence, normal: of the record.
      dropped: (reason, finding, certainty, quote) of statements that were dropped; flags: contradictions and the like.
    """

    study_id: str
    report: str
    evidence: tuple[Evidence, ...]
    normal: bool
    dropped: tuple[tuple[str, str, str, str], ...] = ()
    flags: tuple[str, ...] = ()


def marked(report: str, evidence: Sequence[Evidence]) -> str:
    """The report as HTML with its evidence marked; where spans overlap, the strongest statement gives the colour."""
    cuts = sorted({0, len(report), *(item.start for item in evidence), *(item.end for item in evidence)})
    parts = []
    for start, end in itertools.pairwise(cuts):
        here = [item for item in evidence if item.start <= start and end <= item.end]
        text = html.escape(report[start:end])
        if not here:
            parts.append(text)
            continue
        kind = next(c for c in ("present", "uncertain", "absent") if any(item.certainty == c for item in here))
        title = html.escape("; ".join(_describe(item) for item in here))
        parts.append(f'<mark class="{kind}" title="{title}">{text}</mark>')
    return "".join(parts)


def _describe(item: Evidence) -> str:
    more = ", ".join(filter(None, (item.certainty, item.laterality, item.anatomy, item.severity, item.temporality)))
    return f"{item.finding} ({more})"


def page(title: str, items: Sequence[Item], rows: Mapping[str, Mapping[str, Any]], names: tuple[str, str],
         notes: Sequence[str]) -> str:
    """The whole page; `rows` is what `agreement.agreement` returns, empty without a second extractor."""
    out = [f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title>",
           '<meta name=viewport content="width=device-width">',
           f"<style>{_STYLE}</style><h1>{html.escape(title)}</h1>"]
    out += [f"<p>{html.escape(note)}</p>" for note in notes]
    if names[1]:
        out.append(f"<h2>Agreement of {html.escape(names[0])} and {html.escape(names[1])}</h2>"
                   "<p>Reports in which both, only one, or neither calls the finding present or uncertain; Cohen's "
                   "kappa of that with its 95% interval; and kappa of the five levels (present, likely, possible, "
                   "not mentioned, absent). Agreement is not truth.</p>"
                   f"<table><tr><th>finding<th>both<th>only {html.escape(names[0])}<th>only {html.escape(names[1])}"
                   "<th>neither<th>kappa<th>of certainties")
        for name, row in rows.items():
            numbers = (row["both"], row["first"], row["second"], row["neither"], _kappa(row["kappa"]),
                       _kappa(row["kappa_certainty"]))
            out.append(f"<tr><td>{html.escape(name)}" + "".join(f"<td class=n>{cell}" for cell in numbers))
        out.append("</table>")
    out.append('<h2>Sample</h2><p>Marked in the text: <mark class="present">present</mark> <mark class="uncertain">'
               'uncertain</mark> <mark class="absent">absent</mark>.</p>')
    for item in items:
        out.append(f"<h3>{html.escape(item.study_id)}</h3><pre>{marked(item.report, item.evidence)}</pre>")
        if item.normal:
            out.append("<p>Stated as normal.</p>")
        if item.evidence:
            out.append("<table><tr><th>evidence<th>certainty<th>side<th>place<th>severity<th>change<th>quote")
            out += [_row((e.finding, e.certainty, e.laterality, e.anatomy, e.severity, e.temporality, e.phrase),
                         f' class="{e.certainty}"') for e in item.evidence]
            out.append("</table>")
        elif not item.normal:
            out.append("<p>No evidence.</p>")
        out += [f'<p class=flag>flagged: {html.escape(flag)}</p>' for flag in item.flags]
        if item.dropped:
            out.append("<table class=dropped><tr><th>dropped<th>finding<th>certainty<th>quote")
            out += [_row(row) for row in item.dropped]
            out.append("</table>")
    return "\n".join([*out, "</html>"])


def _row(cells: Iterable[str], attributes: str = "") -> str:
    first, *rest = (html.escape(cell) for cell in cells)
    return f"<tr><td{attributes}>{first}" + "".join(f"<td>{cell}" for cell in rest)


def _kappa(item: Mapping[str, float | None]) -> str:
    if item["value"] is None:
        return "-"
    if item["low"] is None:
        return f"{item['value']:.3f}"
    return f"{item['value']:.3f} [{item['low']:.3f}, {item['high']:.3f}]"


def _item(record: Any, replies: Any) -> Item:
    flags, dropped = tuple(f"contradiction {name}" for name in contradictions(record.evidence)), ()
    if replies is not None:
        answer = replies.answer(record.report)
        flags = answer.flags
        dropped = [(reason, item.finding, item.certainty, item.quote) for reason, item in answer.lost]
        # What was not even a statement of a finding that is known has no quote to show.
        others = Counter(answer.dropped) - Counter(reason for reason, *_ in dropped)
        dropped += [(f"{n} x {reason}", "", "", "") for reason, n in sorted(others.items())]
    return Item(record.study_id, record.report, record.evidence, record.normal, tuple(dropped), flags)


def _not_usable(replies: Any) -> str:
    """A note on reports that are not in the data set because the model's reply could not be used."""
    with Cache(replies.job.cache) as cache:
        reasons = Counter(entry.reason for _, entry in cache.quarantined(replies.job.scope))
    if not reasons:
        return "No reply in the cache was unusable."
    return (f"{sum(reasons.values())} replies in the cache could not be used, their reports are not in the data: "
            + ", ".join(f"{n} x {reason}" for reason, n in reasons.most_common()) + ".")


def _agreement(records: Sequence[Any], args: argparse.Namespace,
               second: tuple[str, Callable[[str], Extraction | None]], notes: list[str]) -> dict[str, dict[str, Any]]:
    """The table of agreement; reports that cannot be compared are counted in the notes."""
    name, extract = second
    readable = [record for record in records if reads(args.second, record.language)]
    if len(readable) < len(records):
        notes.append(f"{len(records) - len(readable)} reports are not compared: {name} reads "
                     f"{', '.join(LANGUAGES[args.second])} only.")
    findings = [finding for finding in BY_NAME if finding != NO_FINDING]
    n, rows = agreement.of_extractions(
        [Extraction(record.evidence, record.normal) for record in readable],
        [extract(record.report) for record in readable], findings, resamples=500, seed=args.seed)
    if n < len(readable):
        notes.append(f"{len(readable) - n} reports are not compared: there is no usable reply of {name}.")
    return rows


def main(argv: list[str]) -> int:
    """Runs the command."""
    parser = cli.Parser(prog="python -m data_prep.audit", description=__doc__)
    parser.add_argument("--data_dir", required=True, help="a data set written by data_prep.build")
    parser.add_argument("--html", required=True, help="the page to write")
    parser.add_argument("--split", default="train", help="train, validation or test (default: train)")
    parser.add_argument("--sample", type=int, default=50, help="reports on the page")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (default: 0)")
    agreement.add_flags(parser, default="rules")
    parser.add_argument("--agree_on", type=int, default=5000, help="reports to compare on, at most")
    parser.add_argument("--replies", default="", help="cache of a language model's replies")
    args = parser.parse_args(argv)
    if args.sample < 1 or args.agree_on < 1:
        raise UserError("--sample and --agree_on are at least 1")
    metadata = load_metadata(args.data_dir)
    choose("split", args.split, metadata.splits)
    second = None if args.second == "none" else agreement.open_reader(args.second, args.second_replies)
    replies = agreement.open_replies(metadata.extractor, args.replies) if args.replies else None
    reports = list(distinct_reports(open_records(args.data_dir, args.split), args.agree_on))
    if not reports:
        raise UserError(f"the {args.split} split has no reports")
    notes = [f"{len(reports)} reports of {metadata.name} ({args.split}), extractor {metadata.extractor or 'none'}, "
             f"sample of {min(args.sample, len(reports))} with seed {args.seed}."]
    chosen = random.Random(args.seed).sample(range(len(reports)), min(args.sample, len(reports)))
    items = [_item(reports[i], replies) for i in sorted(chosen)]
    if replies is not None:
        notes.append(_not_usable(replies))
    rows, names = {}, (metadata.extractor or "none", "")
    if second is not None:
        names = (names[0], second[0])
        rows = _agreement(reports, args, second, notes)
    path = Path(args.html)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page(f"Evidence in {metadata.name}", items, rows, names, notes), encoding="utf-8")
    except (NotADirectoryError, IsADirectoryError, FileExistsError, PermissionError) as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None
    print(f"wrote {path}: {len(items)} reports")
    return cli.OK


if __name__ == "__main__":
    cli.run(main, sys.argv[1:])
