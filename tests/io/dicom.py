"""Writes small DICOM files for tests."""

import warnings

import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid


def write_dicom(path, pixels, **elements):
    """An uncompressed grey DX image ([h, w] or [frames, h, w]) with the given elements."""
    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid(entropy_srcs=["test"])
    dataset.Modality = "DX"
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Values that real files have and the standard forbids, like an age of "51".
        for name, value in elements.items():
            setattr(dataset, name, value)
    dataset.PixelData = pixels.astype(np.uint8 if dataset.BitsAllocated == 8 else "<u2").tobytes()
    dataset.save_as(path, enforce_file_format=True)
    return path
