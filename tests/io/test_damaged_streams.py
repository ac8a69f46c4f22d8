"""Compressed pixels that were cut or have a hole are refused, also where somebody put an end marker behind them."""

import io
import itertools
import re

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLosslessSV1

from lgdea_jax.io import UnreadableImage, read_image_file
from lgdea_jax.io.codestream import read_codestream
from lgdea_jax.io.files import read_image_bytes
from tests.io import golden, png
from tests.io.dicom import write_dicom
from tests.io.fuzz import saved

END = b"\xff\xd9"
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
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


@pytest.mark.parametrize("syntax", ["jpeg_lossless", "jpeg_ls", "jpeg_2000", "rle"])
@pytest.mark.parametrize("at", [0.2, 0.5, 0.8])
def test_a_block_of_zeros(tmp_path, syntax, at):
    # What a disk did not write. Decoders find codes in it: the image ends before the data do.
    path = tmp_path / "a"
    dataset, stream = compressed(path, syntax) if syntax != "rle" else run_lengths(path)
    first = int(len(stream) * at)
    dataset.PixelData = encapsulate([stream[:first] + bytes(256) + stream[first + 256:]])
    dataset.save_as(path)
    with pytest.raises(UnreadableImage, match="truncated, damaged"):
        read_image_file(path)


def run_lengths(path):
    """(dataset, frame) of `golden.picture`."""
    dataset = pydicom.dcmread(golden.write(path, 12, "rle"))
    return dataset, get_frame(dataset.PixelData, 0, number_of_frames=1)


def test_run_lengths_of_another_image(tmp_path):
    path = tmp_path / "a"
    dataset, frame = run_lengths(path)
    count, first, second = np.frombuffer(frame[:12], "<u4")
    assert count == 2
    for content in (frame[:8] + np.uint32(second + 20).tobytes() + frame[12:],  # The second segment begins too late.
                    frame[:first + 40] + frame[first + 44:], frame + b"\x05abcdef"):
        dataset.PixelData = encapsulate([content])
        dataset.save_as(path)
        with pytest.raises(UnreadableImage, match="truncated, damaged"):
            read_image_file(path)
    dataset.PixelData = encapsulate([frame + bytes(4)])  # Some writers pad.
    dataset.save_as(path)
    np.testing.assert_array_equal(read_image_file(path)[0], golden.picture(12))


def test_fill_bytes_before_the_end_marker(tmp_path):
    # dcmtk writes one. The bytes that are put there to see whether data are missing must not become a marker with it.
    path = tmp_path / "a"
    dataset, stream = compressed(path, "jpeg_lossless")
    whole, _ = read_image_file(path)
    for content, good in ((stream[:-2] + b"\xff" + END, True), (stream[:-200] + b"\xff" + END, False)):
        dataset.PixelData = encapsulate([content])
        dataset.save_as(path)
        if good:
            np.testing.assert_array_equal(read_image_file(path)[0], whole)
        else:
            with pytest.raises(UnreadableImage, match="truncated, damaged"):
                read_image_file(path)


@pytest.mark.parametrize("syntax", ["jpeg_lossless", "rle", "jpeg_2000"])
@pytest.mark.parametrize("value", [0, 1234, 4095])
def test_an_image_of_one_value_below_is_whole(tmp_path, syntax, value):
    # Long runs of one value leave few bytes, and many of them alike.
    pixels = golden.picture(12).copy()
    pixels[20:] = value
    path = write_dicom(tmp_path / "a", pixels)
    dataset = pydicom.dcmread(path)
    if syntax == "jpeg_lossless":
        dataset.PixelData = encapsulate([golden.encode_jpeg_lossless(pixels, 12)])
        dataset["PixelData"].VR, dataset.file_meta.TransferSyntaxUID = "OB", JPEGLosslessSV1
    else:
        dataset.compress(golden.SYNTAXES[syntax])
    dataset.save_as(path)
    np.testing.assert_array_equal(read_image_file(path)[0], pixels)


def test_a_black_jpeg_2000_with_many_empty_packets():
    # An empty packet is a byte of zero: a writer of small precincts has many of them in a row.
    black = np.zeros((1024, 1024), np.uint8)
    black[500:520, 500:520] = 200
    stream = saved(black, "JPEG2000", no_jp2=True, precinct_size=(64, 64), progression="RPCL", num_resolutions=3)
    empty = re.sub(rb"\x80{30,}", lambda found: bytes(len(found[0])), stream)
    assert bytes(100) in empty and read_codestream(empty).complete
    assert not read_codestream(stream[:-2] + bytes(2000) + END).complete


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.53", "1.2.840.10008.1.2.4.55"])
def test_progressive_jpeg_of_the_retired_kinds(tmp_path, syntax):
    path = tmp_path / "a"
    dataset, _ = compressed(path, "jpeg")
    dataset.PixelData = encapsulate([JPEGS["progressive"]])
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path)
    np.testing.assert_array_equal(read_image_file(path)[0], read_image_bytes(JPEGS["progressive"])[0])


@pytest.mark.parametrize(("array", "how"), [
    *itertools.product((GREY, COLOUR, GREY.astype(np.uint16) * 16), ("plain", "interlaced")), (GREY, "palette")])
def test_a_png_without_its_last_rows(array, how):
    # Pillow leaves them black, without a word. Of an odd number, the last one is not of the last pass.
    array = array[:199]
    kept = png.encode(array)
    if how == "interlaced":
        deep = ">u2" if array.dtype == np.uint16 else array.dtype
        passes = [array[y::down, x::across].astype(deep) for x, y, across, down in ADAM7]
        kept = png.change_pixels(kept, lambda _: b"".join(b"\0" + row.tobytes() for part in passes for row in part))
        kept = kept.replace(kept[16:29], kept[16:28] + b"\1")
    if how == "palette":
        colours = png.chunk(b"PLTE", bytes(np.repeat(255 - np.arange(256), 3).astype(np.uint8)))
        kept = kept[:25] + b"\3" + kept[26:33] + colours + kept[33:]
    kept = png.mend(kept)
    found, _ = read_image_bytes(kept)
    np.testing.assert_array_equal(found if how != "palette" else 255 - found[..., 0], array)
    half = len(array) // 2 * (1 + array.nbytes // len(array))  # Interlaced, this is the last pass.
    for lost in (half, 5):
        with pytest.raises(UnreadableImage, match="PNG file is truncated or damaged"):
            read_image_bytes(png.change_pixels(kept, lambda rows, lost=lost: rows[:-lost]))


def test_a_png_that_ends_black_or_has_a_short_palette():
    ends = GREY.copy()
    ends[-9:] = 0
    np.testing.assert_array_equal(read_image_bytes(png.encode(ends))[0], ends)
    colours = png.chunk(b"PLTE", bytes(30))
    data = png.encode(GREY)
    with pytest.raises(UnreadableImage, match="not in its palette"):
        read_image_bytes(png.mend(data[:25] + b"\3" + data[26:33] + colours + data[33:]))
