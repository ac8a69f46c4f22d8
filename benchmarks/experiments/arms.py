"""The grid of the limited-pairs experiment: arms x settings x seeds, and what each run trains with."""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.experiments.keys import decisive, digest
from benchmarks.experiments.worlds import WORLDS, World
from lgdea_jax import cli
from lgdea_jax.errors import UserError, choose
from lgdea_jax.experiment import load_method

CT = "ct"  # Ends the code of a setting of the CT world.


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


@dataclasses.dataclass(frozen=True, order=True)
class Setting:
    """What is trained on.

    Attributes:
      pairs: a share of the world's studies (at most 1), or a number of studies of the large world (above 1).
      images: in the large world, the number of unpaired images; 0 for methods that read none.
      ct: of the CT world.
    """

    pairs: float
    images: int = 0
    ct: bool = False

    @property
    def world(self) -> World:
        """Its data."""
        return WORLDS["ct" if self.ct else "large" if self.pairs > 1 else "phantom"]

    @property
    def name(self) -> str:
        """For readers."""
        if self.pairs <= 1:
            return f"{100 * self.pairs:g}%" + (" of CT" if self.ct else "")
        return f"{self.pairs:g} pairs" + (f", {self.images:,} images" if self.images else "")

    @property
    def code(self) -> str:
        """As in METHOD@CODE."""
        return f"{self.pairs:g}" + (f"+{self.images}" if self.images else "") + (CT if self.ct else "")


@dataclasses.dataclass(frozen=True)
class Budget:
    """Number of seeds, steps, arms and config settings of a `Setting`; `config.limited` has the rest."""

    seeds: int
    steps: int
    arms: tuple[str, ...]
    settings: tuple[str, ...] = ()


# The tower of `config.limited`, for the setting that is not limited.
TOWER = ("model.image.resnet.pyramid=0",)


def _grid() -> dict[Setting, Budget]:
    """More seeds where the question is, and where results vary more. With all pairs larger batches are better."""
    every, known = tuple(ARMS), tuple(name for name, arm in ARMS.items() if not arm.unpaired)
    grid = {Setting(0.01): Budget(8, 2000, every), Setting(0.05): Budget(8, 2000, every),
            Setting(0.1): Budget(3, 2000, every), Setting(1.0): Budget(3, 3000, known, ("batch.pairs=64", *TOWER)),
            # The steps of the config. Without the alarm: an arm is reported as it is.
            Setting(0.05, ct=True): Budget(5, 1000, ("clip", "lgdea_pairs", "lgdea"), ("alarm.information=0",))}
    reports = "data.reports=2000"  # As many as at 1%: only the images differ.
    for pairs in (40, 200):
        grid[Setting(pairs)] = Budget(8 if pairs == 40 else 3, 2000, ("lgdea_pairs",), (reports,))
        for images in (500, 2000, 8000, 20_000):
            most = images == 20_000
            grid[Setting(pairs, images)] = Budget(
                8 if most and pairs == 40 else 3, 2000, ("mean_teacher", "lgdea", "oracle") if most else ("lgdea",),
                (reports, f"data.images={images}"))
    return grid


GRID: Mapping[Setting, Budget] = _grid()

COMMON = ("log.tensorboard=false", "eval.every=0")
# Of the config, what cannot change a run's numbers; so that a new folder does not make finished runs unfinished.
NOT_IN_KEY = ("alarm", "compile_cache", "dry_run", "dry_run_on", "log", "data.dir", "loss_chunk", "batch.micro",
              "model.remat_keep", "text.distinct", "limited",  # What it sets is in the key.
              "data.near_duplicates")  # Of which phantoms have none.
OF_VOLUMES = ("volume", "image.modality", "data.labels")  # Likewise, of settings without volumes.


