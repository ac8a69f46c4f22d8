"""Reads one volume in a process of its own and prints, as JSON, its outcome and how far the memory rose.

    python -m tests.io.volumes.memory FILE_OR_FOLDER
"""

import json
import sys

import nibabel  # noqa: F401 - loaded before memory is measured, as are the others.
import pydicom.pixels  # noqa: F401
import scipy.ndimage  # noqa: F401

from benchmarks.speed.memory import peak_bytes
from lgdea_jax.io import UnreadableImage, VolumeHeader, read_volume


def main():
    """See the module's docstring."""
    before = peak_bytes()
    try:
        volume, info = read_volume(sys.argv[1], VolumeHeader(spacing=(1.0, 1.0, 1.0)))
        found = {"shape": volume.shape, "conversions": info.conversions, "pixels": volume.nbytes >> 20}
    except UnreadableImage as error:
        found = {"reason": error.reason}
    print(json.dumps({**found, "megabytes": (peak_bytes() - before) >> 20}))


if __name__ == "__main__":
    main()
