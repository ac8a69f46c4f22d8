"""Reads mutated image files in a process of its own, so that a crash or a hang is seen from outside.

    python -m tests.io.fuzz --files=10000 --seed=0

Prints one line of JSON: how many files were read and how many refused. Ends with status 1 when a file takes longer than
LIMIT seconds, when anything but UnreadableImage is raised, or when an image is not what the reader promises.
"""

import argparse
import faulthandler
import io
import json
import random
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.speed.memory import peak_bytes
from lgdea_jax.io import UnreadableImage
from lgdea_jax.io.files import read_image_bytes
from lgdea_jax.preprocess.image import grey8
from tests.fixtures import world
from tests.io import golden

LIMIT = 20  # Seconds for one file; a whole one takes milliseconds.


def originals(folder):
    """Name -> bytes of a good file in every format and encoding that is read."""
    files = {f"{syntax}_{bits}": golden.write(folder / "a", bits, syntax).read_bytes()
             for syntax in golden.SYNTAXES for bits in (8, 12)}
    extras = {"PhotometricInterpretation": "MONOCHROME1", "WindowCenter": "2000", "WindowWidth": "3000",
              "RescaleSlope": "2", "RescaleIntercept": "-5", "PixelPaddingValue": 0, "PixelSpacing": ["0.2", "0.3"],
              "PatientAge": "058Y", "PatientSex": "F"}
    files["header"] = golden.write(folder / "a", 12, "explicit", **extras).read_bytes()
    files["bare"] = files["header"][132:]
    world.jpeg_dicom(folder / "a", golden.picture(8))
    files["jpeg_dicom"] = (folder / "a").read_bytes()
    for name, array in (("png_8", golden.picture(8)), ("png_16", golden.picture(16))):
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, "PNG")
        files[name] = buffer.getvalue()
    files["jpeg_8"] = world.jpeg_bytes(golden.picture(8))
    files["jpeg_12"] = golden.encode_jpeg_lossless(golden.picture(12), 12)
    return files


def mutate(data, rng):
    """Some bytes changed, some of the file cut off, a piece doubled or left out."""
    data = bytearray(data)
    first = rng.choice((0, 0, len(data) // 4, len(data) // 2))
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        data[rng.randrange(first, len(data))] = rng.choice((0, 1, 0x7F, 0xFF, rng.randrange(256)))
    if rng.random() < 0.15:
        del data[rng.randrange(len(data)):]
    if rng.random() < 0.1 and len(data) > 64:
        start = rng.randrange(len(data) - 32)
        if rng.random() < 0.5:
            del data[start:start + rng.randrange(1, 32)]
        else:
            data[start:start] = data[start:start + rng.randrange(1, 32)]
    return bytes(data)


def check(array):
    """Raises AssertionError unless the array is what `read_image_file` promises."""
    kinds = {(np.dtype(np.uint8), 2), (np.dtype(np.uint16), 2), (np.dtype(np.float32), 2), (np.dtype(np.uint8), 3)}
    assert (array.dtype, array.ndim) in kinds and array.size, (array.dtype, array.shape)
    assert array.ndim == 2 or array.shape[2] in (3, 4), array.shape
    assert array.dtype != np.float32 or np.isfinite(array).all()
    stored, _ = grey8(array, 64)
    assert stored.dtype == np.uint8 and max(stored.shape) <= 64


def main():
    """See the module's docstring."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng, counts, slowest = random.Random(arguments.seed), Counter(), 0.0
    with tempfile.TemporaryDirectory() as folder:
        files = originals(Path(folder))
    for data in files.values():
        check(read_image_bytes(data)[0])
    names = sorted(files)
    for number in range(arguments.files):
        name = rng.choice(names)
        data = mutate(files[name], rng)
        started = time.monotonic()
        faulthandler.dump_traceback_later(LIMIT, exit=True)
        try:
            array, _ = read_image_bytes(data)
        except UnreadableImage as error:
            assert error.reason and "\n" not in error.reason
            counts["refused"] += 1
        except BaseException:
            print(f"file {number} ({name}) of seed {arguments.seed}", flush=True)
            raise
        else:
            check(array)
            counts["read"] += 1
        faulthandler.cancel_dump_traceback_later()
        slowest = max(slowest, time.monotonic() - started)
    print(json.dumps({**counts, "slowest": round(slowest, 2), "megabytes": round(peak_bytes() / 2**20)}))


if __name__ == "__main__":
    main()
