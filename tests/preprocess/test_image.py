"""Image transforms and their geometry: boxes and heatmaps land where they should, nothing is mirrored."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lgdea_jax.preprocess.image import (
    Letterbox,
    difference_hash,
    fit_shape,
    grey8,
    letterbox,
    resize,
    to_grey8,
)
from lgdea_jax.records import Box

QUICK = settings(max_examples=60, deadline=None)
SIDES = st.integers(1, 3000)


def test_eight_bit_grey_is_left_alone():
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    out, done = to_grey8(image)
    assert out is image and done == ()


def test_deep_images_use_the_whole_range():
    for deep, name in ((np.array([[100, 1100], [600, 350]], np.uint16), "16 bit"),
                       (np.array([[-1.0, 1.0], [0.0, -0.5]], np.float32), "float")):
        out, done = to_grey8(deep)
        np.testing.assert_array_equal(out, [[0, 255], [128, 64]])
        assert out.dtype == np.uint8 and done == (name,)
    np.testing.assert_array_equal(to_grey8(np.full((2, 2), 900, np.uint16))[0], 0)


def test_colours_become_luma_and_transparency_black():
    pixels = np.array([[[255, 0, 0, 255], [0, 255, 0, 255], [0, 0, 255, 255], [255, 255, 255, 51]]], np.uint8)
    out, done = to_grey8(pixels[..., :3])
    np.testing.assert_array_equal(out, [[76, 150, 29, 255]])
    assert done == ("colour",)
    out, done = to_grey8(pixels)
    np.testing.assert_array_equal(out, [[76, 150, 29, 51]])
    assert done == ("alpha", "colour")


@pytest.mark.parametrize("shape", [(0, 3), (3,), (2, 2, 2), (2, 2, 2, 3)])
def test_what_is_not_an_image(shape):
    with pytest.raises(ValueError, match="not an image"):
        to_grey8(np.zeros(shape, np.uint8))


@QUICK
@given(SIDES, SIDES, st.integers(8, 600), st.booleans())
def test_fit_shape(height, width, size, enlarge):
    h, w = fit_shape((height, width), size, enlarge=enlarge)
    if max(height, width) < size and not enlarge:
        assert (h, w) == (height, width)
    else:
        assert max(h, w) == size
        for side, exact in ((h, height * size / max(height, width)), (w, width * size / max(height, width))):
            assert side == max(1, round(exact))


def test_grey8_is_never_enlarged():
    image = np.zeros((20, 30), np.uint8)
    assert grey8(image, 64)[0] is image
    assert grey8(image, 15)[0].shape == (10, 15)


@pytest.mark.parametrize("shape", [(60, 20), (20, 60), (40, 40), (16, 50)])
def test_letterbox_keeps_the_image_whole_and_unmirrored(shape):
    image = np.zeros(shape, np.uint8)
    image[:, :shape[1] // 2] = 200  # Patient-right is bright.
    image[:shape[0] // 2] += 50
    out = letterbox(image, 32)
    assert out.shape == (32, 32) and out.dtype == np.uint8
    g = Letterbox.of(shape, 32)
    (top, left), (h, w) = g.offset, g.content
    inside = out[top:top + h, left:left + w]
    assert out.sum() == inside.sum()  # The bars are black.
    quarter = {(0, 0): 250, (0, 1): 50, (1, 0): 200, (1, 1): 0}
    for (down, right), value in quarter.items():
        y, x = int((0.25 + 0.5 * down) * h), int((0.25 + 0.5 * right) * w)
        assert abs(int(inside[y, x]) - value) <= 3


@QUICK
@given(SIDES, SIDES, st.integers(16, 512), st.data())
def test_boxes_there_and_back(height, width, size, data):
    g = Letterbox.of((1, height, width), size)
    x, y = data.draw(st.floats(0, width)), data.draw(st.floats(0, height))
    box = Box("Mass", "a mass", x, y, data.draw(st.floats(0.5, width)), data.draw(st.floats(0.5, height)))
    there = g.box(box)
    centre = there.x + there.w / 2, there.y + there.h / 2
    if x + box.w <= width and y + box.h <= height:  # On the image before: inside the content after.
        assert g.offset[1] - 1e-6 <= there.x and there.x + there.w <= g.offset[1] + g.content[1] + 1e-6
        assert g.offset[0] - 1e-6 <= centre[1] <= g.offset[0] + g.content[0] + 1e-6
    back = g.box_back(there)
    np.testing.assert_allclose([back.x, back.y, back.w, back.h], [box.x, box.y, box.w, box.h], rtol=1e-6, atol=1e-6)
    assert (back.finding, back.phrase) == ("Mass", "a mass")


@pytest.mark.parametrize("shape", [(400, 250), (250, 400), (300, 300), (97, 211)])
@pytest.mark.parametrize("stored", [None, 128])
def test_a_bright_spot_is_where_its_box_says(shape, stored):
    """Pixels and boxes take the same way through both transforms."""
    image = np.zeros(shape, np.uint8)
    y, x, side = int(shape[0] * 0.6), int(shape[1] * 0.2), 24
    image[y:y + side, x:x + side] = 255
    small = image if stored is None else grey8(image, stored)[0]
    out = letterbox(small, 96).astype(float)
    box = Letterbox.of(shape, 96, small.shape).box(Box("Mass", "", x, y, side, side))
    rows, columns = np.mgrid[:96, :96] + 0.5
    centre = np.array([(rows * out).sum(), (columns * out).sum()]) / out.sum()
    np.testing.assert_allclose(centre, [box.y + box.h / 2, box.x + box.w / 2], atol=0.6)
    np.testing.assert_allclose(out.sum() / 255, box.w * box.h, rtol=0.15)


@pytest.mark.parametrize("shape", [(320, 200), (200, 320), (256, 256)])
@pytest.mark.parametrize("grid", [(8, 8), (7, 7), (4, 4)])
def test_heatmap_peaks_where_the_patch_is(shape, grid):
    g = Letterbox.of(shape, 64)
    patch = 64 / grid[0]
    for target_y, target_x in ((0.3, 0.7), (0.75, 0.25), (0.5, 0.5)):
        model = g.box(Box("", "", target_x * shape[1], target_y * shape[0], 0.01, 0.01))
        cell = int(model.y / patch), int(model.x / patch)
        heat = np.zeros(grid, np.float32)
        heat[cell] = 1.0
        out = g.heatmap(heat)
        assert out.shape == shape and out.dtype == np.float32
        peak = np.unravel_index(np.argmax(out), shape)
        centre = g.box_back(Box("", "", (cell[1] + 0.5) * patch, (cell[0] + 0.5) * patch, 0, 0))
        scale = shape[0] / g.content[0]
        assert abs(peak[0] + 0.5 - centre.y) <= scale and abs(peak[1] + 0.5 - centre.x) <= scale


def test_heatmap_is_linear_between_centres():
    # 4 x 4 patches on 4 x 4 model pixels of an 8 x 8 original: original pixel i is at i/2 + 1/4 model pixels.
    ramp = np.tile(np.arange(4.0), (4, 1))
    expected = np.clip((np.arange(8) + 0.5) / 2 - 0.5, 0, 3)
    out = Letterbox.of((8, 8), 4).heatmap(ramp)
    np.testing.assert_allclose(out, np.tile(expected, (8, 1)), atol=1e-6)
    np.testing.assert_allclose(Letterbox.of((8, 8), 4).heatmap(ramp.T), out.T)
    np.testing.assert_allclose(Letterbox.of((5, 9), 16).heatmap(np.full((1, 1), 3.0)), 3.0)


def test_difference_hash():
    rng = np.random.default_rng(0)
    image = resize(rng.integers(0, 256, (12, 12), dtype=np.uint8), (90, 80))

    def distance(a, b):
        return sum(int(x).bit_count() for x in difference_hash(a) ^ difference_hash(b))

    assert difference_hash(image).shape == (4,) and difference_hash(image).dtype == np.uint64
    assert distance(image, image) == 0
    assert distance(image, resize(image, (45, 40))) < 20  # A smaller copy.
    assert distance(image, (image * 0.8 + 9).astype(np.uint8)) < 20  # Another exposure.
    assert distance(image, image[:, ::-1]) > 80
    assert distance(image, resize(rng.integers(0, 256, (12, 12), dtype=np.uint8), (90, 80))) > 80
    assert not difference_hash(np.full((30, 30), 7, np.uint8)).any()
    # One step up between columns 8 and 9 of 17: the same single bit in every row.
    step = np.zeros((16, 17), np.uint8)
    step[:, 9:] = 200
    assert [int(part) for part in difference_hash(step)] == [int("0000000010000000" * 4, 2)] * 4
