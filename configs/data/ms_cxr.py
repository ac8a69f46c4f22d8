"""MS-CXR, phrases with boxes on images of MIMIC-CXR (see data_prep/sources/ms_cxr.py).

    python -m data_prep.build --config=configs/data/ms_cxr.py --config.ms_cxr.path=MS_CXR \\
        --config.ms_cxr.images=MIMIC --out=DATA
"""

from .common import dataset


def get_config(arg=None):
    """`arg` is not used."""
    del arg
    config = dataset("ms_cxr", {
        "path": "",  # The folder with MS_CXR_Local_Alignment_v1.x.y.csv or .json.
        "annotations": "auto",  # A file in it.
        "images": "auto",  # The folder with MIMIC-CXR's files/, JPEG or DICOM, at their original size.
        "image_format": "auto",  # jpg, dicom, or auto: what there is.
        "splits": "test",  # test: everything; official: the column of version 1.1.0.
        "verify": "tables",  # SHA-256 of the table, of all files, or none.
    })
    config.image_size = 8192  # As they are: the protocol's geometry starts from the original pixels.
    return config
