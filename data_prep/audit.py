"""Writes an HTML page on which a person can judge and correct extracted evidence: a sample of reports, marked.

    python -m data_prep.audit --data_dir=DATA --html=audit.html
    python -m data_prep.audit --data_dir=DATA --html=audit.html --replies=DATA.replies.sqlite --sample=100 --seed=1

Open the page in a browser: it needs no server, loads nothing and sends nothing. With the keyboard (press ? there) or
the mouse a statement is accepted, changed, removed or added, and the table is saved as evidence.csv. Then

    python -m data_prep.build --config=... --config.evidence=evidence.csv --out=CORRECTED
    python -m data_prep.agreement --data_dir=DATA --second=evidence.csv

With `--replies` (the cache of a language model's replies) the page also shows the statements that were dropped, the
flags, and how many replies were unusable. The agreement with a second extractor is over all reports of the split, up
to `--agree_on` (see `python -m data_prep.agreement --help`); reports in a language that it does not read are left out
and counted. Agreement is not truth: two extractors may share an error. The page and the table quote reports: protect
them as you protect the reports.

There is no configuration file; the keys of data sets are in docs/reference/configuration.md.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_prep.extract.evidence_table import COLUMNS, FILE, EvidenceTable
from data_prep.extract.extractors import LANGUAGES, open_extractor
from data_prep.extract.llm.cache import Cache
from data_prep.extract.llm.verify import contradictions
from data_prep.extract.schema import Extraction
from data_prep.scoring import agreement
from data_prep.scoring.inputs import reports_of
from lgdea_jax import cli
from lgdea_jax.data.dataset import load_metadata
from lgdea_jax.data.sums import VERIFY, DamagedData, read_sums
from lgdea_jax.errors import UserError
from lgdea_jax.findings.vocabulary import BY_NAME, NO_FINDING
from lgdea_jax.pages.audit import Item, page
from lgdea_jax.runtime.files import output_file, write_text_atomically


def _item(record: Any, replies: Any, table: EvidenceTable | None) -> Item:
    flags, dropped = tuple(f"contradiction {name}" for name in contradictions(record.evidence)), ()
    if replies is not None:
        answer = replies.answer(record.report, record.language)
        flags = answer.flags
        dropped = [(reason, item.finding, item.certainty, item.quote) for reason, item in answer.lost]
        # What was not even a statement of a finding that is known has no quote to show.
        others = Counter(answer.dropped) - Counter(reason for reason, *_ in dropped)
        dropped += [(f"{n} x {reason}", "", "", "") for reason, n in sorted(others.items())]
    given = tuple(table.cells(record.study_id)) if table else ()
    return Item(record.study_id, record.report, record.evidence, record.normal, tuple(dropped), flags, given,
                record.extractor)


def _not_usable(replies: Any) -> str:
    """A note on reports that are not in the data set because the model's reply could not be used."""
    with Cache(replies.job.cache) as cache:
        reasons = Counter(entry.reason for _, entry in cache.quarantined(replies.job.scope))
    if not reasons:
        return "No reply in the cache was unusable."
    return (f"{sum(reasons.values())} replies in the cache could not be used, their reports are not in the data: "
            + ", ".join(f"{n} x {reason}" for reason, n in reasons.most_common()) + ".")


def _agreement(records: Sequence[Any], args: argparse.Namespace, second: agreement.Reader, notes: list[str]
               ) -> dict[str, dict[str, Any]]:
    """The table of agreement; reports that cannot be compared are counted in the notes."""
    readable = [record for record in records if second.reads(record.language, record.report)]
    if len(readable) < len(records):
        notes.append(f"{len(records) - len(readable)} reports are not compared: {second.name} reads "
                     f"{', '.join(LANGUAGES[args.second])} only.")
    findings = [finding for finding in BY_NAME if finding != NO_FINDING]
    n, rows = agreement.of_extractions(
        [Extraction(record.evidence, record.normal) for record in readable],
        [second.extract(record.report, record.study_id) for record in readable], findings, resamples=500,
        seed=args.seed)
    if n < len(readable):
        notes.append(f"{len(readable) - n} reports are not compared: there is no usable reply of {second.name}.")
    return rows


def main(argv: list[str]) -> int:
    """Runs the command."""
    parser = cli.Parser(prog="python -m data_prep.audit", description=__doc__)
    parser.add_argument("--data_dir", required=True, help="a data set written by data_prep.build")
    parser.add_argument("--html", required=True, help="the page to write")
    parser.add_argument("--split", default="train", help="train, validation, test or all (default: train)")
    parser.add_argument("--sample", type=int, default=50, help="reports on the page")
    parser.add_argument("--seed", type=cli.seed, default=0, help="of the sample (default: 0)")
    agreement.add_flags(parser, default="")
    parser.add_argument("--agree_on", type=int, default=5000, help="reports to compare on, at most")
    parser.add_argument("--replies", default="", help="cache of a language model's replies")
    args = parser.parse_args(argv)
    if args.sample < 1 or args.agree_on < 1:
        raise UserError("--sample and --agree_on are at least 1")
    metadata = load_metadata(args.data_dir)
    recorded = agreement.recorded_name(metadata)
    args.second = args.second or ("none" if metadata.extractor == open_extractor("rules").name else "rules")
    second = None if args.second == "none" else agreement.open_reader(args.second, args.second_replies)
    if second is not None:
        agreement.check_different(recorded, second.name)
    table = EvidenceTable(Path(args.data_dir) / FILE) if metadata.extractor else None
    if table and table.sha256 != read_sums(Path(args.data_dir)).get(FILE):
        raise DamagedData(f"{table.path} is damaged, or was changed: {VERIFY}; corrections go into a copy of it")
    replies = None
    if args.replies:
        replies = agreement.open_replies(metadata.extractor, args.replies, metadata.config.get("llm", {}))
    reports = reports_of(args.data_dir, metadata, args.split, args.agree_on)
    if not reports:
        raise UserError(f"there are no reports in {args.data_dir} (split: {args.split})")
    notes = [f"{len(reports)} reports of {metadata.name} ({args.split}), extractor {recorded or 'none'}, "
             f"sample of {min(args.sample, len(reports))} with seed {args.seed}."]
    chosen = random.Random(args.seed).sample(range(len(reports)), min(args.sample, len(reports)))
    items = [_item(reports[i], replies, table) for i in sorted(chosen)]
    if replies is not None:
        notes.append(_not_usable(replies))
    rows, names = {}, (recorded or "none", "")
    if second is not None:
        names = (names[0], second.name)
        rows = _agreement(reports, args, second, notes)
    with output_file(args.html) as file:
        write_text_atomically(file, page(f"Evidence in {metadata.name}", items, rows, names, notes, COLUMNS))
    print(f"wrote {args.html}: {len(items)} reports")
    return cli.OK


if __name__ == "__main__":
    cli.run(main, sys.argv[1:])
