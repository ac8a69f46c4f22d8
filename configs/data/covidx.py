"""COVIDx CXR (see data_prep/sources/covidx.py).

    python -m data_prep.build --config=configs/data/covidx.py --config.covidx.path=COVIDX \\
        --config.covidx.version=8A --out=DATA
"""

from .common import dataset


def get_config(arg=None):
    """`arg` is not used."""
    del arg
    return dataset("covidx", {
        "path": "",  # The folder with train.txt and test.txt.
        "version": "",  # As its authors call it; results on different versions do not compare.
        "images": "auto",  # auto: train/, val/ and test/.
        "validation": 0.1,  # Share of the training patients, drawn by a hash, where there is no val.txt.
        "seed": 0,  # Of the hash.
    })
