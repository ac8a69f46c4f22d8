"""Evaluates a checkpoint on the phantom world, whose test images are made when needed.

    python -m lgdea_jax.eval.phantom --checkpoint=RUN --out=OUT

The test world has other studies and, in part, other wordings than the training world. It is built once into OUT at the
checkpoint's image size, and used again by later evaluations there. With --data_dir=DATA that data set's split is used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_prep import build
from lgdea_jax import cli
from lgdea_jax.errors import UserError, choose
from lgdea_jax.eval.harness import flags, runner
from lgdea_jax.eval.harness.benchmark import Benchmark
from lgdea_jax.eval.harness.output import command_line
from lgdea_jax.inference.loading import load_spec

BENCHMARK = Benchmark(
    "phantom", "Evaluates a checkpoint on the synthetic phantom world: zero-shot classification, image-report "
    "retrieval, phrase grounding. Needs no data: the world is made when needed.", public=False, guard=False)
WORLD_CONFIG = "configs/data/phantom.py"
SPLITS = ("train", "validation", "test")


def main(argv: list[str]) -> int:
    """Parses the flags, builds the world if need be, and evaluates; returns the exit status."""
    parser = flags.make_parser(BENCHMARK, data_dir="optional", example="--studies=200 --bootstrap=100")
    parser.add_argument("--studies", type=int, default=1000, help="size of the world that is made (default: 1000)")
    parser.add_argument("--world_seed", type=cli.seed, default=0, help="seed of the world that is made (default: 0)")
    args = parser.parse_args(argv)
    data_dir = Path(args.data_dir) if args.data_dir else make_world(args)
    return runner.evaluate(args, argv, BENCHMARK, data_dir)


def make_world(args: Any) -> Path:
    """Builds the split's world in OUT at the checkpoint's image size, unless it exists."""
    choose("split", args.split, SPLITS)
    if args.studies < 1:
        raise UserError("--studies must be at least 1")
    size = min(max(checkpoint_image_size(args.checkpoint, args.step), 64), 512)
    config = world_config(size, args.split, args.studies, args.world_seed)
    folder = Path(args.out) / f"world_{args.split}_{args.studies}_{size}px_seed{args.world_seed}"
    build.build(config, folder, command=command_line("phantom", []))
    return folder


def world_config(size: int, split: str, studies: int, seed: int) -> Any:
    """The data set's config with one split only."""
    config = cli.read_config(WORLD_CONFIG)
    config.image_size = config.phantom.size = size
    config.phantom.seed = seed
    for name in SPLITS:
        config.phantom[name] = studies if name == split else 0
    return config


def checkpoint_image_size(checkpoint: str, step: str) -> int:
    """The side of the images that a checkpoint's model takes."""
    return int(load_spec(checkpoint, step)["config"]["image"]["size"])


if __name__ == "__main__":
    cli.run(main)
