"""RSNA Pneumonia Detection Challenge (Shih et al., 2019): zero-shot pneumonia, and grounding on its boxes.

    python -m lgdea_jax.eval.rsna_pneumonia --checkpoint=RUN --data_dir=DATA --out=OUT

Read: DATA built with configs/data/rsna_pneumonia.py (split 70/15/15 by patient). Prompts: the eight that are published
for it.
- official: cosines, ensembles normalised, averaged and normalised; softmax over the pair without a temperature; the
  thresholds of F1 and MCC are chosen on the test images themselves.
- clean: the checkpoint's own scoring; thresholds chosen on the validation split.
"""

from __future__ import annotations

from lgdea_jax import cli
from lgdea_jax.eval.harness import runner
from lgdea_jax.eval.harness.benchmark import Benchmark

PROMPTS = (
    ("Findings consistent with pneumonia", "Findings suggesting pneumonia", "This opacity can represent pneumonia",
     "Findings are most compatible with pneumonia"),
    ("There is no pneumonia", "No evidence of pneumonia", "No evidence of acute pneumonia", "No signs of pneumonia"))
BENCHMARK = Benchmark(
    "rsna_pneumonia", "Zero-shot pneumonia on RSNA, and where it is.",
    tasks=("zero_shot", "grounding"), findings=("Pneumonia",), prompts={"Pneumonia": PROMPTS})


def main(argv: list[str]) -> int:
    """Parses the flags and evaluates; returns the exit status."""
    return runner.run_benchmark(BENCHMARK, argv)


if __name__ == "__main__":
    cli.run(main)
