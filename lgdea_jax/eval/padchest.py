"""PadChest (Bustos et al., Med Image Anal 2020): many findings, frequent and rare, on the physicians' labels.

    python -m lgdea_jax.eval.padchest --checkpoint=RUN --data_dir=DATA --out=OUT

Read: DATA built with configs/data/padchest.py. Only images whose report a physician labelled count; frontal ones. All
labels of the data set that have prompts in `findings/prompts.py` and both classes; `@head` averages those with at least
50 positive images, `@tail` the others.
- official: cosines against normalised prompt ensembles, softmax over the pair; thresholds of F1 and MCC chosen on the
  test images themselves.
- clean: the checkpoint's own scoring; thresholds chosen on the validation split.
"""

from __future__ import annotations

from lgdea_jax import cli
from lgdea_jax.eval.harness import runner
from lgdea_jax.eval.harness.benchmark import Benchmark

BENCHMARK = Benchmark(
    "padchest", "Zero-shot classification of frequent and rare findings on PadChest's manual labels.",
    tasks=("zero_shot",), rare_below=50, views="frontal",
    keep=lambda record: record.label_source not in ("report_program", ""), keep_note="labelled by physicians")


def main(argv: list[str]) -> int:
    """Parses the flags and evaluates; returns the exit status."""
    return runner.run_benchmark(BENCHMARK, argv)


if __name__ == "__main__":
    cli.run(main)
