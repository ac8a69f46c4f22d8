"""DICOM series: one volume of all slices, or one reason; nothing in a folder is passed over in silence."""

import gzip
import os
import shutil

import numpy as np
import pydicom
import pytest

from lgdea_jax.io import UnreadableImage, read_volume
from tests.io.volumes.writers import SPACING, chest, repairs, setting, write_enhanced, write_series


def test_dicom_series(tmp_path):
    write_series(tmp_path / "s", chest(), SPACING)
    (tmp_path / "s" / "readme.txt").write_text("x" * 200)
    read, info = read_volume(tmp_path / "s")
    np.testing.assert_array_equal(read, chest())
    np.testing.assert_allclose(info.spacing, SPACING)
    assert (info.sex, info.age, repairs(info)) == ("F", 61.0, ("beside: other files",))
    np.testing.assert_allclose(info.affine @ [0, 0, 0, 1], [-10, 20, 100, 1])  # LPS to RAS.
    sitk = pytest.importorskip("SimpleITK")
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "s")))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.DICOMOrient(reader.Execute(), "LPS")), read)


def test_dicom_series_lying_on_its_face(tmp_path):
    """A prone patient's slices are turned by half a circle; the reader turns them back."""
    write_series(tmp_path / "s", chest()[:, ::-1, ::-1], SPACING, orientation=(-1, 0, 0, 0, -1, 0))
    np.testing.assert_array_equal(read_volume(tmp_path / "s")[0], chest())


