"""PadChest (Bustos et al., Med Image Anal 2020): many findings, frequent and rare, on the physicians' labels.

    python -m lgdea_jax.eval.padchest --checkpoint=RUN --data_dir=DATA --out=OUT

Read: DATA built with configs/data/padchest.py. Only images whose report a physician labelled count; frontal ones.
`@head`, `@medium` and `@tail` are CARZero's: more positives than the 65th percentile, at most 10, and the rest.
- clean: all labels of the data set that have prompts in `findings/prompts.py` and both classes; the checkpoint's own
  scoring; thresholds chosen on the validation split.
- ours: the same labels; cosines against normalised prompt ensembles, softmax over the pair; thresholds of F1 and MCC
  chosen on the test images themselves. --protocol=kad asks for its 193 names, carzero for the 192 that are not normal,
  chexzero for "NAME" against "no NAME" of these, each by cosines. There is no official mode: scores (KAD, CARZero),
  sentences (CARZero) or the list of labels (CheXzero) are not in a public script.
"""

from __future__ import annotations

from lgdea_jax import cli
from lgdea_jax.eval.harness import runner
from lgdea_jax.eval.harness.benchmark import Benchmark
from lgdea_jax.eval.harness.protocol import published
from lgdea_jax.findings.protocol_labels import PADCHEST193
from lgdea_jax.findings.protocol_prompts import CHEXZERO_PADCHEST, KAD_PADCHEST

ALL = tuple(name.lower() for name in PADCHEST193)
ABNORMAL = tuple(name for name in ALL if name != "normal")
PROTOCOLS = (
    published("kad", prompts=KAD_PADCHEST, scoring="positive", findings=ALL, labels="protocol", not_the_scripts={
        "rule": "its query decoder: cosines"}),
    published("carzero", prompts=KAD_PADCHEST, scoring="positive", findings=ABNORMAL, labels="protocol",
              not_the_scripts={"prompts": "its sentences are not in its repository: the names of its labels",
                               "rule": "its cross-attention: cosines"}),
    published("chexzero", prompts=CHEXZERO_PADCHEST, findings=ABNORMAL, labels="protocol", not_the_scripts={
        "list": "its labels of PadChest are not in its repository: all that are not normal"}))
BENCHMARK = Benchmark(
    "padchest", "Zero-shot classification of frequent and rare findings on PadChest's manual labels.",
    tasks=("zero_shot",), data_sets=("padchest",), protocols=PROTOCOLS, long_tail=True, views="frontal",
    keep=lambda record: record.label_source not in ("report_program", ""), keep_note="labelled by physicians")


def main(argv: list[str]) -> int:
    """Parses the flags and evaluates; returns the exit status."""
    return runner.run_benchmark(BENCHMARK, argv)


if __name__ == "__main__":
    cli.run(main)
