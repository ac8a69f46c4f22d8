"""Heatmaps of 2D images stay where the bright spot is, whatever the shape, the format and the polarity of the file.

Brightness stands for the model: the value of a patch is the mean of the model's input over its cell. Where the spot is
in original pixels is known from drawing it.
"""

import numpy as np
import PIL.Image
import pytest

from lgdea_jax.inference.images import Picture, Reader
from lgdea_jax.preprocess.image import Letterbox
from tests.fixtures import world

SIZE, PATCH = 64, 8


def drawn(shape, spot):
    """A grey picture with a bright disc, too large for an outlier of the grey levels; spot is (y, x) in pixels."""
    y, x = np.ogrid[:shape[0], :shape[1]]
    picture = np.full(shape, 40, np.uint8) + (np.arange(shape[1]) * 40 // shape[1]).astype(np.uint8)
    picture[(y - spot[0]) ** 2 + (x - spot[1]) ** 2 < (max(shape) / 7) ** 2] = 250
    return picture


def written(path, picture, kind):
    if kind == "png":
        PIL.Image.fromarray(picture).save(path)
    elif kind == "png of 16 bits":
        PIL.Image.fromarray(picture.astype(np.uint16) * 257).save(path)
    else:
        stored = 255 - picture if kind == "MONOCHROME1" else picture
        world.dicom(path, stored, PhotometricInterpretation=kind, RescaleSlope="1", RescaleIntercept="0")
    return path


@pytest.mark.parametrize("kind", ["png", "png of 16 bits", "MONOCHROME2", "MONOCHROME1"])
@pytest.mark.parametrize("shape", [(200, 600), (640, 180), (256, 256), (97, 301)])
@pytest.mark.parametrize("share", [(0.2, 0.85), (0.7, 0.15)])
@pytest.mark.parametrize("record_size", [0, 128])
def test_the_peak_lies_within_a_patch_of_the_spot(tmp_path, kind, shape, share, record_size):
    spot = np.array(share) * shape
    path = written(tmp_path / ("a.png" if "png" in kind else "a.dcm"), drawn(shape, spot), kind)
    picture = Reader(SIZE, record_size).read(str(path), "a")
    assert isinstance(picture, Picture), picture
    cells = picture.model_input.reshape(SIZE // PATCH, PATCH, SIZE // PATCH, PATCH).astype(float).mean((1, 3))
    heat = Letterbox.of(picture.shape, SIZE, picture.stored).heatmap(cells)
    assert heat.shape == shape
    peak = np.argwhere(heat == heat.max()).mean(0) + 0.5
    pixels = max(shape) / SIZE * PATCH  # Original pixels of a patch.
    assert (np.abs(peak - spot) < pixels).all(), (peak, spot)
