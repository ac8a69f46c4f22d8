"""DICOM: every lossless encoding gives the same pixels; values pass through the standard's steps; odd headers."""

import hashlib
import io
import math
import warnings

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate, get_frame
from pydicom.sequence import Sequence

from lgdea_jax.io import UnreadableImage, read_image_file
from lgdea_jax.io.codestream import read_codestream
from lgdea_jax.io.dicom import parse_age
from tests.io import golden
from tests.io.dicom import write_dicom

# SHA-256 of the little-endian pixels of `golden.picture`.
HASHES = {
    8: "c316e29cc6e6e04ecfdf81028478c2a6e7eb2aacc5d447acca84c4f470962475",
    12: "27ff433c71d9fd5c724d0eb6292d6d86cc05bd3c266cbddd7bbc58bc474e81f2",
    16: "077e55314668afb34c18a938cda11399e4e3fb2503db45942efdffe2b68b8a38"}
RAMP = np.arange(48, dtype=np.uint16).reshape(6, 8) * 80
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
BYTES = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}


def read(tmp_path, pixels, **elements):
    return read_image_file(write_dicom(tmp_path / "image", pixels, **elements))


@pytest.mark.parametrize("syntax", golden.SYNTAXES)
@pytest.mark.parametrize("bits", golden.BITS)
def test_lossless_encodings_have_golden_pixels(tmp_path, bits, syntax):
    path = golden.write(tmp_path / "a", bits, syntax)
    assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == golden.SYNTAXES[syntax]
    array, info = read_image_file(path)
    assert array.dtype == np.float32 and array.shape == golden.SHAPE
    pixels = array.astype("<u1" if bits == 8 else "<u2")
    assert hashlib.sha256(pixels.tobytes()).hexdigest() == HASHES[bits]
    assert (info.mode, info.conversions) == ("grey8" if bits == 8 else "grey16", ())


@pytest.mark.parametrize("name", ["RLE", "jp2klossless", "jpeg_ls_lossless", "implicit", "bigendian", "expb", "padded"])
def test_other_peoples_files_say_the_same(name):
    # One signed image that pydicom ships in many encodings, made with other programs than ours.
    from pydicom.data import get_testdata_file

    expected = pydicom.dcmread(get_testdata_file("MR_small.dcm", download=False))
    path = get_testdata_file(f"MR_small_{name}.dcm", download=False)
    array, info = read_image_file(path)
    assert info.conversions == ("window",) and info.spacing == (0.3125, 0.3125) and info.sex == "F"
    reference, _ = read_image_file(get_testdata_file("MR_small.dcm", download=False))
    np.testing.assert_array_equal(array, reference)
    # The window of that file, by the standard's formula on the stored values, which nothing here decoded.
    stored = np.frombuffer(expected.PixelData, "<i2").reshape(64, 64)
    centre, width = float(expected.WindowCenter), float(expected.WindowWidth)
    shown = np.clip((stored - (centre - 0.5)) / (width - 1) + 0.5, 0, 1) * 65535
    np.testing.assert_allclose(array, shown, rtol=1e-6)


def test_lossy_jpeg_is_near(tmp_path):
    from tests.fixtures import world

    y, x = np.mgrid[:40, :56]
    picture = (128 + 60 * np.sin(x / 9) + 40 * np.cos(y / 13)).astype(np.uint8)
    world.jpeg_dicom(tmp_path / "a", picture)
    array, _ = read_image_file(tmp_path / "a")
    assert np.abs(array - picture).max() <= 6


def test_signed_values(tmp_path):
    stored = np.arange(-24, 24, dtype=np.int16).reshape(6, 8) * 40
    array, _ = read(tmp_path, stored.view(np.uint16), PixelRepresentation=1, BitsStored=16, HighBit=15)
    np.testing.assert_array_equal(array, stored)
    # Twelve bits: the sign is bit 11, and what stands above it does not count.
    packed = (stored.astype(np.int32) & 0x0FFF | 0xA000).astype(np.uint16)
    array, _ = read(tmp_path, packed, PixelRepresentation=1)
    np.testing.assert_array_equal(array, stored)


def test_overlays_in_unused_bits_are_cleared(tmp_path):
    array, _ = read(tmp_path, RAMP | 0x8000)
    np.testing.assert_array_equal(array, RAMP)
    # Values that stand in the upper bits.
    array, _ = read(tmp_path, (RAMP << 4) | 0x3, HighBit=15)
    np.testing.assert_array_equal(array, RAMP)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_does_not_count(tmp_path, photometric):
    pixels = RAMP + 100
    pixels[:, 0], inside = 4095, np.s_[:, 1:]
    array, info = read(tmp_path, pixels, PixelPaddingValue=4095, PhotometricInterpretation=photometric)
    values = pixels[inside].astype(float)
    expected = values if photometric == "MONOCHROME2" else values.max() + values.min() - values
    np.testing.assert_array_equal(array[inside], expected)
    assert (array[:, 0] == expected.min()).all() and "padding" in info.conversions


