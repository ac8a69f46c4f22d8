"""ChestX-Det10 (see data_prep/sources/chestx_det10.py).

    python -m data_prep.build --config=configs/data/chestx_det10.py --config.chestx_det10.path=DET10 --out=DATA
"""

from .common import dataset


def get_config(arg=None):
    """`arg` is not used."""
    del arg
    return dataset("chestx_det10", {
        "path": "",  # The folder with test.json and, if wanted, train.json.
        "images": "auto",  # auto: test_data/ and train_data/, or images/.
    })
