"""Reads mutated volumes in a process of its own, so that a crash or a hang is seen from outside.

    python -m tests.io.volumes.fuzz --kind=nifti --files=10000 --seed=0

Prints one line of JSON: how many were read and how many refused. Ends with status 1 when one takes longer than LIMIT
seconds, when anything but UnreadableImage is raised, or when a volume is not what the reader promises.
"""

import argparse
import faulthandler
import gzip
import io
import json
import random
import tempfile
import time
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
from pydicom.uid import JPEG2000Lossless, RLELossless

from benchmarks.speed.memory import peak_bytes
from lgdea_jax.io import UnreadableImage, VolumeHeader, read_volume
from tests.fixtures.ct import write_nifti
from tests.io.fuzz import mutate
from tests.io.volumes.writers import SPACING, chest, npz_bytes, write_enhanced, write_series

LIMIT = 10  # Seconds for one volume; a whole one takes milliseconds.
HEADER = VolumeHeader(spacing=SPACING)


def originals(kind, folder):
    """Good volumes of a kind: name -> {file name: bytes}; more than one file are a series.

    The "inner" ones are packed after they are mutated: their checksum would refuse nearly all otherwise.
    """
    found = {}
    if kind == "nifti":
        for name, options in (("short.nii", {}), ("float.nii", {"dtype": np.float32}),
                              ("scaled.nii", {"slope": 0.5, "intercept": -1024, "dtype": np.uint16})):
            write_nifti(folder / name, chest(), SPACING, **options)
            data = (folder / name).read_bytes()
            found |= {name: {name: data}, f"{name}.gz": {name: gzip.compress(data, 1)}, f"inner {name}": {name: data}}
    elif kind == "npz":
        pixels = chest().astype("<i2").tobytes()
        found["npz"] = {"v.npz": npz_bytes(chest().shape, pixels)}
        with zipfile.ZipFile(io.BytesIO(found["npz"]["v.npz"])) as archive:
            found["inner npz"] = {"v.npz": archive.read("ct.npy")}
    else:
        write_enhanced(folder / "one.dcm", chest((4, 10, 12)), SPACING)
        found["enhanced"] = {"one.dcm": (folder / "one.dcm").read_bytes()}
        for name, syntax in (("plain", None), ("rle", RLELossless), ("jpeg2000", JPEG2000Lossless)):
            write_series(folder / name, chest((4, 33, 36)), SPACING,
                         change=lambda one, k, syntax=syntax: one.compress(syntax) if syntax else None)
            found[name] = {path.name: path.read_bytes() for path in sorted((folder / name).iterdir())}
    return found


def _zip(data):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ct.npy", data)
    return buffer.getvalue()


def pack(name, data):
    """A mutated file as it is written."""
    if not name.startswith("inner"):
        return data
    return _zip(data) if name == "inner npz" else gzip.compress(data, 1)


def write(files, folder):
    """Writes a volume's files; what to read."""
    for path in folder.iterdir():
        path.unlink()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder if len(files) > 1 else folder / next(iter(files))


def main():
    """See the module's docstring."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kind", choices=("nifti", "npz", "series"), required=True)
    parser.add_argument("--files", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng, counts, slowest = random.Random(arguments.seed), Counter(), 0.0
    with tempfile.TemporaryDirectory() as place:
        good, here = Path(place) / "good", Path(place) / "here"
        good.mkdir()
        here.mkdir()
        volumes = originals(arguments.kind, good)
        for name, files in volumes.items():
            read_volume(write({file: pack(name, data) for file, data in files.items()}, here), HEADER)
        before = peak_bytes()
        for number in range(arguments.files):
            name = rng.choice(sorted(volumes))
            files = dict(volumes[name])
            damaged = rng.choice(sorted(files))
            files[damaged] = pack(name, mutate(files[damaged], rng))
            path = write(files, here)
            started = time.monotonic()
            faulthandler.dump_traceback_later(LIMIT, exit=True)
            try:
                volume, info = read_volume(path, HEADER)
            except UnreadableImage as error:
                assert error.reason and "\n" not in error.reason and place not in error.reason
                counts["refused"] += 1
            except BaseException:
                print(f"volume {number} ({name}) of seed {arguments.seed}", flush=True)
                raise
            else:
                assert volume.dtype == np.int16 and volume.ndim == 3 and volume.min() >= -1024
                assert min(info.spacing) > 0 and np.isfinite(info.affine).all()
                counts["read"] += 1
            faulthandler.cancel_dump_traceback_later()
            slowest = max(slowest, time.monotonic() - started)
    print(json.dumps({**counts, "slowest": round(slowest, 2), "megabytes": (peak_bytes() - before) >> 20}))


if __name__ == "__main__":
    main()
