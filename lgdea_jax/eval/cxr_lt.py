"""CXR-LT (Holste et al., 2024; Lin et al., 2025): frequent, rare and new findings on MIMIC-CXR's images.

    python -m lgdea_jax.eval.cxr_lt --checkpoint=RUN --data_dir=DATA --out=OUT

Read: DATA built with configs/data/cxr_lt.py, one challenge and task. Prompts are those of `findings/prompts.py`; for
labels that it does not have, the two sentences of PROMPTS here. `zero_shot/average_precision` is the mean average
precision that the challenges rank by; `@head`, `@medium` and `@tail` are by the numbers of positives among the
evaluated images, by CARZero's rule.
- clean: the checkpoint's own scoring; thresholds chosen on the development set.
- ours: cosines against normalised prompt ensembles, softmax over the pair; thresholds of F1 and MCC chosen on the test
  images themselves. The challenges publish no prompts: there is no official mode.
Test images of CXR-LT are among MIMIC-CXR's training images: subjects of the checkpoint's training data are refused.
"""

from __future__ import annotations

from lgdea_jax import cli
from lgdea_jax.eval.harness import runner
from lgdea_jax.eval.harness.benchmark import Benchmark

# Label -> what a report calls it.
_WORDS = {
    "Adenopathy": "lymphadenopathy", "Azygos Lobe": "an azygos lobe", "Bulla": "a bulla",
    "Calcification of the Aorta": "calcification of the aorta", "Cardiomyopathy": "cardiomyopathy",
    "Fissure": "fluid or thickening in a fissure", "Hilum": "an enlarged hilum",
    "Hydropneumothorax": "a hydropneumothorax", "Infarction": "a pulmonary infarction", "Kyphosis": "kyphosis",
    "Lobar Atelectasis": "lobar atelectasis", "Osteopenia": "osteopenia", "Pulmonary Embolism": "a pulmonary embolism",
    "Pulmonary Hypertension": "pulmonary hypertension", "Round(ed) Atelectasis": "rounded atelectasis",
    "Scoliosis": "scoliosis", "Tortuous Aorta": "a tortuous aorta"}
PROMPTS = {label: ((f"There is {words}.",), (f"There is no {words.removeprefix('a ').removeprefix('an ')}.",))
           for label, words in _WORDS.items()}
BENCHMARK = Benchmark(
    "cxr_lt", "Zero-shot classification of frequent, rare and new findings on CXR-LT.",
    tasks=("zero_shot",), data_sets=("cxr_lt",), prompts=PROMPTS, long_tail=True)


def main(argv: list[str]) -> int:
    """Parses the flags and evaluates; returns the exit status."""
    return runner.run_benchmark(BENCHMARK, argv)


if __name__ == "__main__":
    cli.run(main)
