"""SIIM-ACR Pneumothorax Segmentation (see data_prep/sources/siim_acr.py).

    python -m data_prep.build --config=configs/data/siim_acr.py --config.siim_acr.path=SIIM --out=DATA
"""

from .common import dataset


def get_config(arg=None):
    """`arg` is not used."""
    del arg
    return dataset("siim_acr", {
        "path": "",  # The folder with train-rle.csv.
        "images": "auto",  # auto: dicom-images-train/.
        "splits": "official",  # official: those of the field's code; hash: by the next two keys.
        "validation": 0.15,  # Share of the images, for splits=hash.
        "test": 0.15,  # Share of the images, for splits=hash.
        "seed": 0,  # Of the hash.
    })
