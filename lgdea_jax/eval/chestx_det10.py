"""ChestX-Det10 (Liu et al., 2020): ten findings with boxes by radiologists.

    python -m lgdea_jax.eval.chestx_det10 --checkpoint=RUN --data_dir=DATA --out=OUT

Read: DATA built with configs/data/chestx_det10.py (test.json; labels in alphabetical order, several per image).
Prompts: of `findings/prompts.py`.
- ours: cosines against normalised prompt ensembles, softmax over the pair; thresholds of F1 and MCC chosen on the
  test images themselves. --protocol=carzero takes CARZero's names; its score is a cross-attention's and its sentences
  are not in its repository, so that there is no official mode.
- clean: the checkpoint's own scoring; thresholds chosen on the validation split.
Grounding: the pointing game and others, a finding's boxes in an image as one sample.
"""

from __future__ import annotations

from lgdea_jax import cli
from lgdea_jax.eval.harness import runner
from lgdea_jax.eval.harness.benchmark import Benchmark
from lgdea_jax.eval.harness.protocol import published
from lgdea_jax.findings.label_sets import LABEL_SETS
from lgdea_jax.findings.protocol_prompts import CARZERO_CHESTXDET10

CARZERO = published("carzero", prompts=CARZERO_CHESTXDET10, scoring="positive", not_the_scripts={
    "prompts": "its sentences are not in its repository: the names of its script",
    "rule": "its cross-attention: cosines"})
BENCHMARK = Benchmark(
    "chestx_det10", "Zero-shot classification and grounding of ten findings on ChestX-Det10.",
    tasks=("zero_shot", "grounding"), data_sets=("chestx_det10",), protocols=(CARZERO,),
    findings=LABEL_SETS["chestxdet10"])


def main(argv: list[str]) -> int:
    """Parses the flags and evaluates; returns the exit status."""
    return runner.run_benchmark(BENCHMARK, argv)


if __name__ == "__main__":
    cli.run(main)
