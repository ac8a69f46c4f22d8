"""Volume geometry: resampling against SimpleITK and torch's convention, boxes and masks there and back, crops."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from lgdea_jax.errors import UserError
from lgdea_jax.io import encode_volume
from lgdea_jax.preprocess.augment import VolumeAugment
from lgdea_jax.preprocess.volume import (
    AIR,
    GEOMETRIES,
    Geometry,
    VolumeView,
    find_geometry,
    resample,
    resampled_shape,
    to_record,
)
from lgdea_jax.records import Box

SHAPES = st.tuples(*[st.integers(2, 14)] * 3)
SPACINGS = st.tuples(*[st.floats(0.6, 4)] * 3)


def smooth(shape, seed=0):
    noise = np.random.default_rng(seed).normal(0, 4000, shape)
    return np.clip(ndimage.gaussian_filter(noise, 1.5) - 300, -1024, 3000).astype(np.int16)


def test_the_published_numbers():
    clip, fvlm = GEOMETRIES["ct_clip"], GEOMETRIES["fvlm_centre"]
    assert (clip.spacing, clip.shape, clip.window, clip.output) == (
        (1.5, 0.75, 0.75), (240, 480, 480), (-1000, 1000), (-1, 1))
    assert (fvlm.spacing, fvlm.shape, fvlm.window, fvlm.output) == ((3, 1, 1), (112, 288, 352), (-1150, 350), (0, 1))
    view = VolumeView.of("ct_clip", shape=(2, 2, 2))
    assert view.window == clip.window
    # The outside is below the window, and becomes -1, as CT-CLIP pads.
    point = encode_volume(np.zeros((1, 1, 1), np.int16))
    assert VolumeView.of("ct_clip", shape=(3, 3, 3)).prepare(point)[0, 0, 0] == AIR
    assert resampled_shape((300, 512, 512), (1.0, 0.7, 0.7), clip) == (200, 477, 477)
    assert resampled_shape((240, 480, 480), np.array(clip.spacing, np.float32), clip) == (240, 480, 480)


@settings(max_examples=25, deadline=None)
@given(st.tuples(*[st.integers(4, 14)] * 3), st.tuples(*[st.integers(3, 20)] * 3), st.integers(0, 5))
def test_resampling_agrees_with_sitk(shape, target, seed):
    """To 1 HU everywhere, the border included."""
    sitk = pytest.importorskip("SimpleITK")
    volume = smooth(shape, seed)
    image = sitk.Cast(sitk.GetImageFromArray(volume), sitk.sitkFloat64)
    step = [n / m for n, m in zip(shape[::-1], target[::-1])]
    theirs = sitk.Resample(image, target[::-1], sitk.Transform(), sitk.sitkLinear, [(s - 1) / 2 for s in step], step,
                           image.GetDirection(), 0.0, sitk.sitkFloat64, True)
    assert np.abs(resample(volume, target) - sitk.GetArrayFromImage(theirs)).max() <= 0.5 + 1e-3


@pytest.mark.slow
def test_resampling_is_torchs_interpolation():
    torch = pytest.importorskip("torch")
    volume = smooth((9, 11, 13))
    for target in ((14, 8, 13), (5, 22, 6)):
        theirs = torch.nn.functional.interpolate(
            torch.tensor(volume.astype(np.float32))[None, None], size=target, mode="trilinear", align_corners=False)
        assert np.abs(resample(volume, target) - theirs[0, 0].numpy()).max() <= 0.5 + 1e-2


def small(shape, spacing=(2.0, 1.0, 1.5)):
    return Geometry("small@1", spacing, shape)


@settings(max_examples=60, deadline=None)
@given(SHAPES, SPACINGS, SHAPES, SHAPES, st.data())
def test_boxes_and_points_there_and_back(original, spacing, limit, seen, data):
    view = VolumeView(small(limit), seen, (-1000.0, 1000.0))
    there = view.map(original, spacing)
    box = Box("Nodule", "a nodule", *[data.draw(st.floats(0.5, 9)) for _ in range(6)])
    back = there.box_back(there.box(box))
    for name, value in dataclasses.asdict(box).items():
        assert getattr(back, name) == (value if isinstance(value, str) else pytest.approx(value, abs=1e-6))
    points = np.random.default_rng(0).uniform(0, 9, (5, 3))
    np.testing.assert_allclose(there.points_back(there.points(points)), points, atol=1e-9)
    corner = there.points([(box.z, box.y, box.x)])[0]
    np.testing.assert_allclose(corner, [getattr(there.box(box), k) for k in "zyx"])


@settings(max_examples=40, deadline=None)
@given(st.tuples(*[st.integers(8, 16)] * 3), st.tuples(*[st.floats(0.8, 2)] * 3), st.tuples(*[st.integers(6, 14)] * 3),
       st.data())
def test_a_box_follows_the_voxels(original, spacing, limit, data):
    """A bright block is found, in what the model sees, where the map says; within a voxel on each side."""
    view = VolumeView(small(limit, (1.3, 1.1, 0.9)), (12, 12, 12), (-1000.0, 1000.0))
    size = [data.draw(st.integers(4, 6)) for _ in range(3)]
    low = [data.draw(st.integers(0, n - s)) for n, s in zip(original, size)]
    volume = np.full(original, -1000, np.int16)
    volume[tuple(slice(a, a + s) for a, s in zip(low, size))] = 1000
    shown = view.prepare(encode_volume(to_record(volume, spacing, view.geometry)))[..., 0] > 0
    there = view.map(original, spacing)
    box = there.box(Box("Mass", "", x=low[2], y=low[1], z=low[0], w=size[2], h=size[1], d=size[0]))
    np.testing.assert_array_equal(shown.shape, view.shape)
    # Voxels whose middle lies well inside are bright, those well outside are not.
    middle = np.stack(np.meshgrid(*[np.arange(n) + 0.5 for n in view.shape], indexing="ij"), -1)
    edge_low, edge_high = np.array([box.z, box.y, box.x]), np.array([box.z + box.d, box.y + box.h, box.x + box.w])
    slack = 0.75 * np.maximum(1, there.scale)
    stored = np.all((middle >= np.array(there.offset) + 0.5) & (
        middle <= np.array(there.offset) + np.array(there.resampled) - 0.5), -1)
    inside = np.all((middle > edge_low + slack) & (middle < edge_high - slack), -1)
    outside = np.any((middle < edge_low - slack) | (middle > edge_high + slack), -1)
    cut = [max(0, (have - most) // 2) for have, most in zip(there.resampled, limit)]
    kept_low = np.array(there.offset) + cut
    kept_high = kept_low + np.minimum(there.resampled, limit)
    kept = np.all((middle > kept_low) & (middle < kept_high), -1)
    assert shown[inside & kept & stored].all() and not shown[outside].any()
    # The mask takes the same way.
    mask = there.mask(volume > 0)
    assert mask.dtype == bool and mask[inside & stored].all() and not mask[outside].any()


def test_heatmap_peaks_where_the_patch_lies():
    view = VolumeView(small((16, 16, 16), (1.0, 1.0, 1.0)), (16, 16, 16), (-1000.0, 1000.0))
    there = view.map((10, 20, 12), (2.0, 0.8, 1.0))
    grid = np.zeros((4, 4, 4))
    grid[1, 2, 3] = 1
    heat = there.heatmap(grid)
    assert heat.shape == (10, 20, 12) and heat.dtype == np.float32
    place = there.points(np.array(np.unravel_index(heat.argmax(), heat.shape)) + 0.5)
    assert (np.floor(place / 4) == [1, 2, 3]).all()
    zoomed = ndimage.map_coordinates(grid, np.stack(np.meshgrid(*[
        np.clip(there.points(np.full((n, 3), np.arange(n)[:, None] + 0.5))[:, axis] / 4 - 0.5, 0, 3)
        for axis, n in enumerate(heat.shape)], indexing="ij")), order=1)
    np.testing.assert_allclose(heat, zoomed, atol=1e-6)


def test_unknown_and_impossible_views():
    assert find_geometry("fvlm_centre@1") is GEOMETRIES["fvlm_centre"]
    with pytest.raises(UserError, match="did you mean 'ct_clip'"):
        find_geometry("ctclip")
    for arguments, reason in ((("native",), "volume.shape is needed"), (("fvlm_centre", (3, 4)), "volume.shape"),
                              (("fvlm_centre", (), (5, 5)), "volume.window")):
        with pytest.raises(UserError, match=reason):
            VolumeView.of(*arguments)
    assert VolumeView.of("phantom_ct").name == "window@1:32x48x48:-1000:1000"


@pytest.mark.parametrize("stored, seen", [((12, 16, 20), (8, 8, 8)), ((6, 8, 8), (8, 8, 8)), ((6, 16, 8), (8, 8, 8))])
def test_augmentation_shows_the_stored_voxels_unmirrored(stored, seen):
    """Every crop is a contiguous part of the volume in its own direction, and all places are reached."""
    volume = np.arange(np.prod(stored), dtype=np.int16).reshape(stored)
    view = VolumeView(GEOMETRIES["native"], seen, (-1024.0, 31743.0))
    data, places = encode_volume(volume), set()
    augment = VolumeAugment(view, random_crop=True, shift=0.13)
    for seed in range(40):
        shown = augment.image(data, np.random.default_rng(seed))[..., 0]
        there = np.argwhere(shown > AIR)
        start = there.min(0)
        z, y, x = np.unravel_index(shown[tuple(start)], stored)
        places.add((*start.tolist(), int(z), int(y), int(x)))
        expected = volume[z:z + seen[0] - start[0], y:y + seen[1] - start[1], x:x + seen[2] - start[2]]
        got = shown[tuple(slice(a, a + n) for a, n in zip(start, expected.shape))]
        np.testing.assert_array_equal(got, expected)
        assert (shown > AIR).sum() == expected.size >= 0.6 * min(np.prod(stored), np.prod(seen))
    assert len(places) > 5
    still = VolumeAugment(view, random_crop=True, shift=0.13, enabled=False)
    np.testing.assert_array_equal(still.image(data, np.random.default_rng(0)), view.prepare(data))


def test_noise_is_added_in_whole_hu_and_stays_within_int16():
    volume = np.full((8, 8, 8), 32767, np.int16)
    volume[:4] = 40
    view = VolumeView(GEOMETRIES["native"], (8, 8, 8), (-1000.0, 1000.0))
    shown = VolumeAugment(view, noise=20.0).image(encode_volume(volume), np.random.default_rng(0))[..., 0]
    assert shown.dtype == np.int16 and shown[4:].min() > 32000  # Nothing wraps around.
    part = shown[:4].astype(float)
    assert abs(part.mean() - 40) < 4 and 0.5 < part.std() < 25


def test_augmentation_limits():
    view = VolumeView.of("phantom_ct")
    for keys, reason in (({"shift": 0.3}, "volume.shift"), ({"noise": -1}, "volume.noise")):
        with pytest.raises(UserError, match=reason):
            VolumeAugment(view, **keys)


def test_green_rfm_by_its_published_numbers():
    """A window of [-1000, 200] to [-1, 1], air around a smaller volume, the middle 96 x 192 x 192 of a larger one."""
    geometry = find_geometry("green_rfm")
    view = VolumeView.of("green_rfm", (96, 192, 192))
    values = np.array([-1024, -1000, -400, 0, 200, 900], np.int16)
    small = np.zeros((1, 1, 6), np.int16) + values
    record = to_record(small, (3.0, 1.5, 1.5), geometry)
    np.testing.assert_array_equal(record, small)
    seen = view.prepare(record)[..., 0]
    assert (view.window, view.geometry.output) == ((-1000, 200), (-1, 1)) and seen.dtype == np.int16
    np.testing.assert_array_equal(seen[47, 95, 93:99], values)
    assert seen.shape == (96, 192, 192) and (seen == AIR).sum() == seen.size - 5
    large = np.arange(130, dtype=np.int16)[:, None, None] + np.zeros((130, 250, 250), np.int16)
    record = to_record(large, (3.0, 1.5, 1.5), geometry)
    assert record.shape == (120, 240, 240) and record[0, 0, 0] == 5
    np.testing.assert_array_equal(view.prepare(record)[:, 0, 0, 0], np.arange(17, 113))
    assert resampled_shape((300, 512, 512), (1.0, 0.75, 0.75), geometry) == (100, 256, 256)
