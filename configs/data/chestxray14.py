"""ChestX-ray14 of the NIH (see data_prep/sources/chestxray14.py).

    python -m data_prep.build --config=configs/data/chestxray14.py --config.chestxray14.path=NIH --out=DATA
"""

from .common import dataset


def get_config(arg=None):
    """`arg` is not used."""
    del arg
    return dataset("chestxray14", {
        "path": "",  # The folder with Data_Entry_2017.csv and the lists.
        "images": "auto",  # auto: images/ and images_001/images/ to images_012/images/.
        "validation": 0.1,  # Share of the patients outside the test list, drawn by a hash.
        "seed": 0,  # Of the hash.
    })
