"""Training: config -> data -> state -> step -> checkpoint -> evaluators.

    python -m lgdea_jax.train --config=configs/phantom.py --workdir=RUN [--config.data.dir=DATA] [--config.KEY=VALUE]

Running the same command again goes on from the last checkpoint, bit for bit: batch n is a function of (config, n)
alone. SIGTERM and Ctrl-C save first (exit status 143 and 130). RUN holds config.json, metrics.jsonl, evals.jsonl,
tensorboard/ and checkpoints/.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from pathlib import Path
from typing import Any

import jax

from data_prep import build
from lgdea_jax import cli
from lgdea_jax.data import plan
from lgdea_jax.data.dataset import METADATA_FILE
from lgdea_jax.data.leakage import PAIRS_FILE
from lgdea_jax.data.verify import verified
from lgdea_jax.errors import UserError
from lgdea_jax.experiment import Experiment
from lgdea_jax.runtime import host_memory, sharding
from lgdea_jax.runtime.checkpoint import Checkpoints
from lgdea_jax.runtime.files import own_folder
from lgdea_jax.training import loop
from lgdea_jax.training.aot.report import dry_run_on
from lgdea_jax.training.data import batch_sizes, prepare_data
from lgdea_jax.training.dry_run import dry_run
from lgdea_jax.training.tower_options import complete

log = logging.getLogger("lgdea_jax")
# The least values of numbers; an image of fewer pixels than the build's smallest has nothing to see.
LEAST = {"total_steps": 1, "log.every": 1, "checkpoint.every": 1, "checkpoint.keep": 1, "image.size": 8,
         "text.phrases": 1}


def main(argv: list[str]) -> int:
    """The command line; returns the exit status."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr, force=True)
    # Orbax's threads log every error that they also raise, with tracebacks: a full disk is to be one line.
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    log.setLevel(logging.INFO)
    parser = cli.Parser(
        prog="python -m lgdea_jax.train",
        description="Pretrains image and text towers. Research use only, not a medical device.",
        epilog="examples:\n"
               "  python -m lgdea_jax.train --config=configs/phantom.py --workdir=runs/phantom\n"
               "  python -m lgdea_jax.train --config=configs/small.py --workdir=RUN --config.data.dir=DATA "
               "--config.total_steps=2000\n\n"
               "--config.KEY=VALUE changes a key of the config; configs/common.py and\n"
               "docs/reference/configuration.md list them all, with their reasons.")
    parser.add_argument("--config", metavar="FILE", required=True, help="the experiment, e.g. configs/phantom.py")
    parser.add_argument("--workdir", required=True, help="folder of the run; an earlier run there goes on")
    parser.add_argument("--verify", action="store_true",
                        help="first compare all files of the data sets with their checksums, as python -m "
                             "data_prep.verify does")
    if {"-h", "--help"} & set(argv):
        parser.print_help()
        return cli.OK
    config, rest = cli.load_config(argv)
    args = parser.parse_args(["--config=read", *rest])
    return train(config, args.workdir, verify=args.verify)


def train(config: Any, workdir: str | Path, *, verify: bool = False) -> int:
    """Runs (or goes on with) the training that `config` describes.

    Args:
      config: see configs/common.py for every key.
      workdir: the run's folder.
      verify: whether all data sets are read and compared with their checksums before the first step. Every process
        checks those that it sees.

    Returns:
      An exit status of `cli`: OK, INTERRUPTED or TERMINATED.

    Raises:
      UserError: a mistake that the user can correct, or losses that are not finite.
    """
    check_config(config)
    if config.dry_run_on:
        for line in dry_run_on(config, Path(workdir)):
            log.info(line)
        return cli.OK
    sharding.start_hosts(**config.distributed)
    if jax.process_index():
        log.setLevel(logging.WARNING)  # Process 0 logs.
    if config.compile_cache:
        jax.config.update("jax_compilation_cache_dir", str(Path(config.compile_cache).expanduser()))
    complete(config, workdir)
    mesh = sharding.make_mesh(**config.mesh)
    experiment = Experiment.of(config, mesh)
    if config.dry_run:
        for line in dry_run(experiment, mesh):
            log.info(line)
        return cli.OK
    batch_sizes(experiment, mesh)  # Refuses what does not fit before a data set is made.
    workdir, first = Path(workdir), jax.process_index() == 0
    with own_folder(workdir, "--workdir") if first else contextlib.nullcontext():
        make_missing(config.data)
        if verify:
            log.info(verified([*plan.all_directories(config.data), *filter(None, [config.eval.dir])]))
        data = prepare_data(experiment, mesh, show=first, pairs_file=workdir / PAIRS_FILE if first else None)
        sharding.wait_for_all("folder made")
        with contextlib.closing(Checkpoints(workdir, keep=config.checkpoint.keep,
                                            metric=config.eval.metric)) as checkpoints:
            return loop.run(experiment, workdir, mesh, data, checkpoints)


def check_config(config: Any) -> None:
    """Refuses unknown keys and numbers that no run can have.

    Raises:
      UserError: names the key.
    """
    cli.check_keys(config, like="common.py")
    cli.check_seeds(config)
    for key, least in LEAST.items():
        value = config
        for part in key.split("."):
            value = value[part]
        if value < least:
            raise UserError(f"config key {key!r} is {value}: at least {least}")


def make_missing(data: Any) -> None:
    """Builds the phantom data set where `data.make_from` says how and `data.dir` is not finished; process 0 does it."""
    if not data.make_from or not data.dir:
        return
    if jax.process_index() == 0 and not (Path(data.dir) / METADATA_FILE).is_file():
        log.info("no data set at %s: making it with %s", data.dir, data.make_from)
        build.build(cli.read_config(data.make_from), Path(data.dir),
                    command=f"python -m data_prep.build --config={data.make_from} --out={data.dir}")
    sharding.wait_for_all("data set made")


if __name__ == "__main__":
    host_memory.keep_freed_memory()
    cli.run(main)
