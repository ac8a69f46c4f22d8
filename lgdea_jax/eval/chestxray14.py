"""ChestX-ray14 (Wang et al., CVPR 2017): 14 findings on the official test list, and grounding on its boxes.

    python -m lgdea_jax.eval.chestxray14 --checkpoint=RUN --data_dir=DATA --out=OUT

Read: DATA built with configs/data/chestxray14.py (test_list.txt, Data_Entry_2017.csv, BBox_List_2017.csv). Prompts: of
`findings/prompts.py`. A program read the labels from reports: they
are noisy.
- ours: cosines against normalised prompt ensembles, softmax over the pair; thresholds of F1 and MCC chosen on the
  test images themselves. --protocol=kad and --protocol=carzero take their names of the findings (KAD prints AUROC, MCC,
  and F1 and accuracy at the threshold of MCC); their scores are of a query decoder and a cross-attention, which other
  models do not have, so that there is no official mode.
- clean: the checkpoint's own scoring; thresholds chosen on the validation split.
"""

from __future__ import annotations

from lgdea_jax import cli
from lgdea_jax.eval.harness import runner
from lgdea_jax.eval.harness.benchmark import Benchmark
from lgdea_jax.eval.harness.protocol import published
from lgdea_jax.findings.label_sets import LABEL_SETS
from lgdea_jax.findings.protocol_prompts import CARZERO_CHESTXRAY14, KAD_CHESTXRAY14

KAD = published("kad", prompts=KAD_CHESTXRAY14, scoring="positive", not_the_scripts={
    "rule": "its query decoder: cosines"})
CARZERO = published("carzero", prompts=CARZERO_CHESTXRAY14, scoring="positive", not_the_scripts={
    "prompts": "its sentences are not in its repository: the names of its script",
    "rule": "its cross-attention: cosines"})
BENCHMARK = Benchmark(
    "chestxray14", "Zero-shot classification of 14 findings on ChestX-ray14, and grounding on its boxes.",
    tasks=("zero_shot", "grounding"), data_sets=("chestxray14",), protocols=(KAD, CARZERO),
    findings=LABEL_SETS["chestxray14"])


def main(argv: list[str]) -> int:
    """Parses the flags and evaluates; returns the exit status."""
    return runner.run_benchmark(BENCHMARK, argv)


if __name__ == "__main__":
    cli.run(main)
