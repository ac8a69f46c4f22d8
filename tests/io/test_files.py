"""Image files as they come: depths, colours, damage, DICOM."""

import io

import numpy as np
import pytest
from PIL import Image

from lgdea_jax.io import UnreadableImage, read_image_file
from tests.io.dicom import write_dicom

RAMP = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5


def save(path, array, mode=None, **options):
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def test_grey_png(tmp_path):
    array, info = read_image_file(save(tmp_path / "a.png", RAMP))
    np.testing.assert_array_equal(array, RAMP)
    assert (info.file_format, info.mode, info.conversions) == ("png", "grey8", ())


def test_sixteen_bit_png_keeps_its_depth(tmp_path):
    deep = RAMP.astype(np.uint16) * 200 + 7
    array, info = read_image_file(save(tmp_path / "a.png", deep))
    np.testing.assert_array_equal(array, deep)
    assert array.dtype == np.uint16 and info.mode == "grey16"


def test_rgb_rgba_and_palette(tmp_path):
    colour = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]], axis=-1)
    np.testing.assert_array_equal(read_image_file(save(tmp_path / "a.png", colour))[0], colour)
    alpha = np.concatenate([colour, RAMP[..., None]], axis=-1)
    array, info = read_image_file(save(tmp_path / "b.png", alpha))
    np.testing.assert_array_equal(array, alpha)
    assert info.mode == "rgba"
    few = np.where(RAMP[..., None] > 100, np.uint8([250, 10, 10]), np.uint8([0, 0, 90]))
    Image.fromarray(few).quantize(2).save(tmp_path / "c.png")
    array, info = read_image_file(tmp_path / "c.png")
    np.testing.assert_array_equal(array, few)
    assert info.mode == "palette" and info.conversions == ("palette",)


def test_one_bit_png(tmp_path):
    array, info = read_image_file(save(tmp_path / "a.png", np.where(RAMP > 99, 255, 0).astype(np.uint8), "1"))
    np.testing.assert_array_equal(array, np.where(RAMP > 99, 255, 0))
    assert info.conversions == ("1 bit",)


def test_the_content_counts_not_the_name(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(RAMP).save(buffer, "JPEG")
    (tmp_path / "a.png").write_bytes(buffer.getvalue())
    assert read_image_file(tmp_path / "a.png")[1].file_format == "jpeg"


def test_what_cannot_be_read(tmp_path):
    path = save(tmp_path / "a.png", np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8))
    data = path.read_bytes()
    cases = {"missing": None, "is empty": b"", "truncated": data[:len(data) // 2], "truncated or": data[:20],
             "not a PNG": b"hello", "a gzip archive": b"\x1f\x8b" + b"0" * 400}
    for reason, content in cases.items():
        file = tmp_path / "case"
        file.unlink(missing_ok=True)
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(UnreadableImage, match=reason):
            read_image_file(file)
    with pytest.raises(UnreadableImage, match="folder"):
        read_image_file(tmp_path)


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_dicom_rescale_and_inversion(tmp_path, photometric):
    stored = RAMP.astype(np.uint16) * 10
    path = write_dicom(tmp_path / "a", stored, PhotometricInterpretation=photometric, RescaleSlope="2",
                       RescaleIntercept="-100", PixelSpacing=["0.2", "0.3"], ViewPosition="PA")
    array, info = read_image_file(path)
    expected = stored * 2.0 - 100
    if photometric == "MONOCHROME1":
        expected = expected.max() + expected.min() - expected
    np.testing.assert_allclose(array, expected)
    assert array.dtype == np.float32
    assert (info.spacing, info.view, info.modality) == ((0.2, 0.3), "PA", "DX")
    assert ("monochrome1" in info.conversions) == (photometric == "MONOCHROME1")


def test_dicom_window(tmp_path):
    stored = np.arange(0, 4080, 85, dtype=np.uint16).reshape(6, 8)
    path = write_dicom(tmp_path / "a", stored, WindowCenter="2000", WindowWidth="1000")
    array, info = read_image_file(path)
    # DICOM PS3.3 C.11.2.1.2.1: linear between centre - width/2 and centre + width/2, flat outside.
    expected = np.clip(((stored - 1999.5) / 999 + 0.5), 0, 1) * 4095
    np.testing.assert_allclose(array, expected, atol=0.01)
    assert info.conversions == ("window",)


def test_dicom_that_cannot_be_read(tmp_path):
    path = write_dicom(tmp_path / "a", RAMP.astype(np.uint16))
    data = path.read_bytes()
    for cut in (140, len(data) - 30):
        path.write_bytes(data[:cut])
        with pytest.raises(UnreadableImage, match="DICOM"):
            read_image_file(path)
    write_dicom(path, np.zeros((3, 6, 8), np.uint16), NumberOfFrames=3)
    with pytest.raises(UnreadableImage, match="multi-frame"):
        read_image_file(path)


def test_dicom_palette(tmp_path):
    red, green, blue = (np.arange(256, dtype=np.uint16) * 257 // d for d in (1, 2, 4))
    path = write_dicom(
        tmp_path / "a", RAMP, PhotometricInterpretation="PALETTE COLOR", BitsAllocated=8, BitsStored=8, HighBit=7,
        **{f"{c}PaletteColorLookupTableDescriptor": [256, 0, 16] for c in ("Red", "Green", "Blue")},
        **{f"{c}PaletteColorLookupTableData": v.astype("<u2").tobytes()
           for c, v in (("Red", red), ("Green", green), ("Blue", blue))})
    array, info = read_image_file(path)
    np.testing.assert_array_equal(array, np.stack([RAMP, RAMP // 2, RAMP // 4], axis=-1))
    assert info.conversions == ("palette",)


def test_dicom_without_the_extra_names_it(tmp_path, monkeypatch):
    import sys

    from lgdea_jax.errors import UserError

    path = write_dicom(tmp_path / "a", RAMP.astype(np.uint16))
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(UserError, match=r'pip install -e "\.\[dicom\]"'):
        read_image_file(path)
