"""CheXpert, small or full, with the reports of CheXpert Plus if wanted (see data_prep/sources/chexpert.py).

    python -m data_prep.build --config=configs/data/chexpert.py --config.chexpert.path=CHEXPERT --out=DATA
"""

from .common import dataset


def get_config(arg=None):
    """`arg` is not used."""
    del arg
    return dataset("chexpert", {
        "path": "",  # The folder with train.csv and valid.csv.
        "images": "auto",  # The folder with train/ and valid/; auto: `path`; none: reports only.
        "reports": "",  # CheXpert Plus's df_chexpert_plus_240401.csv.
        "report_sections": ("findings", "impression"),  # Joined to the report.
        "views": "all",  # all, or frontal.
    })
