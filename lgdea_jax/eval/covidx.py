"""COVIDx CXR (Wang et al., 2020): normal, pneumonia and COVID-19 as exclusive classes.

    python -m lgdea_jax.eval.covidx --checkpoint=RUN --data_dir=DATA --out=OUT

Read: DATA built with configs/data/covidx.py; the version of COVIDx is in its name and must be stated with the numbers,
as its test sets differ. Prompts: of `findings/prompts.py`, positive ones only; the highest class wins. Accuracy, macro
precision, recall and F1, kappa, and the AUROC of each class against the others. The modes are alike, unless
--protocol=medclip takes MedCLIP's prompts of COVID-19 and its mean of cosines; the sentences of its class Normal come
from a table that is not in its repository, so that there is no official mode.
"""

from __future__ import annotations

from lgdea_jax import cli
from lgdea_jax.eval.harness import runner
from lgdea_jax.eval.harness.benchmark import Benchmark
from lgdea_jax.eval.harness.protocol import published
from lgdea_jax.findings.label_sets import LABEL_SETS
from lgdea_jax.findings.protocol_prompts import MEDCLIP_COVID

MEDCLIP = published("medclip", prompts=MEDCLIP_COVID, ensemble="mean_cosine", scoring="positive", not_the_scripts={
    "prompts": "the sentences of its class Normal are not in its repository: ours",
    "list": "its two classes and list of images are not in its repository: three classes"})
BENCHMARK = Benchmark(
    "covidx", "Zero-shot COVID-19 on COVIDx: accuracy and AUROC over exclusive classes.",
    tasks=("zero_shot",), data_sets=("covidx",), protocols=(MEDCLIP,), findings=LABEL_SETS["covidx3"], exclusive=True)


def main(argv: list[str]) -> int:
    """Parses the flags and evaluates; returns the exit status."""
    return runner.run_benchmark(BENCHMARK, argv)


if __name__ == "__main__":
    cli.run(main)
