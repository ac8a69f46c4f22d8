"""Grounding metrics against written-out cases."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lgdea_jax.metrics import grounding as g


def _mask(shape, *boxes):
    return g.union_mask([g.box_slices(start, extent, shape) for start, extent in boxes], shape)


def test_box_slices_take_pixels_by_their_centres():
    assert g.box_slices((1, 2), (3, 4), (10, 10)) == (slice(1, 4), slice(2, 6))
    assert g.box_slices((0.6,), (1.0,), (4,)) == (slice(1, 2),)  # Centre 1.5 lies in [0.6, 1.6), 0.5 does not.
    assert g.box_slices((-2, 8), (4, 9), (10, 10)) == (slice(0, 2), slice(8, 10))  # Clipped.
    assert _mask((5,), ((9,), (3,))).sum() == 0  # Outside.
    assert _mask((4, 5, 6), ((1, 1, 1), (2, 3, 1))).sum() == 6  # 3D.


@given(st.floats(-3, 12), st.floats(0, 12))
def test_box_slices_agree_with_a_test_of_every_centre(low, size):
    centres = np.arange(10) + 0.5
    expected = (centres >= low) & (centres < low + size)
    assert (_mask((10,), ((low,), (size,))) == expected).all()


def test_cnr_by_hand():
    # Inside 4, 6 (mean 5, variance 1); outside 1, 3 (mean 2, variance 1), NaN ignored: 3 / sqrt(2).
    heat = np.array([[4.0, 6.0, np.nan], [1.0, 3.0, np.nan]])
    box = [g.box_slices((0, 0), (1, 3), heat.shape)]
    assert g.cnr(heat, box) == pytest.approx((3 / np.sqrt(2), 3 / np.sqrt(2)))
    assert g.cnr(-heat, box) == pytest.approx((3 / np.sqrt(2), -3 / np.sqrt(2)))
    assert g.cnr(heat, box, mode="official") == pytest.approx((3 / np.sqrt(2), 3 / np.sqrt(2)))


def test_cnr_official_blanks_one_box_after_another():
    heat = np.array([8.0, 6.0, 2.0, 1.0, 0.0])
    first, second = (slice(0, 2),), (slice(1, 3),)
    # First box: inside 8, 6; outside 2, 1, 0. Second: only 2 is left inside; outside 1, 0 (8 and 6 are blank).
    one = 6 / np.sqrt(1 + 2 / 3)
    two = 1.5 / np.sqrt(0 + 0.25)
    assert g.cnr(heat, [first, second], mode="official")[0] == pytest.approx((one + two) / 2)
    # In the other order the values differ: inside 6, 2 (mean 4) against 8, 1, 0; then 8 against 1, 0.
    other = (4 - 3) / np.sqrt(4 + np.var([8, 1, 0]))
    assert g.cnr(heat, [second, first], mode="official")[1] == pytest.approx((other + 7.5 / 0.5) / 2)
    union = (16 / 3 - 0.5) / np.sqrt(np.var([8, 6, 2]) + 0.25)
    assert g.cnr(heat, [first, second])[0] == pytest.approx(union)
    assert not np.isnan(heat).any()  # The caller's map is untouched.
    with pytest.raises(ValueError, match="mode"):
        g.cnr(heat, [first], mode="both")


def test_cnr_edges():
    mask = np.array([True, False, False])
    assert g.cnr_signed(np.full(3, 0.1), mask) == 0.0
    assert g.cnr_signed(np.array([1.0, 0, 0]), mask) == np.inf
    assert np.isnan(g.cnr_signed(np.array([np.nan, 1, 2]), mask))
    assert np.isnan(g.cnr_signed(np.array([1.0, 2, 3]), np.zeros(3, bool)))
    assert np.isnan(g.cnr(np.array([np.nan, 1, 2]), [(slice(0, 1),)], mode="official")[0])


def test_pointing_shares_ties():
    mask = np.array([[True, False], [False, False]])
    assert g.pointing(np.array([[2.0, 1.0], [0.0, 1.0]]), mask) == 1.0
    assert g.pointing(np.array([[2.0, 3.0], [np.nan, 1.0]]), mask) == 0.0
    assert g.pointing(np.array([[2.0, 2.0], [2.0, 1.0]]), mask) == pytest.approx(1 / 3)
    assert g.pointing(np.zeros((2, 2)), mask) == 0.25
    assert np.isnan(g.pointing(np.full((2, 2), np.nan), mask))
    assert np.isnan(g.pointing(np.zeros((2, 2)), np.zeros((2, 2), bool)))


def test_miou_by_hand():
    heat = np.array([0.9, 0.35, 0.15, -1.0, np.nan])
    mask = np.array([True, True, False, False, True])
    # t=.1: 3 predicted, 2 hit, union 4; t=.2, .3: 2 predicted, 2 hit, union 3; t=.4, .5: 1, 1, 3.
    assert g.miou(heat, mask) == pytest.approx(np.mean([2 / 4, 2 / 3, 2 / 3, 1 / 3, 1 / 3]))
    assert np.isnan(g.miou(heat, np.zeros(5, bool)))


def test_rescaled():
    assert g.rescaled(np.array([2.0, 4.0, np.nan]))[:2] == pytest.approx([0, 1])
    assert (g.rescaled(np.full(3, 7.0)) == 0).all()


def test_dice():
    heat, mask = np.array([0.9, 0.2, 0.7, np.nan]), np.array([True, True, False, False])
    assert g.dice(heat, mask, 0.5) == pytest.approx(2 * 1 / (2 + 2))
    best = max(g.dice(heat, mask, t) for t in (0.0, 0.2, 0.5, 0.8))
    assert g.best_dice(heat, mask) == pytest.approx(best) == pytest.approx(0.8)
    ties = np.array([1.0, 1.0, 0.0])  # A threshold cannot separate equal values.
    assert g.best_dice(ties, np.array([True, False, False])) == pytest.approx(2 / 3)


def test_best_dice_is_the_best_of_all_thresholds():
    rng = np.random.default_rng(0)
    for _ in range(30):
        heat, mask = rng.integers(0, 6, (5, 7)).astype(float), rng.random((5, 7)) < 0.3
        heat[rng.random((5, 7)) < 0.2] = np.nan
        expected = max(g.dice(heat, mask, t) for t in np.arange(-0.5, 6))
        assert g.best_dice(heat, mask) == pytest.approx(expected)


def test_category_mean():
    values = np.array([1.0, 3.0, np.nan, 10.0])
    categories = np.array(["a", "a", "a", "b"])
    assert g.category_mean(values, categories) == pytest.approx((2 + 10) / 2)
    weights = np.array([[1, 1, 1, 1], [3, 1, 5, 0], [0, 0, 2, 0]])
    out = g.category_mean(values, categories, weights)
    assert out[:2] == pytest.approx([6, 1.5]) and np.isnan(out[2])


def test_margins_of_nan_do_not_count():
    """A map that is defined in the middle only, as after a crop: every metric sees the middle, boxes may reach out."""
    middle = np.array([[1.0, 5.0, 2.0], [0.0, 4.0, 1.0]])
    heat = np.pad(middle, ((1, 1), (2, 2)), constant_values=np.nan)
    inside, outside = np.array([5.0, 4.0]), np.array([1.0, 2.0, 0.0, 1.0])
    value = (4.5 - 1.0) / np.sqrt(inside.var() + outside.var())
    reaching = [g.box_slices((0, 3), (4, 1), heat.shape)]  # Through the middle column and both margins.
    for mode in ("clean", "official"):
        assert g.cnr(heat, reaching, mode=mode) == pytest.approx((value, value))
    mask = g.union_mask(reaching, heat.shape)
    assert g.pointing(heat, mask) == 1.0
    # Of four pixels in the box two are undefined, and false: 2 predicted inside, 3 to 5 outside or none.
    assert g.miou(heat, mask, (0.5, 3.0)) == pytest.approx(np.mean([2 / (5 + 4 - 2), 2 / 4]))
    assert g.dice(heat, mask, 3.0) == pytest.approx(2 * 2 / (2 + 4)) == pytest.approx(g.best_dice(heat, mask))
    margin = [g.box_slices((0, 0), (4, 2), heat.shape)]  # Nothing of it was seen.
    assert all(np.isnan(g.cnr(heat, margin, mode=mode)[0]) for mode in ("clean", "official"))
    assert g.pointing(heat, g.union_mask(margin, heat.shape)) == 0.0


def test_empty_boxes_are_left_out():
    heat = np.arange(6.0)
    real, empty = (slice(4, 6),), g.box_slices((9,), (3,), heat.shape)
    assert g.cnr(heat, [empty, real], mode="official") == g.cnr(heat, [real], mode="official")
    assert g.cnr(heat, [empty, real]) == g.cnr(heat, [real])
    for mode in ("clean", "official"):
        assert np.isnan(g.cnr(heat, [empty], mode=mode)[0]) and np.isnan(g.cnr(heat, [], mode=mode)[0])