@dataclasses.dataclass(frozen=True)
class Run:
    """One training and its evaluation; `method` is the arm's name (as in committed rows), `extra` the --set flags."""

    method: str
    pairs: float
    seed: int
    split: str
    steps: int
    extra: tuple[str, ...] = ()
    images: int = 0
    ct: bool = False

    @property
    def setting(self) -> Setting:
        """What it trains on."""
        return Setting(self.pairs, self.images, self.ct)

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.method} {self.setting.name} seed {self.seed}"

    @property
    def folder(self) -> str:
        """For files."""
        return f"{self.method}_{self.setting.code}_{self.seed}"

    @property
    def arm(self) -> Arm:
        """What is trained."""
        return ARMS[self.method]

    def settings(self) -> list[str]:
        """KEY=VALUE of the config beside the data set's folder; later ones win."""
        # A checkpoint at the end is enough: a run that is stopped saves first.
        return [f"method={self.arm.method}", f"data.pairs={self.pairs}", f"seed={self.seed}",
                f"total_steps={self.steps}", f"checkpoint.every={self.steps}", *COMMON, *GRID[self.setting].settings,
                *self.arm.settings, *self.extra]

    def config(self) -> dict[str, Any]:
        """Everything in the config that can change its numbers: the options of other methods are left out.

        Raises:
          UserError: an unknown key or a bad value in `extra`, or an option that the method does not take.
        """
        config = cli.read_config(self.setting.world.config)
        cli.set_overrides(config, [tuple(setting.split("=", 1)) for setting in self.settings()])
        method = load_method(config)
        without = () if method.has_memory else ("memory", "strong")
        return decisive(config, (*NOT_IN_KEY, *(() if self.ct else OF_VOLUMES), *without))

    def key(self, data: str) -> str:
        """Names the run by everything that decides its numbers, except the code; `data` is its world's digest."""
        return digest([self.config(), self.split, data])

    def config_hash(self) -> str:
        """Of the config without the seed: equal for the runs of a cell."""
        return digest({**self.config(), "seed": None})


def parse_cell(text: str) -> tuple[str, Setting]:
    """METHOD@SETTING as (method, setting).

    Raises:
      UserError: not of that form, an unknown method or setting, or a cell that would repeat another.
    """
    method, at, setting = text.strip().partition("@")
    if not at:
        raise UserError(f"{text!r}: METHOD@PAIRS, as lgdea@0.01 or lgdea@40+20000")
    return check_cell(check_method(method), check_setting(setting))


def check_method(name: str) -> str:
    """The arm of that name; see `parse_cell`."""
    return choose("method", name.strip(), known_methods())


def check_setting(text: str) -> Setting:
    """The setting of that code; see `parse_cell`."""
    pairs, _, images = text.strip().removesuffix(CT).partition("+")
    try:
        setting = Setting(float(pairs), int(images or 0), text.strip().endswith(CT))
    except ValueError:
        setting = Setting(math.nan)
    if setting not in GRID:
        raise UserError(f"unknown share or number of pairs {text.strip()!r}; known: "
                        f"{', '.join(setting.code for setting in GRID)}")
    return setting


def check_cell(method: str, setting: Setting) -> tuple[str, Setting]:
    """The cell; see `parse_cell`."""
    if method in GRID[setting].arms:
        return method, setting
    if setting.pairs == 1:
        raise UserError(f"{method}@{setting.code}: with all pairs nothing is unpaired, and {method} is lgdea_pairs")
    raise UserError(f"{method}@{setting.code}: not of this experiment; with these data: "
                    f"{', '.join(GRID[setting].arms)}")


def known_methods() -> list[str]:
    """Arms whose method this version has."""
    available = cli.read_config(WORLDS["phantom"].config).methods
    return [name for name, arm in ARMS.items() if arm.method in available]


def select_cells(arguments: argparse.Namespace) -> list[tuple[str, Setting]]:
    """(method, setting) of --cells, or of --methods x --pairs without those that the grid does not have."""
    if arguments.cells:
        if arguments.methods or arguments.pairs:
            raise UserError("--cells excludes --methods and --pairs")
        cells = [parse_cell(cell) for cell in arguments.cells.split(",")]
    else:
        methods, settings = known_methods(), list(GRID)
        if arguments.methods:
            methods = [check_method(name) for name in arguments.methods.split(",")]
        if arguments.pairs:
            settings = [check_setting(text) for text in arguments.pairs.split(",")]
        cells = [(method, setting) for setting in settings for method in methods if method in GRID[setting].arms]
        if not cells:
            check_cell(methods[0], settings[0])
    order = list(ARMS)
    return sorted(set(cells), key=lambda cell: (cell[1], order.index(cell[0])))


def make_runs(cells: Sequence[tuple[str, Setting]], *, seeds: int | None, steps: int | None, split: str,
              extra: Sequence[str], first_seed: int = 0) -> list[Run]:
    """The runs in the order in which they are done: a first seed of every cell, small shares first, then a second."""
    runs = []
    for seed in range(max(seeds or GRID[setting].seeds for _, setting in cells)):
        for method, setting in cells:
            if seed < (seeds or GRID[setting].seeds):
                runs.append(Run(method, setting.pairs, first_seed + seed, split, steps or GRID[setting].steps,
                                tuple(extra), setting.images, setting.ct))
    return runs
