"""BioViL's geometry against cases written out from its description."""

import numpy as np
import pytest
from PIL import Image

from lgdea_jax.preprocess import centre_crop as c


def test_min_max():
    assert c.min_max(np.array([[10, 20, 30]], np.uint8)).tolist() == [[0, 127, 255]]
    assert (c.min_max(np.full((2, 2), 9, np.uint8)) == 0).all()


@pytest.mark.parametrize("shape,resized", [((2544, 3056), (512, 615)), ((3056, 2544), (615, 512)),
                                           ((512, 512), (512, 512)), ((100, 333), (512, 1704))])
def test_the_shorter_side_becomes_512(shape, resized):
    assert c.resized_shape(shape) == resized


def test_offsets_round_half_to_even():
    assert c.crop_offset((512, 615), 480) == (16, 68)  # (615 - 480) / 2 = 67.5
    assert c.crop_offset((512, 617), 480) == (16, 68)  # 68.5


def test_crop_takes_the_middle():
    """A marked square of the original lies where resizing and cropping put it."""
    image = np.zeros((1024, 1230), np.uint8)
    image[400:600, 500:700] = 200
    out = c.centre_crop(image, 480, crop=480)
    rows, columns = np.nonzero(out > 127)
    # Half the size, minus the offsets 16 and (615 - 480) / 2 = 67.5 -> 68.
    assert (rows.min(), rows.max() + 1) == pytest.approx((200 - 16, 300 - 16), abs=1)
    assert (columns.min(), columns.max() + 1) == pytest.approx((250 - 68, 350 - 68), abs=1)
    assert out.max() == 255 and c.centre_crop(image, 32, crop=448).shape == (32, 32)


def test_heatmap_by_hand():
    """6 x 8 pixels: the square is int(480 * 6 / 512) = 5 wide; margins 1 and 3 give floor halves 0 and 1 first."""
    grid = np.array([[1.0, 2.0], [3.0, 4.0]])
    out = c.CentreCrop.of((1, 6, 8), 480).heatmap(grid)
    nan = np.nan
    expected = np.array([[nan, 1, 1, 1, 2, 2, nan, nan]] * 3 + [[nan, 3, 3, 3, 4, 4, nan, nan]] * 2 + [[nan] * 8])
    np.testing.assert_array_equal(out, expected)
    assert c.CentreCrop.of((1000, 1500), 448).side == 875 and c.CentreCrop.of((1000, 1500), 448).offset == (62, 312)


@pytest.mark.parametrize("side,cells", [(937, 15), (5, 3), (14, 14), (100, 7)])
def test_nearest_is_pytorchs(side, cells):
    torch = pytest.importorskip("torch")
    grid = np.random.default_rng(0).normal(size=(cells, cells)).astype(np.float32)
    theirs = torch.nn.functional.interpolate(torch.tensor(grid)[None, None], size=(side, side), mode="nearest")[0, 0]
    ours = c.CentreCrop((side, side), side, (0, 0)).heatmap(grid)
    np.testing.assert_array_equal(ours, theirs.numpy())


def test_resize_is_pillows_bilinear():
    image = np.random.default_rng(0).integers(0, 256, (700, 600), dtype=np.uint8)
    image[0, 0], image[0, 1] = 0, 255
    scaled = np.asarray(Image.fromarray(image).resize((512, 597), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(c.centre_crop(image, 480, crop=480), scaled[58:538, 16:496])
