"""Where the time goes when `lgdea_jax.predict` scores many images, and whether its memory stays flat.

    python -m benchmarks.speed.predict --checkpoint=RUN
    python -m benchmarks.speed.predict --random=quick_start
    python -m benchmarks.speed.predict --random=S/16
    python -m benchmarks.speed.predict --random=B/16 --images=100

Writes phantom radiographs of 64 to 512 px (PNG and JPEG, and one broken file) to a temporary folder and runs the
command's own loop on them. --random takes an untrained ViT of that variant at 224 px instead of a run, or the tiny
tower of configs/phantom.py (quick_start): the time does not depend on the weights. "in the model" is the share of the
loop's time that is spent in the model's calls, compilation left out; the rest is waiting for files and writing results.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from lgdea_jax import cli
from lgdea_jax.inference.model import Model, load
from lgdea_jax.inference.writer import Writer, run

SIZES = (64, 128, 256, 384, 512)


def main(argv: list[str]) -> int:
    """Runs the benchmark; 1 where less than `--share` of the time is in the model or memory grows."""
    parser = cli.Parser(prog="python -m benchmarks.speed.predict", description=__doc__.split("\n\n")[0],
                        epilog="\n\n".join(__doc__.split("\n\n")[1:]))
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--checkpoint", metavar="RUN", help="run directory of lgdea_jax.train")
    model.add_argument("--random", metavar="VARIANT",
                       help="an untrained ViT at 224 px: S/16, B/16, ...; or quick_start, at 64 px")
    parser.add_argument("--images", type=_positive, default=1000, metavar="N", help="number of images (default: 1000)")
    parser.add_argument("--batch_size", type=_positive, default=32, metavar="N", help="images per call (default: 32)")
    parser.add_argument("--threads", type=int, default=0, metavar="N",
                        help="number of reading threads (default: 0, one per core)")
    parser.add_argument("--share", type=float, default=0.9, help="least share of the time in the model (default: 0.9)")
    args = parser.parse_args(argv)
    loaded = load(args.checkpoint, batch_size=args.batch_size) if args.checkpoint else random_model(
        args.random, args.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        paths = write_images(Path(folder) / "images", args.images)
        encoded = loaded.encode_prompts(
            ["Pneumothorax", "Pleural Effusion", "Cardiomegaly", "nodule in the left upper lobe"])
        out = Path(folder) / "out"
        out.mkdir()
        writer = Measured(out, encoded, None, loaded, head={"benchmark": "predict"}, embeddings=True)
        clock = run(loaded, paths, writer, threads=args.threads)
    done = writer.count + len(writer.rejected)
    share = clock.model / clock.total
    # The least of a fifth: the model's temporary arrays come and go, and are in some samples only.
    fifth = max(1, len(writer.memory) // 5)
    first, last = min(writer.memory[fifth:2 * fifth] or writer.memory), min(writer.memory[-fifth:])
    print(f"{done} images ({len(writer.rejected)} rejected) in {clock.total:.1f} s, {done / clock.total:.1f} a second: "
          f"{100 * share:.1f}% in the model, {clock.reading:.2f} s waiting for files, {clock.writing:.2f} s writing")
    print(f"memory in the second fifth of the images {first:.0f} MB, in the last {last:.0f} MB (least of each)")
    flat = last - first < 50
    return cli.OK if share >= args.share and flat and len(writer.rejected) == 1 else cli.FAULT


class Measured(Writer):
    """A writer that notes the process's memory after every batch."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.memory: list[float] = []

    def write(self, *args: Any) -> None:
        """As of `Writer`."""
        super().write(*args)
        self.memory.append(resident_mb())


def resident_mb() -> float:
    """Memory of this process that is in use, in MB (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def write_images(folder: Path, count: int) -> list[str]:
    """`count` files, one of them broken: phantom radiographs, enlarged to several sizes with fresh noise."""
    from PIL import Image

    from data_prep.synthetic.xray.source import PhantomOptions, PhantomSource

    folder.mkdir()
    rng = np.random.default_rng(0)
    world = PhantomSource(PhantomOptions(train=0, validation=0, test=20))
    drawn = [np.asarray(world[index].images[0].pixels) for index in range(len(world))]
    paths = []
    for number in range(count):
        size = SIZES[number % len(SIZES)]
        image = Image.fromarray(drawn[number // len(SIZES) % len(drawn)]).resize((size, size))
        noisy = np.clip(np.asarray(image, np.float32) + rng.normal(0, 4, (size, size)), 0, 255).astype(np.uint8)
        path = folder / f"{number:05d}.{'jpg' if number % 3 == 0 else 'png'}"
        Image.fromarray(noisy).save(path)
        paths.append(str(path))
    broken = Path(paths[count // 2])
    broken.write_bytes(broken.read_bytes()[:100])
    return paths


def random_model(variant: str, batch_size: int) -> Model:
    """An untrained CLIP model: a ViT of `variant` at 224 px and a tiny text tower, or the towers of the quick start."""
    from lgdea_jax.experiment import Experiment
    from lgdea_jax.findings import prompts
    from lgdea_jax.findings.vocabulary import LABELLED
    from lgdea_jax.inference.predictor import Predictor
    from lgdea_jax.preprocess.text import train_tokenizer

    if variant == "quick_start":
        config = cli.read_config("configs/phantom.py")
    else:
        config = cli.read_config("configs/common.py")
        config.model.image.vit.variant = variant
        config.model.text.bert.variant = "XS"
    config.method = "clip"
    texts = [(text, text) for name in LABELLED for text in prompts.positive_prompts(name)]
    tokenizer = train_tokenizer(texts, 2000, subjects=1)
    sizes = {"vocab_size": tokenizer.vocab_size, "num_labels": 0}
    experiment = Experiment.of(config)
    graphdef, _ = experiment.model.abstract(**sizes)
    spec = {"transform": f"grey8@1+letterbox@1:{config.image.size}", "step": 0, "config": config.to_dict(),
            "label_names": []}
    return Model(Predictor(experiment, params=experiment.model.initial_params(seed=0, **sizes),
                                   graphdef=graphdef, tokenizer=tokenizer, spec=spec, batch_size=batch_size))


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


if __name__ == "__main__":
    cli.run(main)
