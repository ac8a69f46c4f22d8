"""RAD-ChestCT (Draelos et al., 2021): zero-shot diagnosis on chest CT from another hospital.

    python -m lgdea_jax.eval.rad_chestct --checkpoint=RUN --data_dir=DATA --out=OUT

Read: DATA built with configs/data/rad_chestct.py (or the phantom CT world of configs/data/phantom_ct.py). Its labels
take the prompts of the corresponding labels of CT-RATE: fibrosis those of Pulmonary Fibrotic Sequela, bronchial wall
thickening those of Peribronchial Thickening, hernia those of Hiatal hernia. "Calcification" does not name a vessel and
has the higher score of the arterial and the coronary one. Mosaic attenuation, medical material and lymphadenopathy are
left out.
- official: "X is present." against "X is not present."; `operating_point/*` at thresholds chosen on these volumes.
- clean: the checkpoint's own scoring and prompts; F1 and MCC at thresholds of the validation split, where there is one.
There are no reports: retrieval is not measured. --probe is refused: what is measured is how a model does at a hospital
that it never learned from, and a probe would be fitted to that hospital's own labels, of which "calcification" does not
fit a column of ours. `eval.records` trains probes on any data set.
"""

from __future__ import annotations

from lgdea_jax import cli
from lgdea_jax.eval.harness import runner
from lgdea_jax.eval.harness.benchmark import Benchmark
from lgdea_jax.findings.label_sets import LABEL_SETS
from lgdea_jax.findings.protocol_prompts import CT_CLIP

CALCIFICATION = "Calcification Other"
MERGED = {CALCIFICATION: ("Arterial Wall Calcification", "Coronary Artery Wall Calcification")}
FINDINGS = (*(name for name in LABEL_SETS["ct_rate18"] if name not in (
    *MERGED[CALCIFICATION], "Mosaic Attenuation Pattern", "Medical Material", "Lymphadenopathy")), CALCIFICATION)

BENCHMARK = Benchmark(
    "rad_chestct", "Zero-shot diagnosis of chest CT volumes on RAD-ChestCT.",
    tasks=("zero_shot",), findings=FINDINGS, official_prompts=CT_CLIP, merged=MERGED, volumes=True, partial=True,
    no_probe="it measures transfer to a hospital that nothing was fitted to, and its calcification has no label of its "
             "own to fit one to; python -m lgdea_jax.eval.records --probe trains probes on any data set")


def main(argv: list[str]) -> int:
    """Parses the flags and evaluates; returns the exit status."""
    return runner.run_benchmark(BENCHMARK, argv)


if __name__ == "__main__":
    cli.run(main)
