"""One HTML page for a human to judge extracted evidence by: a sample of reports with the evidence marked in the text.

    python -m data_prep.audit --data_dir=DATA --html=audit.html --sample=50 --replies=DATA.replies.sqlite
    python -m data_prep.audit --data_dir=DATA --html=audit.html --second=openai:MODEL/evidence@1 --second_replies=FILE

With `--replies` (the cache of a language model's replies) the page also shows the statements that were dropped, the
flags, and how many replies were unusable. The agreement with a second extractor is over all reports of the split (up to
`--agree_on`), see `agreement`; reports in a language that it does not read are left out and counted. Agreement is not
truth: two extractors may share an error. The page quotes reports: protect it as you protect them.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from data_prep.extract.extractors import LANGUAGES, reads
from data_prep.extract.schema import Extraction
from data_prep.scoring import agreement, grades
from lgdea_jax import cli
from lgdea_jax.data.source import load_metadata, open_records
from lgdea_jax.errors import UserError, choose
from lgdea_jax.findings.vocabulary import BY_NAME, NO_FINDING
from lgdea_jax.pages.audit import Item, page


def _reports(records: Any, limit: int) -> Iterator[Any]:
    """The records' reports, each study once."""
    studies: set[str] = set()
    for record in records:
        if record.has_report and record.study_id not in studies:
            studies.add(record.study_id)
            yield record
            if len(studies) == limit:
                return


def _item(record: Any, replies: Any) -> Item:
    from data_prep.extract.llm.verify import contradictions

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
    from data_prep.extract.llm.cache import Cache

    with Cache(replies.job.cache) as cache:
        reasons = Counter(entry.reason for _, entry in cache.quarantined(replies.job.scope))
    if not reasons:
        return "No reply in the cache was unusable."
    return (f"{sum(reasons.values())} replies in the cache could not be used, their reports are not in the data: "
            + ", ".join(f"{n} x {reason}" for reason, n in reasons.most_common()) + ".")


def _agreement(records: Sequence[Any], args: argparse.Namespace,
               second: tuple[str, Callable[[str], Extraction | None]], notes: list[str]) -> dict[str, dict[str, Any]]:
    """The table of agreement; reports that the second extractor cannot read, or has not, are counted in the notes."""
    name, extract = second
    readable = [record for record in records if reads(args.second, record.language)]
    if len(readable) < len(records):
        notes.append(f"{len(records) - len(readable)} reports are not compared: {name} reads "
                     f"{', '.join(LANGUAGES[args.second])} only.")
    pairs = [(Extraction(record.evidence, record.normal), extract(record.report)) for record in readable]
    known = [pair for pair in pairs if pair[1] is not None]
    if len(known) < len(pairs):
        notes.append(f"{len(pairs) - len(known)} reports are not compared: there is no usable reply of {name}.")
    if not known:
        return {}
    findings = [finding for finding in BY_NAME if finding != NO_FINDING]
    first, other = (grades.of_extractions((pair[i] for pair in known), findings) for i in range(2))
    return agreement.agreement(first, other, findings, resamples=500, seed=args.seed)


def main(argv: list[str]) -> int:
    """Runs the command."""
    first, *rest = __doc__.split("\n\n")
    parser = cli.Parser(prog="python -m data_prep.audit", description=first, epilog="\n\n".join(rest))
    parser.add_argument("--data_dir", required=True, help="a data set written by data_prep.build")
    parser.add_argument("--html", required=True, help="the page to write")
    parser.add_argument("--split", default="train", help="train, validation or test (default: train)")
    parser.add_argument("--sample", type=int, default=50, help="reports on the page")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (default: 0)")
    agreement.add_flags(parser)
    parser.set_defaults(second="rules")
    parser.add_argument("--agree_on", type=int, default=5000, help="reports to compare on, at most")
    parser.add_argument("--replies", default="", help="cache of a language model's replies")
    args = parser.parse_args(argv)
    if args.sample < 1 or args.agree_on < 1:
        raise UserError("--sample and --agree_on are at least 1")
    metadata = load_metadata(args.data_dir)
    choose("split", args.split, metadata.splits)
    second = None if args.second == "none" else agreement.open_second(args.second, args.second_replies)
    replies = agreement.open_replies(metadata.extractor, args.replies) if args.replies else None
    reports = list(_reports(open_records(args.data_dir, args.split), args.agree_on))
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
