"""Open-I, Indiana University (Demner-Fushman et al., JAMIA 2016): zero-shot classification and image-report retrieval.

    python -m lgdea_jax.eval.openi --checkpoint=RUN --data_dir=DATA --out=OUT

Read: DATA built with configs/data/openi.py; labels are the human MeSH codes, "normal" is No Finding. Frontal images.
Prompts: of `findings/prompts.py`.
The gallery of recall@K has one report per study; many are the same words, so that the modes differ much:
- ours: only the index of the own pair is a hit; cosines and thresholds as in `chexpert`. --protocol=carzero scores its
  18 labels, read from the automatic MeSH terms (NLM's XML has them, the CSV pair does not), by its names; "@head",
  "@medium" and "@tail" are its long tail. Its score is a cross-attention's and its sentences are not in its
  repository, so that there is no official mode.
- clean: any report of the same words is a hit; the checkpoint's own scoring, thresholds from the validation split.
"""

from __future__ import annotations

from lgdea_jax import cli
from lgdea_jax.eval.harness import runner
from lgdea_jax.eval.harness.benchmark import Benchmark
from lgdea_jax.eval.harness.protocol import published
from lgdea_jax.findings.protocol_labels import OPENI18
from lgdea_jax.findings.protocol_prompts import CARZERO_OPENI

CARZERO = published("carzero", prompts=CARZERO_OPENI, scoring="positive", findings=tuple(OPENI18), labels="protocol",
                    not_the_scripts={"prompts": "its sentences are not in its repository: the names of its script",
                                     "rule": "its cross-attention: cosines",
                                     "list": "its list of images is not in its repository: the test split"})
BENCHMARK = Benchmark(
    "openi", "Zero-shot classification and image-report retrieval on Open-I.",
    tasks=("zero_shot", "retrieval"), data_sets=("openi",), protocols=(CARZERO,), long_tail=True, views="frontal")


def main(argv: list[str]) -> int:
    """Parses the flags and evaluates; returns the exit status."""
    return runner.run_benchmark(BENCHMARK, argv)


if __name__ == "__main__":
    cli.run(main)
