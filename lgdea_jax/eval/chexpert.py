"""CheXpert test set (Irvin et al., AAAI 2019): multi-label zero-shot classification against radiologists.

    python -m lgdea_jax.eval.chexpert --checkpoint=RUN --data_dir=DATA --out=OUT

Read: DATA built with configs/data/chexpert.py; the test split has the labels of test_labels.csv, read by name. Frontal
images. Prompts: of `findings/prompts.py`. `zero_shot/auroc@competition` is the mean of the five competition findings,
`zero_shot/auroc` of all 14 that have both classes.
- official: cosines against normalised prompt ensembles, softmax over the pair; thresholds of F1 and MCC chosen on the
  test images themselves.
- clean: the checkpoint's own scoring; thresholds chosen on the validation split.
In the training labels, which probes learn from, a blank counts as negative. Labels are of studies, scores of images;
intervals are over patients.
"""

from __future__ import annotations

from lgdea_jax import cli
from lgdea_jax.eval.harness import runner
from lgdea_jax.eval.harness.benchmark import Benchmark
from lgdea_jax.findings.label_sets import LABEL_SETS

BENCHMARK = Benchmark(
    "chexpert", "Zero-shot classification on the CheXpert test set.",
    tasks=("zero_shot",), findings=LABEL_SETS["chexpert14"], groups={"competition": LABEL_SETS["chexpert5"]},
    views="frontal", blank_is_negative=True)


def main(argv: list[str]) -> int:
    """Parses the flags and evaluates; returns the exit status."""
    return runner.run_benchmark(BENCHMARK, argv)


if __name__ == "__main__":
    cli.run(main)
