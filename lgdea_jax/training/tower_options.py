"""What a configuration leaves open about its towers, filled in from the weights or the run that they start from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lgdea_jax.errors import UserError
from lgdea_jax.experiment import OPEN
from lgdea_jax.inference import loading
from lgdea_jax.models import pretrained
from lgdea_jax.runtime import hub

# Groups of the configuration that belong to an image tower: its options, and what its images are like.
OF_IMAGES = ("image", "volume")
# What is filled with an option only: a variant that was chosen has its own sizes.
WITH = {"variant": "sizes", "pool": "projection"}
# Beside one of these files `preprocess.text.TextTokenizer` finds a tokeniser.
TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "tokenizer_config.json")


def complete(config: Any, workdir: str | Path) -> None:
    """Fills empty options of the towers in place, and the tokeniser; pins addresses on the hub to their commits.

    Args:
      config: of a training, see configs/common.py.
      workdir: of the run: one that goes on has the tower that it has.

    Raises:
      UserError: weights or a run that cannot be read, or nothing that says which image tower is meant.
    """
    for side in ("image", "text"):
        config.model[side].weights = hub.pinned(config.model[side].weights)
    config.init_from = ",".join(map(hub.pinned, filter(None, config.init_from.split(","))))
    if not config.model.image.name and not config.model.image.weights:
        copy_image_tower(config, workdir)
    for side in ("image", "text"):
        fill(config, side)
    weights = config.model.text.weights
    if weights and not config.text.tokenizer and any((folder_of(weights) / name).is_file() for name in TOKENIZERS):
        config.text.tokenizer = weights


def copy_image_tower(config: Any, workdir: str | Path) -> None:
    """Takes the image tower, its images and volumes from the run in `workdir` that goes on, or from `init_from`.

    Raises:
      UserError: there is neither, or it has no image tower.
    """
    own = Path(workdir) / "config.json"
    if own.is_file():
        theirs = json.loads(own.read_text(encoding="utf-8"))
    elif config.init_from:
        theirs = loading.load_spec(config.init_from.split(",")[0])["config"]
    else:
        raise UserError("nothing says which image tower is meant: give --config.init_from=RUN, "
                        "--config.model.image.weights=DIR or --config.model.image.name=vit")
    for group in OF_IMAGES:
        _copy(config[group], theirs[group])
    weights = config.model.image.weights
    _copy(config.model.image, theirs["model"]["image"])
    config.model.image.weights = weights


def fill(config: Any, side: str) -> None:
    """Fills the empty options of a tower from its weights' config.json, then with the usual ones."""
    part = config.model[side]
    name, options = "", {}
    if part.weights and (not part.name or not all(part[part.name][key] for key in OPEN.get(part.name, {}))):
        try:
            name, options = pretrained.describe(folder_of(part.weights))
        except pretrained.WeightsError as error:
            raise UserError(f"model.{side}.weights: {error}") from None
    if not part.name:
        if not name:
            raise UserError(f"model.{side}.weights: no config.json that describes a tower: name it with "
                            f"--config.model.{side}.name=vit or resnet")
        part.name = name
    ours = part[part.name]
    for key, value in options.items() if name == part.name else ():
        if key in WITH.values() or ours[key]:
            continue
        ours[key] = value
        for inner, size in options.get(WITH.get(key), {}).items() if key == "variant" else ():
            ours.sizes[inner] = ours.sizes[inner] or size
        if key == "pool":
            ours.projection = options.get("projection", ours.projection)
    for key, value in OPEN.get(part.name, {}).items():
        ours[key] = ours[key] or value


def folder_of(weights: str) -> Path:
    """The local folder (or file) of published weights."""
    return hub.fetch_tower(weights)


def _copy(ours: Any, theirs: Mapping[str, Any]) -> None:
    """Sets the keys of a group to another configuration's, which JSON has made lists of tuples."""
    for key, value in theirs.items():
        if isinstance(value, Mapping):
            _copy(ours[key], value)
        else:
            ours[key] = tuple(value) if isinstance(value, list) else value
