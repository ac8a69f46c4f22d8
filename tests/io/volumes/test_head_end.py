"""The head end of a chest by the shape of its lungs: on phantoms, and on chests drawn otherwise."""

import numpy as np
import pytest

from data_prep.synthetic.ct.source import PhantomCtOptions, PhantomCtSource
from lgdea_jax.io import UnreadableImage, VolumeHeader, read_volume
from lgdea_jax.io.head_end import CLEAR, head_evidence
from tests.fixtures.ct import write_nifti

SPACING = (5.0, 4.0, 4.0)


def drawn(lungs, *, depth=60, apex=45.0, base=10.0):
    """A chest built of straight pieces: lungs are stacks of discs, cones at the apex, hollowed by a cone below."""
    z, y, x = np.mgrid[:depth, :80, :100]
    volume = np.full(z.shape, -1000, np.int16)
    shoulders = np.clip(z - 50, 0, 9) * 2.5  # The neck.
    volume[((y - 40) / 34) ** 2 + ((x - 50) / (46 - shoulders)) ** 2 < 1] = 30
    for centre in (29, 71)[:lungs]:
        radius = np.hypot((y - 40) / 1.3, x - centre)
        top = apex - 0.9 * radius
        bottom = base - 0.7 * radius + 12
        volume[(radius < 15) & (z < top) & (z > bottom)] = -850
    volume[(np.hypot(y - 62, x - 50) < 5)] = 400
    return volume + np.random.default_rng(0).integers(-40, 40, volume.shape).astype(np.int16)


@pytest.mark.parametrize("lungs", [1, 2])
def test_drawn_chests(lungs):
    volume = drawn(lungs)
    assert head_evidence(volume, SPACING) > CLEAR
    assert head_evidence(volume[::-1], SPACING) < -CLEAR


def test_phantoms():
    source = PhantomCtSource(PhantomCtOptions(shape=(64, 96, 96), test=40, seed=5), "test")
    found = []
    for study in (source[i] for i in range(40)):
        image = study.images[0]
        found.append(head_evidence(image.pixels, image.header.spacing))
        turned = head_evidence(image.pixels[::-1], image.header.spacing)
        assert turned == pytest.approx(-found[-1], abs=0.1, nan_ok=True)
    assert np.nanmin(found) >= 0
    assert (np.array(found) > CLEAR).mean() >= 0.85


@pytest.mark.parametrize("volume", [
    np.full((60, 80, 100), 30, np.int16), np.full((60, 80, 100), -1000, np.int16), drawn(0), drawn(2)[40:44],
    drawn(2)[28:], drawn(2)[:28],
    drawn(2)[:, 30:50, 40:60], np.random.default_rng(0).integers(-1000, 1000, (60, 80, 100)).astype(np.int16)])
def test_what_tells_nothing(volume):
    assert np.isnan(head_evidence(volume, SPACING))


def test_upside_down_is_refused(tmp_path):
    volume = drawn(2)
    write_nifti(tmp_path / "v.nii", volume, SPACING)
    read, info = read_volume(tmp_path / "v.nii")
    np.testing.assert_array_equal(read, np.maximum(volume, -1024))
    assert info.conversions == ()
    write_nifti(tmp_path / "v.nii", volume[::-1], SPACING)
    with pytest.raises(UnreadableImage, match="upside down"):
        read_volume(tmp_path / "v.nii")
    assert read_volume(tmp_path / "v.nii", hounsfield=False)[0].shape == volume.shape  # A mask may be.
    np.savez(tmp_path / "v.npz", ct=volume[::-1])  # Slices from the head to the feet, as RAD-ChestCT's.
    for axes, outcome in (("IPL", None), ("SPL", r"upside down.*axes SPL")):
        header = VolumeHeader(spacing=SPACING, axes=axes)
        if outcome is None:
            np.testing.assert_array_equal(read_volume(tmp_path / "v.npz", header)[0], np.maximum(volume, -1024))
        else:
            with pytest.raises(UnreadableImage, match=outcome):
                read_volume(tmp_path / "v.npz", header)


def test_a_flat_chest_is_counted(tmp_path):
    """Lungs as prisms have no shape along z."""
    volume = drawn(2)
    volume[8:50] = volume[25]
    write_nifti(tmp_path / "v.nii", volume, SPACING)
    assert read_volume(tmp_path / "v.nii")[1].conversions == ("head end not checked",)


@pytest.mark.parametrize("shape, spacing, whole", [
    ((60, 80, 100), SPACING, True), ((30, 80, 100), SPACING, False), ((60, 80, 100), (1.0, 1.0, 1.0), False),
    ((60, 80, 100), (15.0, 4.0, 4.0), False)])
def test_the_extent_is_compared_with_a_chests(tmp_path, shape, spacing, whole):
    """Half a chest, voxels of 1 mm because no size was stated, and one of 0.9 m."""
    write_nifti(tmp_path / "v.nii", drawn(2)[:shape[0]], spacing)
    assert ("extent unlike a chest's" in read_volume(tmp_path / "v.nii")[1].conversions) is not whole
