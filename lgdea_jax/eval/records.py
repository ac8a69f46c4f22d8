"""Evaluates a checkpoint on any data set of ours: zero-shot classification, retrieval and phrase grounding.

    python -m lgdea_jax.eval.records --checkpoint=RUN --data_dir=DATA --split=test --out=OUT

The metrics of tasks for which the data have no labels, reports or boxes are undefined. Unlike the scripts of benchmarks
it does not check for subjects that the checkpoint was trained on: any split may be evaluated.
"""

from __future__ import annotations

from lgdea_jax import cli
from lgdea_jax.eval.harness import runner
from lgdea_jax.eval.harness.benchmark import Benchmark

BENCHMARK = Benchmark(
    "records", "Evaluates a checkpoint on a data set written by data_prep.build: zero-shot classification of its "
    "labels, image-report retrieval, phrase grounding of its boxes.", public=False, guard=False)


def main(argv: list[str]) -> int:
    """Parses the flags and evaluates; returns the exit status."""
    return runner.run_benchmark(BENCHMARK, argv)


if __name__ == "__main__":
    cli.run(main)
