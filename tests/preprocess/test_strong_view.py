"""The student's view of unpaired images: sides stay, a row's draw is its own, what is off does nothing."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from lgdea_jax.errors import UserError
from lgdea_jax.preprocess.strong_view import StrongView

OFF = {"levels": (0.0, 255.0), "crop": 1.0, "rotate": 0.0, "gamma": 0.0, "contrast": 0.0, "noise": 0.0, "holes": 0,
       "hole": 0.3}
ALL = {**OFF, "crop": 0.6, "rotate": 10.0, "gamma": 0.5, "contrast": 0.3, "noise": 0.05, "holes": 2}


def see(images, seed=0, **options):
    """The view of some images, as NumPy."""
    return np.asarray(StrongView(**{**OFF, **options})(jax.random.key(seed), images))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31 - 1))
def test_a_bright_left_stays_left_and_a_bright_top_stays_on_top(seed):
    half = np.full((1, 48, 48), 40, np.uint8)
    half[:, :, :24] = 220
    for images, axis in ((half, 1), (half.transpose(0, 2, 1), 0)):
        found = see(images, seed, **{**ALL, "holes": 0})[0]
        first, second = (part.mean() for part in np.array_split(found, 2, axis=axis))
        assert first > second + 5 and found.min() >= 0 and found.max() <= 255


def test_without_strength_nothing_changes_and_every_row_has_a_draw_of_its_own():
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32), dtype=np.uint8)
    np.testing.assert_allclose(see(images), images, atol=1e-3)
    same = np.repeat(images[:1], 4, axis=0)
    found = see(same, **ALL)
    assert found.shape == same.shape and found.dtype == np.float32
    assert all(np.abs(found[0] - other).max() > 10 for other in found[1:])
    np.testing.assert_array_equal(see(same, **ALL), found)
    assert np.abs(see(same, seed=1, **ALL) - found).max() > 10
    # A row's draw depends on its number alone: the first rows of a larger batch are those of a smaller one.
    np.testing.assert_allclose(see(same[:2], **ALL), found[:2], atol=1e-3)


def test_a_rotation_is_that_of_another_library():
    """With the angle found from the picture: scipy's rotation by it gives the same picture."""
    x, y = np.meshgrid(np.arange(65), np.arange(65))
    image = (255 * np.exp(-((x - 32) ** 2 / 400 + (y - 32) ** 2 / 20))).astype(np.uint8)
    found = see(image[None], rotate=20.0)[0]
    inner = (slice(8, -8), slice(8, -8))
    errors = {angle: np.abs(ndimage.rotate(image.astype(float), angle, reshape=False, order=1) - found)[inner].mean()
              for angle in np.linspace(-20, 20, 161)}
    best = min(errors, key=errors.get)
    assert errors[best] < 0.5 < 2 < errors[-best] and abs(best) > 1


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31 - 1), st.floats(0.6, 0.95))
def test_a_crop_keeps_its_share_of_the_area(seed, share):
    columns = np.tile(np.linspace(0, 255, 128), (1, 128, 1)).astype(np.uint8)
    wide = np.ptp(see(columns, seed, crop=share)[0]) / 255
    assert np.sqrt(share) - 0.02 <= wide <= 1.0


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31 - 1), st.integers(1, 3))
def test_holes_have_the_mean_and_bounded_sides(seed, holes):
    images = np.random.default_rng(0).integers(0, 256, (1, 40, 40), dtype=np.uint8)
    changed = np.abs(see(images, seed, holes=holes)[0] - images[0]) > 1e-3
    filled = see(images, seed, holes=holes)[0][changed]
    assert changed.sum() <= holes * (0.3 * 40 + 1) ** 2
    np.testing.assert_allclose(filled, images.mean(), atol=0.1)


def test_volumes_keep_their_levels_and_slices_share_a_draw():
    volume = np.random.default_rng(0).uniform(-1, 1, (2, 5, 16, 16, 1)).astype(np.float32)
    np.testing.assert_allclose(see(volume, levels=(-1.0, 1.0)), volume, atol=1e-5)
    found = see(volume, **{**ALL, "levels": (-1.0, 1.0)})
    assert found.shape == volume.shape and found.min() >= -1 and found.max() <= 1
    flat = np.zeros((1, 3, 16, 16, 1), np.float32)
    flat[:, :, 4:9] = 1.0
    turned = see(flat, levels=(-1.0, 1.0), rotate=15.0, gamma=0.4)
    np.testing.assert_array_equal(turned[0, 0], turned[0, 2])


@pytest.mark.parametrize("options, message", [
    ({"crop": 0.5}, "strong.crop=0.5: a share of the area within"), ({"hole": 1.0}, "strong.hole=1.0"),
    ({"holes": -1}, "strong.holes=-1")])
def test_what_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        StrongView(**{**OFF, **options})
