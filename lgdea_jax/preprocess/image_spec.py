"""What a model's image tower takes: a square of pixels, or a view of volumes. The one place that tells them apart."""

from __future__ import annotations

import numpy as np

from lgdea_jax.preprocess.image import MODEL_TRANSFORM
from lgdea_jax.preprocess.volume import VolumeView

# The side of the square in pixels, or the view of volumes.
Frame = int | VolumeView


def input_shape(frame: Frame) -> tuple[int, ...]:
    """Of one image as it is handed to a predictor: (S, S) of uint8, or (D, H, W, 1) of float32."""
    return (frame, frame) if isinstance(frame, int) else (*frame.shape, 1)


def input_dtype(frame: Frame) -> np.dtype:
    """uint8 for pixels, float32 for windowed volumes."""
    return np.dtype(np.uint8 if isinstance(frame, int) else np.float32)


def transform_name(frame: Frame) -> str:
    """The model transform as checkpoints state it: "letterbox@1:224" or a `VolumeView`'s."""
    return f"{MODEL_TRANSFORM}:{frame}" if isinstance(frame, int) else frame.name
