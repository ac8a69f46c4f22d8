"""The grid of the limited-pairs experiment: arms x shares of pairs x seeds, and what each run trains with."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from lgdea_jax import cli
from lgdea_jax.errors import UserError, choose
from lgdea_jax.experiment import load_method

CONFIG, DATA_CONFIG = "configs/phantom.py", "configs/data/phantom.py"


@dataclasses.dataclass(frozen=True)
class Share:
    """Number of seeds, steps and settings of every arm at a share of pairs; `config.limited` has the rest."""

    seeds: int
    steps: int
    settings: tuple[str, ...] = ()


# More seeds where the question is, and where results vary more. With all pairs larger batches are better.
SHARES = {0.01: Share(8, 2000), 0.05: Share(8, 2000), 0.1: Share(3, 2000), 1.0: Share(3, 3000, ("batch.pairs=64",))}


@dataclasses.dataclass(frozen=True)
class Arm:
    """A method with its own settings, and whether it differs from another arm only by unpaired items."""

    method: str
    settings: tuple[str, ...] = ()
    unpaired: bool = False


# In the order of tables. The rows of unpaired items in a batch are those of the config (`auto`).
ARMS: Mapping[str, Arm] = {
    "clip": Arm("clip"), "clip_evidence_soft": Arm("clip_evidence_soft"),
    "lgdea_pairs_alone": Arm("lgdea_pairs", ("batch.reports=0",), unpaired=True),
    "lgdea_pairs": Arm("lgdea_pairs"), "mean_teacher": Arm("mean_teacher", unpaired=True),
    "lgdea": Arm("lgdea", unpaired=True), "oracle": Arm("oracle", ("memory.truth=True",), unpaired=True),
}

COMMON = ("log.tensorboard=false", "eval.every=0")
# Of the config, what cannot change a run's numbers; so that a new folder does not make finished runs unfinished.
NOT_IN_KEY = ("alarm", "compile_cache", "dry_run", "log", "data.dir", "loss_chunk", "batch.micro", "model.remat_keep",
              "text.distinct",
              "limited",  # What it sets is in the key.
              "data.near_duplicates",  # Of which phantoms have none.
              # Of volumes, which this experiment has none of.
              "volume", "image.modality", "data.labels", "model.image.resnet3d")


@dataclasses.dataclass(frozen=True)
class Run:
    """One training and its evaluation; `method` is the arm's name (as in committed rows), `extra` the --set flags."""

    method: str
    pairs: float
    seed: int
    split: str
    steps: int
    extra: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """For messages and folders."""
        return f"{self.method} {share_name(self.pairs)} seed {self.seed}"

    @property
    def arm(self) -> Arm:
        """What is trained."""
        return ARMS[self.method]

    def settings(self) -> list[str]:
        """KEY=VALUE of the config beside the data set's folder; later ones win."""
        # A checkpoint at the end is enough: a run that is stopped saves first.
        return [f"method={self.arm.method}", f"data.pairs={self.pairs}", f"seed={self.seed}",
                f"total_steps={self.steps}", f"checkpoint.every={self.steps}", *COMMON, *SHARES[self.pairs].settings,
                *self.arm.settings, *self.extra]

    def config(self) -> dict[str, Any]:
        """Everything in the config that can change its numbers: the options of other methods are left out.

        Raises:
          UserError: an unknown key or a bad value in `extra`, or an option that the method does not take.
        """
        config = cli.read_config(CONFIG)
        cli.set_overrides(config, [tuple(setting.split("=", 1)) for setting in self.settings()])
        method = load_method(config)
        kept = json.loads(config.to_json_best_effort())
        kept["methods"] = {self.arm.method: kept["methods"][self.arm.method]}
        if not method.has_memory:
            del kept["memory"], kept["strong"]
        for name in NOT_IN_KEY:
            *path, last = name.split(".")
            node = kept
            for part in path:
                node = node[part]
            del node[last]
        return kept

    def key(self, data: str) -> str:
        """Names the run by everything that decides its numbers, except the code; `data` is `data_digest`'s."""
        return digest([self.config(), self.split, data])

    def config_hash(self) -> str:
        """Of the config without the seed: equal for the runs of a cell."""
        return digest({**self.config(), "seed": None})


def digest(content: Any) -> str:
    """16 hex digits of the SHA-256 of `content` as JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def share_name(pairs: float) -> str:
    """0.01 as "1%"."""
    return f"{100 * pairs:g}%"


def parse_cell(text: str) -> tuple[str, float]:
    """METHOD@SHARE as (method, share).

    Raises:
      UserError: not of that form, an unknown method or share, or a cell that would repeat another.
    """
    method, at, share = text.strip().partition("@")
    if not at:
        raise UserError(f"{text!r}: METHOD@SHARE, as lgdea@0.01")
    return check_cell(check_method(method), check_share(share))


def check_method(name: str) -> str:
    """The arm of that name; see `parse_cell`."""
    return choose("method", name.strip(), known_methods())


def check_share(text: str) -> float:
    """The share of that value; see `parse_cell`."""
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if share not in SHARES:
        raise UserError(f"unknown share of pairs {text.strip()!r}; known: {', '.join(f'{s:g}' for s in SHARES)}")
    return share


def check_cell(method: str, share: float) -> tuple[str, float]:
    """The cell; see `parse_cell`."""
    if repeats(method, share):
        raise UserError(f"{method}@{share:g}: with all pairs nothing is unpaired, and {method} is lgdea_pairs")
    return method, share


def repeats(method: str, share: float) -> bool:
    """Whether the cell would be lgdea_pairs under another name."""
    return share == 1 and ARMS[method].unpaired


def known_methods() -> list[str]:
    """Arms whose method this version has."""
    available = cli.read_config(CONFIG).methods
    return [name for name, arm in ARMS.items() if arm.method in available]


def select_cells(arguments: argparse.Namespace) -> list[tuple[str, float]]:
    """(method, share) of --cells, or of --methods x --pairs without those that would repeat others."""
    if arguments.cells:
        if arguments.methods or arguments.pairs:
            raise UserError("--cells excludes --methods and --pairs")
        cells = [parse_cell(cell) for cell in arguments.cells.split(",")]
    else:
        methods, shares = known_methods(), list(SHARES)
        if arguments.methods:
            methods = [check_method(name) for name in arguments.methods.split(",")]
        if arguments.pairs:
            shares = [check_share(text) for text in arguments.pairs.split(",")]
        cells = [(method, share) for share in shares for method in methods if not repeats(method, share)]
        if not cells:
            check_cell(methods[0], shares[0])
    order = list(ARMS)
    return sorted(set(cells), key=lambda cell: (cell[1], order.index(cell[0])))


def make_runs(cells: Sequence[tuple[str, float]], *, seeds: int | None, steps: int | None, split: str,
              extra: Sequence[str], first_seed: int = 0) -> list[Run]:
    """The runs in the order in which they are done: a first seed of every cell, small shares first, then a second."""
    runs = []
    for seed in range(max(seeds or SHARES[share].seeds for _, share in cells)):
        for method, share in cells:
            if seed < (seeds or SHARES[share].seeds):
                runs.append(Run(method, share, first_seed + seed, split, steps or SHARES[share].steps, tuple(extra)))
    return runs
