"""Small chests, and the DICOM series, enhanced object and .npz archive that hold one."""

import io
import itertools
import zipfile

import numpy as np
import pydicom
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid

SPACING = (5.0, 3.0, 2.0)
CODES = ["".join(letters) for axes in itertools.permutations(("LR", "AP", "SI"))
         for letters in itertools.product(*axes)]


def chest(shape=(8, 10, 12), seed=0):
    """A volume that passes for a chest: air around, soft tissue with noise, lungs; every voxel tells its place."""
    rng = np.random.default_rng(seed)
    volume = np.full(shape, -1000, np.int16)
    volume[:, 2:-2, 2:-2] = rng.integers(0, 100, (shape[0], shape[1] - 4, shape[2] - 4))
    volume[2:-2, 4:-4, 4:-4] = rng.integers(-900, -800, (shape[0] - 4, shape[1] - 8, shape[2] - 8))
    volume[-1, -3, -3] = 700  # Head, back, left.
    return volume


def repairs(info):
    """The conversions, but for what these chests are too small for."""
    return tuple(name for name in info.conversions if name not in ("head end not checked", "extent unlike a chest's"))


def write_series(folder, volume, spacing, *, change=None, orientation=(1, 0, 0, 0, 1, 0), names=None):
    """Writes a canonical volume as axial DICOM slices, in any order of file names; `change(dataset, k)` per slice."""
    folder.mkdir(parents=True, exist_ok=True)
    series = generate_uid(entropy_srcs=[folder.name])
    for k, rows in enumerate(volume):
        meta = pydicom.dataset.FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
        meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[folder.name, str(k)])
        one = pydicom.dataset.Dataset()
        one.file_meta = meta
        one.SOPClassUID, one.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        one.SeriesInstanceUID, one.Modality, one.InstanceNumber = series, "CT", len(volume) - k
        one.PatientSex, one.PatientAge = "F", "061Y"
        one.Rows, one.Columns = rows.shape
        one.ImageOrientationPatient = list(orientation)
        one.ImagePositionPatient = [10.0, -20.0, 100.0 + k * spacing[0]]
        one.PixelSpacing = [spacing[1], spacing[2]]
        one.RescaleSlope, one.RescaleIntercept = 1, -1024
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 12, 11, 0
        one.PixelData = (rows + 1024).astype("<u2").tobytes()
        if not (change and change(one, k) is False):
            one.save_as(folder / f"{(k * 7) % len(volume)}.dcm", enforce_file_format=True)


def setting(**values):
    """A `change` for `write_series`: attributes, of slice k where they are functions; None deletes one."""
    def change(one, k):
        for name, value in values.items():
            value = value(k) if callable(value) else value
            if value is None:
                delattr(one, name)
            else:
                setattr(one, name, value)

    return change


def write_enhanced(path, volume, spacing, *, intercept=-1024, change=None):
    """Writes a canonical volume as one enhanced CT object with a frame per slice."""
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = EnhancedCTImageStorage, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["enhanced"])
    one = pydicom.dataset.Dataset()
    one.file_meta = meta
    one.SOPClassUID, one.SOPInstanceUID = EnhancedCTImageStorage, meta.MediaStorageSOPInstanceUID
    one.SeriesInstanceUID, one.Modality = generate_uid(entropy_srcs=["enhanced", "series"]), "CT"
    one.Rows, one.Columns = volume.shape[1:]
    one.NumberOfFrames = len(volume)
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 12, 11, 0
    one.PixelData = (volume - intercept).astype("<u2").tobytes()
    shared = pydicom.dataset.Dataset()
    shared.PixelMeasuresSequence = [_item(PixelSpacing=[spacing[1], spacing[2]])]
    shared.PlaneOrientationSequence = [_item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])]
    shared.PixelValueTransformationSequence = [_item(RescaleSlope=1, RescaleIntercept=intercept)]
    one.SharedFunctionalGroupsSequence = [shared]
    one.PerFrameFunctionalGroupsSequence = [
        _item(PlanePositionSequence=[_item(ImagePositionPatient=[10.0, -20.0, 100.0 + k * spacing[0]])])
        for k in range(len(volume))]
    if change:
        change(one)
    one.save_as(path, enforce_file_format=True)


def _item(**elements):
    item = pydicom.dataset.Dataset()
    for name, value in elements.items():
        setattr(item, name, value)
    return item


def npz_bytes(shape, payload, *, name="ct.npy", kind="<i2", method=zipfile.ZIP_DEFLATED):
    """An .npz archive whose array is stated to have `shape` and holds `payload`."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": kind, "fortran_order": False, "shape": shape})
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        archive.writestr(name, head.getvalue() + payload)
    return out.getvalue()
