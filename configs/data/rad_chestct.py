"""RAD-ChestCT: chest CT with labels, without reports (see data_prep/sources/ct/rad_chestct.py).

    python -m data_prep.build --config=configs/data/rad_chestct.py --config.rad_chestct.path=RAD --out=DATA
"""

from .common import volumes


def get_config(arg=None):
    """`arg` is not used."""
    del arg
    return volumes("rad_chestct", {
        "path": "",  # The folder with the tables of labels.
        "images": "auto",  # The folder with the .npz files.
        "spacing": (0.8, 0.8, 0.8),  # mm (z, y, x).
        "axes": "IPL",  # Where slices, rows and columns grow to: to the feet, the back and the patient's left.
    }, geometry="ct_clip")
