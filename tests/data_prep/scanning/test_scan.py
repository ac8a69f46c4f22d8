"""data_prep.scan: everything in a folder is accounted for, by the build's own code, and nobody is named unasked."""

import csv
import os
import tracemalloc

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from configs.data import table, table_ct
from data_prep import scan
from data_prep.build import build
from data_prep.scanning.find import find_items
from data_prep.scanning.inventory import Summary, _volume_thumbnail, read_items
from lgdea_jax import cli
from lgdea_jax.errors import UserError
from tests.data_prep.shards import tables
from tests.io.dicom import write_dicom
from tests.pages.checks import check_html

SECRETS = {"PatientName": "Muster^Erika", "PatientID": "PID-4711", "StudyInstanceUID": "1.2.826.1.77",
           "SeriesInstanceUID": "1.2.826.1.77.5", "PatientBirthDate": "19500203"}


def chest(shape=(6, 20, 24)):
    """Air around soft tissue, in HU."""
    volume = np.full(shape, -1000, np.int16)
    volume[:, 4:-4, 4:-4] = 40
    volume[:, 8:12, 8:12] = -850
    return volume


def write_slices(folder, volume, series, *, first=0, **elements):
    """A CT series, a file per slice."""
    folder.mkdir(parents=True, exist_ok=True)
    for k, rows in enumerate(volume):
        one = pydicom.dataset.Dataset()
        one.file_meta = pydicom.dataset.FileMetaDataset()
        one.file_meta.TransferSyntaxUID, one.file_meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
        one.SOPClassUID, one.SeriesInstanceUID, one.Modality = CTImageStorage, series, "CT"
        one.SOPInstanceUID = generate_uid(entropy_srcs=[series, str(first + k)])
        one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
        one.InstanceNumber, (one.Rows, one.Columns) = first + k + 1, rows.shape
        one.ImageOrientationPatient, one.PixelSpacing = [1, 0, 0, 0, 1, 0], [2.0, 2.0]
        one.ImagePositionPatient = [0.0, 0.0, 3.0 * (first + k)]
        one.RescaleSlope, one.RescaleIntercept = 1, -1024
        one.SamplesPerPixel, one.PhotometricInterpretation, one.PixelRepresentation = 1, "MONOCHROME2", 0
        one.BitsAllocated, one.BitsStored, one.HighBit = 16, 12, 11
        for name, value in elements.items():
            setattr(one, name, value)
        one.PixelData = (rows + 1024).astype("<u2").tobytes()
        one.save_as(folder / f"{first + k}.dcm", enforce_file_format=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Something of everything."""
    root = tmp_path_factory.mktemp("scan") / "in"
    (root / "films").mkdir(parents=True)
    tables.image(root / "films", "a.png", (50, 40))
    tables.image(root / "films", "deep.png", (40, 30), mode="I;16")
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(root / "films" / "colour.JPG")
    (root / "films" / "half.png").write_bytes((root / "films" / "a.png").read_bytes()[:300])
    (root / "films" / "empty.dcm").write_bytes(b"")
    (root / "films" / "dead.png").symlink_to("nowhere.png")
    pixels = np.random.default_rng(0).integers(0, 4096, (30, 20))
    write_dicom(root / "films" / "IM0001", pixels, ViewPosition="AP", **SECRETS)
    write_dicom(root / "films" / "IM0002", pixels, ViewPosition="LL", **SECRETS)
    write_slices(root / "ct" / "series", chest(), "1.2.3", PatientID="other")
    affine = np.diag([-2.0, -2.0, 3.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(chest().transpose(2, 1, 0), affine), root / "ct" / "v.nii.gz")
    mask = (chest() > 0).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(mask.transpose(2, 1, 0), affine), root / "ct" / "mask.nii")
    np.savez(root / "ct" / "v.npz", ct=chest())
    (root / "notes.txt").write_text("x" * 400)
    (root / "README").write_text("x")
    (root / "loop").symlink_to(root)
    os.mkfifo(root / "pipe")
    state = write_dicom(root / "films" / "PR", pixels, **SECRETS)
    dataset = pydicom.dcmread(state)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.11.1"
    del dataset.PixelData, dataset.Rows, dataset.Columns
    dataset.save_as(state)
    return root


def scanned(folder, tmp_path, *flags):
    """(exit status, rows by path, text of the inventory, the page)."""
    out, html = tmp_path / "inventory.csv", tmp_path / "page.html"
    status = scan.main([str(folder), f"--out={out}", f"--html={html}", *flags])
    with open(out, encoding="utf-8", newline="") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    return status, rows, out.read_text(), html.read_text()


def test_everything_is_accounted_for(folder, tmp_path, capsys):
    status, rows, _, page = scanned(folder, tmp_path)
    assert status == cli.PARTIAL
    found = {path: (row["kind"], row["format"], row["status"], row["files"]) for path, row in rows.items()}
    assert found == {
        "README": ("other", "unknown", "other", "1"), "notes.txt": ("other", "txt", "other", "1"),
        "pipe": ("other", "no regular file", "other", "1"),
        "films/PR": ("other", "DICOM: Grayscale Softcopy Presentation State", "other", "1"),
        "films/a.png": ("image", "png", "read", "1"), "films/deep.png": ("image", "png", "read", "1"),
        "films/colour.JPG": ("image", "jpeg", "read", "1"), "films/half.png": ("image", "png", "refused", "1"),
        "films/empty.dcm": ("image", "dicom", "refused", "1"), "films/dead.png": ("image", "png", "refused", "1"),
        "films/IM0001": ("image", "dicom", "read", "1"), "films/IM0002": ("image", "dicom", "read", "1"),
        "ct/series": ("volume", "dicom", "read", "6"), "ct/v.nii.gz": ("volume", "nifti", "read", "1"),
        "ct/mask.nii": ("volume", "nifti", "refused", "1"), "ct/v.npz": ("volume", "npz", "refused", "1")}
    assert [int(row["item"]) for row in rows.values()] == list(range(1, 17))
    one = rows["films/IM0001"]
    assert (one["modality"], one["view"], one["height"], one["width"], one["depth"]) == ("DX", "AP", "30", "20", "")
    series = rows["ct/series"]
    assert (series["depth"], series["height"], series["width"], series["spacing_mm"]) == ("6", "20", "24", "3 2 2")
    # Both films are of one series; the CT is of another patient, and its files state no study.
    assert (one["subject"], one["study"], one["series"]) == tuple(
        rows["films/IM0002"][key] for key in ("subject", "study", "series")) != ("", "", "")
    assert (series["study"], series["subject"] != one["subject"]) == ("", True)
    assert "16 bit" in rows["films/deep.png"]["converted"] and "colour" in rows["films/colour.JPG"]["converted"]
    shown = capsys.readouterr().out
    assert "images: 5 read, 3 refused" in shown and "volumes: 2 read, 2 refused" in shown
    assert "1 no regular file" in shown
    check_html(page)
    assert page.count("<img ") == 7 and page.count('class="wide"') == 2


def test_reasons_and_sizes_are_those_of_the_build(folder, tmp_path):
    _, rows, _, _ = scanned(folder, tmp_path)
    for kind, module in (("image", table), ("volume", table_ct)):
        paths = [path for path, row in rows.items() if row["kind"] == kind]
        listed = tables.write(tmp_path / kind, [tables.row(f"s{i}", image=str(folder / path), image_id=path)
                                                for i, path in enumerate(paths)])
        config = module.get_config()
        config.workers, config.table.path, config.extractor = 1, str(listed), "none"
        if kind == "volume":
            config.volume.geometry = "native"
        result = build(config, tmp_path / f"{kind}_data")
        assert {one.image_id: one.reason for one in result.rejections} == {
            path: rows[path]["reason"] for path in paths if rows[path]["status"] == "refused"}
        assert result.rejected and result.counts["train"]["images"] == sum(
            rows[path]["status"] == "read" for path in paths)
        converted = {}
        for path in paths:
            for what in filter(None, rows[path]["converted"].split("; ")):
                converted[what] = converted.get(what, 0) + 1
        assert converted == result.converted


def test_no_identifiers_unless_asked_for(folder, tmp_path):
    _, _, inventory, page = scanned(folder, tmp_path)
    for secret in SECRETS.values():
        assert secret not in inventory and secret not in page
    assert "IM0001" in inventory and "IM0001" not in page and str(folder) not in page
    _, rows, inventory, page = scanned(folder, tmp_path, "--identifiers")
    assert "films/IM0001" in page and str(folder) in page
    row = rows["films/IM0001"]
    assert (row["patient_id"], row["study_uid"], row["series_uid"]) == tuple(
        SECRETS[name] for name in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID"))
    assert SECRETS["PatientName"] not in inventory and SECRETS["PatientBirthDate"] not in inventory


def test_a_series_in_several_folders_is_one_volume_and_its_copy_another(tmp_path):
    root = tmp_path / "in"
    write_slices(root / "case" / "a", chest()[:3], "1.2.3")
    write_slices(root / "case" / "b", chest()[3:], "1.2.3", first=3)
    write_slices(root / "below", chest()[:4], "1.2.6")
    write_slices(root / "below" / "more", chest()[4:], "1.2.6", first=4)
    for folder in (root / "other", root / "copy of other"):
        write_slices(folder, chest(), "1.2.4")
    write_slices(root, chest(), "1.2.5")
    items = {item.path: (item.kind, item.files) for item in find_items(root)}
    assert items == {"case": ("volume", 6), "below": ("volume", 6), "other": ("volume", 6),
                     "copy of other": ("volume", 6), ".": ("volume", 6)}


def test_files_without_a_header_beside_slices_are_counted_among_them(tmp_path):
    root = tmp_path / "in"
    write_slices(root / "ct", chest(), "1.2.3")
    (root / "ct" / "4.dcm").write_bytes(b"")
    (root / "ct" / "5.dcm").unlink()
    (root / "ct" / "5.dcm").symlink_to("nowhere")
    (root / "empty.dcm").write_bytes(b"")
    items = {item.path: (item.kind, item.files) for item in find_items(root)}
    assert items == {"ct": ("volume", 6), "empty.dcm": ("image", 1)}


def test_files_are_known_by_what_they_begin_with(tmp_path):
    root = tmp_path / "in"
    root.mkdir()
    (root / tables.image(root, "a.png")).rename(root / "image")
    write_dicom(root / "1.2.840.113", np.zeros((4, 4), np.uint16))
    (root / "bare").write_bytes((root / "1.2.840.113").read_bytes()[132:])
    nibabel.save(nibabel.Nifti1Image(chest(), np.eye(4)), root / "v.nii.gz")
    (root / "v.nii.gz").rename(root / "volume.gz")
    (root / "table.csv.gz").write_bytes(b"\x1f\x8b\x08")
    (root / "page.png").write_text("version https://git-lfs.github.com/spec/v1\n")
    for name in ("1.2.3", "file.Muster"):
        (root / name).write_text("x")
    enhanced = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2.1", "Modality": "CT", "NumberOfFrames": 3}
    write_dicom(root / "enhanced", np.zeros((3, 4, 4), np.uint16), **enhanced)
    assert {item.path: (item.kind, item.format) for item in find_items(root)} == {
        "image": ("image", "png"), "1.2.840.113": ("image", "dicom"), "bare": ("image", "dicom"),
        "volume.gz": ("volume", "nifti"), "table.csv.gz": ("other", "unknown"), "file.Muster": ("other", "unknown"),
        "page.png": ("image", "png"),
        "1.2.3": ("other", "unknown"), "enhanced": ("volume", "dicom")}


def test_a_folder_that_cannot_be_read_is_listed(tmp_path, monkeypatch):
    (tmp_path / "in" / "closed").mkdir(parents=True)
    tables.image(tmp_path / "in", "a.png")
    real = os.scandir

    def closed(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", closed)
    assert [(item.path, item.format) for item in find_items(tmp_path / "in")] == [
        ("a.png", "png"), ("closed", "folder that cannot be read")]


def test_memory_does_not_grow_with_the_number_of_files(tmp_path):
    def peak(count):
        root = tmp_path / str(count)
        root.mkdir()
        for i in range(count):
            Image.fromarray(np.full((1200, 1000), i, np.uint8)).save(root / f"{i}.png")
        tracemalloc.start()
        scan.main([str(root), f"--out={tmp_path / 'i.csv'}", f"--html={tmp_path / 'p.html'}"])
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(2)
    assert peak(50) - peak(5) < 2 * 1200 * 1000 + 50 * 50_000  # Less than two images, and 50 kB for each thumbnail.


def test_thumbnails_are_drawn_with_equal_chances(tmp_path):
    root = tmp_path / "in"
    root.mkdir()
    for i in range(30):
        tables.image(root, f"{i:02}.png", (20, 20), seed=i)
    _, _, _, page = scanned(root, tmp_path, "--thumbnails=4")
    assert page.count("<img ") == 4 and "4 of 30, drawn at random" in page
    _, _, _, page = scanned(root, tmp_path, "--thumbnails=0")
    assert page.count("<img ") == 0
    entries, drawn = list(read_items(root, find_items(root))), np.zeros(30)
    for seed in range(600):
        summary = Summary(4)
        summary._random.seed(seed)
        for entry in entries:
            summary.add(entry)
        drawn[[entry.number - 1 for entry in summary.sample]] += 1
    assert np.abs(drawn - 600 * 4 / 30).max() < 5 * np.sqrt(600 * 4 / 30)


def test_image_left_is_patient_right_on_thumbnails():
    volume = np.full((40, 60, 60), -1000, np.int16)
    volume[20:, :20, :20] = 400  # In the upper half, in front, to the right.
    thumbnail = _volume_thumbnail(volume, (3.0, 2.0, 2.0))
    axial, front = np.split(thumbnail, 2, axis=1)
    assert thumbnail.shape == (80, 160) and axial[5, 5] > 200 and axial[5, -5] == axial[-5, 5] == 0
    assert front[5, 5] > 50 and front[5, -5] == front[-5, 5] == 0


def test_names_that_are_not_utf_8_and_markup_in_names(tmp_path):
    root = tmp_path / "in"
    root.mkdir()
    image = (root / tables.image(root, "a.png")).read_bytes()
    with open(os.path.join(os.fsencode(root), b"caf\xe9.png"), "wb") as file:
        file.write(image)
    (root / "<script>.png").write_bytes(image)
    status, rows, _, page = scanned(root, tmp_path, "--identifiers")
    assert status == cli.OK and set(rows) == {"a.png", "caf\\udce9.png", "<script>.png"}
    assert "caf\\udce9.png" in page and "&lt;script&gt;.png" in page and "<script>" not in page
    check_html(page)


def test_wrong_use(tmp_path):
    (tmp_path / "in").mkdir()
    for folder, flags, message in ((tmp_path / "none", (), "is no folder"), (tmp_path / "in", (), "holds no file"),
                                   (tmp_path, ("--thumbnails=-1",), "0 or more")):
        with pytest.raises(UserError, match=message):
            scan.main([str(folder), f"--out={tmp_path / 'i.csv'}", *flags])
    tables.image(tmp_path / "in", "a.png")
    with pytest.raises(UserError, match="cannot write"):
        scan.main([str(tmp_path / "in"), f"--out={tmp_path}"])
    (tmp_path / "in" / "a.png").rename(tmp_path / "in" / "a.txt")
    assert scan.main([str(tmp_path / "in"), f"--out={tmp_path / 'i.csv'}"]) == cli.OK
