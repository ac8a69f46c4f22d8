"""From scores to probabilities: a logistic curve per finding (Platt, 1999), fitted to an evaluation's results.

    python -m lgdea_jax.eval.records --checkpoint=RUN --data_dir=DATA --split=validation --tasks=zero_shot --out=OUT
    python -m lgdea_jax.calibrate --results=OUT --out=calibration.json
    python -m lgdea_jax.predict --checkpoint=RUN IMAGE... --calibration=calibration.json --out=PREDICTED

The probability of a finding with score s is 1 / (1 + exp(-(slope s + intercept))). It holds for images like those of
the evaluation, with the same share of positives: at another prevalence it is biased. The file has the curve's errors on
subjects outside the fit (five folds): `ece` (expected calibration error) and `brier`. Fit it to a validation split,
never to the test set that you report on. It belongs to one checkpoint and step; others refuse it.
"""

from __future__ import annotations

import json
from pathlib import Path

from lgdea_jax import cli
from lgdea_jax.errors import UserError
from lgdea_jax.eval.harness.output import RESULTS, SAMPLES, write_json
from lgdea_jax.evaluators import tasks
from lgdea_jax.inference.calibration import KIND, calibrate
from lgdea_jax.runtime.files import output_file


def main(argv: list[str]) -> int:
    """Parses the flags, writes the file; returns the exit status."""
    parser = cli.Parser(prog="python -m lgdea_jax.calibrate", description=__doc__.split("\n\n")[0],
                        epilog="\n\n".join(__doc__.split("\n\n")[1:]))
    parser.add_argument("--results", required=True, metavar="OUT", help="output folder of an evaluation script")
    parser.add_argument("--out", required=True, metavar="FILE", help="the calibration file (JSON)")
    args = parser.parse_args(argv)
    folder = Path(args.results)
    try:
        head = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"no {RESULTS} in {folder}: run an evaluation script with --out={folder} first") from None
    samples = tasks.load_samples(folder / SAMPLES, "clean")
    found = samples.get("zero_shot") or samples.get("classifier")
    if found is None:
        raise UserError(f"{folder} has no zero-shot scores: evaluate with --tasks=zero_shot")
    names = found.names["findings"]
    curves = {name: calibrate(found.arrays["scores"][:, f], found.arrays["labels"][:, f], found.subjects)
              for f, name in enumerate(names)}
    kept = {name: curve for name, curve in curves.items() if isinstance(curve, dict)}
    for name, curve in curves.items():
        print(f"{name}: " + (curve if isinstance(curve, str) else
                             f"{curve['positives']} of {curve['n']} positive, calibration error {curve['ece']:.3f}, "
                             f"Brier score {curve['brier']:.3f} (on subjects outside the fit)"))
    if not kept:
        raise UserError("no finding can be calibrated")
    content = {"kind": KIND, "checkpoint": {"step": head["step"], "config_hash": head["config_hash"]},
               "source": {key: head[key] for key in ("benchmark", "data", "split", "command")},
               "together": list(names), "findings": kept,
               "left_out": {name: curve for name, curve in curves.items() if isinstance(curve, str)}}
    with output_file(args.out) as file:
        write_json(file, content)
    print(f"wrote {args.out}: {len(kept)} of {len(curves)} findings")
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