@pytest.mark.parametrize("change, reason", [
    (setting(SeriesInstanceUID=lambda k: f"1.2.{k % 2}"), "mixes several series"),
    (setting(PixelSpacing=None), r"without a voxel spacing \(PixelSpacing\)"),
    (setting(PixelSpacing=lambda k: [3.0, 2.0 + k]), "mixes slices"),
    (setting(ImagePositionPatient=None), "without a position"),
    (setting(ImagePositionPatient=lambda k: [0, 0, 5.0 * (k // 2)]), "two slices at one position"),
    (setting(ImagePositionPatient=lambda k: [0, 0, 5.0 * k + (k > 3) * 4]), "lacks slices"),
    (setting(ImagePositionPatient=lambda k: [0, 2.0 * k, 5.0 * k]), "sheared"),
    (setting(Modality="MR"), "not CT"), (setting(RescaleSlope=0), "a slope of 0"),
    (lambda one, k: k != 4, "lacks slices"), (lambda one, k: k == 4, "one slice"),
    (lambda one, k: False, "no DICOM files"),
    (setting(PixelData=lambda k: bytes(10)), "truncated, damaged")])
def test_series_that_are_refused(tmp_path, change, reason):
    write_series(tmp_path / "s", chest(), SPACING, change=change)
    with pytest.raises(UnreadableImage, match=reason):
        read_volume(tmp_path / "s")


def test_one_slice_is_no_volume(tmp_path):
    write_series(tmp_path / "s", chest(), SPACING)
    with pytest.raises(UnreadableImage, match="name the folder"):
        read_volume(next((tmp_path / "s").iterdir()))




def _paths(folder):
    """The files of a series from the feet to the head."""
    return sorted(folder.iterdir(), key=lambda path: -int(pydicom.dcmread(path).InstanceNumber))


def _link(path):
    path.unlink()
    path.symlink_to("../.git/annex/objects/XX")


def _pipe(path):
    path.unlink()
    os.mkfifo(path)


def _pack(path):
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()


@pytest.mark.parametrize("damage, reason", [
    (lambda path: path.write_bytes(b""), "4 empty"),
    (lambda path: path.write_bytes(bytes(path.stat().st_size)), "4 a file filled with zeros"),
    (_link, "4 a link to a file that is missing"), (_pack, "4 a gzipped DICOM file"), (_pipe, "4 a named pipe"),
    (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "4 a Git LFS pointer"),
    (lambda path: path.write_text("/annex/objects/MD5E-s9--0\n"), "4 a git-annex pointer"),
    (lambda path: path.write_text("<!DOCTYPE html><title>404</title>"), "4 a web page"),
    (lambda path: path.write_bytes(bytes(range(256)) * 9), "4 of an unknown kind")])
def test_half_a_series_is_no_series(tmp_path, damage, reason):
    """The upper slices are there but hold nothing: without them it would be a shorter chest."""
    write_series(tmp_path / "s", chest(), SPACING)
    for path in _paths(tmp_path / "s")[4:]:
        damage(path)
    with pytest.raises(UnreadableImage, match=f"incomplete: of 8 files 4 .*{reason}"):
        read_volume(tmp_path / "s")


@pytest.mark.parametrize("share", [0.02, 0.2, 0.6, 0.999])
def test_one_slice_that_ends_early(tmp_path, share):
    write_series(tmp_path / "s", chest((8, 40, 40)), SPACING)
    path = _paths(tmp_path / "s")[3]
    path.write_bytes(path.read_bytes()[:int(share * path.stat().st_size)])
    with pytest.raises(UnreadableImage):
        read_volume(tmp_path / "s")


@pytest.mark.parametrize("name, close", [("JPEGLSLossless", True), ("JPEG2000Lossless", False)])
def test_one_slice_whose_codestream_is_cut(tmp_path, name, close):
    def change(one, k):
        one.compress(getattr(pydicom.uid, name))
        if k == 3:
            stream = pydicom.encaps.get_frame(one.PixelData, 0, number_of_frames=1)
            cut = stream[:len(stream) * 2 // 3] + (b"\xff\xd9" if close else b"")
            one.PixelData = pydicom.encaps.encapsulate([cut])

    pytest.importorskip("jpeg_ls" if close else "openjpeg")
    write_series(tmp_path / "s", chest((8, 40, 40)), SPACING, change=change)
    with pytest.raises(UnreadableImage, match="truncated, damaged"):
        read_volume(tmp_path / "s")


def _without_preamble(folder):
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[132:])


def _without_meta(folder):
    """Slices that begin with group 8 in implicit little endian, as some archives export them."""
    for path in folder.iterdir():
        buffer = pydicom.filebase.DicomBytesIO()
        buffer.is_little_endian, buffer.is_implicit_VR = True, True
        pydicom.filewriter.write_dataset(buffer, pydicom.dcmread(path))
        path.write_bytes(buffer.getvalue())


def _in_subfolders(folder):
    for i, path in enumerate(sorted(folder.iterdir())):
        (folder / f"part{i % 3}").mkdir(exist_ok=True)
        path.rename(folder / f"part{i % 3}" / path.name)


def _with_copy(folder):
    shutil.copy(folder / "0.dcm", folder / "0 (1).dcm")


def _beside(storage, **elements):
    def put(folder):
        one = pydicom.dcmread(folder / "0.dcm")
        one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = storage
        one.SOPInstanceUID = one.SeriesInstanceUID = "1.2.3"
        for name, value in elements.items():
            if value is None:
                delattr(one, name)
            else:
                setattr(one, name, value)
        one.save_as(folder / "other.dcm")

    return put


_CT = pydicom.uid.CTImageStorage
_STORAGE = "1.2.840.10008.5.1.4.1.1."


@pytest.mark.parametrize("change, counted", [
    (_without_preamble, ()), (_without_meta, ()), (_in_subfolders, ()), (_with_copy, ("slice twice",)),
    (lambda folder: (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM" + b"junk"),
     ("beside: the directory of a disc, a DICOMDIR",)),
    (_beside("1.2.840.10008.1.3.10", PixelData=None), ("beside: the directory of a disc, a DICOMDIR",)),
    (_beside(_STORAGE + "11.1", PixelData=None, Modality="PR"), ("beside: a presentation state",)),
    (_beside(_STORAGE + "88.67", PixelData=None, Modality="SR"), ("beside: a radiation dose report",)),
    (_beside(_STORAGE + "7", SamplesPerPixel=3, PhotometricInterpretation="RGB", ImagePositionPatient=None),
     ("beside: a secondary capture",)),
    (_beside(_CT, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), ("beside: a localizer",)),
    (_beside(_CT, ImageOrientationPatient=[1, 0, 0, 0, 0, -1]), ("beside: a localizer",)),
    (_beside(_CT, ImagePositionPatient=None), ("beside: an image without a position",)),
    (lambda folder: (folder / "notes").write_text("Heads up: the second series is better."), ("beside: other files",)),
    (lambda folder: (folder / "v.nii.gz").write_bytes(gzip.compress(bytes(400))), ("beside: other files",)),
    (lambda folder: (folder / "._0.dcm").write_bytes(b"\0\x05\x16\x07" + bytes(99)), ("beside: other files",)),
    (lambda folder: (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1"), ("beside: other files",))])
def test_what_may_lie_beside_slices(tmp_path, change, counted):
    write_series(tmp_path / "s", chest(), SPACING)
    change(tmp_path / "s")
    read, info = read_volume(tmp_path / "s")
    np.testing.assert_array_equal(read, chest())
    np.testing.assert_allclose(info.spacing, SPACING)
    assert repairs(info) == counted


def test_a_file_named_as_a_slice(tmp_path):
    """A text would be harmless by itself; here it stands where a slice was."""
    write_series(tmp_path / "s", chest(), SPACING)
    for path in _paths(tmp_path / "s"):
        path.rename(path.with_name(f"IM{path.stem}"))
    (tmp_path / "s" / "README").write_text("Slices of one patient.")
    np.testing.assert_array_equal(read_volume(tmp_path / "s")[0], chest())
    (tmp_path / "s" / "IM8").write_text("Access denied.")
    with pytest.raises(UnreadableImage, match="1 not DICOM"):
        read_volume(tmp_path / "s")


def test_another_series_in_a_subfolder(tmp_path):
    write_series(tmp_path / "s", chest(), SPACING)
    write_series(tmp_path / "s" / "t", chest(seed=1), SPACING)
    read, info = read_volume(tmp_path / "s")
    np.testing.assert_array_equal(read, chest())
    assert repairs(info) == ("beside: another series in a subfolder",)
    for path in list((tmp_path / "s").glob("*.dcm")):
        (tmp_path / "s" / "u").mkdir(exist_ok=True)
        path.rename(tmp_path / "s" / "u" / path.name)
    with pytest.raises(UnreadableImage, match="mixes several series"):
        read_volume(tmp_path / "s")


def test_a_folder_that_is_linked_into_itself(tmp_path):
    write_series(tmp_path / "s", chest(), SPACING)
    (tmp_path / "s" / "again").symlink_to(".", target_is_directory=True)
    np.testing.assert_array_equal(read_volume(tmp_path / "s")[0], chest())


def test_two_slices_of_one_name_with_different_pixels(tmp_path):
    write_series(tmp_path / "s", chest(), SPACING)
    one = pydicom.dcmread(tmp_path / "s" / "0.dcm")
    one.PixelData = bytes(2) + one.PixelData[2:]
    one.save_as(tmp_path / "s" / "copy.dcm")
    with pytest.raises(UnreadableImage, match="different pixels"):
        read_volume(tmp_path / "s")


@pytest.mark.parametrize("elements", [
    {"AcquisitionNumber": 2}, {"ConvolutionKernel": "B70f"}, {"SliceThickness": 1.0}, {}])
def test_two_reconstructions_between_each_other(tmp_path, elements):
    """Without any attribute that differs, it is the instance numbers that tell."""
    first = {"AcquisitionNumber": 1, "ConvolutionKernel": "B30f", "SliceThickness": 5.0}
    write_series(tmp_path / "s", chest(), SPACING, change=setting(**first))
    write_series(tmp_path / "t", chest(), SPACING, change=setting(
        **first | elements, SeriesInstanceUID=pydicom.dcmread(tmp_path / "s" / "0.dcm").SeriesInstanceUID,
        ImagePositionPatient=lambda k: [10.0, -20.0, 102.5 + 5 * k], InstanceNumber=lambda k: 16 - k))
    for path in (tmp_path / "t").iterdir():
        path.rename(tmp_path / "s" / f"t{path.name}")
    with pytest.raises(UnreadableImage, match="several acquisitions or reconstructions"):
        read_volume(tmp_path / "s")


@pytest.mark.parametrize("elements", [
    {"AcquisitionNumber": lambda k: k}, {"AcquisitionNumber": lambda k: k // 4},
    {"InstanceNumber": lambda k: (k * 5) % 8}, {"InstanceNumber": lambda k: 0},
    {"InstanceNumber": lambda k: 3 * k + 1}])
def test_one_reconstruction_however_it_is_numbered(tmp_path, elements):
    write_series(tmp_path / "s", chest(), SPACING, change=setting(**elements))
    read, info = read_volume(tmp_path / "s")
    np.testing.assert_array_equal(read, chest())
    assert repairs(info) == ()


@pytest.mark.parametrize("step, stated, outcome", [
    (5.0, lambda k: 8, ()), (5.0, lambda k: 9, "8 of the 9 slices .* incomplete"), (5.0, lambda k: 4, ()),
    (18.0, lambda k: 24, ("fewer slices than acquired",))])
def test_the_number_of_acquired_images(tmp_path, step, stated, outcome):
    volume = chest((8 if step == 5 else 12, 10, 12))
    write_series(tmp_path / "s", volume, (step, *SPACING[1:]), change=setting(ImagesInAcquisition=stated))
    if isinstance(outcome, str):
        with pytest.raises(UnreadableImage, match=outcome):
            read_volume(tmp_path / "s")
    else:
        read, info = read_volume(tmp_path / "s")
        np.testing.assert_array_equal(read, volume)
        assert repairs(info) == outcome


def test_a_series_for_every_slice(tmp_path):
    write_series(tmp_path / "s", chest(), SPACING, change=setting(SeriesInstanceUID=lambda k: f"1.2.{k}"))
    read, info = read_volume(tmp_path / "s")
    np.testing.assert_array_equal(read, chest())
    assert repairs(info) == ("a series for every slice",)


def test_decimal_commas(tmp_path):
    """Raw bytes are changed: pydicom would not write them."""
    write_series(tmp_path / "s", chest(), SPACING, change=setting(
        PixelSpacing=["3.000", "2.000"], RescaleIntercept="-1024.00"))
    for path in (tmp_path / "s").iterdir():
        data = path.read_bytes()
        assert data.count(b"3.000\\2.000") == data.count(b"-1024.00") == 1
        path.write_bytes(data.replace(b"3.000\\2.000", b"3,000\\2,000").replace(b"-1024.00", b"-1024,00"))
    read, info = read_volume(tmp_path / "s")
    np.testing.assert_array_equal(read, chest())
    np.testing.assert_allclose(info.spacing, SPACING)
    assert repairs(info) == ("decimal comma",)


def test_slices_that_are_hounsfield_units_without_a_rescale(tmp_path):
    def change(one, k):
        one.RescaleSlope = one.RescaleIntercept = None
        one.PixelRepresentation, one.BitsStored, one.HighBit = 1, 16, 15
        one.PixelData = (np.frombuffer(one.PixelData, "<u2").astype("<i2") - 1024).tobytes()

    write_series(tmp_path / "s", chest(), SPACING, change=change)
    np.testing.assert_array_equal(read_volume(tmp_path / "s")[0], chest())


def test_high_bit(tmp_path):
    """12 bits in the upper part of 16."""
    def change(one, k):
        one.PixelData = (np.frombuffer(one.PixelData, "<u2") << 4).tobytes()
        one.HighBit = 15

    write_series(tmp_path / "s", chest(), SPACING, change=change)
    np.testing.assert_array_equal(read_volume(tmp_path / "s")[0], chest())


@pytest.mark.parametrize("value", [0, -2000, 63536, 3000])
def test_padding_is_air_and_the_same_value_inside_is_not(tmp_path, value):
    """Hounsfield units with a padding value of 0 would otherwise have water around the body, or air in it."""
    signed = value - (65536 if value > 32767 else 0)
    volume = chest((8, 12, 14))
    volume[volume == 0] = 1
    volume[:, 5, 5] = signed if signed > -1024 else 7  # Inside.
    stored = volume.copy()
    stored[:, :2], stored[:, :, -2:] = signed, signed

    def change(one, k):
        one.PixelRepresentation, one.BitsStored, one.HighBit = 1, 16, 15
        one.RescaleIntercept = 0
        one.PixelData = stored[k].astype("<i2").tobytes()
        one.add_new(0x00280120, "US" if value > 32767 else "SS", value)

    write_series(tmp_path / "s", volume, SPACING, change=change)
    read, info = read_volume(tmp_path / "s")
    volume[:, :2], volume[:, :, -2:] = -1024, -1024
    np.testing.assert_array_equal(read, volume)
    assert repairs(info) == ("padding",)


@pytest.mark.parametrize("syntax", ["", "RLELossless", "JPEG2000Lossless"])
def test_enhanced_objects(tmp_path, syntax):
    """One file of many frames, alone, in a folder, or as two halves."""
    if syntax.startswith("JPEG"):
        pytest.importorskip("openjpeg")

    def change(one):
        if syntax:
            one.compress(getattr(pydicom.uid, syntax))

    volume = chest((8, 40, 40))
    write_enhanced(tmp_path / "one.dcm", volume, SPACING, change=change)
    (tmp_path / "s").mkdir()
    shutil.copy(tmp_path / "one.dcm", tmp_path / "s")
    (tmp_path / "t").mkdir()

    def lift(one):
        one.SOPInstanceUID = "1.2.3"
        for k, frame in enumerate(one.PerFrameFunctionalGroupsSequence):
            frame.PlanePositionSequence[0].ImagePositionPatient = [10.0, -20.0, 120.0 + 5 * k]

    write_enhanced(tmp_path / "t" / "a.dcm", volume[:4], SPACING)
    write_enhanced(tmp_path / "t" / "b.dcm", volume[4:], SPACING, change=lift)
    for path in (tmp_path / "one.dcm", tmp_path / "s", tmp_path / "t"):
        read, info = read_volume(path)
        np.testing.assert_array_equal(read, volume)
        np.testing.assert_allclose(info.spacing, SPACING)
        np.testing.assert_allclose(info.affine @ [0, 0, 0, 1], [-10, 20, 100, 1])
        assert repairs(info) == ()


def test_an_enhanced_object_that_ends_early(tmp_path):
    write_enhanced(tmp_path / "one.dcm", chest(), SPACING)
    data = (tmp_path / "one.dcm").read_bytes()
    for cut in (400, len(data) - 1000, len(data) - 2):
        (tmp_path / "one.dcm").write_bytes(data[:cut])
        with pytest.raises(UnreadableImage):
            read_volume(tmp_path / "one.dcm")
