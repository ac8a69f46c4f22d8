"""VinDr-CXR (Nguyen et al., Sci Data 2022): 22 local and 6 global findings by radiologists, with boxes.

    python -m lgdea_jax.eval.vindr_cxr --checkpoint=RUN --data_dir=DATA --out=OUT

Read: DATA built with configs/data/vindr_cxr.py, labels by radiologists. Prompts: of
`findings/prompts.py`; those of the classes named "other" are vague: judge by the remaining classes.
- ours: cosines against normalised prompt ensembles, softmax over the pair; thresholds of F1 and MCC chosen on the
  test images themselves. No public script has prompts, score, list and metric: there is no official mode.
- clean: the checkpoint's own scoring; thresholds chosen on the validation split.
"""

from __future__ import annotations

from lgdea_jax import cli
from lgdea_jax.eval.harness import runner
from lgdea_jax.eval.harness.benchmark import Benchmark
from lgdea_jax.findings.label_sets import LABEL_SETS

BENCHMARK = Benchmark(
    "vindr_cxr", "Zero-shot classification and grounding of 28 findings on VinDr-CXR.",
    tasks=("zero_shot", "grounding"), data_sets=("vindr_cxr",), findings=LABEL_SETS["vindr28"])


def main(argv: list[str]) -> int:
    """Parses the flags and evaluates; returns the exit status."""
    return runner.run_benchmark(BENCHMARK, argv)


if __name__ == "__main__":
    cli.run(main)
