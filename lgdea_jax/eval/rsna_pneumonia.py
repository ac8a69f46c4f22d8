"""RSNA Pneumonia Detection Challenge (Shih et al., 2019): zero-shot pneumonia, and grounding on its boxes.

    python -m lgdea_jax.eval.rsna_pneumonia --checkpoint=RUN --data_dir=DATA --out=OUT

Read: DATA built with configs/data/rsna_pneumonia.py (split 70/15/15 by patient). Prompts: the eight of hi-ml.
- ours, --protocol=hi_ml: its score, cosines to the normalised mean of the prompts as they come; its geometry, shorter
  side 512 and a centre crop of 512; softmax over the pair without a temperature; thresholds of F1 and MCC chosen on the
  test images themselves. --protocol=medclip has MedCLIP's prompts and its mean of cosines. hi-ml has neither this list
  nor a metric, and the sentences of MedCLIP's class Normal are not in its repository: there is no official mode.
- clean: the checkpoint's own scoring; thresholds chosen on the validation split.
"""

from __future__ import annotations

from lgdea_jax import cli
from lgdea_jax.eval.harness import runner
from lgdea_jax.eval.harness.benchmark import Benchmark
from lgdea_jax.eval.harness.protocol import published
from lgdea_jax.findings.protocol_prompts import HI_ML, MEDCLIP_RSNA

PROTOCOLS = (
    published("hi_ml", prompts=HI_ML, ensemble="raw", crop=512, not_the_scripts={
        "list": "it is tried on twelve images of Open-I: the challenge's test split, as MedKLIP's and GLoRIA's",
        "metric": "it compares two scores: AUROC, F1 and accuracy as MedKLIP prints them"}),
    published("medclip", prompts=MEDCLIP_RSNA, ensemble="mean_cosine", scoring="positive", not_the_scripts={
        "prompts": "the sentences of its class Normal are not in its repository: Pneumonia's alone",
        "list": "its list of images is not in its repository: the challenge's test split",
        "metric": "it prints the accuracy of two classes: AUROC, F1 and accuracy"}))
BENCHMARK = Benchmark(
    "rsna_pneumonia", "Zero-shot pneumonia on RSNA, and where it is.",
    tasks=("zero_shot", "grounding"), data_sets=("rsna_pneumonia",), protocols=PROTOCOLS, protocol=PROTOCOLS[0],
    findings=("Pneumonia",), prompts=dict(HI_ML))


def main(argv: list[str]) -> int:
    """Parses the flags and evaluates; returns the exit status."""
    return runner.run_benchmark(BENCHMARK, argv)


if __name__ == "__main__":
    cli.run(main)
