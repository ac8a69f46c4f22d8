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

# With few pairs an image is repeated hundreds of times: more augmentation than the quick start's. With all of them it
# is repeated some thirty times: the quick start's is better, and so are larger batches (see limited_pairs.md).
STRONG = ("augment.crop=(0.7,1.0)", "augment.aspect=1.2", "augment.rotate=8", "augment.gamma=0.3",
          "augment.contrast=0.3", "augment.brightness=0.1", "augment.noise=6")


@dataclasses.dataclass(frozen=True)
class Share:
    """Number of seeds, steps and settings of every arm at a share of pairs."""

    seeds: int
    steps: int
    settings: tuple[str, ...] = STRONG


# More seeds where results vary more; more steps where there are more pairs.
SHARES = {0.01: Share(8, 600), 0.05: Share(5, 800), 0.1: Share(3, 1000), 1.0: Share(3, 2000, ("batch.pairs=64",))}


@dataclasses.dataclass(frozen=True)
class Arm:
    """A method, the unpaired streams of its batches, its own settings, and the largest share of pairs of its runs."""

    method: str
    streams: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    up_to: float = 1.0


_REPORTS, _BOTH = ("reports",), ("images", "reports")
# In the order of tables.
ARMS: Mapping[str, Arm] = {
    "clip": Arm("clip"), "clip_evidence": Arm("clip_evidence"), "clip_evidence_soft": Arm("clip_evidence_soft"),
    "local": Arm("local"), "lgdea_pairs": Arm("lgdea_pairs", _REPORTS),
    "lgdea_pairs_place": Arm("lgdea_pairs", _REPORTS, ("methods.lgdea_pairs.weights.place=0.5",), up_to=0.05),
    "mean_teacher": Arm("mean_teacher", _BOTH), "lgdea": Arm("lgdea", _BOTH),
    "lgdea_place": Arm("lgdea", _BOTH, ("methods.lgdea.weights.place=0.5",), up_to=0.01),
    "oracle": Arm("oracle", _BOTH),
}
UNPAIRED_ROWS = 32  # Of each stream in a batch; as many as configs/phantom.py has pairs.
# The hidden reports are the oracle's targets; the others only log how far their targets are from them.
WITH_TRUTH = ("lgdea", "mean_teacher", "oracle")

COMMON = ("log.tensorboard=false", "eval.every=0")
# Of the config, what cannot change a run's numbers; so that a new folder does not make finished runs unfinished.
NOT_IN_KEY = ("alarm", "compile_cache", "dry_run", "log", "data.dir", "loss_chunk", "batch.micro", "model.remat_keep",
              "data.near_duplicates",  # Of which phantoms have none.
              # Of volumes, which this experiment has none of.
              "volume", "image.modality", "data.labels", "model.image.resnet3d")
# Terms of losses that earlier builds did not have: with weight 0 they change no number and no key.
LATER_TERMS = ("place",)
# Keys of a method that came later and follow from its name.
LATER_KEYS = ("objective", "targets")
# Keys that are gone, with the only value that committed rows have.
FORMER_RESNET_KEYS = {"conv": "native"}


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

    def streams(self) -> tuple[str, ...]:
        """The unpaired streams of its batches; none when everything is paired."""
        return self.arm.streams if self.pairs < 1 else ()

    def settings(self) -> list[str]:
        """KEY=VALUE of the config beside the data set's folder; later ones win."""
        unpaired = [f"batch.{stream}={UNPAIRED_ROWS}" for stream in self.streams()]
        truth = ["memory.truth=True"] if self.arm.method in WITH_TRUTH and self.pairs < 1 else []
        # A checkpoint at the end is enough: a run that is stopped saves first.
        return [f"method={self.arm.method}", f"data.pairs={self.pairs}", f"seed={self.seed}",
                f"total_steps={self.steps}", f"checkpoint.every={self.steps}", *COMMON, *SHARES[self.pairs].settings,
                *unpaired, *truth, *self.arm.settings, *self.extra]

    def config(self) -> dict[str, Any]:
        """Everything in the config that can change its numbers: the options of other methods are left out.

        Raises:
          UserError: an unknown key or a bad value in `extra`, or an option that the method does not take.
        """
        config = cli.read_config(CONFIG)
        for setting in self.settings():
            key, _, value = setting.partition("=")
            cli.set_override(config, key, value)
        method = load_method(config)
        kept = json.loads(config.to_json_best_effort())
        kept["methods"] = {self.arm.method: kept["methods"][self.arm.method]}
        weights = kept["methods"][self.arm.method]["weights"]
        for term in LATER_TERMS:
            if weights.get(term) == 0:
                del weights[term]
        for key in LATER_KEYS:
            kept["methods"][self.arm.method].pop(key, None)
        kept["model"]["image"]["resnet"] |= FORMER_RESNET_KEYS
        if not method.has_memory:
            del kept["memory"]
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
    if left_out(method, share):
        raise UserError(f"{method}@{share:g}: run at shares of pairs up to {ARMS[method].up_to:g} only")
    return method, share


def repeats(method: str, share: float) -> bool:
    """Whether the cell would be lgdea_pairs under another name."""
    return share == 1 and "images" in ARMS[method].streams


def left_out(method: str, share: float) -> bool:
    """Whether the experiment does not have the cell."""
    return repeats(method, share) or share > ARMS[method].up_to


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
        cells = [(method, share) for share in shares for method in methods if not left_out(method, share)]
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
