"""MIMIC-CXR: retrieval between images and reports, recall@K (1, 5, 10) both ways.

    python -m lgdea_jax.eval.mimic_cxr --checkpoint=RUN --data_dir=DATA --out=OUT

Read: DATA built with configs/data/mimic_cxr.py, its test split, frontal images. The gallery has one report per study
(the sections that `build` kept) and one entry per image; values of other galleries do not compare.
- ours: only the index of the own pair is a hit, as in big_vision and CLIP_benchmark, whose numbers on equal scores are
  equal. No public script has this gallery: there is no official mode.
- clean: any report of the same words is.
`--tasks=retrieval,zero_shot` adds the 14 labels of CheXpert's program, where a blank counts as negative. Prompts: of
`findings/prompts.py`.
"""

from __future__ import annotations

from lgdea_jax import cli
from lgdea_jax.eval.harness import runner
from lgdea_jax.eval.harness.benchmark import Benchmark

BENCHMARK = Benchmark(
    "mimic_cxr", "Recall@K between images and reports of MIMIC-CXR, both ways.",
    tasks=("retrieval",), data_sets=("mimic_cxr",), views="frontal", blank_is_negative=True)


def main(argv: list[str]) -> int:
    """Parses the flags and evaluates; returns the exit status."""
    return runner.run_benchmark(BENCHMARK, argv)


if __name__ == "__main__":
    cli.run(main)
