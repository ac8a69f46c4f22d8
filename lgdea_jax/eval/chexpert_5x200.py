"""CheXpert 5x200 (GLoRIA, Huang et al., ICCV 2021): five classes, accuracy and retrieval of texts of the own class.

    python -m lgdea_jax.eval.chexpert_5x200 --checkpoint=RUN --data_dir=DATA --out=OUT [--list=LIST.json]

Read: DATA built with configs/data/chexpert.py; its *training* split, from which every 5x200 was drawn: a checkpoint
that was trained on these subjects is refused. Measured: accuracy, macro precision, recall and F1, Cohen's kappa;
precision@K (1, 2, 5, 10, 100) over the images' reports, or over class prompts where there are none.
`harness/five_by_200.py` describes the selections and the protocols. Prompts: of the protocol; in the clean mode those
of `findings/prompts.py`, positive ones only, the highest class wins.
"""

from __future__ import annotations

from lgdea_jax import cli
from lgdea_jax.eval.harness import five_by_200
from lgdea_jax.eval.harness.benchmark import Benchmark

BENCHMARK = Benchmark(
    "chexpert_5x200", "Five-class zero-shot accuracy and precision@K on CheXpert 5x200.",
    tasks=("zero_shot", "retrieval"), data_sets=("chexpert",), protocols=five_by_200.PROTOCOLS,
    protocol=five_by_200.PROTOCOLS[0], exclusive=True, views="frontal", split="train")


def main(argv: list[str]) -> int:
    """Parses the flags and evaluates; returns the exit status."""
    return five_by_200.run(BENCHMARK, argv)


if __name__ == "__main__":
    cli.run(main)
