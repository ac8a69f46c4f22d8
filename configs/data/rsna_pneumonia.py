"""RSNA Pneumonia Detection Challenge (see data_prep/sources/rsna_pneumonia.py).

    python -m data_prep.build --config=configs/data/rsna_pneumonia.py --config.rsna_pneumonia.path=RSNA --out=DATA
"""

from .common import dataset


def get_config(arg=None):
    """`arg` is not used."""
    del arg
    return dataset("rsna_pneumonia", {
        "path": "",  # The folder with stage_2_train_labels.csv.
        "images": "auto",  # auto: stage_2_train_images/.
        "splits": "official",  # official: those of the field's code; hash: by the next two keys.
        "validation": 0.15,  # Share of the patients, for splits=hash.
        "test": 0.15,  # Share of the patients, for splits=hash.
        "seed": 0,  # Of the hash.
    })
