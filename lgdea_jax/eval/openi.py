"""Open-I, Indiana University (Demner-Fushman et al., JAMIA 2016): zero-shot classification and image-report retrieval.

    python -m lgdea_jax.eval.openi --checkpoint=RUN --data_dir=DATA --out=OUT

Read: DATA built with configs/data/openi.py; labels are the human MeSH codes, "normal" is No Finding. Frontal images.
Prompts: of `findings/prompts.py`.
The gallery of recall@K has one report per study; many are the same words, so that the modes differ much:
- official: only the index of the own pair is a hit; cosines and thresholds as in `chexpert`.
- clean: any report of the same words is a hit; the checkpoint's own scoring, thresholds from the validation split.
"""

from __future__ import annotations

from lgdea_jax import cli
from lgdea_jax.eval.harness import runner
from lgdea_jax.eval.harness.benchmark import Benchmark

BENCHMARK = Benchmark(
    "openi", "Zero-shot classification and image-report retrieval on Open-I.",
    tasks=("zero_shot", "retrieval"), views="frontal")


def main(argv: list[str]) -> int:
    """Parses the flags and evaluates; returns the exit status."""
    return runner.run_benchmark(BENCHMARK, argv)


if __name__ == "__main__":
    cli.run(main)
