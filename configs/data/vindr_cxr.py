"""VinDr-CXR (see data_prep/sources/vindr_cxr.py).

    python -m data_prep.build --config=configs/data/vindr_cxr.py --config.vindr_cxr.path=VINDR --out=DATA
"""

from .common import dataset


def get_config(arg=None):
    """`arg` is not used."""
    del arg
    return dataset("vindr_cxr", {
        "path": "",  # The PhysioNet release, with annotations/, train/ and test/.
        "images": "auto",  # A folder with train/ and test/; auto: `path`.
        "votes": 2,  # Of three readers, that make a label positive; fewer make it uncertain.
        "validation": 0.1,  # Share of the training images, drawn by a hash.
        "seed": 0,  # Of the hash.
        "verify": "tables",  # SHA-256 of the tables, of all files, or none.
    })
