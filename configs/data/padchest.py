"""PadChest (see data_prep/sources/padchest.py). Reports are Spanish: a language model can read them, the rules cannot.

    python -m data_prep.build --config=configs/data/padchest.py --config.padchest.path=PADCHEST --out=DATA
"""

from .common import dataset


def get_config(arg=None):
    """`arg` is not used."""
    del arg
    return dataset("padchest", {
        "path": "",  # The folder with PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.
        "images": "auto",  # The folder with 0/, 1/, ... or all images; auto: `path`; none: reports only.
        "views": "all",  # all, or frontal: PA, AP and AP_horizontal.
        "manual_test": True,  # Patients with a physician-labelled report are the test set.
        "validation": 0.05,  # Share of the other patients, drawn by a hash.
        "test": 0.0,  # Share of the other patients, likewise.
        "seed": 0,  # Of the hash.
        # Also the labels as the table spells them, which eval.padchest --protocol=kad, carzero or chexzero scores.
        "protocol_labels": False,
    }, extractor="none")
