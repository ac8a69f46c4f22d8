"""CXR-LT, labels of frequent and rare findings on images of MIMIC-CXR (see data_prep/sources/mimic/cxr_lt.py).

    python -m data_prep.build --config=configs/data/cxr_lt.py --config.cxr_lt.path=CXR_LT \\
        --config.cxr_lt.images=MIMIC --out=DATA
"""

from .common import dataset


def get_config(arg=None):
    """`arg` is not used."""
    del arg
    return dataset("cxr_lt", {
        "path": "",  # The release, or its cxr-lt-2023/ or cxr-lt-2024/.
        "images": "auto",  # The folder with MIMIC-CXR's files/, JPEG or DICOM.
        "image_format": "auto",  # jpg, dicom, or auto: what there is.
        "release": "2024",  # Of which challenge: 2023 or 2024.
        "task": "2",  # Of 2024: 1 (40 labels), 2 (26, test set labelled by people), 3 (five new labels).
        "views": "all",  # all, or frontal: PA and AP only.
        "verify": "tables",  # SHA-256 of the tables, of all files, or none.
    }, extractor="none")
