"""Regions of places in words: sides are the patient's, heights are thirds and halves, everything else is everywhere."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lgdea_jax.preprocess import regions
from lgdea_jax.records import LATERALITIES

BORDERS = (-1.0, -1.0, 2.0, 2.0)


@pytest.mark.parametrize("laterality, anatomy, expected", [
    ("", "", BORDERS), ("bilateral", "lung", BORDERS), ("midline", "heart", BORDERS), ("", "somewhere", BORDERS),
    ("right", "", (-1.0, -1.0, 0.5, 2.0)),  # The patient's right is the image's left.
    ("left", "rib", (0.5, -1.0, 2.0, 2.0)),
    ("left", "upper lobe", (0.5, -1.0, 2.0, 0.5)), ("right", "base", (-1.0, 0.5, 0.5, 2.0)),
    ("", "mid lung", (-1.0, 0.3, 2.0, 0.7)), ("bilateral", "lower lung", (-1.0, 0.5, 2.0, 2.0)),
])
def test_regions(laterality, anatomy, expected):
    assert regions.region(laterality, anatomy) == expected


@given(st.sampled_from(LATERALITIES), st.text(max_size=20))
def test_a_region_is_never_empty(laterality, anatomy):
    x0, y0, x1, y1 = regions.region(laterality, anatomy)
    assert x1 - x0 >= 0.4 and y1 - y0 >= 0.4


def test_views():
    assert all(map(regions.is_frontal, ("PA", "AP", "frontal", "", "LORDOTIC")))
    assert not any(map(regions.is_frontal, ("LATERAL", "ll", " Left lateral ")))
