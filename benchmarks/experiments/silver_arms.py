"""The silver-label experiment's arms: the stages of each, their steps, and what names a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.experiments.keys import decisive, digest
from lgdea_jax import cli

# Raised when the numbers of all arms change: runs of different builds are never compared with each other.
BUILD = 2
# CLIP's were chosen on the validation world, with one seed (zero-shot AUROC of scratch and silver: 0.564 and 0.701).
STEPS = {"supervised": 600, "clip": 300}
NOT_IN_KEY = ("alarm", "compile_cache", "dry_run", "dry_run_on", "log", "data.dir", "data.make_from", "init_from",
              "checkpoint",
              # Of unpaired items, which this experiment has none of.
              "memory", "strong", "limited", "batch.images", "batch.reports", "batch.images_per_pair",
              "batch.reports_per_pair",
              "data.near_duplicates")  # Of which phantoms have none.


@dataclasses.dataclass(frozen=True)
class Stage:
    """One training of an arm.

    Attributes:
      config: its config.
      settings: KEY=VALUE that the arm changes in it.
      start: stages before it whose parameters it starts from.
    """

    config: str
    settings: tuple[str, ...] = ()
    start: tuple[str, ...] = ()


_CLIP = "configs/clip_ct.py:phantom"


def _image(labels: str) -> Stage:
    return Stage("configs/supervised_ct.py:phantom", (f"data.labels={labels}",))


def _image_only(labels: str) -> dict[str, Stage]:
    return {"supervised": _image(labels), "clip": Stage(_CLIP, start=("supervised",))}


_TOWERS = {"image": Stage("configs/silver_ct.py:image,phantom"), "text": Stage("configs/silver_ct.py:text,phantom")}
# Arm -> its stages, in order; the last one is evaluated.
ARMS: Mapping[str, Mapping[str, Stage]] = {
    "scratch": {"clip": Stage(_CLIP)},
    "scratch_long": {"clip": Stage(_CLIP)},
    "reference": _image_only("reference"),
    "silver": _image_only("silver"),
    "weak": _image_only("weak"),
    "silver_both": {**_TOWERS, "clip": Stage(_CLIP, ("init_parts=image_tower,text_tower",), ("image", "text"))},
    "silver_shared": {**_TOWERS, "shared": Stage("configs/silver_ct.py:phantom", start=("image", "text"))},
    # All are pairs: nothing is left for the losses of unpaired items. Without the alarm: an arm is reported as it is.
    "lgdea_ct": {"supervised": _image("silver"), "lgdea": Stage(
        "configs/lgdea_ct.py:phantom", ("method=lgdea_pairs", "alarm.information=0"), ("supervised",))},
}


@dataclasses.dataclass(frozen=True)
class Run:
    """One arm with one seed: supervised pretraining if it has any, alignment, evaluation."""

    arm: str
    seed: int
    steps: tuple[int, int]  # Of the supervised pretraining and of the alignment.
    split: str = "test"
    build: int = BUILD

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.arm} seed {self.seed}"

    def stages(self) -> Mapping[str, Stage]:
        """{name: stage}, in order."""
        return ARMS[self.arm]

    def steps_of(self, stage: str) -> int:
        """Steps of a stage. An update counts as a step, whichever towers it trains.

        Two towers divide the supervised steps 3 to 1, as in configs/silver_ct.py:phantom.
        """
        supervised, alignment = self.steps
        text = max(1, supervised // 4)
        steps = {"supervised": supervised, "text": text, "image": supervised - text}
        return steps.get(stage, alignment + (supervised if self.arm == "scratch_long" else 0))

    def settings(self, stage: str) -> list[str]:
        """KEY=VALUE of a stage's config, beside the folders."""
        steps = self.steps_of(stage)
        # A checkpoint at the end is enough: a run that is stopped saves first.
        return [f"seed={self.seed}", f"total_steps={steps}", f"checkpoint.every={steps}", "eval.every=0",
                "eval.records=1", "log.tensorboard=false", *self.stages()[stage].settings]

    def config(self) -> dict[str, Any]:
        """Everything in the configs that can change its numbers."""
        return {name: resolved(stage.config, self.settings(name)) for name, stage in self.stages().items()}

    def key(self, data: str) -> str:
        """Names the run by everything that decides its numbers; `data` is the world's digest."""
        build = [self.build] if self.build > 1 else []  # The first build's keys had none.
        return digest([self.arm, self.config(), self.split, data, *build])


def resolved(path: str, settings: Sequence[str]) -> dict[str, Any]:
    """A config with its settings, without what cannot change a run's numbers."""
    config = cli.read_config(path)
    for setting in settings:
        key, _, value = setting.partition("=")
        cli.set_override(config, key, value)
    return decisive(config, NOT_IN_KEY)
