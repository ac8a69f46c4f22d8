"""PNG and JPEG: no bit of depth is lost, transparent images are no black ones, EXIF turns, markers do not darken."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from lgdea_jax.io import UnreadableImage
from lgdea_jax.io.files import read_image_bytes
from lgdea_jax.preprocess.image import to_grey8
from tests.io import golden, png
from tests.io.fuzz import exif, saved

DEEP = golden.picture(12)
GREY = golden.picture(8)
FULL = np.full_like(DEEP, 65535)


def linear(values):
    """uint8 from the least to the greatest value, as the record transform stretches deep images."""
    return np.rint((values - values.min()) / (values.max() - values.min()) * 255)


@pytest.mark.parametrize(("array", "mode"), [
    (np.stack([DEEP] * 3, axis=-1), "rgb"), (np.stack([DEEP, FULL], axis=-1), "rgba"),
    (np.stack([DEEP, DEEP, DEEP, FULL], axis=-1), "rgba"), (np.stack([DEEP, FULL * 0], axis=-1), "rgba")])
def test_a_radiograph_in_colours_of_sixteen_bits_is_grey(array, mode):
    found, info = read_image_bytes(png.encode(array))
    np.testing.assert_array_equal(found, DEEP)
    assert found.dtype == np.uint16 and info.mode == mode
    assert ("alpha ignored" in info.conversions) == (array[..., -1].max() == 0)
    np.testing.assert_array_equal(to_grey8(found)[0], linear(DEEP.astype(float)))


def test_colours_of_sixteen_bits():
    colour = np.stack([DEEP, DEEP[::-1], DEEP[:, ::-1]], axis=-1) * np.uint16(13)
    found, _ = read_image_bytes(png.encode(colour))
    np.testing.assert_array_equal(found, colour)
    luma = np.rint(colour @ np.array([0.299, 0.587, 0.114]))
    grey, done = to_grey8(found)
    np.testing.assert_allclose(grey, linear(luma), atol=1)
    assert done == ("colour", "16 bit")
    alpha = np.dstack([colour, np.where(DEEP > 2000, 65535, 0).astype(np.uint16)])
    found, _ = read_image_bytes(png.encode(alpha))
    np.testing.assert_array_equal(found, alpha)
    np.testing.assert_allclose(to_grey8(found)[0], linear(np.where(DEEP > 2000, luma, 0)), atol=1)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "RGBA16"])
def test_an_image_that_is_transparent_everywhere_is_no_black_one(mode):
    if mode == "RGBA16":
        data = png.encode(np.stack([DEEP, DEEP, DEEP, FULL * 0], axis=-1))
    else:
        image = Image.fromarray(GREY).convert(mode)
        image.putalpha(0)
        data = saved(image, "PNG")
    found, info = read_image_bytes(data)
    assert "alpha ignored" in info.conversions
    np.testing.assert_array_equal(to_grey8(found)[0], linear(DEEP.astype(float)) if mode == "RGBA16" else GREY)


@pytest.mark.parametrize("chunk", [
    (b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 2_000_000)), (b"iTXt", b"a\0\0\0\0\0" + b"x" * 2_000_000),
    (b"iCCP", b"icc\0\0" + zlib.compress(b"x" * 3_000_000)), (b"iCCP", b"nonsense"), (b"acTL", bytes(8))])
def test_chunks_that_are_no_pixels_do_not_matter(chunk):
    np.testing.assert_array_equal(read_image_bytes(png.encode(GREY, png.chunk(*chunk)))[0], GREY)


def test_damaged_pixels_of_a_png():
    data = png.encode(GREY)
    np.testing.assert_array_equal(read_image_bytes(data[:-12])[0], GREY)  # Only the end chunk is missing.
    at = data.index(b"IDAT") + 40
    changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1:]
    for damaged in (changed, data[:at], data[:at] + data[at + 1:], data[:20], data.replace(b"IHDR", b"IHDX")):
        with pytest.raises(UnreadableImage, match="PNG file is truncated or damaged"):
            read_image_bytes(damaged)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_exif_turns_as_in_viewers(orientation, file_format):
    data = saved(GREY, file_format, exif=exif(orientation))
    found, info = read_image_bytes(data)
    np.testing.assert_array_equal(found, np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(data)))))
    assert info.conversions == (("turned",) if orientation > 1 else ())


def test_a_damaged_exif_does_not_spoil_good_pixels(recwarn):
    data = saved(GREY, "PNG", exif=exif(6))
    start = data.index(b"eXIf") + 4
    found, _ = read_image_bytes(png.mend(data[:start + 8] + b"\xff" * 20 + data[start + 28:]))
    assert found.shape in (GREY.shape, GREY.shape[::-1]) and not recwarn.list


def smoothed_marker():
    from scipy.ndimage import gaussian_filter

    hot = np.zeros((300, 300))
    hot[20:36, 20:30] = 65535
    return gaussian_filter(hot, 1.5)


Y, X = np.mgrid[:300, :300]
BODY = 600 + 8 * Y + 3 * X + np.random.default_rng(0).normal(0, 6, X.shape)  # 12 bits, as a radiograph's.


def test_a_burnt_in_marker_does_not_take_the_grey_levels():
    clean = BODY.astype(np.uint16)
    for value in (65535, 60000):
        marked = clean.copy()
        marked[20:36, 20:30] = value
        found, info = read_image_bytes(png.encode(marked))
        expected = clean.copy()
        expected[20:36, 20:30] = found.max()
        np.testing.assert_array_equal(found, expected)  # All else is as it was; the marker is as bright as any.
        assert info.conversions == ("markers clipped",) and found.max() <= clean.max()
    # Below and above at once.
    marked = clean + np.uint16(30000)
    marked[:9, :9], marked[-9:, -9:] = 0, 65535
    inside = (marked > 0) & (marked < 65535)
    found, info = read_image_bytes(png.encode(marked))
    np.testing.assert_array_equal(found[inside], marked[inside])
    assert (found[0, 0], found[-1, -1]) == (marked[inside].min(), marked[inside].max())
    # Smoothed edges leave no gap.
    marked = np.clip(BODY + smoothed_marker(), 0, 65535).astype(np.uint16)
    found, info = read_image_bytes(png.encode(marked))
    assert info.conversions == ("markers clipped",)
    assert len(np.unique(to_grey8(found)[0][50:])) > 80


@pytest.mark.parametrize("array", [
    BODY, np.where(BODY > 2500, 60000, BODY), np.where(X < 290, 0, 40000), np.where(X + Y < 30, 4095, BODY),
    np.where(X < 150, 0, BODY), np.full(X.shape, 7), np.where(X + Y == 5, 65535, 0)],
    ids=["plain", "a third is bright", "two values", "a marker within the range", "black sides", "one value", "dots"])
def test_images_without_markers_are_left_alone(array):
    array = array.astype(np.uint16)
    found, info = read_image_bytes(png.encode(array))
    np.testing.assert_array_equal(found, array)
    assert info.conversions == ()
