"""CT-RATE validation set (Hamamci et al., 2024, arXiv 2403.17834): zero-shot diagnosis and retrieval on chest CT.

    python -m lgdea_jax.eval.ct_rate --checkpoint=RUN --data_dir=DATA --out=OUT

Read: DATA built with configs/data/ct_rate.py (or the phantom CT world of configs/data/phantom_ct.py). `zero_shot/auroc`
is the mean over the 18 labels, `zero_shot/auroc@16` that without Medical Material and Lymphadenopathy: both are in the
literature. Labels that the data set lacks are left out of either.
- official, by --protocol (all print the retrieval of both pools, all volumes and `@first` of each scan; "MAP@K" is
  `retrieval/jaccard@K` with the quirks of CT-CLIP's script, `retrieval/map_over_k@K` RadFinder's; recall@K hits at the
  same index only; `metrics/volume_retrieval.py`):
  ct_clip: "X is present." against "X is not present."; `operating_point/*` at thresholds chosen on these volumes from
  the softmax of cosines times exp(temperature);
  radfinder: the mean of seven pairs of prompts, on the first volume of each scan (1,564), as its configs have it;
  `operating_point/*` at Youden's thresholds;
  green_rfm: "There is X." against "There is no X.", plain dot products.
- clean: the checkpoint's own scoring and prompts; F1 and MCC at thresholds of the validation split, where there is one;
  no volume finds its own scan; `retrieval/map@K` is a true mean average precision; any volume whose report has the same
  words is a hit.
Only the official mode compares with published numbers, of the same protocol and pool. Intervals are over patients.
"""

from __future__ import annotations

from lgdea_jax import cli
from lgdea_jax.eval.harness import runner
from lgdea_jax.eval.harness.benchmark import Benchmark
from lgdea_jax.eval.harness.protocol import published
from lgdea_jax.findings.label_sets import LABEL_SETS
from lgdea_jax.findings.protocol_prompts import CT_CLIP, GREEN_RFM, RADFINDER

SIXTEEN = tuple(name for name in LABEL_SETS["ct_rate18"] if name not in ("Medical Material", "Lymphadenopathy"))

PROTOCOLS = (
    published("ct_clip", prompts=CT_CLIP, operating_point="corner"),
    published("radfinder", prompts=RADFINDER, operating_point="youden", first_of_scan=True),
    published("green_rfm", prompts=GREEN_RFM, ensemble="mean"))
BENCHMARK = Benchmark(
    "ct_rate", "Zero-shot diagnosis and retrieval of chest CT volumes on CT-RATE.",
    tasks=("zero_shot", "retrieval"), data_sets=("ct_rate", "phantom_ct"), protocols=PROTOCOLS, protocol=PROTOCOLS[0],
    findings=LABEL_SETS["ct_rate18"], groups={"16": SIXTEEN}, volumes=True, partial=True)


def main(argv: list[str]) -> int:
    """Parses the flags and evaluates; returns the exit status."""
    return runner.run_benchmark(BENCHMARK, argv)


if __name__ == "__main__":
    cli.run(main)
