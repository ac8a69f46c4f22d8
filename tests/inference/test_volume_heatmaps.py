"""Heatmaps of volumes stay where the patient's bright spot is, whatever the order and the voxels of the file.

Brightness stands for the model: the value of a patch is the mean of the model's input over its cell. The spot's
millimetres are worked out from the attributes of the file, not by the reader.
"""

import nibabel
import numpy as np
import pytest

from lgdea_jax.evaluators.volumes import VolumeGeometry
from lgdea_jax.inference.volumes import Scan, VolumeReader, hottest_slice
from lgdea_jax.io import read_volume
from lgdea_jax.preprocess.volume import VolumeView
from tests.fixtures import ct
from tests.io.volumes.writers import write_series

VIEW = VolumeView.of("phantom_ct")
PATCH = 4  # Voxels of the model's input along each axis.
PATCH_MM = np.array([30.0, 30.0, 40.0])  # x, y, z.


def chest(shape, spacing, spot):
    """A body with lungs, and a ball of 1000 HU around `spot`, mm (z, y, x) from the first voxel."""
    z, y, x = np.meshgrid(*(np.arange(n) * mm for n, mm in zip(shape, spacing)), indexing="ij")
    depth, height, width = (n * mm for n, mm in zip(shape, spacing))
    volume = np.full(shape, -1000, np.int16)
    volume[((y / height - 0.5) / 0.4) ** 2 + ((x / width - 0.5) / 0.45) ** 2 < 1] = 30
    for centre in (0.3, 0.7):
        volume[((y / height - 0.5) / 0.25) ** 2 + ((x / width - centre) / 0.13) ** 2
               + ((z / depth - 0.5) / 0.35) ** 2 < 1] = -850
    volume[(z - spot[0]) ** 2 + (y - spot[1]) ** 2 + (x - spot[2]) ** 2 < 25**2] = 1000
    return volume


def peak(path):
    """mm (x, y, z) in RAS+ of the heatmap's maximum, and the reader's slice of it."""
    scan = VolumeReader(VIEW).read(str(path), "x")
    assert isinstance(scan, Scan), scan
    cells = scan.model_input[..., 0]
    grid = cells.reshape(*(n for size in cells.shape for n in (size // PATCH, PATCH))).mean((1, 3, 5))
    geometry = VolumeGeometry(VIEW.map(scan.shape, scan.spacing))
    heat = geometry.heatmap(grid)
    assert heat.shape == scan.shape
    # Beyond the outermost patches heat is constant: the middle of the voxels that share the maximum.
    voxel = np.argwhere(heat == np.nanmax(heat)).mean(0)
    return (read_volume(path)[1].affine @ [*voxel, 1])[:3], hottest_slice(geometry, grid, 0.0)


@pytest.mark.parametrize("shape, spacing", [((32, 60, 45), (10.0, 6.0, 8.0)), ((110, 45, 120), (2.9, 8.0, 3.0)),
                                            ((30, 130, 60), (12.0, 2.5, 5.0))])
@pytest.mark.parametrize("codes", ["LPS", "RAS", "SLP"])
@pytest.mark.parametrize("share", [(0.7, 0.6, 0.75), (0.3, 0.35, 0.2)])
def test_anisotropic_volumes(tmp_path, shape, spacing, codes, share):
    spot = [part * n * mm for part, n, mm in zip(share, shape, spacing)]
    ct.write_nifti(tmp_path / "v.nii", chest(shape, spacing, spot), spacing, codes)
    image = nibabel.load(tmp_path / "v.nii")
    bright = np.argwhere(np.asarray(image.dataobj) == 1000).mean(0)
    expected = (image.affine @ [*bright, 1])[:3]
    found, z = peak(tmp_path / "v.nii")
    assert (np.abs(found - expected) < PATCH_MM).all(), (found, expected)
    assert abs(z * spacing[0] - spot[0]) < PATCH_MM[2]


@pytest.mark.parametrize("share", [(0.7, 0.6, 0.75), (0.3, 0.35, 0.2)])
def test_a_patient_who_lies_feet_first(tmp_path, share):
    """Rows run to the patient's right, and slices are acquired from the feet (FFS)."""
    shape, spacing = (32, 60, 45), (10.0, 6.0, 8.0)
    spot = [part * n * mm for part, n, mm in zip(share, shape, spacing)]
    volume = chest(shape, spacing, spot)

    def change(one, k):
        one.PatientPosition = "FFS"
        one.ImagePositionPatient = [10.0 + (shape[2] - 1) * spacing[2], -20.0, 100.0 + k * spacing[0]]

    write_series(tmp_path / "s", volume[:, :, ::-1], spacing, orientation=(-1, 0, 0, 0, 1, 0), change=change)
    found, z = peak(tmp_path / "s")
    left, back, up = 10.0 + spot[2], -20.0 + spot[1], 100.0 + spot[0]  # LPS.
    assert (np.abs(found - [-left, -back, up]) < PATCH_MM).all()
    assert abs(z * spacing[0] - spot[0]) < PATCH_MM[2]
