"""Measures the agreement of two extractors on the reports of a data set or of a table. Nothing is asked of a model.

    python -m data_prep.agreement --data_dir=DATA --second=rules --out=agreement.json
    python -m data_prep.agreement --reports=R.csv --first=openai:MODEL/evidence@2 --first_replies=R.replies.sqlite

The first extractor is by default the one of the data set: its recorded evidence is compared. Others extract again, are
language models whose replies an earlier run stored, or are tables that people saved from the page of `data_prep.audit`
(--second=READER.csv): of such a table only the reports count that a person has read throughout.

The result has, per finding, the reports in which both, only one, or neither calls it present or uncertain, Cohen's
kappa of that, and kappa of the five levels (present, likely, possible, not mentioned, absent), with 95% bootstrap
intervals over reports. Reports in a language that an extractor does not read, or without a usable reply, are left out
and counted. Agreement is not truth: two extractors may share an error, and kappa falls with rare findings.

There is no configuration file; the keys for language models are in docs/reference/configuration.md.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from data_prep.extract.schema import Extraction
from data_prep.scoring import agreement
from data_prep.scoring.inputs import read_table, report_text, reports_of
from lgdea_jax import cli
from lgdea_jax.data.dataset import load_metadata
from lgdea_jax.errors import UserError
from lgdea_jax.findings.vocabulary import BY_NAME, NO_FINDING
from lgdea_jax.runtime.files import output_file, write_text_atomically

RECORDED = "recorded"
COLUMNS = ("n", "both", "first", "second", "neither")


def main(argv: list[str]) -> int:
    """Runs the command; returns 0, or 3 when rows of the table were rejected."""
    parser = cli.Parser(prog="python -m data_prep.agreement", description=__doc__)
    parser.add_argument("--data_dir", metavar="DATA", help="a data set written by data_prep.build")
    parser.add_argument("--split", default="train",
                        help="of the data set: train, validation, test or all (default: train)")
    parser.add_argument("--reports", metavar="FILE", help="instead of a data set: CSV with uid and text columns")
    parser.add_argument("--columns", default="findings,impression", help="text columns of that table")
    parser.add_argument("--first", metavar="NAME", default=RECORDED,
                        help=f"{RECORDED} (the data set's evidence, the default), {agreement.NAMES_HELP}, "
                             f"{agreement.TABLE_HELP}")
    parser.add_argument("--first_replies", metavar="FILE", default="", help="the cache of the first model's replies")
    parser.add_argument("--second", metavar="NAME", default="rules",
                        help=f"{agreement.NAMES_HELP}, {agreement.TABLE_HELP} (default: rules)")
    parser.add_argument("--second_replies", metavar="FILE", default="", help="the cache of the second model's replies")
    parser.add_argument("--limit", type=int, default=0, help="reports to compare at most (default: all)")
    parser.add_argument("--resamples", type=int, default=1000, help="bootstrap resamples (default: 1000)")
    parser.add_argument("--seed", type=cli.seed, default=0, help="of the bootstrap (default: 0)")
    parser.add_argument("--out", metavar="FILE", help="JSON file for the result")
    args = parser.parse_args(argv)
    if bool(args.data_dir) == bool(args.reports):
        raise UserError("give either --data_dir=DATA or --reports=R.csv")
    if args.reports and args.first == RECORDED:
        raise UserError("a table has no recorded evidence: name the first extractor with --first")
    if args.limit < 0 or args.resamples < 1:
        raise UserError("--limit is at least 0, --resamples at least 1")
    rejected: list[dict] = []
    records: list[Any] = []
    if args.data_dir:
        metadata = load_metadata(args.data_dir)
        records = reports_of(args.data_dir, metadata, args.split, args.limit)
        texts = [(record.report, record.language, record.study_id) for record in records]
    else:
        columns = [name for name in args.columns.split(",") if name]
        rows = read_table(args.reports, ("uid", *columns), rejected)[0]
        texts = [(text, "", row.cells["uid"].strip()) for row in rows if (text := report_text(row.cells, columns))]
        texts = texts[:args.limit or None]
    if not texts:
        raise UserError("there are no reports")
    if args.first == RECORDED:
        if not metadata.extractor:
            raise UserError(f"the data set at {args.data_dir} was built without an extractor: choose one with --first")
        first = (agreement.recorded_name(metadata), [Extraction(item.evidence, item.normal) for item in records])
    else:
        first = _extractions(args.first, args.first_replies, texts, rejected)
    second = _extractions(args.second, args.second_replies, texts, rejected)
    agreement.check_different(first[0], second[0])
    findings = [finding for finding in BY_NAME if finding != NO_FINDING]
    n, table = agreement.of_extractions(first[1], second[1], findings, resamples=args.resamples, seed=args.seed)
    result = {"first": first[0], "second": second[0], "n": n, "left_out": len(texts) - n, "findings": table,
              "rejected": rejected, "command": ["data_prep.agreement", *argv], "seed": args.seed}
    if args.out:
        with output_file(args.out) as file:
            write_text_atomically(file, json.dumps(result, indent=1) + "\n")
    _print(result)
    for item in rejected[:20]:
        row = f" row {item['row']}" if "row" in item else ""
        print(f"rejected: {item['file']}{row}: {item['reason']}", file=sys.stderr)
    return cli.PARTIAL if rejected else cli.OK


def _extractions(name: str, replies: str, texts: Sequence[tuple[str, str, str]], rejected: list[dict]
                 ) -> tuple[str, list[Extraction | None]]:
    """(recorded name, the extraction of each text: None in a language that is not read, or without a usable reply).

    Args:
      texts: (report, language, study) of each; rejected: receives the lines of a table that do not fit.
    """
    reader = agreement.open_reader(name, replies)
    found = [reader.extract(text.strip(), study) if reader.reads(language, text) else None
             for text, language, study in texts]
    rejected += [{"file": reader.name, "reason": reason} for reason in reader.faults]
    return reader.name, found


def _print(result: Mapping[str, Any]) -> None:
    print(f"agreement of {result['first']} (first) and {result['second']} (second) on {result['n']} reports, "
          f"{result['left_out']} left out")
    print(f"{'finding':34}" + "".join(f"{name:>9}" for name in COLUMNS) + f"  {'kappa':^22}{'kappa of levels':^22}")
    for name, row in result["findings"].items():
        print(f"{name:34}" + "".join(f"{row[column]:>9}" for column in COLUMNS)
              + f"  {_cell(row['kappa']):^22}{_cell(row['kappa_certainty']):^22}".rstrip())


def _cell(item: Mapping[str, float | None]) -> str:
    if item["value"] is None:
        return "-"
    return f"{item['value']:.3f}" + ("" if item["low"] is None else f" [{item['low']:.3f}, {item['high']:.3f}]")


if __name__ == "__main__":
    cli.run(main)
