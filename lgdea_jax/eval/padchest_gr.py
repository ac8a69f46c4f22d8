"""PadChest-GR (Castro et al., NEJM AI 2025): sentences of reports with boxes, and their findings.

    python -m lgdea_jax.eval.padchest_gr --checkpoint=RUN --data_dir=DATA --out=OUT

Read: DATA built with configs/data/padchest_gr.py, the official test split. Prompts of grounding: the sentences
themselves, in the language that DATA was built with. A sample is an image with a sentence and all its boxes; values are
means inside a finding (the first label of the sentence), then over findings. Findings are classified with the prompts
of `findings/prompts.py`.
- clean: the checkpoint's own transform; CNR of the union of the boxes, mIoU on the rescaled heatmap; the checkpoint's
  own scoring, thresholds chosen on the validation split.
- ours: CNR box after box on the clamped heatmap; cosines against normalised prompt ensembles, thresholds of F1 and MCC
  chosen on the test images themselves. No public script grounds sentences by heatmaps here: there is no official mode.
Its images are PadChest's: subjects of the checkpoint's training data are refused.
"""

from __future__ import annotations

from lgdea_jax import cli
from lgdea_jax.eval.harness import runner
from lgdea_jax.eval.harness.benchmark import Benchmark

BENCHMARK = Benchmark(
    "padchest_gr", "Phrase grounding of reports' sentences on PadChest-GR, and zero-shot classification of its "
    "findings.", tasks=("grounding", "zero_shot"), data_sets=("padchest_gr",))


def main(argv: list[str]) -> int:
    """Parses the flags and evaluates; returns the exit status."""
    return runner.run_benchmark(BENCHMARK, argv)


if __name__ == "__main__":
    cli.run(main)
