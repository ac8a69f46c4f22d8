"""Reads mutated image files in a process of its own, so that a crash or a hang is seen from outside.

    python -m tests.io.fuzz --files=10000 --seed=0

Mutates that many files of each of KINDS. Prints one line of JSON: how many files were read and how many refused, the
slowest one, and the most memory above what the process had before. Ends with status 1 when a file takes longer than
LIMIT seconds, when anything but UnreadableImage is raised, or when an image is not what the reader promises.
"""

import argparse
import faulthandler
import io
import json
import random
import struct
import tempfile
import time
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.speed.memory import peak_bytes
from lgdea_jax.io import UnreadableImage
from lgdea_jax.io.files import read_image_bytes
from lgdea_jax.preprocess.image import grey8
from tests.fixtures import world
from tests.io import golden, png

LIMIT = 10  # Seconds for one file; a whole one takes milliseconds.
KINDS = ("dicom", "png", "jpeg")


def originals(folder):
    """Kind -> bytes of a good file in every format and encoding that is read."""
    files = {f"dicom_{syntax}_{bits}": golden.write(folder / "a", bits, syntax).read_bytes()
             for syntax in golden.SYNTAXES for bits in (8, 12)}
    extras = {"PhotometricInterpretation": "MONOCHROME1", "WindowCenter": "2000", "WindowWidth": "3000",
              "RescaleSlope": "2", "RescaleIntercept": "-5", "PixelPaddingValue": 0, "PixelSpacing": ["0.2", "0.3"],
              "PatientAge": "058Y", "PatientSex": "F", "PatientOrientation": ["R", "F"]}
    files["dicom_header"] = golden.write(folder / "a", 12, "explicit", **extras).read_bytes()
    files["dicom_bare"] = files["dicom_header"][132:]
    files["dicom_deflated"] = deflated(files["dicom_header"])
    world.jpeg_dicom(folder / "a", golden.picture(8))
    files["dicom_jpeg"] = (folder / "a").read_bytes()
    grey, deep = golden.picture(8), golden.picture(16)
    colour = np.stack([grey, grey[::-1], grey], axis=-1)
    for name, array in (("8", grey), ("16", deep), ("rgb", colour), ("rgba", np.dstack([colour, grey]))):
        files[f"png_{name}"] = saved(array, "PNG")
    files["png_palette"] = saved(Image.fromarray(colour).quantize(16), "PNG", transparency=0)
    files["png_rgb16"] = png.encode(np.stack([deep, deep[::-1], deep], axis=-1))
    files["png_grey_alpha16"] = png.encode(np.stack([deep, deep[::-1]], axis=-1))
    for name, array, options in (("8", grey, {}), ("progressive", grey, {"progressive": True}), ("rgb", colour, {}),
                                 ("cmyk", Image.fromarray(colour).convert("CMYK"), {}),
                                 ("exif", grey, {"exif": exif(6)})):
        files[f"jpeg_{name}"] = saved(array, "JPEG", **options)
    files["jpeg_12"] = golden.encode_jpeg_lossless(golden.picture(12), 12)
    return files


def exif(orientation):
    found = Image.Exif()
    found[0x0112] = orientation
    return found


def saved(image, file_format, **options):
    """The bytes of an array or a Pillow image."""
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, file_format, **options)
    return buffer.getvalue()


def deflated(data, extra=b""):
    """An explicit little-endian DICOM file as a deflated one; `extra` stands behind its elements."""
    start = 144 + int.from_bytes(data[140:144], "little")
    meta = data[:start].replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99")
    change = len(meta) - start
    i = meta.index(b"1.2.840.10008.1.2.1.99")
    meta = meta[:i - 2] + struct.pack("<H", 22) + meta[i:]
    meta = meta[:140] + struct.pack("<I", start - 144 + change) + meta[144:]
    squeeze = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
    return meta + squeeze.compress(data[start:] + extra) + squeeze.flush()


def mutate(data, rng):
    """Some bytes changed, some of the file cut off, a piece doubled or left out; of some PNG files only the pixels."""
    if data[:8] == png.SIGNATURE and rng.random() < 0.4:
        return png.change_pixels(data, lambda rows: scramble(rows, rng))
    return png.mend(scramble(data, rng)) if rng.random() < 0.7 else scramble(data, rng)


def scramble(data, rng):
    """What `mutate` does, to any bytes."""
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
    kinds = {(np.dtype(np.uint8), 2), (np.dtype(np.uint16), 2), (np.dtype(np.float32), 2), (np.dtype(np.uint8), 3),
             (np.dtype(np.uint16), 3)}
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
    before = peak_bytes()
    for kind in KINDS:
        names = sorted(name for name in files if name.startswith(kind))
        for number in range(arguments.files):
            name = rng.choice(names)
            data = mutate(files[name], rng)
            started = time.monotonic()
            faulthandler.dump_traceback_later(LIMIT, exit=True)
            try:
                array, _ = read_image_bytes(data)
            except UnreadableImage as error:
                assert error.reason and "\n" not in error.reason
                counts[f"{kind}_refused"] += 1
            except BaseException:
                print(f"file {number} ({name}) of seed {arguments.seed}", flush=True)
                raise
            else:
                check(array)
                counts[f"{kind}_read"] += 1
            faulthandler.cancel_dump_traceback_later()
            slowest = max(slowest, time.monotonic() - started)
    grown = round((peak_bytes() - before) / 2**20)
    print(json.dumps({**counts, "slowest": round(slowest, 2), "megabytes": grown}))


if __name__ == "__main__":
    main()
