"""DICOM as hospitals have it: polarity, orientation, colours, decimal commas, odd encodings, files without images."""

import itertools
import json
import struct
import subprocess
import sys

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit

from lgdea_jax.io import UnreadableImage, read_image_file
from lgdea_jax.io.dicom_file import is_dicom, number, read_dataset
from lgdea_jax.io.dicom_pixels import padding_mask, pixel_array, rescale
from lgdea_jax.preprocess.image import to_grey8
from tests.data_prep.shards.run import ROOT, environment
from tests.io import golden
from tests.io.dicom import write_dicom
from tests.io.fuzz import deflated, saved

RAMP = np.arange(48, dtype=np.uint16).reshape(6, 8) * 80
BYTES = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}


def read(tmp_path, pixels=RAMP, **elements):
    return read_image_file(write_dicom(tmp_path / "image", pixels, **elements))


def patched(path, old, new):
    """Puts bytes into a file that pydicom would not write."""
    data = path.read_bytes()
    assert data.count(old) == 1 and len(old) == len(new)
    path.write_bytes(data.replace(old, new))
    return path


@pytest.mark.parametrize(("photometric", "shape", "done"), [
    ("MONOCHROME2", "INVERSE", ("inverse",)), ("MONOCHROME1", "INVERSE", ("monochrome1",)),
    ("MONOCHROME1", "IDENTITY", ("monochrome1",)), ("MONOCHROME2", "IDENTITY", ()), ("MONOCHROME2", "", ())])
def test_polarity(tmp_path, photometric, shape, done):
    array, info = read(tmp_path, PhotometricInterpretation=photometric, PresentationLUTShape=shape)
    np.testing.assert_array_equal(array, RAMP.max() - RAMP if done else RAMP)
    assert info.conversions == done


# A scene in patient coordinates: [height from the head down, from the patient's right to the left].
SCENE = np.arange(35, dtype=np.uint16).reshape(5, 7) * 100
HEAD_DOWN, LEFT_WARDS = {"F": 1, "H": -1}, {"L": 1, "R": -1}


@pytest.mark.parametrize("row, column", [
    (r, c) for r, c in itertools.permutations("LRHF", 2) if (r in "LR") != (c in "LR")])
def test_a_frontal_image_is_turned_to_the_promised_sides(tmp_path, row, column):
    # Stored so that its rows run to `row` and its columns to `column`.
    vertical, horizontal = (column, row) if row in "LR" else (row, column)
    stored = SCENE[::HEAD_DOWN[vertical], ::LEFT_WARDS[horizontal]]
    stored = stored if row in "LR" else stored.T
    array, info = read(tmp_path, np.ascontiguousarray(stored), PatientOrientation=[row, column],
                       PixelSpacing=["0.1", "0.3"])
    np.testing.assert_array_equal(array, SCENE)
    assert info.conversions == (() if (row, column) == ("L", "F") else ("turned",))
    assert info.spacing == ((0.1, 0.3) if row in "LR" else (0.3, 0.1))


def test_a_lateral_image_keeps_its_sides(tmp_path):
    for row in "AP":
        for oblique in (row, f"{row}L", f"{row}R"):
            array, info = read(tmp_path, SCENE, PatientOrientation=[oblique, "F"])
            np.testing.assert_array_equal(array, SCENE)
            assert info.conversions == ()
        array, _ = read(tmp_path, SCENE[::-1], PatientOrientation=[row, "H"])
        np.testing.assert_array_equal(array, SCENE)


@pytest.mark.parametrize("orientation", [["L", "P"], ["A", "L"], ["R"], ["", ""], ["R", "R"], ["X", "F"], ["RT", "F"],
                                         "none"])
def test_orientations_of_something_else_are_not_followed(tmp_path, orientation):
    array, info = read(tmp_path, PatientOrientation=orientation)
    np.testing.assert_array_equal(array, RAMP)
    assert info.conversions == ()


