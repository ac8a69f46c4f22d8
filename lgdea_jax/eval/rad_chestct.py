"""RAD-ChestCT (Draelos et al., 2021): zero-shot diagnosis on chest CT from another hospital.

    python -m lgdea_jax.eval.rad_chestct --checkpoint=RUN --data_dir=DATA --out=OUT

Read: DATA built with configs/data/rad_chestct.py (or the phantom CT world of configs/data/phantom_ct.py). Prompts are
those of the corresponding labels of CT-RATE. "Calcification" does not name a vessel and has the higher score of the
arterial and the coronary one. Mosaic attenuation has no label.
- official: the 16 labels that the literature prints, with medical material and lymphadenopathy, where scarring is
  Pulmonary Fibrotic Sequela and nodulegr1cm a nodule too (RadFinder's "standard"), over all 3,630 volumes, whatever
  --split says. --protocol=ct_clip or radfinder: prompts, scores and `operating_point/*` as in `ct_rate`.
- ours, --protocol=green_rfm: the same labels and volumes, its prompts and score; its script does not name its labels.
- clean: our 14 labels (fibrosis is Pulmonary Fibrotic Sequela) on the test split, the checkpoint's own scoring and
  prompts; F1 and MCC at thresholds of the validation split, where there is one.
There are no reports: retrieval is not measured. --probe is refused: what is measured is how a model does at a hospital
that it never learned from, and a probe would be fitted to that hospital's own labels, of which "calcification" does not
fit a column of ours. `eval.records` trains probes on any data set.
"""

from __future__ import annotations

from lgdea_jax import cli
from lgdea_jax.eval.harness import runner
from lgdea_jax.eval.harness.benchmark import Benchmark
from lgdea_jax.eval.harness.protocol import published
from lgdea_jax.findings.label_sets import LABEL_SETS
from lgdea_jax.findings.protocol_labels import RAD_CHESTCT16
from lgdea_jax.findings.protocol_prompts import CT_CLIP, GREEN_RFM, RADFINDER

CALCIFICATION = "Calcification Other"
MERGED = {CALCIFICATION: ("Arterial Wall Calcification", "Coronary Artery Wall Calcification")}
FINDINGS = (*(name for name in LABEL_SETS["ct_rate18"] if name not in (
    *MERGED[CALCIFICATION], "Mosaic Attenuation Pattern", "Medical Material", "Lymphadenopathy")), CALCIFICATION)

STANDARD = {"findings": tuple(RAD_CHESTCT16), "labels": "protocol", "all_splits": True,
            "merged": {"Arterial Wall Calcification": MERGED[CALCIFICATION]}}
LABELS_FROM_RADFINDER = "its table of labels is not in its repository: RadFinder's \"standard\" mapping"
PROTOCOLS = (
    published("ct_clip", prompts=CT_CLIP, operating_point="corner", differs=(LABELS_FROM_RADFINDER,), **STANDARD),
    published("radfinder", prompts=RADFINDER, operating_point="youden", **STANDARD),
    published("green_rfm", prompts=GREEN_RFM, ensemble="mean", **STANDARD, not_the_scripts={
        "list": "it does not say which labels it scores: RadFinder's \"standard\""}))
BENCHMARK = Benchmark(
    "rad_chestct", "Zero-shot diagnosis of chest CT volumes on RAD-ChestCT.",
    tasks=("zero_shot",), data_sets=("rad_chestct", "phantom_ct"), protocols=PROTOCOLS, protocol=PROTOCOLS[0],
    findings=FINDINGS, merged=MERGED, volumes=True, partial=True,
    no_probe="it measures transfer to a hospital that nothing was fitted to, and its calcification has no label of its "
             "own to fit one to; python -m lgdea_jax.eval.records --probe trains probes on any data set")


def main(argv: list[str]) -> int:
    """Parses the flags and evaluates; returns the exit status."""
    return runner.run_benchmark(BENCHMARK, argv)


if __name__ == "__main__":
    cli.run(main)
