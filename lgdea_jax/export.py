"""The towers of a run for PyTorch users: safetensors and config.json with the names of the published models.

    python -m lgdea_jax.export --checkpoint=RUN --out=DIR --tower=image
    python -m lgdea_jax.export --checkpoint=RUN --out=DIR --names=openclip
    python -m lgdea_jax.export --checkpoint=RUN --out=DIR --format=lgdea

With `--format=lgdea` DIR is the whole model instead, heads included, for `lgdea_jax.load("DIR")` or as the --checkpoint
of another command (see `inference/model_folder`).

`transformers.AutoModel.from_pretrained` opens DIR/image and DIR/text if the tower is one of Hugging Face's (see
`models/pretrained`). A tower that no published model has is written with our names, and the output states this.
DIR/text has the tokeniser as well; DIR/image/lgdea_jax.json has the transform and the normalisation of the images. The
heads of the method are not exported.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from lgdea_jax import cli
from lgdea_jax.errors import UserError, choose
from lgdea_jax.inference import loading, model_folder
from lgdea_jax.runtime.files import own_folder

TOWERS = ("image", "text")


def main(argv: list[str]) -> int:
    """The command line; returns the exit status."""
    first, *rest = __doc__.split("\n\n")
    parser = cli.Parser(prog="python -m lgdea_jax.export", description=first, epilog="\n\n".join(rest))
    parser.add_argument("--checkpoint", required=True, metavar="RUN", help="run directory of lgdea_jax.train")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write image/ and text/ into")
    parser.add_argument("--tower", choices=TOWERS, help="only this one (default: both)")
    parser.add_argument("--step", default="latest", help="latest, best or a step number (default: latest)")
    parser.add_argument("--names", default="", help="hf, openclip, timm or torchvision (default: hf, or our own where "
                                                    "no published model has such a tower)")
    parser.add_argument("--format", choices=("towers", "lgdea"), default="towers",
                        help="towers for PyTorch, or the whole model for lgdea_jax.load (default: towers)")
    args = parser.parse_args(argv)
    run = loading.restore(args.checkpoint, args.step)
    if args.format == "lgdea":
        if args.tower or args.names:
            raise UserError("--tower and --names are for --format=towers")
        with own_folder(args.out) as out:
            for line in export_model(run, out):
                print(line)
            card = model_folder.locate(args.checkpoint) / model_folder.CARD
            if card.is_file():
                shutil.copy(card, out / card.name)
            else:
                print(f"no card in it: python -m lgdea_jax.card --checkpoint={args.out} writes one")
        return cli.OK
    with own_folder(args.out) as out:
        for line in export(run, out, names=args.names, towers=(args.tower,) if args.tower else TOWERS):
            print(line)
    return cli.OK


def export_model(run: Any, out: Path) -> list[str]:
    """Writes the whole model of a run (from `predictor.restore`) to the folder `out`; returns lines to print."""
    from lgdea_jax.arrays import flatten

    params = {path: np.asarray(value) for path, value in flatten(run.params).items()}
    names = model_folder.write(out, params, run.spec)
    count = sum(value.size for value in params.values())
    return [f"model, {count:,} parameters, step {run.spec['step']}: {out} ({', '.join(names)})"]


def export(run: Any, out: Path, *, towers: tuple[str, ...] = TOWERS, names: str = "") -> list[str]:
    """Writes towers of a run below `out`.

    Args:
      run: from `predictor.restore`.
      out: folder.
      towers: "image", "text"; of several, those that the run has.
      names: see `main`.

    Returns:
      A line per tower: its name, its size, its folder.

    Raises:
      UserError: there is no such tower, or none with such names.
    """
    from flax import nnx

    from lgdea_jax.models import pretrained

    if names:
        choose("naming scheme", names, pretrained.NAMES)
    model, lines = nnx.merge(run.graphdef, run.params), []
    present = [name for name in towers if getattr(model, f"{name}_tower") is not None]
    if not present:
        raise UserError(f"the run has no {' and no '.join(towers)} tower")
    for name in present:
        tower, folder = getattr(model, f"{name}_tower"), out / name
        params = pretrained.parameters(tower)
        try:
            kind = pretrained.save_tower(tower, params, folder, names=names or "hf")
        except pretrained.WeightsError as error:
            if names:
                raise UserError(f"{name} tower: {error}") from None
            part = run.experiment.config.model[name]
            pretrained.save_own(tower, params, folder, {"tower": part.name, **part[part.name].to_dict()})
            kind = f"our own names ({error})"
        if name == "image":
            write_image_notes(folder, run)
        else:
            write_tokenizer(folder, run)
        count = sum(int(np.size(value)) for value in params.values())
        lines.append(f"{name} tower, {count:,} parameters: {folder} ({kind})")
    return lines


def write_image_notes(folder: Path, run: Any) -> None:
    """lgdea_jax.json: the transform and the normalisation that the images go through before the tower."""
    image = run.experiment.config.image
    notes = {"transform": run.spec["transform"], "size": image.size, "mean": image.mean, "std": image.std,
             "per_image": image.per_image, "step": run.spec["step"]}
    (folder / "lgdea_jax.json").write_text(json.dumps(notes, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def write_tokenizer(folder: Path, run: Any) -> None:
    """tokenizer.json and what `transformers.AutoTokenizer` needs beside it."""
    run.tokenizer.save(folder / "tokenizer.json")
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": run.tokenizer.pad_token}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    cli.run(main)
