"""MS-CXR-T, change between images of MIMIC-CXR and pairs of sentences (see data_prep/sources/mimic/ms_cxr_t.py).

    python -m data_prep.build --config=configs/data/ms_cxr_t.py --config.ms_cxr_t.path=MS_CXR_T \\
        --config.ms_cxr_t.images=MIMIC --out=DATA
"""

from .common import dataset


def get_config(arg=None):
    """`arg` is not used."""
    del arg
    return dataset("ms_cxr_t", {
        "path": "",  # The folder with the two tables, MS_CXR_T_temporal_*.csv.
        "images": "auto",  # The folder with MIMIC-CXR's files/, JPEG or DICOM.
        "image_format": "auto",  # jpg, dicom, or auto: what there is.
        "verify": "tables",  # SHA-256 of the tables, of all files, or none.
    }, extractor="none")
