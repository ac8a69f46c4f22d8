"""Augmentation on the device: the host's transform where the draws are the same, and its distribution where not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from lgdea_jax.preprocess.augment import Augment
from lgdea_jax.preprocess.device_augment import DeviceAugment

PLAIN = {"crop": (1.0, 1.0), "aspect": 1.0, "rotate": 0.0, "gamma": 0.0, "contrast": 0.0, "brightness": 0.0,
         "noise": 0.0, "erase": 0.0}
SHIPPED = {"crop": (0.7, 1.0), "aspect": 1.2, "rotate": 8.0, "gamma": 0.3, "contrast": 0.3, "brightness": 0.1}
SIZE = 48


class Draws:
    """A generator whose draws are given."""

    def __init__(self, draws):
        self.draws = draws

    def random(self, count):
        assert count == len(self.draws)
        return self.draws


def on_device(draws, images, **options):
    """Images as the device makes them of given draws, before noise; float."""
    device = DeviceAugment(Augment(**{**PLAIN, **options}))

    def one(draw, image):
        return 255 * device.options.curve(device.moved(image, draw[:5]) / 255, draw[5:], jnp)

    return np.asarray(jax.jit(jax.vmap(one))(jnp.asarray(draws, jnp.float32), images))


def smooth(rng, count):
    """Random smooth images with a dark and a bright end, uint8."""
    x, y = np.meshgrid(np.linspace(-1, 1, SIZE), np.linspace(-1, 1, SIZE))
    a, b, c = rng.uniform(-3, 3, (3, count, 1, 1))
    return (127.5 + 120 * np.sin(a * x + b * y + c)).astype(np.uint8)


def test_the_same_draws_give_the_hosts_image():
    rng = np.random.default_rng(0)
    draws, images = rng.random((40, 8)), smooth(rng, 40)
    host = Augment(**{**PLAIN, **SHIPPED})
    expected = np.stack([host.image(image, Draws(draw)) for draw, image in zip(draws, images, strict=True)])
    found = np.clip(on_device(draws, images, **SHIPPED), 0, 255)
    # PIL rounds twice on the way; at the edge a pixel is black or not by the last bit of its place.
    error = np.abs(found - expected)
    assert (error > 2.5).mean() < 2e-4 and error.mean() < 0.6
    assert np.abs(expected.astype(float) - images).mean() > 10


def test_boxes_lie_where_the_map_moves_them_on_host_and_device():
    """A bright box: the pixels that the inverse of the map puts inside it are bright, and no other."""
    rng = np.random.default_rng(1)
    draws = np.column_stack([rng.random((40, 5)), np.full((40, 3), 0.5)])
    options = {name: SHIPPED[name] for name in ("crop", "aspect", "rotate")}
    host = Augment(**{**PLAIN, **options})
    image = np.zeros((SIZE, SIZE), np.uint8)
    top, left, bottom, right = 14, 10, 30, 38
    image[top:bottom, left:right] = 255
    device = on_device(draws, np.repeat(image[None], 40, axis=0), **options)
    for draw, found in zip(draws, device, strict=True):
        a, b, c, d, e, f = host.matrix(draw[:5], SIZE)
        inverse = np.linalg.inv(np.array([[a, b], [d, e]]))
        centres = np.stack(np.meshgrid(np.arange(SIZE) + 0.5, np.arange(SIZE) + 0.5), -1)
        # Distance of each pixel from the box's edges, in pixels of the image; the corners' way is the inverse's.
        x, y = np.moveaxis(np.linalg.solve(inverse, centres[..., None])[..., 0] + [c, f], -1, 0)
        within = np.minimum.reduce([x - left, right - x, y - top, bottom - y])
        for pixels in (found, host.image(image, Draws(draw)).astype(float)):
            assert (pixels[within > 0.51] > 254).all() and (pixels[within < -0.51] < 1).all()
            corners = (np.array([[left, top], [right, bottom]]) - [c, f]) @ inverse.T
            rows, columns = np.nonzero(pixels > 127)
            middle = np.array([columns.mean(), rows.mean()]) + 0.5
            inside = (corners > 0).all() and (corners < SIZE).all()
            assert not inside or np.abs(middle - corners.mean(axis=0)).max() < 0.5


def moments(images):
    """Numbers of each image that every part of the transform moves: [N] by name."""
    x = images.astype(float)
    quarter = x[:, :SIZE // 2, :SIZE // 2]
    return {"mean": x.mean((1, 2)), "deviation": x.std((1, 2)), "quarter": quarter.mean((1, 2)) - x.mean((1, 2)),
            "grain": np.abs(np.diff(x, axis=2)).mean((1, 2)), "black": (images == 0).mean((1, 2)),
            "skew": ((x - x.mean((1, 2), keepdims=True)) ** 3).mean((1, 2))}


@pytest.mark.parametrize("options", [{"noise": 6.0}, {"noise": 6.0, "erase": 0.5}])
def test_moments_have_the_hosts_distribution(options):
    count, [image] = 600, smooth(np.random.default_rng(3), 1)
    augment = Augment(**{**SHIPPED, **{**PLAIN, **SHIPPED, **options}})
    host = moments(np.stack([augment.image(image, np.random.default_rng(seed)) for seed in range(count)]))
    images = np.repeat(image[None], count, axis=0)
    found = jax.jit(DeviceAugment(augment).images)(jax.random.key(0), images)
    assert found.shape == images.shape and found.dtype == np.uint8
    for name, values in moments(np.asarray(found)).items():
        assert stats.ks_2samp(values, host[name]).pvalue > 1e-3, name
        assert stats.ttest_ind(values, host[name]).pvalue > 1e-3, name


def test_a_draw_is_of_seed_step_stream_and_row_alone():
    augment = DeviceAugment(Augment(**{**PLAIN, **SHIPPED, "noise": 6.0}))
    images = jnp.asarray(np.repeat(smooth(np.random.default_rng(5), 1), 4, axis=0))
    batch = {"pairs": {"image": images, "labels": jnp.zeros(4)}, "images": {"image": images}, "reports": {"tokens": 0}}
    see = jax.jit(lambda seed, step: augment(batch, seed, step))
    first = see(0, 3)
    assert first["reports"] == batch["reports"] and first["pairs"]["labels"].shape == (4,)
    views = [np.asarray(found[stream]["image"]) for found in (first, see(0, 4), see(1, 3)) for stream in
             ("pairs", "images")]
    rows = np.concatenate(views)
    assert len({row.tobytes() for row in rows}) == len(rows)
    again = see(0, 3)
    np.testing.assert_array_equal(again["pairs"]["image"], first["pairs"]["image"])
    # The first rows of a larger batch are those of a smaller one.
    few = augment({"pairs": {"image": images[:2]}}, 0, 3)["pairs"]["image"]
    assert np.abs(np.asarray(few, int) - views[0][:2]).max() <= 1
