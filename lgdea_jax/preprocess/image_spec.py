"""What a model's image tower takes: a square of pixels, or a view of volumes. The one place that tells them apart."""

from __future__ import annotations

from typing import Any

import numpy as np

from lgdea_jax.preprocess.image import MODEL_TRANSFORM
from lgdea_jax.preprocess.volume import VolumeView

# Values of `config.image.modality`: 2D images and volumes.
MODALITIES = ("xray", "ct")

# The side of the square in pixels, or how volumes are seen.
Frame = int | VolumeView


def frame_of(config: Any) -> Frame:
    """The frame of a training config, also of one from before there were volumes.

    Raises:
      UserError: a geometry, shape or window that is none.
    """
    if config.image.get("modality", "xray") != "ct":
        return config.image.size
    return VolumeView.of(config.volume.geometry, config.volume.shape, config.volume.window)


def input_shape(frame: Frame) -> tuple[int, ...]:
    """Of one image as it is handed to a predictor: (S, S) of uint8, or (D, H, W, 1) of float32."""
    return (frame, frame) if isinstance(frame, int) else (*frame.shape, 1)


def input_dtype(frame: Frame) -> np.dtype:
    """uint8 for pixels, float32 for windowed volumes."""
    return np.dtype(np.uint8 if isinstance(frame, int) else np.float32)


def transform_name(frame: Frame) -> str:
    """The model transform as checkpoints state it: "letterbox@1:224" or a `VolumeView`'s."""
    return f"{MODEL_TRANSFORM}:{frame}" if isinstance(frame, int) else frame.name