RGB = np.random.default_rng(0).integers(0, 256, (6, 8, 3)).repeat(4, axis=0).repeat(4, axis=1).astype(np.uint8)
# PS3.3 C.7.6.3.1.2, full range.
YBR = np.clip(np.rint(RGB @ np.array([[0.299, -0.1687, 0.5], [0.587, -0.3313, -0.4187], [0.114, 0.5, -0.0813]])
                      + [0, 128, 128]), 0, 255).astype(np.uint8)


def colours(photometric):
    return {"SamplesPerPixel": 3, "PlanarConfiguration": 0, "PhotometricInterpretation": photometric, **BYTES,
            "Rows": RGB.shape[0], "Columns": RGB.shape[1]}


def test_colours_are_converted_once(tmp_path):
    pairs = np.concatenate([YBR[:, ::2, :1], YBR[:, 1::2, :1], YBR[:, ::2, 1:]], axis=-1)  # Two Y, one Cb, one Cr.
    for pixels, photometric in ((RGB, "RGB"), (YBR, "YBR_FULL"), (pairs, "YBR_FULL_422")):
        array, info = read(tmp_path, pixels, **colours(photometric))
        np.testing.assert_allclose(array.astype(int), RGB, atol=3)
        assert info.mode == "rgb"


def test_compressed_colours_are_converted_once(tmp_path):
    stream = saved(RGB, "JPEG", quality=95, subsampling=0)  # The colours of edges depend on the decoder otherwise.
    path = write_dicom(tmp_path / "a", RGB, **colours("YBR_FULL_422"))
    dataset = pydicom.dcmread(path)
    dataset.PixelData = encapsulate([stream])
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset.save_as(path)
    (tmp_path / "a.jpg").write_bytes(stream)
    np.testing.assert_allclose(read_image_file(path)[0].astype(int), np.asarray(Image.open(tmp_path / "a.jpg")),
                               atol=4)


def test_colours_of_sixteen_bits_keep_them(tmp_path):
    deep = np.stack([RAMP] * 3, axis=-1)
    array, _ = read(tmp_path, deep, **colours("RGB") | {"BitsAllocated": 16, "BitsStored": 12, "HighBit": 11,
                                                        "Rows": 6, "Columns": 8})
    np.testing.assert_array_equal(array, deep)
    np.testing.assert_array_equal(to_grey8(array)[0], np.rint(RAMP / RAMP.max() * 255))


def test_numbers_with_a_decimal_comma(tmp_path):
    path = write_dicom(tmp_path / "a", RAMP, WindowCenter="1000.5", WindowWidth="500", RescaleSlope="1.2500",
                       PixelSpacing=["0.1430", "0.2430"])
    expected, _ = read_image_file(path)
    for old, new in ((b"1000.5", b"1000,5"), (b"1.2500", b"1,2500"), (b"0.1430\\0.2430", b"0,1430\\0,2430")):
        patched(path, old, new)
    array, info = read_image_file(path)
    np.testing.assert_array_equal(array, expected)
    assert info.spacing == (0.143, 0.243) and info.conversions == ("window",)
    assert np.isnan(number("AUTO")) and np.isnan(number("1,5,2")) and number("-1024,0") == -1024 and number(3) == 3


def test_an_empty_rescale_is_none(tmp_path):
    path = write_dicom(tmp_path / "a", RAMP)
    dataset = pydicom.dcmread(path)
    for slope, intercept, expected in ((None, None, RAMP), (None, 100, RAMP + 100), (2, None, RAMP * 2)):
        dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept
        dataset.save_as(path)
        np.testing.assert_array_equal(read_image_file(path)[0], expected)
    patched(write_dicom(path, RAMP, RescaleSlope="1.2345"), b"1.2345", b"AUTO  ")
    array, info = read_image_file(path)
    np.testing.assert_array_equal(array, RAMP)
    assert info.conversions == ("rescale ignored",)


