"""Encoded images come back as they were."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from lgdea_jax.errors import UserError
from lgdea_jax.io import decode_image, encode_image

IMAGES = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=20))


@settings(max_examples=50, deadline=None)
@given(IMAGES, st.sampled_from(("png", "raw")))
def test_lossless(image, encoding):
    np.testing.assert_array_equal(decode_image(encode_image(image, encoding), encoding), image)


def test_jpeg_is_close():
    y, x = np.mgrid[:80, :60]
    image = (128 + 60 * np.sin(x / 9) + 40 * np.cos(y / 13)).astype(np.uint8)
    decoded = decode_image(encode_image(image, "jpeg"), "jpeg")
    assert decoded.shape == image.shape and decoded.dtype == np.uint8
    assert np.abs(decoded.astype(int) - image).max() <= 6


@settings(max_examples=50, deadline=None)
@given(IMAGES, st.sampled_from(("png", "raw", "jpeg")), st.tuples(st.integers(1, 20), st.integers(1, 20)))
def test_an_image_is_written_where_it_fits(image, encoding, room):
    data = encode_image(image, encoding)
    expected = decode_image(data, encoding)
    for shape in (image.shape, room, image.shape[::-1], (image.size, 1)):
        out = np.zeros(shape, np.uint8)
        found = decode_image(data, encoding, out)
        assert (found is out) == (shape == image.shape)
        out[:] = out if found is out else 0
        np.testing.assert_array_equal(found, expected)


def test_png_is_a_png_for_others():
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(encode_image(image, "png")))), image)


@pytest.mark.parametrize("array", [np.zeros((2, 2), np.uint16), np.zeros((2, 2, 3), np.uint8),
                                   np.zeros((0, 2), np.uint8)])
def test_only_grey_bytes_are_encoded(array):
    with pytest.raises(ValueError, match="uint8"):
        encode_image(array, "png")


def test_unknown_encoding():
    with pytest.raises(UserError, match="did you mean 'png'"):
        encode_image(np.zeros((2, 2), np.uint8), "pngg")
    with pytest.raises(UserError, match="image format"):
        decode_image(b"", "gif")


@pytest.mark.parametrize("encoding", ["png", "jpeg", "raw"])
def test_damaged_bytes(encoding):
    data = encode_image(np.zeros((30, 30), np.uint8), encoding)
    for cut in (0, 5, len(data) // 2):
        with pytest.raises(ValueError):
            decode_image(data[:cut], encoding)
        with pytest.raises(ValueError):
            decode_image(data[:cut], encoding, np.zeros((30, 30), np.uint8))
