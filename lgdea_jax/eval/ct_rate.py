"""CT-RATE validation set (Hamamci et al., 2024, arXiv 2403.17834): zero-shot diagnosis and retrieval on chest CT.

    python -m lgdea_jax.eval.ct_rate --checkpoint=RUN --data_dir=DATA --out=OUT

Read: DATA built with configs/data/ct_rate.py (or the phantom CT world of configs/data/phantom_ct.py). `zero_shot/auroc`
is the mean over the 18 labels, `zero_shot/auroc@16` that without Medical Material and Lymphadenopathy: both are in the
literature. Labels that the data set lacks are left out of either.
- official: "X is present." against "X is not present.", cosines, softmax over the pair without a temperature (AUROC
  does not depend on it); `operating_point/*` at thresholds chosen on these volumes; "MAP@K" is `retrieval/jaccard@K`
  with the quirks of the public script (`metrics/volume_retrieval.py`); recall@K hits at the same index only.
- clean: the checkpoint's own scoring and prompts; F1 and MCC at thresholds of the validation split, where there is one;
  no volume finds its own scan; `retrieval/map@K` is a true mean average precision; any volume whose report has the same
  words is a hit.
Only the official mode compares with published numbers. Intervals are over patients.
"""

from __future__ import annotations

from lgdea_jax import cli
from lgdea_jax.eval.harness import runner
from lgdea_jax.eval.harness.benchmark import Benchmark
from lgdea_jax.findings.label_sets import LABEL_SETS
from lgdea_jax.findings.protocol_prompts import CT_CLIP

SIXTEEN = tuple(name for name in LABEL_SETS["ct_rate18"] if name not in ("Medical Material", "Lymphadenopathy"))

BENCHMARK = Benchmark(
    "ct_rate", "Zero-shot diagnosis and retrieval of chest CT volumes on CT-RATE.",
    tasks=("zero_shot", "retrieval"), findings=LABEL_SETS["ct_rate18"], groups={"16": SIXTEEN},
    official_prompts=CT_CLIP, volumes=True, partial=True)


def main(argv: list[str]) -> int:
    """Parses the flags and evaluates; returns the exit status."""
    return runner.run_benchmark(BENCHMARK, argv)


if __name__ == "__main__":
    cli.run(main)
