"""Evaluates a checkpoint on any data set of ours: zero-shot classification, retrieval and phrase grounding.

    python -m lgdea_jax.eval.records --checkpoint=RUN --data_dir=DATA --split=test --out=OUT

Tasks that the data cannot answer (no labels, no reports, no boxes) are reported as undefined.
"""

from __future__ import annotations

from pathlib import Path

from lgdea_jax import cli
from lgdea_jax.eval import common


def main(argv: list[str]) -> int:
    """Parses the flags and evaluates; returns the exit status."""
    parser = common.make_parser(
        "records", "Evaluates a checkpoint on a data set written by data_prep.build: zero-shot classification of its "
        "labels, image-report retrieval, phrase grounding of its boxes.", data_dir="required")
    args = parser.parse_args(argv)
    return common.evaluate_dataset(args, argv, "records", Path(args.data_dir))


if __name__ == "__main__":
    cli.run(main)
