"""Labels of a data set's reports, by a text classifier that has learned them from another labeler's.

    python -m lgdea_jax.train --config=configs/phantom.py --config.method=supervised_text --workdir=RUN
    python -m lgdea_jax.label --checkpoint=RUN --data_dir=DATA --split=test --out=labels.csv
    python -m lgdea_jax.label --checkpoint=RUN --data_dir=DATA --split=test --out=scores.csv --probability

A language model labels some of the reports, the classifier learns from them and labels the rest on a CPU. labels.csv
has `uid`, the study's id, and a column per label with 1 or 0: `data_prep.build` takes it as silver labels
(`--config.silver_from`), `data_prep.score --other` scores it against a reference, beside the rules or a language model.
With --probability the cells are probabilities, for `score`. The file holds the ids of studies: protect it as you
protect them. RESEARCH USE ONLY, NOT A MEDICAL DEVICE.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Sequence

import numpy as np

from lgdea_jax import cli
from lgdea_jax.data.source import open_records
from lgdea_jax.errors import UserError
from lgdea_jax.evaluators.data import phrases_of
from lgdea_jax.inference.model import load
from lgdea_jax.inference.writer import RESEARCH_ONLY
from lgdea_jax.records import Record
from lgdea_jax.runtime.files import TableWriter, output_file, write_text_atomically
from lgdea_jax.runtime.progress import Progress


def main(argv: list[str]) -> int:
    """Parses the flags and labels; returns the exit status."""
    args = _parser().parse_args(argv)
    if args.batch_size < 1:
        raise UserError("--batch_size must be at least 1")
    predictor = load(args.checkpoint, args.step, batch_size=args.batch_size).predictor
    if predictor.classifies != "text":
        raise UserError(f"the method {predictor.config.method} has no classifier of reports: train with "
                        "--config.method=supervised_text")
    records = open_records(args.data_dir, args.split)
    print(RESEARCH_ONLY, file=sys.stderr)
    bar = Progress(-(-len(records) // args.batch_size), "batch", active=True)
    text, studies = io.StringIO(), set()
    table = TableWriter(text)
    table.writerow(["uid", *predictor.spec["label_names"]])
    try:
        for batch in _batches(records, args.batch_size):
            reports = []
            for record in batch:  # A study with several images has its report in each of their records.
                if record.has_report and record.study_id not in studies:
                    studies.add(record.study_id)
                    reports.append(record)
            if reports:
                found = predictor.texts([record.report for record in reports], list(map(phrases_of, reports)))
                for record, row in zip(reports, found["logits"].astype(np.float64), strict=True):
                    cells = [f"{1 / (1 + np.exp(-x)):.6f}" for x in row] if args.probability else (row > 0).astype(int)
                    table.writerow([record.study_id, *cells])
            bar.advance()
    finally:
        bar.end()
    if not studies:
        raise UserError(f"the split {args.split} of {args.data_dir} has no reports")
    with output_file(args.out) as file:
        write_text_atomically(file, text.getvalue())
    print(f"{len(studies)} reports labelled: {args.out}")
    return cli.OK


def _batches(records: Sequence[Record], size: int) -> Iterator[list[Record]]:
    for start in range(0, len(records), size):
        yield [records[row] for row in range(start, min(start + size, len(records)))]


def _parser() -> cli.Parser:
    first, *rest = __doc__.split("\n\n")
    parser = cli.Parser(prog="python -m lgdea_jax.label", description=first, epilog="\n\n".join(rest))
    parser.add_argument("--checkpoint", required=True, metavar="RUN", help="run directory of lgdea_jax.train")
    parser.add_argument("--data_dir", required=True, metavar="DATA", help="a data set written by data_prep.build")
    parser.add_argument("--split", default="train", help="of the data set (default: train)")
    parser.add_argument("--out", required=True, metavar="FILE", help="the CSV")
    parser.add_argument("--probability", action="store_true", help="probabilities in place of labels")
    parser.add_argument("--step", default="latest", help="latest, best or a step number (default: latest)")
    parser.add_argument("--batch_size", type=int, default=64, metavar="N", help="reports per call (default: 64)")
    return parser


if __name__ == "__main__":
    cli.run(main)
