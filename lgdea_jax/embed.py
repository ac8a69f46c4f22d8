"""Embeddings of a data set, of files, or of the images that a table lists, in parts that a stopped run keeps.

    python -m lgdea_jax.embed --checkpoint=RUN --data_dir=DATA --split=test --out=OUT
    python -m lgdea_jax.embed --checkpoint=RUN images/ --out=OUT
    python -m lgdea_jax.embed --checkpoint=RUN --table=studies.csv --out=OUT

OUT/part-00000.npz, OUT/part-00001.npz, ... hold `image`, float32 [N, E], what the scores of prompts are dot products
with (of a classifier, the features below it), and `record`, the number of each record in its split of the data set, or
`name`, each file. There are no identifiers of patients or studies, but files are named as they are. The same command
goes on where it was stopped. `lgdea_jax.inference.embeddings.read("OUT")` joins the parts.
"""

from __future__ import annotations

import csv
import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path

from lgdea_jax import cli
from lgdea_jax.data.dataset import load_metadata
from lgdea_jax.errors import UserError
from lgdea_jax.eval.harness.output import config_hash
from lgdea_jax.inference import embeddings
from lgdea_jax.inference.images import find_images
from lgdea_jax.inference.model import load
from lgdea_jax.inference.volumes import find_volumes, only_for_volumes
from lgdea_jax.io.raw_volume import NO_HEADER, VolumeHeader
from lgdea_jax.runtime.files import TableWriter, own_folder
from lgdea_jax.runtime.progress import Progress


def main(argv: list[str]) -> int:
    """Parses the flags and embeds; returns the exit status."""
    args = _parser().parse_intermixed_args(argv)
    given = [bool(args.image), bool(args.data_dir), bool(args.table)]
    if sum(given) != 1:
        raise UserError("give one of --data_dir=DATA, --table=FILE, or IMAGE: files, folders or patterns (see --help)")
    for flag in ("part_rows", "batch_size"):
        if getattr(args, flag) < 1:
            raise UserError(f"--{flag} must be at least 1")
    model = load(args.checkpoint, args.step, batch_size=args.batch_size)
    only_for_volumes(model.volumes, args, spacing=NO_HEADER.spacing, axes=NO_HEADER.axes)
    if args.data_dir:
        count, embed = embeddings.of_split(model, args.data_dir, args.split)
        metadata = load_metadata(args.data_dir)
        source = {"data": metadata.name, "split": args.split,
                  "content": digest(shard.sha256 for shard in metadata.shards[args.split])}
    else:
        if args.table:
            files = files_of_table(Path(args.table))
        else:
            paths, others = (find_volumes if model.volumes else find_images)(args.image)
            files = [(path, path) for path in paths]
            if others:
                print(f"{others} other files in the folders are not used", file=sys.stderr)
        count, embed = embeddings.of_files(model, files, header=VolumeHeader(spacing=args.spacing, axes=args.axes))
        source = {"content": digest(path for path, _ in files)}
    about = {"step": int(model.spec["step"]), "config_hash": config_hash(model.spec["config"]),
             "method": model.spec["config"]["method"], "transform": model.predictor.transform, **source}
    bar = Progress(-(-count // args.part_rows), "part", active=True)
    with own_folder(args.out) as out:
        try:
            rejected = embeddings.write(out, count, embed, part_rows=args.part_rows, about=about,
                                        progress=lambda done, total: bar.advance())
        finally:
            bar.end()
        with (out / "rejected.csv").open("w", encoding="utf-8", newline="") as file:
            table = TableWriter(file)
            for row in [("image", "reason"), *rejected]:
                table.writerow(row)
    print(f"{count - len(rejected)} images embedded, {len(rejected)} rejected: {args.out}")
    for name, reason in rejected[:5]:
        print(f"{name}: {reason}", file=sys.stderr)
    return cli.PARTIAL if rejected else cli.OK


def files_of_table(table: Path) -> list[tuple[str, str]]:
    """(path, what the table calls it) of every image in a table of `data_prep.build`, each once.

    Raises:
      UserError: it cannot be read, or has no column `image` with files.
    """
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            rows = list(csv.DictReader(file, delimiter=max(",;\t", key=first.count)))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the table {table} ({type(error).__name__})") from None
    names = dict.fromkeys(name.strip().replace("\\", "/") for row in rows if (name := row.get("image") or "").strip())
    if not names:
        raise UserError(f"{table} has no column image with files")
    return [(str(table.parent / name), name) for name in names]


def digest(words: Iterable[str]) -> str:
    """SHA-256 (hex) of words in their order."""
    return hashlib.sha256("\n".join(words).encode("utf-8", "surrogateescape")).hexdigest()


def _parser() -> cli.Parser:
    first, *rest = __doc__.split("\n\n")
    parser = cli.Parser(prog="python -m lgdea_jax.embed", description=first, epilog="\n\n".join(rest))
    parser.add_argument("image", nargs="*", metavar="IMAGE", help="files, folders or patterns, as of lgdea_jax.predict")
    parser.add_argument("--checkpoint", required=True, metavar="RUN", help="run directory of lgdea_jax.train")
    parser.add_argument("--data_dir", default="", metavar="DATA", help="a data set written by data_prep.build")
    parser.add_argument("--split", default="train", help="of the data set (default: train)")
    parser.add_argument("--table", default="", metavar="FILE",
                        help="a table with a column image, whose paths are relative to it")
    parser.add_argument("--out", required=True, metavar="OUT", help="folder for the parts")
    parser.add_argument("--step", default="latest", help="latest, best or a step number (default: latest)")
    parser.add_argument("--part_rows", type=int, default=10_000, metavar="N",
                        help="images of a part, which is the most that a stopped run repeats (default: 10000)")
    parser.add_argument("--batch_size", type=int, default=64, metavar="N",
                        help="images per call (default: 64), of volumes 8 at most")
    parser.add_argument("--spacing", type=cli.spacing, default=NO_HEADER.spacing, metavar="Z,Y,X",
                        help="mm per voxel of .npz volumes, whose files lack it")
    parser.add_argument("--axes", default=NO_HEADER.axes, metavar="SPL",
                        help="direction of the axes of .npz volumes: three of L R A P S I (default: SPL)")
    return parser


if __name__ == "__main__":
    cli.run(main)