def test_padding_ranges_and_signs(tmp_path):
    pixels = RAMP.copy()
    pixels[0, :3] = 4000, 4050, 4095
    array, _ = read(tmp_path, pixels, PixelPaddingValue=4000, PixelPaddingRangeLimit=4095)
    assert (array[0, :3] == array.min()).all() and array.max() == RAMP.max()
    signed = RAMP.astype(np.int16)
    signed[0, 0] = -2000
    array, info = read(tmp_path, signed.view(np.uint16), PixelRepresentation=1, BitsStored=16, HighBit=15,
                       PixelPaddingValue=-2000)
    assert array[0, 0] == array.min() == 80 and "padding" in info.conversions
    # Padding that would leave nothing is none.
    array, info = read(tmp_path, RAMP, PixelPaddingValue=0, PixelPaddingRangeLimit=4095)
    np.testing.assert_array_equal(array, RAMP)
    assert info.conversions == ()


def linear(values, centre, width):
    """PS3.3 C.11.2.1.2.1, as the standard writes it."""
    out = np.empty(values.shape)
    for place, x in np.ndenumerate(values):
        if x <= centre - 0.5 - (width - 1) / 2:
            out[place] = 0
        elif x > centre - 0.5 + (width - 1) / 2:
            out[place] = 4095
        else:
            out[place] = ((x - (centre - 0.5)) / (width - 1) + 0.5) * 4095
    return out


def test_windows(tmp_path):
    array, info = read(tmp_path, RAMP, WindowCenter=["1000", "2000"], WindowWidth=["500", "3000"])
    np.testing.assert_allclose(array, linear(RAMP, 1000, 500), atol=1e-3)  # The first of several.
    assert info.conversions == ("window",)
    array, _ = read(tmp_path, RAMP, WindowCenter="1000", WindowWidth="500", VOILUTFunction="LINEAR_EXACT")
    np.testing.assert_allclose(array, np.clip((RAMP - 1000.0) / 500 + 0.5, 0, 1) * 4095, atol=1e-3)
    array, _ = read(tmp_path, RAMP, WindowCenter="1000", WindowWidth="500", VOILUTFunction="SIGMOID")
    np.testing.assert_allclose(array, 4095 / (1 + np.exp(-4 * (RAMP - 1000.0) / 500)), rtol=1e-5)
    # The window is in values after the rescale.
    array, _ = read(tmp_path, RAMP, WindowCenter="0", WindowWidth="500", RescaleSlope="2", RescaleIntercept="-2000")
    np.testing.assert_allclose(array, linear(RAMP * 2.0 - 2000, 0, 500), atol=1e-3)


@pytest.mark.parametrize("window", [
    {"WindowCenter": "90000", "WindowWidth": "10"}, {"WindowCenter": "1000", "WindowWidth": "0"},
    {"WindowCenter": "1000", "WindowWidth": "-5"}, {"WindowCenter": "1000", "WindowWidth": "500",
                                                    "VOILUTFunction": "CUBIC"}])
def test_windows_that_make_no_sense_are_ignored_and_counted(tmp_path, window):
    array, info = read(tmp_path, RAMP, **window)
    np.testing.assert_array_equal(array, RAMP)
    assert info.conversions == ("window ignored",)
    # A second window that does is taken.
    if "VOILUTFunction" not in window:
        both = {name: [value, good] for (name, value), good in zip(window.items(), ("1000", "500"))}
        array, info = read(tmp_path, RAMP, **both)
        np.testing.assert_allclose(array, linear(RAMP, 1000, 500), atol=1e-3)


def lut(entries, first, bits, values):
    item = pydicom.Dataset()
    item.add_new("LUTDescriptor", "US", [entries, first, bits])
    item.add_new("LUTData", "US", [int(value) for value in values])
    return Sequence([item])


def test_voi_luts(tmp_path):
    # 8-bit output for 12-bit input: indices above 255 must not wrap round.
    table = np.linspace(255, 0, 2000).astype(int)
    array, info = read(tmp_path, RAMP, VOILUTSequence=lut(2000, 500, 8, table), WindowCenter="1", WindowWidth="2")
    np.testing.assert_array_equal(array, [[table[min(max(v - 500, 0), 1999)] for v in row] for row in RAMP.tolist()])
    assert info.conversions == ("voi lut",)
    # One that shows nothing of the image gives way to the window.
    array, info = read(tmp_path, RAMP, VOILUTSequence=lut(4, 60000, 8, [7, 8, 9, 10]), WindowCenter="1000",
                       WindowWidth="500")
    assert info.conversions == ("window",)


