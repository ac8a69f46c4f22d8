"""DICOM headers that say less, more or something else than the pixels: read where one reading is left, else refused."""

import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRBigEndian, JPEG2000Lossless

from lgdea_jax.io import UnreadableImage, read_image_file
from lgdea_jax.io.opening import file_kind
from tests.io import golden
from tests.io.dicom import write_dicom

DEEP = golden.picture(12)
RAMP = np.broadcast_to(np.arange(0, 4096, 64, dtype=np.uint16), (40, 64))


def test_names_of_colours_in_lower_case(tmp_path):
    found, info = read_image_file(write_dicom(tmp_path / "a", DEEP, PhotometricInterpretation="monochrome1"))
    np.testing.assert_array_equal(found, DEEP.max() + DEEP.min() - DEEP.astype(np.float32))
    assert "monochrome1" in info.conversions


@pytest.mark.parametrize("kind", ["HSV", "XYB", "CMYK"])
def test_colours_of_an_unknown_kind(tmp_path, kind):
    path = write_dicom(tmp_path / "a", DEEP[:, :, None].repeat(3, 2) >> 4, BitsAllocated=8, BitsStored=8, HighBit=7)
    dataset = pydicom.dcmread(path)
    dataset.Rows, dataset.Columns = DEEP.shape
    dataset.SamplesPerPixel, dataset.PlanarConfiguration, dataset.PhotometricInterpretation = 3, 0, kind
    dataset.save_as(path)
    with pytest.raises(UnreadableImage, match="photometric interpretation is unknown"):
        read_image_file(path)
    dataset.PhotometricInterpretation = "RGB"
    del dataset.PlanarConfiguration  # One value is usual.
    dataset.save_as(path)
    found, info = read_image_file(path)
    np.testing.assert_array_equal(found[..., 1], DEEP >> 4)
    assert "missing tag" in info.conversions


def test_no_frame_is_one(tmp_path):
    np.testing.assert_array_equal(read_image_file(write_dicom(tmp_path / "a", DEEP, NumberOfFrames=0))[0], DEEP)


def test_values_that_need_more_bits_than_stated(tmp_path):
    with pytest.raises(UnreadableImage, match=r"need more bits than it states \(10\)"):
        read_image_file(write_dicom(tmp_path / "a", RAMP, BitsStored=10, HighBit=9))
    letters = np.zeros(RAMP.shape, np.uint16)
    letters[10:20, 10:20] = 1 << 12
    for unused in (letters, np.full_like(letters, 0xA000)):  # An overlay, and rubbish.
        np.testing.assert_array_equal(read_image_file(write_dicom(tmp_path / "a", RAMP | unused))[0], RAMP)
    # A stream of 12 bits cannot be that of 8.
    dataset = pydicom.dcmread(write_dicom(tmp_path / "a", DEEP))
    dataset.compress(JPEG2000Lossless)
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.save_as(tmp_path / "a")
    with pytest.raises(UnreadableImage, match="compressed pixels are not the image"):
        read_image_file(tmp_path / "a")


@pytest.mark.parametrize("name", ["VOILUTSequence", "ModalityLUTSequence"])
@pytest.mark.parametrize("bits", [12, 8])
def test_tables_in_big_endian_files(tmp_path, name, bits):
    curve = ((np.arange(4096) / 4095) ** 2 * ((1 << bits) - 1)).astype(np.uint16 if bits > 8 else np.uint8)
    item = pydicom.Dataset()
    item.LUTDescriptor = [4096, 0, bits]
    words = np.frombuffer(curve.tobytes(), "<u2")
    item.add_new("LUTData", "OW", words.astype(">u2").tobytes())
    path = write_dicom(tmp_path / "a", DEEP)
    dataset = pydicom.dcmread(path)
    setattr(dataset, name, [item])
    dataset.PixelData = DEEP.astype(">u2").tobytes()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    pydicom.dcmwrite(path, dataset, implicit_vr=False, little_endian=False, force_encoding=True)
    np.testing.assert_array_equal(read_image_file(path)[0], curve[DEEP])


def test_pixels_that_end_early_are_counted(tmp_path):
    path = write_dicom(tmp_path / "a", DEEP, Rows=2 * DEEP.shape[0])
    dataset = pydicom.dcmread(path)
    dataset.Rows = 2 * DEEP.shape[0]
    dataset.save_as(path)
    with pytest.raises(UnreadableImage, match=rf"\({DEEP.nbytes + DEEP.nbytes % 2:,} of {2 * DEEP.nbytes:,} bytes\)"):
        read_image_file(path)


@pytest.mark.parametrize(("start", "kind"), [
    (b"\0\x05\x16\x07\0\2\0\0Mac OS X", "macOS"), (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an older Office"),
    (b"MATLAB 5.0 MAT-file", "MATLAB"), (b"SQLite format 3\0", "SQLite"), (b"\x89PNG\n\x1a\n", "transferred as text"),
    (b"\n\x89PNG\r\n\x1a\n", "behind other bytes")])
def test_more_files_are_called_what_they_are(start, kind):
    assert kind in file_kind(start + bytes(range(256)))
