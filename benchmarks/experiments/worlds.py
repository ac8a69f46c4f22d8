"""The made-up worlds of the experiments: the config of each one's data set, and what its experiments train with."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.experiments.keys import digest
from data_prep.extract.extractors import open_extractor
from lgdea_jax import cli
from lgdea_jax.data.dataset import load_metadata
from lgdea_jax.errors import UserError


def add_flag(parser: cli.Parser) -> None:
    """Adds --extractor; see `check_flag`."""
    parser.add_argument("--extractor", default="", metavar="NAME@VERSION",
                        help="with --only-table, the runs on data whose evidence this version extracted (default: that "
                             "of the data set, or today's)")


def check_flag(arguments: argparse.Namespace) -> None:
    """Raises a UserError where --extractor is given for runs."""
    if arguments.extractor and not arguments.only_table:
        raise UserError("--extractor goes with --only-table: runs take the evidence that their data have")


@dataclasses.dataclass(frozen=True)
class World:
    """One of `WORLDS`.

    Attributes:
      name: for flags and messages.
      data_config: of `data_prep.build`.
      config: of the limited-pairs experiment's training.
      decides: the parts of the data set's config that decide its content, beside the extractor; the first is of no
        other kind of data set.
      studies: training studies, where it differs from the data set's config.
    """

    name: str
    data_config: str
    config: str
    decides: tuple[str, ...]
    studies: int = 0

    def data(self) -> Any:
        """The config of its data set."""
        config = cli.read_config(self.data_config)
        if self.studies:
            config[self.decides[0]].train = self.studies
        return config

    def digest(self, folder: Path, extractor: str = "") -> str:
        """Of what decides the content of the data set in `folder`, or of the one that would be made there.

        Args:
          folder: of the data set.
          extractor: what made the evidence, with its version; "" is the data set's own, or today's.

        Raises:
          UserError: damaged, or a data set of another kind.
        """
        if folder.exists():
            metadata = load_metadata(folder)
            config, made_by = metadata.config, metadata.extractor
        else:
            config = json.loads(self.data().to_json_best_effort())
            made_by = open_extractor(config["extractor"]).name
        if self.decides[0] not in config:
            raise UserError(f"{folder} is not a {self.decides[0]} data set")
        return digest({**{name: config[name] for name in self.decides}, "extractor": extractor or made_by})

    def make(self, folder: Path) -> None:
        """Makes the data set unless it is there."""
        from data_prep import build

        if not folder.exists():
            build.build(self.data(), folder)


_PHANTOM = World("phantom", "configs/data/phantom.py", "configs/phantom.py",
                 ("phantom", "image_size", "tokenizer"))
WORLDS: Mapping[str, World] = {world.name: world for world in (
    _PHANTOM,
    # As many unpaired images and reports as the settings of the limited-pairs experiment ask for.
    dataclasses.replace(_PHANTOM, name="large", studies=40_400),
    World("ct", "configs/data/phantom_ct.py", "configs/lgdea_ct.py:phantom",
          ("phantom_ct", "volume", "derived_labels", "tokenizer")),
)}
