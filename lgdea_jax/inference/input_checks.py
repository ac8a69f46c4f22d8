"""Warnings about inputs that are unlike what the model was trained on.

The checks are coarse: an input without a warning need not be suitable. `preprocess.image_statistics` compares an image
with the training images; the checks here need no statistics.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lgdea_jax.io import ImageInfo
from lgdea_jax.io.volumes import is_whole_chest
from lgdea_jax.preprocess.volume import VolumeView, resampled_shape

# DICOM modalities of radiographs; "" where the file states none.
RADIOGRAPHS = ("", "CR", "DX", "DR", "RG", "PX", "RF", "SC", "OT")
SMALLEST = 32  # Pixels of the shorter side: fewer show nothing to diagnose.
# Conversions that a user should know of.
_SAID = {
    "turned": "turned to the orientation that its header states",
    "markers clipped": "pixels far from all others (burnt-in markers?) do not count for its brightness",
    "inverse": "inverted, as its header states (presentation LUT shape INVERSE)",
    "alpha ignored": "transparent everywhere: its alpha is ignored",
    "rescale ignored": "a rescale slope or intercept that makes no sense is ignored",
    "window ignored": "a window or lookup table that makes no sense is ignored",
}
_COLOUR = 12.0  # Mean difference of the channels, in grey levels, from which an image counts as a colour photograph.


def image_warnings(array: np.ndarray, info: ImageInfo | None) -> list[str]:
    """In what an image is unlike a radiograph, by its size, its colours and its DICOM header.

    Args:
      array: [h, w] or [h, w, channels]; info: of the file, None for an image that came as an array.
    """
    found = []
    if min(array.shape[:2]) < SMALLEST:
        found.append(f"only {array.shape[1]} x {array.shape[0]} pixels")
    if array.ndim == 3:
        colours = array[..., :3]
        levels = 257 if array.dtype == np.uint16 else 1
        if float((colours.max(axis=2) - colours.min(axis=2)).mean()) / levels > _COLOUR:
            found.append("a colour picture: radiographs are grey")
    if info is not None and info.modality.upper() not in RADIOGRAPHS:
        found.append(f"DICOM modality {info.modality}: the model was trained on radiographs")
    return found + [_SAID[name] for name in (info.conversions if info is not None else ()) if name in _SAID]


def volume_warnings(voxels: np.ndarray, spacing: Sequence[float], view: VolumeView) -> list[str]:
    """In what a volume is unlike a whole chest CT in Hounsfield units.

    Values that cannot be Hounsfield units at all are refused when the volume is read.

    Args:
      voxels: int16 [z, y, x] in HU; spacing: mm (z, y, x); view: the input of the model.
    """
    found = []
    # A sixteenth of the voxels is enough for their distribution.
    part = voxels[::2, ::2, ::4] if voxels.size > 1 << 20 else voxels
    low, high = int(part.min()), int(part.max())
    if low > -900:
        found.append(f"lowest value {low} HU: air is at -1000, was the volume cut or rescaled?")
    if high < 200:
        found.append(f"highest value {high} HU: no bone, was the volume cut or rescaled?")
    lung = float(((part > -950) & (part < -550)).mean())
    if lung < 0.02:
        found.append(f"hardly any lung ({100 * lung:.1f}% of the voxels): is it a chest?")
    if not is_whole_chest(voxels.shape, spacing):
        covered = " x ".join(f"{n * mm:.0f}" for n, mm in zip(voxels.shape, spacing, strict=True))
        found.append(f"covers {covered} mm: not a whole chest, or a wrong voxel "
                     "spacing")
    if view.geometry.spacing and any(mm > 2.5 * new for mm, new in zip(spacing, view.geometry.spacing, strict=True)):
        found.append(f"voxels of {' x '.join(f'{mm:.3g}' for mm in spacing)} mm, far coarser than the "
                     f"{' x '.join(f'{mm:.3g}' for mm in view.geometry.spacing)} mm of the training volumes")
    resampled = resampled_shape(voxels.shape, spacing, view.geometry)
    shares = [min(want, limit or want, have) / have for want, limit, have in zip(
        view.shape, view.geometry.shape or (0, 0, 0), resampled, strict=True)]
    if min(shares) < 0.75:
        axis = ("height", "depth", "width")[int(np.argmin(shares))]
        found.append(f"only the middle {100 * min(shares):.0f}% along its {axis} goes into the model")
    return found
