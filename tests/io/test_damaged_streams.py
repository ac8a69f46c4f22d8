"""Compressed pixels that were cut or have a hole are refused, also where somebody put an end marker behind them."""

import io
import re

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit

from lgdea_jax.io import UnreadableImage, read_image_file
from lgdea_jax.io.codestream import read_codestream
from lgdea_jax.io.files import read_image_bytes
from tests.io import golden
from tests.io.dicom import write_dicom
from tests.io.fuzz import saved

END = b"\xff\xd9"
Y, X = np.mgrid[:200, :180]
NOISE = np.random.default_rng(0).normal(0, 3, Y.shape)
GREY = (128 + 60 * np.sin(X / 9) + 40 * np.cos(Y / 13) + NOISE).astype(np.uint8)
COLOUR = np.stack([GREY, GREY[::-1], GREY], axis=-1)
JPEGS = {"grey": saved(GREY, "JPEG"), "colour": saved(COLOUR, "JPEG"),
         "progressive": saved(GREY, "JPEG", progressive=True),
         "restarts": saved(GREY, "JPEG", restart_marker_blocks=8)}


@pytest.mark.parametrize("name", JPEGS)
def test_jpeg_files(name):
    data = JPEGS[name]
    whole, _ = read_image_bytes(data)
    for usable in (data[:-2], data + b"behind the end marker" * 9):  # Only the end marker is missing.
        np.testing.assert_array_equal(read_image_bytes(usable)[0], whole)
    middle = len(data) // 2
    damaged = {"cut": data[:middle], "cut and closed": data[:middle] + END, "nearly whole": data[:-5] + END,
               "a piece is missing": data[:middle] + data[middle + 700:],
               "a piece is doubled": data[:middle] + data[middle - 300:]}
    for what, content in damaged.items():
        with pytest.raises(UnreadableImage, match="truncated or damaged"):
            read_image_bytes(content)
            pytest.fail(what)


def test_scan_headers_with_numbers_that_mean_nothing_are_read():
    # Some writers of DICOM give a sequential scan the numbers of a progressive one.
    for data in (JPEGS["grey"], JPEGS["colour"]):
        start = data.index(b"\xff\xda")
        at = start + 5 + 2 * data[start + 4]
        assert data[at:at + 3] == b"\0\x3f\0"
        odd, _ = read_image_bytes(data[:at] + b"\0\0\0" + data[at + 3:])
        np.testing.assert_array_equal(odd, read_image_bytes(data)[0])


def test_a_progressive_jpeg_without_its_last_scans():
    data = JPEGS["progressive"]
    last = data.rfind(b"\xff\xda")
    assert read_codestream(data).complete
    with Image.open(io.BytesIO(data[:last] + END)) as image:
        image.load()  # Pillow takes it without a word.
    with pytest.raises(UnreadableImage, match="truncated or damaged"):
        read_image_bytes(data[:last] + END)


def compressed(path, syntax):
    """(dataset, codestream) of `golden.picture` in a DICOM file."""
    if syntax == "jpeg":
        write_dicom(path, GREY, BitsAllocated=8, BitsStored=8, HighBit=7)
        dataset = pydicom.dcmread(path)
        dataset.PixelData = encapsulate([JPEGS["grey"]])
        dataset["PixelData"].VR = "OB"
        dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
        dataset.save_as(path)
        return dataset, JPEGS["grey"]
    dataset = pydicom.dcmread(golden.write(path, 12, syntax))
    stream = get_frame(dataset.PixelData, 0, number_of_frames=1)
    return dataset, stream[:stream.rfind(END) + 2]


@pytest.mark.parametrize("syntax", ["jpeg", "jpeg_lossless", "jpeg_ls", "jpeg_2000", "htj2k"])
def test_dicom(tmp_path, syntax):
    path = tmp_path / "a"
    dataset, stream = compressed(path, syntax)
    whole, _ = read_image_file(path)
    middle = len(stream) // 2
    usable = [stream, stream[:-2]] if syntax not in ("jpeg_2000", "htj2k") else [stream]
    for content in usable:
        dataset.PixelData = encapsulate([content])
        dataset.save_as(path)
        np.testing.assert_array_equal(read_image_file(path)[0], whole)
    cuts = [stream[:len(stream) * part // 100] for part in (50, 70, 90, 99)]
    for content in (*cuts, *(cut + END for cut in cuts), stream[:middle] + stream[middle + 200:]):
        dataset.PixelData = encapsulate([content])
        dataset.save_as(path)
        with pytest.raises(UnreadableImage, match="truncated, damaged"):
            read_image_file(path)


def test_a_jpeg_2000_that_lacks_tiles(tmp_path):
    # Decoders leave such tiles black without a word.
    stream = saved(GREY, "JPEG2000", tile_size=(64, 64), no_jp2=True)
    tiles = [at.start() for at in re.finditer(rb"\xff\x90\0\x0a", stream)]
    assert len(tiles) == read_codestream(stream).tiles == 12
    path = write_dicom(tmp_path / "a", GREY, BitsAllocated=8, BitsStored=8, HighBit=7)
    dataset = pydicom.dcmread(path)
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    for content, whole in ((stream, True), (stream[:tiles[6]] + END, False),
                           (stream[:tiles[3]] + stream[tiles[4]:], False)):
        dataset.PixelData = encapsulate([content])
        dataset.save_as(path)
        if whole:
            np.testing.assert_array_equal(read_image_file(path)[0], GREY)
        else:
            with pytest.raises(UnreadableImage, match="parts of the codestream are missing"):
                read_image_file(path)


def test_a_lossless_jpeg_with_restarts_out_of_order():
    # A decoder goes on at the next restart marker, without a word, some rows too high.
    data = golden.encode_jpeg_lossless(golden.picture(12), 12)
    scan = data.index(b"\xff\xda") + 10
    parts = data[:scan + 100], data[scan + 100:scan + 200], data[scan + 200:]
    with pytest.raises(UnreadableImage, match="truncated or damaged"):
        read_image_bytes(parts[0] + b"\xff\xd0" + parts[1] + b"\xff\xd2" + parts[2])
