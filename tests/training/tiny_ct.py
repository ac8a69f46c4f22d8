"""tiny.py on volumes: a 3D tower of width 4 on 16 x 32 x 32 voxels.

    --config=tests/training/tiny_ct.py[:METHOD]
"""

from lgdea_jax import cli


def get_config(arg=None):
    """The tiny experiment with the method `arg` (lgdea_pairs by default)."""
    config = cli.read_config(f"tests/training/tiny.py:{arg or 'lgdea_pairs'}")
    config.image.modality = "ct"
    config.volume.geometry, config.volume.shape = "phantom_ct", (16, 32, 32)
    config.model.image.name = "resnet3d"
    tower = config.model.image.resnet3d
    tower.variant, tower.sizes.width, tower.stem, tower.norm, tower.conv = "resnet6", 4, "patch4", "batch", "slices"
    config.batch.pairs = 4
    return config
