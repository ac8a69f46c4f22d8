"""MS-CXR-T (Bannur et al., CVPR 2023): change of five findings between two images, and similarity of sentences.

    python -m lgdea_jax.eval.ms_cxr_t --checkpoint=RUN --data_dir=DATA --out=OUT

Read: DATA built with configs/data/ms_cxr_t.py. Needs the extra `probe`.
- progression: `progression/auroc` is of the rise of a finding's zero-shot score (prompts of `findings/prompts.py`)
  from the previous image to the current one, worsening against improving, without training. `progression/accuracy` is
  the macro accuracy of a classifier of three classes on both images' features, cross-validated over subjects.
- sentences: paraphrases against contradictions by the cosine of two sentences, AUROC and cross-validated accuracy, over
  all and in the subsets RadGraph and swaps.
Both modes are alike: BioViL-T's tower takes two images and its evaluation is not public, so that there is no official
mode. Subjects of the checkpoint's training data are refused; whose reports the sentences are from is not stated.
"""

from __future__ import annotations

from lgdea_jax import cli
from lgdea_jax.eval.harness import runner
from lgdea_jax.eval.harness.benchmark import Benchmark

BENCHMARK = Benchmark(
    "ms_cxr_t", "Change of findings between two images, by zero-shot scores and by classification, and similarity of "
    "sentences, on MS-CXR-T.", tasks=("progression", "sentences"), data_sets=("ms_cxr_t",), public=False,
    no_probe="its classifier of change is a probe already")


def main(argv: list[str]) -> int:
    """Parses the flags and evaluates; returns the exit status."""
    return runner.run_benchmark(BENCHMARK, argv)


if __name__ == "__main__":
    cli.run(main)
