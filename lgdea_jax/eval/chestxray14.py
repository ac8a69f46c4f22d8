"""ChestX-ray14 (Wang et al., CVPR 2017): 14 findings on the official test list, and grounding on its boxes.

    python -m lgdea_jax.eval.chestxray14 --checkpoint=RUN --data_dir=DATA --out=OUT

Read: DATA built with configs/data/chestxray14.py (test_list.txt, Data_Entry_2017.csv, BBox_List_2017.csv). Prompts: of
`findings/prompts.py`. A program read the labels from reports: they
are noisy.
- official: cosines against normalised prompt ensembles, softmax over the pair; thresholds of F1 and MCC chosen on the
  test images themselves.
- clean: the checkpoint's own scoring; thresholds chosen on the validation split.
"""

from __future__ import annotations

from lgdea_jax import cli
from lgdea_jax.eval.harness import runner
from lgdea_jax.eval.harness.benchmark import Benchmark
from lgdea_jax.findings.label_sets import LABEL_SETS

BENCHMARK = Benchmark(
    "chestxray14", "Zero-shot classification of 14 findings on ChestX-ray14, and grounding on its boxes.",
    tasks=("zero_shot", "grounding"), findings=LABEL_SETS["chestxray14"])


def main(argv: list[str]) -> int:
    """Parses the flags and evaluates; returns the exit status."""
    return runner.run_benchmark(BENCHMARK, argv)


if __name__ == "__main__":
    cli.run(main)
