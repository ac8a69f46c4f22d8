"""The order of a stream: every epoch a permutation, mixtures by weight, generators by position alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lgdea_jax.data.order import generators, mixed, shuffled

QUICK = settings(max_examples=60, deadline=None)
KEYS = st.integers(0, 2**64 - 1)
FAR = st.integers(0, 2**40)


@QUICK
@given(st.integers(1, 300), st.integers(0, 2**20), KEYS)
def test_every_epoch_shows_each_row_once(length, epoch, key):
    rows = shuffled(epoch * length + np.arange(length), length, key)
    assert rows.dtype == np.int64 and sorted(rows.tolist()) == list(range(length))


@QUICK
@given(st.integers(1, 10**9), st.lists(FAR, min_size=1, max_size=40), KEYS)
def test_a_row_depends_on_its_position_alone(length, positions, key):
    together = shuffled(np.array(positions), length, key)
    alone = [int(shuffled(np.array([position]), length, key)[0]) for position in positions]
    assert together.tolist() == alone and (together < length).all() and (together >= 0).all()


def test_a_million_rows_are_permuted():
    rows = shuffled(np.arange(10**6), 10**6, 7)
    assert (np.bincount(rows, minlength=10**6) == 1).all()
    # Neighbours are not neighbours any more, and nothing stays where it was.
    assert np.corrcoef(np.arange(10**6), rows)[0, 1] == pytest.approx(0, abs=0.005)
    assert np.corrcoef(rows[1:], rows[:-1])[0, 1] == pytest.approx(0, abs=0.005)


def test_orders_of_epochs_and_keys_are_independent():
    places = np.arange(1000)
    orders = [shuffled(epoch * 1000 + places, 1000, key) for key in (0, 1, 2**63) for epoch in range(3)]
    for i, one in enumerate(orders):
        for other in orders[:i]:
            assert (one == other).sum() < 10  # One is expected by chance.


@pytest.mark.parametrize("length", [2, 3, 4, 5, 7])
def test_few_rows_come_to_every_place_equally_often(length):
    rows = shuffled(np.arange(20_000 * length), length, 3).reshape(-1, length)
    for place in rows.T:
        np.testing.assert_allclose(np.bincount(place, minlength=length) / len(place), 1 / length, atol=0.02)


@QUICK
@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=5), st.integers(1, 400))
def test_mixtures_are_even_and_leave_out_nothing(weights, count):
    part, place = mixed(np.arange(count), weights)
    for number, weight in enumerate(weights):
        assert place[part == number].tolist() == list(range((part == number).sum()))
        expected = count * weight / sum(weights)
        assert abs((part == number).sum() - expected) <= len(weights) + count * 1e-3


@QUICK
@given(st.lists(st.floats(1e-9, 100), min_size=1, max_size=4), st.lists(FAR, min_size=1, max_size=20))
def test_a_place_in_a_mixture_depends_on_its_position_alone(weights, positions):
    part, place = mixed(np.array(positions), weights)
    for index, position in enumerate(positions):
        one, at = mixed(np.array([position]), weights)
        assert (one[0], at[0]) == (part[index], place[index]) and at[0] >= 0


def test_a_part_with_next_to_no_weight_is_not_lost():
    part, _ = mixed(np.arange(2**21), [1.0, 1e-9])
    assert (part == 1).sum() == 2


@QUICK
@given(st.lists(FAR, min_size=1, max_size=10), KEYS)
def test_generators_depend_on_position_and_key(positions, key):
    def drawn(places, key):
        # Draws of several kinds: nothing of one position may be left over for the next.
        return [(g.integers(2**31, dtype=np.int32), g.random(), g.standard_normal())
                for g in generators(np.array(places), key)]

    together = drawn(positions, key)
    assert together == [drawn([position], key)[0] for position in positions]
    assert drawn(positions, key ^ 1) != together
    assert len(set(together)) == len(set(positions))
