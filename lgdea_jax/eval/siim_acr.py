"""SIIM-ACR pneumothorax segmentation (Kaggle, 2019): zero-shot pneumothorax, and grounding on the masks' boxes.

    python -m lgdea_jax.eval.siim_acr --checkpoint=RUN --data_dir=DATA --out=OUT

Read: DATA built with configs/data/siim_acr.py. Prompts: of `findings/prompts.py`.
- ours: cosines against normalised prompt ensembles, softmax over the pair; thresholds of F1 and MCC chosen on the
  test images themselves. No public script has prompts, score, list and metric: there is no official mode.
- clean: the checkpoint's own scoring; thresholds chosen on the validation split.
Boxes are those of the masks: a pneumothorax is thin, and most of its box is not pneumothorax.
"""

from __future__ import annotations

from lgdea_jax import cli
from lgdea_jax.eval.harness import runner
from lgdea_jax.eval.harness.benchmark import Benchmark

BENCHMARK = Benchmark(
    "siim_acr", "Zero-shot pneumothorax on SIIM-ACR, and where it is.",
    tasks=("zero_shot", "grounding"), data_sets=("siim_acr",), findings=("Pneumothorax",))


def main(argv: list[str]) -> int:
    """Parses the flags and evaluates; returns the exit status."""
    return runner.run_benchmark(BENCHMARK, argv)


if __name__ == "__main__":
    cli.run(main)