def test_the_pixels_for_slices_of_a_series(tmp_path):
    # Signed values of 12 bits in the upper bits of 16, padding outside, one slope: what the reader of series calls.
    stored = np.arange(-24, 24, dtype=np.int16).reshape(6, 8) * 40
    stored[0, :4] = -2000
    packed = ((stored.astype(np.int32) << 4) & 0xFFFF | 5).astype(np.uint16)
    path = write_dicom(tmp_path / "a", packed, PixelRepresentation=1, HighBit=15, PixelPaddingValue=-2000,
                       RescaleSlope="2", RescaleIntercept="-1024")
    dataset = read_dataset(path.read_bytes())
    pixels = pixel_array(dataset)
    np.testing.assert_array_equal(pixels, stored)
    np.testing.assert_array_equal(padding_mask(dataset, pixels), stored == -2000)
    values, done = rescale(dataset, pixels)
    np.testing.assert_array_equal(values, stored * 2.0 - 1024)
    assert done == [] and values.dtype == np.float64


@pytest.mark.parametrize("syntax", golden.SYNTAXES)
def test_several_frames(tmp_path, syntax):
    picture = golden.picture(12)
    path = golden.write(tmp_path / "a", 12, syntax)
    dataset = pydicom.dcmread(path)
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        stream = next(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1))
        dataset.PixelData = encapsulate([stream] * 3)
    else:
        dataset.PixelData = dataset.PixelData[:2 * picture.size] * 3
    dataset.NumberOfFrames = 3
    np.testing.assert_array_equal(pixel_array(dataset), np.stack([picture] * 3))


@pytest.mark.parametrize(("uid", "name"), [
    ("1.2.840.10008.1.2.4.110", "JPEG XL Lossless"), ("1.2.840.10008.1.2.4.102", "MPEG-4"),
    ("1.2.840.113619.5.2", "1.2.840.113619.5.2"), ("1.2.840.10008.1.20", "Papyrus"),
    ("1.2.840.10008.1.2.4.201", "High-Throughput JPEG 2000"), ("1.2.3.4", "unknown transfer syntax (1.2.3.4)")])
def test_a_transfer_syntax_that_is_not_read_is_named(tmp_path, uid, name):
    dataset = pydicom.dcmread(write_dicom(tmp_path / "a", RAMP))
    dataset.PixelData = encapsulate([b"\xff\x0a" + b"\1" * 200])
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(uid)
    with pytest.raises(UnreadableImage) as caught:
        pixel_array(dataset)
    assert name in caught.value.reason and uid in caught.value.reason


@pytest.mark.parametrize(("uid", "kind"), [
    ("1.2.840.10008.5.1.4.1.1.88.33", "a structured report"), ("1.2.840.10008.5.1.4.1.1.11.1", "a presentation state"),
    ("1.2.840.10008.5.1.4.1.1.88.67", "a radiation dose report"), ("1.2.840.10008.1.3.10", "the directory of a disc"),
    ("1.2.840.10008.5.1.4.1.1.104.1", "an encapsulated document"), ("1.2.840.10008.5.1.4.1.1.9.1.1", "a waveform"),
    ("1.2.3.4", "a DICOM file without pixels")])
def test_objects_without_an_image_are_called_what_they_are(tmp_path, uid, kind):
    dataset = pydicom.dcmread(write_dicom(tmp_path / "a", RAMP))
    for name in ("PixelData", "BitsAllocated", "Rows", "Columns"):
        delattr(dataset, name)
    if uid == "1.2.840.10008.1.3.10":
        del dataset.SOPClassUID
    else:
        dataset.SOPClassUID = uid
    dataset.file_meta.MediaStorageSOPClassUID = uid
    dataset.save_as(tmp_path / "a")
    with pytest.raises(UnreadableImage, match=kind):
        read_image_file(tmp_path / "a")


@pytest.mark.parametrize("implicit", [True, False])
@pytest.mark.parametrize("dropped", [[], ["SOPClassUID"], ["SOPClassUID", "SOPInstanceUID"]])
def test_files_without_a_preamble_begin_with_any_element(tmp_path, implicit, dropped):
    dataset = pydicom.dcmread(write_dicom(tmp_path / "a", RAMP))
    plain = pydicom.Dataset({one.tag: one for one in dataset if one.keyword not in dropped})
    buffer = pydicom.filebase.DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, implicit
    pydicom.filewriter.write_dataset(buffer, plain)
    (tmp_path / "a").write_bytes(buffer.getvalue())
    np.testing.assert_array_equal(read_image_file(tmp_path / "a")[0], RAMP)


