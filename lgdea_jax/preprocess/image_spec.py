"""The image spec: what an image tower takes, a square of pixels or a view of volumes."""

from __future__ import annotations

import numpy as np

from lgdea_jax.preprocess.image import MODEL_TRANSFORM
from lgdea_jax.preprocess.volume import VolumeView

# The side of the square in pixels, or the view of volumes.
ImageSpec = int | VolumeView


def input_shape(spec: ImageSpec) -> tuple[int, ...]:
    """Of one image as a predictor takes it: (S, S) of uint8, or (D, H, W, 1) of int16."""
    return (spec, spec) if isinstance(spec, int) else (*spec.shape, 1)


def input_dtype(spec: ImageSpec) -> np.dtype:
    """uint8 for pixels, int16 for volumes in HU: the device makes floats of both."""
    return np.dtype(np.uint8 if isinstance(spec, int) else np.int16)


def transform_name(spec: ImageSpec) -> str:
    """The model transform as checkpoints state it: "letterbox@1:224" or a `VolumeView`'s."""
    return f"{MODEL_TRANSFORM}:{spec}" if isinstance(spec, int) else spec.name
