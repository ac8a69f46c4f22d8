"""MS-CXR (Boecking et al., ECCV 2022): phrase grounding with boxes on MIMIC-CXR images.

    python -m lgdea_jax.eval.ms_cxr --checkpoint=RUN --data_dir=DATA --out=OUT

Read: DATA built with configs/data/ms_cxr.py, boxes with their phrase and category. Prompts: the phrases themselves. A
sample is an image with a phrase and all boxes of that phrase; values are means inside a category, then over categories.
- official, --protocol=hi_ml: hi-ml's heatmaps (shorter side 512, centre crop 480, --crop=448 for BioViL-T's; NaN
  outside the crop; a Gaussian of 1.5 patches; nearest upsampling) and the metrics of the public script that runs them,
  vios-s/ldm-phrase-grounding: clamped at 0, CNR box after box, an undefined box counts 0, boxes outside the crop are
  dropped; hi-ml itself publishes no evaluation. The crop is the protocol's, not the checkpoint's transform.
- ours, --crop=0: the same metrics in the checkpoint's own transform.
- clean: the checkpoint's own transform, no smoothing, CNR of the union of the boxes, mIoU on the rescaled heatmap.
Subjects of MS-CXR in the checkpoint's training data are refused: all of them are MIMIC-CXR subjects.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from lgdea_jax import cli
from lgdea_jax.eval.harness import flags, runner
from lgdea_jax.eval.harness.benchmark import Benchmark
from lgdea_jax.eval.harness.protocol import published

HI_ML = published("hi_ml", source="hi_ml_grounding", crop=480, sigma=1.5)
BENCHMARK = Benchmark(
    "ms_cxr", "Phrase grounding on MS-CXR: CNR, mIoU, pointing game and Dice, in BioViL's protocol and in a clean one.",
    tasks=("grounding",), data_sets=("ms_cxr",), protocols=(HI_ML,), protocol=HI_ML)


def main(argv: list[str]) -> int:
    """Parses the flags and evaluates; returns the exit status."""
    parser = flags.make_parser(BENCHMARK, example="--mode=official --crop=448")
    parser.add_argument("--crop", type=int, choices=(480, 448, 0), default=HI_ML.crop,
                        help="of the official geometry: 480 (BioViL), 448 (BioViL-T), or 0 for the checkpoint's own "
                             "transform (default: 480)")
    args = parser.parse_args(argv)
    own = {} if args.crop else {"rule": "the checkpoint's own transform, not the crop"}
    protocol = dataclasses.replace(HI_ML, crop=args.crop, not_the_scripts=own)
    return runner.evaluate(args, argv, dataclasses.replace(BENCHMARK, protocols=(protocol,), protocol=protocol),
                           Path(args.data_dir))


if __name__ == "__main__":
    cli.run(main)
