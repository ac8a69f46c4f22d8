"""MIMIC-CXR with MIMIC-CXR-JPG or with DICOM (see data_prep/sources/mimic_cxr.py for the layouts).

    python -m data_prep.build --config=configs/data/mimic_cxr.py --config.mimic_cxr.path=MIMIC --out=DATA
"""

from .common import dataset


def get_config(arg=None):
    """`arg` is not used."""
    del arg
    config = dataset("mimic_cxr", {
        # The folder with mimic-cxr-2.0.0-split.csv.gz and the other tables, or the one that PhysioNet's download made.
        "path": "",
        # The folder with p10/, p11/, ...; auto: files/ in `path`, or in MIMIC-CXR beside it; none: reports only.
        "images": "auto",
        "image_format": "auto",  # jpg, dicom, or auto: what there is.
        # The folder with p10/p10000032/s50414267.txt; auto: in `path`, or in MIMIC-CXR beside it; none: images only.
        "reports": "auto",
        "report_sections": ("findings", "impression", "last_paragraph"),  # last_paragraph where there is neither.
        "labels": "chexpert",  # chexpert, negbio or none.
        "patients": "",  # MIMIC-IV's patients.csv.gz, for sex and age.
        "views": "all",  # all, or frontal: PA and AP only.
        "verify": "tables",  # SHA-256 of the tables, of all files, or none.
    })
    # image.size of configs/clip_mimic.py and configs/lgdea_mimic.py: nothing is left to resize in training. Crops are
    # cut from the model's square, so that a larger side costs time and shows no more. To train at a larger size, build
    # at that one.
    config.image_size = 224
    config.image_encoding = "jpeg"
    return config
