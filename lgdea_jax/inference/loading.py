"""Opens what a run saved: its predictor, its parameters, its spec.

The one module that imports JAX late, inside functions: every command that uses a run goes through it, so that `--help`
and the message for a wrong flag or folder do not wait for JAX.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from lgdea_jax.errors import UserError
from lgdea_jax.inference import model_folder
from lgdea_jax.preprocess.image_spec import ImageSpec, transform_name


def load_predictor(checkpoint: str | Path, step: str | int = "latest", *, batch_size: int | None = None) -> Any:
    """The `predictor.Predictor` of a run; arguments and errors as of `restore`."""
    from lgdea_jax.inference import predictor

    _mute()
    return predictor.load_predictor(checkpoint, step, batch_size=batch_size)


def restore(checkpoint: str | Path, step: str | int = "latest") -> Any:
    """The `predictor.Restored` of a run: config, parameters, tokeniser and spec.

    Args:
      checkpoint: run directory of lgdea_jax.train (RUN), a folder of `model_folder`, or its address hf://OWNER/NAME.
      step: "latest", "best" or a number.

    Raises:
      UserError: no such checkpoint, or one that does not fit this code.
    """
    from lgdea_jax.inference import predictor

    _mute()
    return predictor.restore(checkpoint, step)


def load_spec(checkpoint: str | Path, step: str | int = "latest") -> dict[str, Any]:
    """The spec of a checkpoint, without its parameters; arguments and errors as of `restore`."""
    checkpoint = model_folder.locate(checkpoint)
    if model_folder.is_model(checkpoint):
        return model_folder.read_spec(checkpoint, step)
    from lgdea_jax.runtime.checkpoint import Checkpoints

    _mute()
    store = Checkpoints(checkpoint, writable=False)
    spec = store.spec(store.resolve(step))
    store.close()
    return spec


def check_transform(trained_with: str, frame: ImageSpec, records: str) -> None:
    """Refuses data that a model would see otherwise than those of its training.

    Args:
      trained_with: of the checkpoint; frame: of the model; records: the transform that the data were built with.

    Raises:
      UserError: names both.
    """
    offered = f"{records}+{transform_name(frame)}"
    if trained_with != offered:
        raise UserError(f"the checkpoint was trained with the transform {trained_with}, this data set would be read "
                        f"with {offered}: build it with the version of lgdea-jax that made the training data")


def _mute() -> None:
    """Orbax and JAX warn about reading a checkpoint on another machine, which is nothing a user can act on, and log the
    errors that they also raise."""
    for name in ("absl", "orbax", "jax", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
