"""One HTML page for a human to judge extracted evidence by: a sample of reports with the evidence marked in the text.

    python -m data_prep.audit --data_dir=DATA --html=audit.html [--sample=50] [--seed=0] [--split=train]
        [--second=rules|none] [--replies=DATA.replies.sqlite]

With `--replies` (the cache of a language model's replies) the page also shows the statements that were dropped and the
flags. The agreement with a second extractor is over all reports of the split (up to `--agree_on`): kappa of "present
or uncertain" per finding. Agreement is not truth: two extractors may share an error. The page quotes reports: protect
it as you protect them.
"""

from __future__ import annotations

import dataclasses
import html
import itertools
import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from data_prep.extract.extractors import LLM_EXTRACTORS, LOADERS, open_extractor
from lgdea_jax import cli
from lgdea_jax.cli import UserError, choose
from lgdea_jax.findings.vocabulary import BY_NAME
from lgdea_jax.record_source import load_metadata, open_records
from lgdea_jax.records import Evidence

LANGUAGES = {"rules": ("en",)}  # What the extractors without a model can read.

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:68em;margin:2em auto;padding:0 1em;color:#222}
pre{white-space:pre-wrap;font:inherit;background:#f7f7f7;padding:.8em;border-radius:6px}
.present{background:#ffd0c8}.uncertain{background:#ffeaa8}.absent{background:#d3ecd0}
mark{color:inherit;border-radius:3px;padding:0 1px}
table{border-collapse:collapse;margin:.6em 0;font-size:14px}td,th{border:1px solid #ccc;padding:2px 8px;text-align:left}
td.n{text-align:right}.flag{color:#a00}
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


def agreement(first: Iterable[Sequence[Evidence]], second: Iterable[Sequence[Evidence]]) -> list[dict[str, Any]]:
    """Cohen's kappa per finding between two extractors, on whether a report calls it present or uncertain.

    Args:
      first, second: the evidence of the same reports.

    Returns:
      `{"finding", "both", "first", "second", "neither", "kappa"}` per finding that either mentions, most frequent
      first; "first" and "second" count what only that one says. Kappa is NaN where it is undefined.
    """
    said = [({e.finding for e in a if e.certainty != "absent"}, {e.finding for e in b if e.certainty != "absent"})
            for a, b in zip(first, second, strict=True)]
    table = []
    for name in BY_NAME:
        both = sum(name in a and name in b for a, b in said)
        one = sum(name in a and name not in b for a, b in said)
        two = sum(name not in a and name in b for a, b in said)
        neither = len(said) - both - one - two
        if both + one + two:
            table.append({"finding": name, "both": both, "first": one, "second": two, "neither": neither,
                          "kappa": kappa(both, one, two, neither)})
    return sorted(table, key=lambda row: -(row["both"] + row["first"] + row["second"]))


def kappa(both: int, first: int, second: int, neither: int) -> float:
    """Cohen's kappa of a 2 x 2 table; NaN where chance alone explains everything."""
    n = both + first + second + neither
    expected = ((both + first) * (both + second) + (neither + first) * (neither + second)) / n ** 2
    return float("nan") if expected == 1 else ((both + neither) / n - expected) / (1 - expected)


def page(title: str, items: Sequence[Item], rows: Sequence[dict[str, Any]], names: tuple[str, str], notes: Sequence[str]
         ) -> str:
    """The whole page."""
    out = [f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title>",
           f"<style>{_STYLE}</style><h1>{html.escape(title)}</h1>"]
    out += [f"<p>{html.escape(note)}</p>" for note in notes]
    out.append('<p><mark class="present">present</mark> <mark class="uncertain">uncertain</mark> '
               '<mark class="absent">absent</mark>; hover for the details.</p>')
    if rows:
        out.append(f"<h2>Agreement of {html.escape(names[0])} and {html.escape(names[1])}</h2><table><tr><th>finding"
                   f"<th>both<th>only {html.escape(names[0])}<th>only {html.escape(names[1])}<th>neither<th>kappa")
        for row in rows:
            numbers = (row["both"], row["first"], row["second"], row["neither"], f"{row['kappa']:.3f}")
            out.append(f"<tr><td>{html.escape(row['finding'])}" + "".join(f"<td class=n>{cell}" for cell in numbers))
        out.append("</table>")
    for item in items:
        out.append(f"<h2>{html.escape(item.study_id)}</h2><pre>{marked(item.report, item.evidence)}</pre>")
        if item.normal:
            out.append("<p>Stated as normal.</p>")
        out += [f'<p class=flag>flagged: {html.escape(flag)}</p>' for flag in item.flags]
        if item.dropped:
            out.append("<table><tr><th>dropped<th>finding<th>certainty<th>quote")
            out += ["<tr>" + "".join(f"<td>{html.escape(cell)}" for cell in row) for row in item.dropped]
            out.append("</table>")
    return "\n".join([*out, "</html>"])


def _reports(records: Any, limit: int) -> Iterator[Any]:
    """The records' reports, each study once."""
    seen: set[str] = set()
    for record in records:
        if record.has_report and record.study_id not in seen:
            seen.add(record.study_id)
            yield record
            if len(seen) == limit:
                return


def _replies(name: str, cache: str) -> Any:
    """Reader of the replies that the data set's extractor `name` ("openai:MODEL/evidence@1") got."""
    backend, colon, rest = name.partition(":")
    if not colon or backend not in LLM_EXTRACTORS:
        raise UserError(f"--replies is for data sets of a language model; this one's extractor is {name!r}")
    cli.require("pydantic", "data", "--replies")
    from data_prep.extract.jobs import Job, Replies
    from data_prep.extract.settings import Settings

    if not Path(cache).is_file():
        raise UserError(f"no reply cache {cache!r}")
    model, _, task = rest.rpartition("/")
    replies = Replies(Job(backend, Settings(model=model), cache))
    if replies.job.task.name != task:
        raise UserError(f"the data set was made with the prompt {task}, this version has {replies.job.task.name}")
    return replies


def _item(record: Any, replies: Any) -> Item:
    from data_prep.extract.verify import contradictions

    flags, dropped = tuple(f"contradiction {name}" for name in contradictions(record.evidence)), ()
    if replies is not None:
        answer = replies.answer(record.report)
        flags = answer.flags
        dropped = tuple((reason, item.finding, item.certainty, item.quote) for reason, item in answer.lost)
    return Item(record.study_id, record.report, record.evidence, record.normal, dropped, flags)


def main(argv: list[str]) -> int:
    """Runs the command."""
    parser = cli.Parser(prog="data_prep.audit", description="A page to judge extracted evidence by.")
    parser.add_argument("--data_dir", required=True, help="a data set written by data_prep.build")
    parser.add_argument("--html", required=True, help="the page to write")
    parser.add_argument("--split", default="train")
    parser.add_argument("--sample", type=int, default=50, help="reports on the page")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--second", default="rules", help=f"extractor to compare with: {', '.join(LOADERS)} or none")
    parser.add_argument("--agree_on", type=int, default=5000, help="reports to compare on, at most")
    parser.add_argument("--replies", default="", help="cache of a language model's replies")
    args = parser.parse_args(argv)
    if args.sample < 1 or args.agree_on < 1:
        raise UserError("--sample and --agree_on are at least 1")
    metadata = load_metadata(args.data_dir)
    choose("split", args.split, metadata.splits)
    choose("extractor to compare with", args.second, (*LOADERS, "none"))
    replies = _replies(metadata.extractor, args.replies) if args.replies else None
    reports = list(_reports(open_records(args.data_dir, args.split), args.agree_on))
    if not reports:
        raise UserError(f"the {args.split} split has no reports")
    notes = [f"{len(reports)} reports of {metadata.name} ({args.split}), extractor {metadata.extractor or 'none'}, "
             f"sample of {min(args.sample, len(reports))} with seed {args.seed}."]
    chosen = random.Random(args.seed).sample(range(len(reports)), min(args.sample, len(reports)))
    items = [_item(reports[i], replies) for i in sorted(chosen)]
    rows, names = [], (metadata.extractor or "none", "")
    if args.second != "none":
        extractor = open_extractor(args.second)
        names = (names[0], extractor.name)
        readable = [record for record in reports if record.language in LANGUAGES[args.second]]
        if len(readable) < len(reports):
            notes.append(f"{len(reports) - len(readable)} reports are not compared: {extractor.name} reads "
                         f"{', '.join(LANGUAGES[args.second])} only.")
        rows = agreement((record.evidence for record in readable),
                         (extractor.extract(record.report).evidence for record in readable))
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