def test_what_is_no_dicom():
    for head in (b"", b"\x08\0", b"\x08\0\0\0" * 40, b"\x02\0\0\0" + bytes(200), bytes(200), b"II*\0" + bytes(200),
                 struct.pack("<HHI", 8, 5, 1 << 30) + bytes(200)):
        assert not is_dicom(head)


def test_deflated_files(tmp_path):
    data = write_dicom(tmp_path / "a", RAMP, RescaleSlope="2").read_bytes()
    (tmp_path / "a").write_bytes(deflated(data))
    np.testing.assert_array_equal(read_image_file(tmp_path / "a")[0], RAMP * 2.0)
    for cut in (-3, -20):
        (tmp_path / "a").write_bytes(deflated(data)[:cut])
        with pytest.raises(UnreadableImage, match="truncated, damaged"):
            read_image_file(tmp_path / "a")


WARN = {"PYTHONWARNINGS": "default::UserWarning"}
MEMORY = """
import json, logging, sys
from benchmarks.speed.memory import peak_bytes
from lgdea_jax.io import UnreadableImage, read_image_file
import pydicom, pylibjpeg, libjpeg, openjpeg, numpy
logging.basicConfig()  # As programs do, and libraries of theirs.
before, found = peak_bytes(), []
for path in sys.argv[1:]:
    try:
        found.append(list(read_image_file(path)[0].shape))
    except UnreadableImage as error:
        found.append(error.reason)
print(json.dumps([found, (peak_bytes() - before) >> 20]))
"""


def peak(*paths):
    """(shapes or reasons, megabytes that reading took) in a process of its own, which writes nothing else."""
    process = subprocess.run([sys.executable, "-c", MEMORY, *map(str, paths)], cwd=ROOT, env=environment() | WARN,
                             capture_output=True, text=True, timeout=120, check=True)
    assert process.stderr == ""
    return json.loads(process.stdout)


def test_a_deflate_bomb_takes_little_memory(tmp_path):
    data = write_dicom(tmp_path / "a", RAMP).read_bytes()
    private = struct.pack("<HH2s2xI", 0x7FE1, 0x1010, b"OB", 1 << 27)  # A private element of 128 MB of zeros.
    (tmp_path / "a").write_bytes(deflated(data, private + bytes(1 << 27)))
    (reason,), megabytes = peak(tmp_path / "a")
    assert "far more than the image that it describes" in reason and megabytes < 64


def test_a_large_radiograph_takes_no_more_than_its_pixels_and_some(tmp_path):
    pixels = np.tile(np.arange(4096, dtype=np.uint16), (2000, 2))  # 31 MB; 62 MB as float32.
    write_dicom(tmp_path / "a", pixels, WindowCenter="2000", WindowWidth="3000", RescaleSlope="2",
                PixelPaddingValue=0, PhotometricInterpretation="MONOCHROME1")
    (shape,), megabytes = peak(tmp_path / "a")
    assert shape == [2000, 8192] and megabytes < 62 * 4  # In float64 at once it was ten times as much.


def test_decoders_do_not_write_to_the_terminal(tmp_path):
    paths = []
    for syntax in ("rle", "jpeg_2000", "jpeg_ls", "jpeg_lossless"):
        paths.append(golden.write(tmp_path / syntax, 12, syntax))
        dataset = pydicom.dcmread(paths[-1])
        stream = next(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1))
        dataset.PixelData = encapsulate([stream[:len(stream) // 4 * 2]])
        dataset.save_as(paths[-1])
    odd = write_dicom(tmp_path / "odd", np.concatenate([RAMP, RAMP[:2]]), Rows=6)  # More bytes than pixels.
    *reasons, shape = peak(*paths, odd)[0]
    assert all("truncated, damaged" in reason for reason in reasons) and shape == [6, 8]
