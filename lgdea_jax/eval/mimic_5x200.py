"""MIMIC 5x200: the rule of CheXpert 5x200 on the CheXpert labels of MIMIC-CXR.

    python -m lgdea_jax.eval.mimic_5x200 --checkpoint=RUN --data_dir=DATA --out=OUT [--list=LIST.json]

Read: DATA built with configs/data/mimic_cxr.py (labels of mimic-cxr-2.0.0-chexpert.csv). The test split is small: where
the rarest class has fewer than 200 images, as many of each class are drawn, and the
results state it. Prompts, metrics and modes: as `chexpert_5x200`.
"""

from __future__ import annotations

from lgdea_jax import cli
from lgdea_jax.eval.harness import five_by_200
from lgdea_jax.eval.harness.benchmark import Benchmark

BENCHMARK = Benchmark(
    "mimic_5x200", "Five-class zero-shot accuracy and precision@K by the 5x200 rule on MIMIC-CXR.",
    tasks=("zero_shot", "retrieval"), data_sets=("mimic_cxr",), protocols=five_by_200.PROTOCOLS,
    protocol=five_by_200.PROTOCOLS[0], exclusive=True, views="frontal")


def main(argv: list[str]) -> int:
    """Parses the flags and evaluates; returns the exit status."""
    return five_by_200.run(BENCHMARK, argv)


if __name__ == "__main__":
    cli.run(main)