def test_luts_that_are_shorter_than_they_state(tmp_path):
    short = lut(0, 0, 16, np.arange(4096)[::-1])  # 0 stands for 65,536.
    array, info = read(tmp_path, RAMP, VOILUTSequence=short, WindowCenter="1000", WindowWidth="500")
    np.testing.assert_allclose(array, linear(RAMP, 1000, 500), atol=1e-3)
    assert info.conversions == ("window",)
    # Without a window it serves if it has all entries that are needed.
    array, info = read(tmp_path, RAMP, VOILUTSequence=short)
    np.testing.assert_array_equal(array, 4095 - RAMP.astype(int))
    assert info.conversions == ("voi lut",)
    array, info = read(tmp_path, RAMP, VOILUTSequence=lut(100, 0, 8, [1, 2, 3]))
    np.testing.assert_array_equal(array, RAMP)
    assert info.conversions == ("window ignored",)
    with pytest.raises(UnreadableImage, match="lookup table is shorter"):
        read(tmp_path, RAMP, ModalityLUTSequence=lut(100, 0, 8, [1, 2, 3]))


def test_modality_luts(tmp_path):
    array, info = read(tmp_path, RAMP, ModalityLUTSequence=lut(4096, 0, 16, np.arange(4096)[::-1] * 3))
    np.testing.assert_array_equal(array, (4095 - RAMP.astype(int)) * 3)
    assert info.conversions == ("modality lut",)


def test_a_slope_of_zero_is_none(tmp_path):
    array, _ = read(tmp_path, RAMP, RescaleSlope="0", RescaleIntercept="5")
    np.testing.assert_array_equal(array, RAMP)


@pytest.mark.parametrize("name", ["SamplesPerPixel", "PixelRepresentation", "PhotometricInterpretation", "BitsStored",
                                  "HighBit"])
def test_missing_tags_with_one_possible_value(tmp_path, name):
    path = write_dicom(tmp_path / "a", RAMP, BitsStored=16, HighBit=15)
    dataset = pydicom.dcmread(path)
    delattr(dataset, name)
    dataset.save_as(path)
    array, info = read_image_file(path)
    np.testing.assert_array_equal(array, RAMP)
    assert info.conversions == ("missing tag",)


@pytest.mark.parametrize(("name", "reason"), [
    ("Rows", "without the image's size"), ("Columns", "without the image's size"), ("PixelData", "without pixels"),
    ("BitsAllocated", "without BitsAllocated")])
def test_missing_tags_without_which_pixels_mean_nothing(tmp_path, name, reason):
    path = write_dicom(tmp_path / "a", RAMP)
    dataset = pydicom.dcmread(path)
    delattr(dataset, name)
    dataset.save_as(path)
    with pytest.raises(UnreadableImage, match=reason):
        read_image_file(path)


