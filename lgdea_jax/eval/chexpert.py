"""CheXpert test set (Irvin et al., AAAI 2019): multi-label zero-shot classification against radiologists.

    python -m lgdea_jax.eval.chexpert --checkpoint=RUN --data_dir=DATA --out=OUT

Read: DATA built with configs/data/chexpert.py; the test split has the labels of test_labels.csv, read by name. Frontal
images. Prompts: of the protocol. `zero_shot/auroc@competition` is the mean of the five competition findings,
`zero_shot/auroc` of all 14 that have both classes.
- official, --protocol=chexzero: "NAME" against "no NAME", normalised, softmax of the cosines (CheXzero); thresholds of
  F1 and MCC chosen on the test images themselves.
- ours, --protocol=kad, carzero or ours: the names that they ask for (the competition's five), by cosines, as their
  scores are of a query decoder and a cross-attention; or our prompts.
- clean: the checkpoint's own scoring; thresholds chosen on the validation split.
In the training labels, which probes learn from, a blank counts as negative. Labels are of studies, scores of images;
intervals are over patients.
"""

from __future__ import annotations

from lgdea_jax import cli
from lgdea_jax.eval.harness import runner
from lgdea_jax.eval.harness.benchmark import Benchmark
from lgdea_jax.eval.harness.protocol import published
from lgdea_jax.findings.label_sets import LABEL_SETS
from lgdea_jax.findings.protocol_prompts import CARZERO_CHEXPERT, CHEXZERO, KAD_CHEXPERT

CHEXZERO_CHEXPERT = published("chexzero", prompts=CHEXZERO, differs=(
    "one model, not the mean of the probabilities of ten",
    "all frontal images; the script's table has 500, one a study"))
FIVE = LABEL_SETS["chexpert5"]
KAD = published("kad", prompts=KAD_CHEXPERT, scoring="positive", findings=FIVE, not_the_scripts={
    "rule": "its query decoder: cosines"})
CARZERO = published("carzero", prompts=CARZERO_CHEXPERT, scoring="positive", findings=FIVE, not_the_scripts={
    "prompts": "its sentences are not in its repository: the names of its script",
    "rule": "its cross-attention: cosines"})
BENCHMARK = Benchmark(
    "chexpert", "Zero-shot classification on the CheXpert test set.",
    tasks=("zero_shot",), data_sets=("chexpert",), protocols=(CHEXZERO_CHEXPERT, KAD, CARZERO),
    protocol=CHEXZERO_CHEXPERT, findings=LABEL_SETS["chexpert14"], groups={"competition": LABEL_SETS["chexpert5"]},
    views="frontal", blank_is_negative=True)


def main(argv: list[str]) -> int:
    """Parses the flags and evaluates; returns the exit status."""
    return runner.run_benchmark(BENCHMARK, argv)


if __name__ == "__main__":
    cli.run(main)
