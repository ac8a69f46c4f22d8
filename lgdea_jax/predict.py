"""A trained model on your own images or CT volumes: scores for findings or text, heatmaps. Research use only.

    python -m lgdea_jax.predict --checkpoint=RUN images/ --prompt="Pleural Effusion" --prompt="TEXT" --out=OUT
    python -m lgdea_jax.predict --checkpoint=RUN a.png b.dcm --out=OUT --heatmaps --embeddings

IMAGE is a PNG, JPEG or DICOM file, a folder or a pattern; for a model of CT volumes a NIfTI or .npz file, or a folder
with the slices of a DICOM series. The checkpoint is enough: no data set is needed, and volumes are resampled to the
geometry that is stored in it.

- A prompt that names a finding of the vocabulary is scored with its ensemble of prompts, as in the evaluations. Any
  other text is used as it is; its score is the plain similarity. Scores order images for one prompt; they are not
  probabilities and do not compare between prompts.
- A classifier (`configs/finetune.py`) scores its labels instead, by their log odds: 0 is its probability of one half.
- With --calibration=FILE (of `python -m lgdea_jax.calibrate`) findings get probabilities as well. They hold for images
  like those of the calibration, with the same share of positives.
- Warnings mark images that are unlike the training images, and volumes that are unlike a chest CT in their Hounsfield
  units or their extent. The checks are coarse.
- The heatmap of a prompt on a volume is drawn over the axial slice with its highest value, in a lung or a mediastinal
  window that follows from the prompt (--window).

OUT/scores.csv has one row per image, OUT/predictions.jsonl one line per image with warnings, OUT/about.json the prompts
and the model. With the flags: OUT/embeddings.npy (rows as in scores.csv) and OUT/heatmaps. OUT/rejected.csv lists files
that could not be read, with reasons; the exit status is then 3. RESEARCH USE ONLY, NOT A MEDICAL DEVICE.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from lgdea_jax import cli
from lgdea_jax.errors import UserError
from lgdea_jax.eval.harness.output import config_hash
from lgdea_jax.inference import calibration
from lgdea_jax.inference.images import find_images
from lgdea_jax.inference.model import explain, load
from lgdea_jax.inference.volumes import WINDOWS, find_volumes, only_for_volumes
from lgdea_jax.inference.writer import REJECTED, RESEARCH_ONLY, Writer, run
from lgdea_jax.io.raw_volume import NO_HEADER, VolumeHeader
from lgdea_jax.runtime.files import own_folder


def main(argv: list[str]) -> int:
    """Parses the flags and predicts; returns the exit status."""
    args = _parser().parse_intermixed_args(argv)
    if args.batch_size < 1:
        raise UserError("--batch_size must be at least 1")
    if any("\udc80" <= letter <= "\udcff" for prompt in args.prompt or () for letter in prompt):
        raise UserError("--prompt: not UTF-8 text")
    if not args.image:
        raise UserError("an IMAGE is needed: a file, a folder or a pattern (see --help)")
    calibrated = calibration.read(Path(args.calibration)) if args.calibration else None
    model = load(args.checkpoint, args.step, batch_size=args.batch_size)
    predictor, spec = model.predictor, model.spec
    only_for_volumes(model.volumes, args, window="auto", spacing=NO_HEADER.spacing, axes=NO_HEADER.axes)
    paths, others = (find_volumes if model.volumes else find_images)(args.image)
    if others:
        print(f"{others} other files in the folders are not used", file=sys.stderr)
    # Rows of padding cost as much as images; the originals of volumes, kept for slices, are large.
    most = (2 if args.heatmaps else len(paths)) if model.volumes else max(len(paths), 8)
    predictor.batch_size = min(predictor.batch_size, most)
    if calibrated:
        calibrated.check(config_hash(spec.get("config", {})), int(spec["step"]))
    prompts = args.prompt or list(model.labels or (model.findings if predictor.reads_text else ()))
    if not prompts and not args.embeddings:
        raise UserError("give --prompt=TEXT: the training data had no labels of known findings"
                        if predictor.reads_text else
                        f"the method {spec['config']['method']} has no text tower: it has --embeddings only")
    encoded = model.encode_prompts(prompts, together=calibrated.together if calibrated else ()) if prompts else None
    if args.heatmaps and (encoded is None or encoded.queries is None):
        raise UserError("--heatmaps: this model cannot ground" + (
            ": its pooled features are not made of the patches" if model.labels else ""))
    print(RESEARCH_ONLY)
    for line in explain(encoded) if encoded else ():
        print(line)
    head = {"notice": RESEARCH_ONLY, "command": shlex.join(["python", "-m", "lgdea_jax.predict", *argv]),
            "checkpoint": str(args.checkpoint), "step": int(spec["step"]), "transform": predictor.transform,
            "method": spec["config"]["method"], "scoring": predictor.scoring}
    with own_folder(args.out) as out:
        writer = Writer(out, encoded, calibrated, model, head=head, embeddings=args.embeddings,
                        heatmaps=args.heatmaps, window=args.window)
        clock = run(model, paths, writer, header=VolumeHeader(spacing=args.spacing, axes=args.axes))
    share = 100 * clock.model / max(clock.total, 1e-9)
    what = "volumes" if model.volumes else "images"
    print(f"{writer.count} {what}, {writer.warned} with warnings, {len(writer.rejected)} rejected: "
          f"{clock.total:.1f} s, {share:.0f}% in the model, {clock.reading:.1f} s waiting for files, "
          f"{clock.writing:.1f} s writing")
    print(f"wrote {args.out}: {', '.join(writer.names)}")
    for item in writer.rejected[:5]:
        print(f"{item.name}: {item.reason}", file=sys.stderr)
    if len(writer.rejected) > 5:
        print(f"and {len(writer.rejected) - 5} more in {REJECTED}", file=sys.stderr)
    return cli.PARTIAL if writer.rejected else cli.OK


def _parser() -> cli.Parser:
    first, *rest = __doc__.split("\n\n")
    parser = cli.Parser(prog="python -m lgdea_jax.predict", description=first, epilog="\n\n".join(rest))
    parser.add_argument("image", nargs="*", metavar="IMAGE",
                        help="PNG, JPEG or DICOM files, folders, patterns; CT: NIfTI, .npz, folders of DICOM slices")
    parser.add_argument("--checkpoint", required=True, metavar="RUN", help="run directory of lgdea_jax.train")
    parser.add_argument("--prompt", action="append", default=[], metavar="TEXT",
                        help="a finding, or words of a report; may be repeated (default: the findings that the "
                             "training data have labels for)")
    parser.add_argument("--out", required=True, metavar="OUT", help="folder for the results")
    parser.add_argument("--step", default="latest", help="latest, best or a step number (default: latest)")
    parser.add_argument("--calibration", default="", metavar="FILE",
                        help="written by lgdea_jax.calibrate: adds probabilities")
    parser.add_argument("--embeddings", action="store_true", help="write embeddings.npy")
    parser.add_argument("--heatmaps", action="store_true",
                        help="draw a heatmap per prompt over every image, or over a slice of every volume")
    parser.add_argument("--window", choices=("auto", *WINDOWS), default="auto",
                        help="grey levels of the slices of volumes (default: auto, by the prompt)")
    parser.add_argument("--spacing", type=cli.spacing, default=NO_HEADER.spacing, metavar="Z,Y,X",
                        help="mm per voxel of .npz volumes, whose files lack it")
    parser.add_argument("--axes", default=NO_HEADER.axes, metavar="SPL",
                        help="direction of the axes of .npz volumes: three of L R A P S I (default: SPL)")
    parser.add_argument("--batch_size", type=int, default=32, metavar="N",
                        help="images per call (default: 32), of volumes 8 at most")
    return parser


if __name__ == "__main__":
    cli.run(main)