def test_a_missing_transfer_syntax(tmp_path):
    path = write_dicom(tmp_path / "a", RAMP)
    dataset = pydicom.dcmread(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        del dataset.file_meta.TransferSyntaxUID
        dataset.save_as(path, implicit_vr=False, little_endian=True, enforce_file_format=False)
    data = path.read_bytes()
    if data[128:132] != b"DICM":
        path.write_bytes(b"\0" * 128 + b"DICM" + data)
    array, info = read_image_file(path)
    np.testing.assert_array_equal(array, RAMP)
    assert info.conversions == ("missing tag",)


@pytest.mark.parametrize("meta", [True, False])
def test_a_file_without_the_preamble(tmp_path, meta):
    path = write_dicom(tmp_path / "a", RAMP)
    data = path.read_bytes()[132:]
    if not meta:  # What was usual before files had a header: group 2 is not there at all.
        data = data[12 + int.from_bytes(data[8:12], "little"):]
    path.write_bytes(data)
    np.testing.assert_array_equal(read_image_file(path)[0], RAMP)


def colour(**elements):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return pixels, {"SamplesPerPixel": 3, "PlanarConfiguration": 0, "PhotometricInterpretation": "RGB", "Rows": 6,
                    "Columns": 8, **BYTES, **elements}


@pytest.mark.parametrize("uid", [SECONDARY_CAPTURE, f"{SECONDARY_CAPTURE}.4"])
def test_colour_secondary_captures_are_refused(tmp_path, uid):
    pixels, elements = colour(SOPClassUID=uid)
    with pytest.raises(UnreadableImage, match="a colour secondary capture, not a radiograph"):
        read(tmp_path, pixels, **elements)
    # A grey one is how some archives keep radiographs.
    array, _ = read(tmp_path, RAMP, SOPClassUID=uid)
    np.testing.assert_array_equal(array, RAMP)


def test_a_radiograph_stored_in_colours(tmp_path):
    pixels, elements = colour()
    array, info = read(tmp_path, pixels, **elements)
    np.testing.assert_array_equal(array, pixels)
    assert info.mode == "rgb"


def test_headers_that_ask_for_too_much(tmp_path):
    with pytest.raises(UnreadableImage, match="more pixels than can be trusted"):
        read(tmp_path, RAMP, Rows=65535, Columns=65535)
    with pytest.raises(UnreadableImage, match="more bits than it allocates"):
        read(tmp_path, RAMP, BitsStored=17)
    with pytest.raises(UnreadableImage, match="photometric interpretation is unknown"):
        read(tmp_path, RAMP, PhotometricInterpretation="MONOCHROME3")


@pytest.mark.parametrize("syntax", ["jpeg_lossless", "jpeg_ls", "jpeg_2000", "htj2k"])
def test_codestreams_are_looked_at_before_they_are_decoded(tmp_path, syntax, monkeypatch):
    path = golden.write(tmp_path / "a", 12, syntax)
    dataset = pydicom.dcmread(path)
    stream = get_frame(dataset.PixelData, 0, number_of_frames=1)
    header = read_codestream(stream)
    assert (header.rows, header.columns, header.samples, header.bits, header.tiles) == (67, 45, 1, 12, 1)
    dataset.Rows = 68
    dataset.save_as(path)
    monkeypatch.setattr(pydicom.Dataset, "pixel_array", property(lambda self: pytest.fail("it was decoded")))
    with pytest.raises(UnreadableImage, match="not the image that it describes"):
        read_image_file(path)
    dataset.PixelData = encapsulate([b"not a codestream"])
    dataset.save_as(path)
    with pytest.raises(UnreadableImage, match="no codestream"):
        read_image_file(path)
    assert read_codestream(b"") is None and read_codestream(b"\xff\xd8\xff") is None


def test_what_a_header_says_about_the_subject(tmp_path):
    _, info = read(tmp_path, RAMP, PatientSex="F", PatientAge="058Y", ViewPosition="ap", Modality="CR",
                   ImagerPixelSpacing=["0.1", "0.2"])
    assert (info.sex, info.age, info.view, info.modality, info.spacing) == ("F", 58, "AP", "CR", (0.1, 0.2))
    _, info = read(tmp_path, RAMP, PatientSex="O", PixelSpacing=["0", "0"])
    assert info.sex == "" and math.isnan(info.age) and info.spacing == (0, 0)


@pytest.mark.parametrize(("text", "years"), [("058Y", 58), ("51", 51), ("006M", 0.5), ("010W", 10 / 52.18),
                                             ("365D", 365 / 365.25), ("411Y", None), ("", None), ("old", None)])
def test_ages(text, years):
    found = parse_age(text)
    assert math.isnan(found) if years is None else found == pytest.approx(years)


def test_damaged_descriptions_do_not_spoil_good_pixels(tmp_path):
    path = write_dicom(tmp_path / "a", RAMP, PixelSpacing=["0.3125", "0.3125"], PatientAge="058Y")
    path.write_bytes(path.read_bytes().replace(b"0.3125\\", b"0.3x25\\").replace(b"058Y", b"\xff8YY"))
    array, info = read_image_file(path)
    np.testing.assert_array_equal(array, RAMP)
    assert info.spacing == (0, 0) and math.isnan(info.age)


@pytest.mark.parametrize("bits", [12, 16])
def test_plain_jpeg_of_more_than_eight_bits(tmp_path, bits):
    path = tmp_path / "a.jpg"
    path.write_bytes(golden.encode_jpeg_lossless(golden.picture(bits), bits))
    array, info = read_image_file(path)
    np.testing.assert_array_equal(array, golden.picture(bits))
    assert array.dtype == np.uint16 and (info.file_format, info.mode) == ("jpeg", "grey16")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UnreadableImage, match="truncated or damaged"):
        read_image_file(path)


def test_the_bytes_may_come_from_anywhere(tmp_path):
    from lgdea_jax.io.files import read_image_bytes

    buffer = io.BytesIO()
    buffer.write(write_dicom(tmp_path / "a", RAMP).read_bytes())
    np.testing.assert_array_equal(read_image_bytes(buffer.getvalue())[0], RAMP)
