"""Augmentation keeps shape, sides and most of the area, whatever is drawn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lgdea_jax import cli
from lgdea_jax.errors import UserError
from lgdea_jax.preprocess.augment import Augment

PLAIN = {"crop": (1.0, 1.0), "aspect": 1.0, "rotate": 0.0, "gamma": 0.0, "contrast": 0.0, "brightness": 0.0,
         "noise": 0.0, "erase": 0.0}


def make(**options):
    return Augment(**{**PLAIN, **options})


STRONG = {"crop": (0.6, 1.0), "aspect": 2.0, "rotate": 15.0, "gamma": 0.5, "contrast": 0.4, "brightness": 0.1,
          "noise": 6.0, "erase": 0.5}


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([32, 48, 64]))
def test_a_bright_left_stays_left_and_a_bright_top_stays_on_top(seed, size):
    half = np.full((size, size), 40, np.uint8)
    half[:, : size // 2] = 200
    for image, axis in ((half, 1), (np.ascontiguousarray(half.T), 0)):
        out = make(**STRONG).image(image, np.random.default_rng(seed))
        assert out.shape == image.shape and out.dtype == np.uint8
        first, second = (part.mean() for part in np.array_split(out.astype(float), 2, axis=axis))
        assert first > second + 5


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.6, 1.0), st.floats(1.0, 3.0))
def test_crops_keep_exactly_their_share_of_the_area(seed, share, aspect):
    # Coordinates as grey levels: the range of each that is left gives the sides of the crop.
    size = 256
    columns = np.tile(np.arange(size, dtype=np.uint8), (size, 1))
    augment = make(crop=(share, share), aspect=aspect)
    wide, high = (np.ptp(augment.image(image, np.random.default_rng(seed)).astype(int)) / size
                  for image in (columns, np.ascontiguousarray(columns.T)))
    assert wide * high == pytest.approx(share, abs=0.02)
    assert wide * high >= 0.6 - 0.02 and max(wide, high) <= 1.0


def test_without_strength_nothing_changes():
    image = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    np.testing.assert_array_equal(make().image(image, np.random.default_rng(1)), image)


def test_small_rotations_turn_by_their_angle():
    size = 65
    image = np.zeros((size, size), np.uint8)
    image[32, 8:57] = 255
    angles = []
    for seed in range(40):
        out = make(rotate=10.0).image(image, np.random.default_rng(seed))
        y, x = np.nonzero(out > 100)
        angles.append(np.rad2deg(np.arctan(np.polyfit(x, y, 1)[0])))
    assert max(np.abs(angles)) <= 10.5 and min(angles) < -5 and max(angles) > 5


def test_erasing_is_at_most_a_tenth():
    image = np.full((64, 64), 100, np.uint8)
    image[::2] = 140
    for seed in range(50):
        out = make(erase=1.0).image(image, np.random.default_rng(seed))
        changed = (out != image).mean()
        assert 0 < changed <= 0.105


@given(st.integers(0, 2**32 - 1))
def test_noise_and_curves_move_grey_levels_within_bounds(seed):
    image = np.full((32, 32), 128, np.uint8)
    out = make(brightness=0.1).image(image, np.random.default_rng(seed)).astype(int)
    assert np.ptp(out) == 0 and abs(out[0, 0] - 128) <= 26
    noisy = make(noise=6.0).image(image, np.random.default_rng(seed)).astype(float)
    assert noisy.std() <= 6.5


def test_one_variant_of_the_text_is_drawn_and_images_may_stay():
    tokens = np.arange(12).reshape(2, 6)
    element = {"tokens": tokens, "image": np.zeros((4, 4), np.uint8), "index": 3}
    augment = make(**{**STRONG, "enabled": False})
    drawn = {tuple(augment.random_map(element, np.random.default_rng(seed))["tokens"]) for seed in range(20)}
    assert drawn == {tuple(tokens[0]), tuple(tokens[1])}
    out = augment.random_map(element, np.random.default_rng(0))
    assert out["image"] is element["image"] and out["index"] == 3 and element["tokens"] is tokens


def test_the_same_seed_gives_the_same_image():
    image = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    one, two, other = (make(**STRONG).image(image, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(one, two) and not np.array_equal(one, other)


@pytest.mark.parametrize("options", [{"crop": (0.5, 1.0)}, {"crop": (0.9, 0.8)}, {"crop": (0.8, 1.1)},
                                     {"aspect": 0.9}])
def test_what_would_lose_the_finding_is_refused(options):
    with pytest.raises(UserError, match="augment"):
        make(**options)


def test_the_defaults_are_allowed():
    assert Augment(**cli.read_config("configs/common.py").augment.to_dict()).enabled
