"""ReXGradient-160K, radiographs with reports of three health systems (see data_prep/sources/rexgradient.py).

    python -m data_prep.build --config=configs/data/rexgradient.py --config.rexgradient.path=REXGRADIENT --out=DATA
"""

from .common import dataset


def get_config(arg=None):
    """`arg` is not used."""
    del arg
    return dataset("rexgradient", {
        "path": "",  # The release, with metadata/ and deid_png/ (joined and unpacked).
        "images": "auto",  # The folder deid_png/; none: reports only.
        "views": "all",  # all, or frontal: PA and AP only.
        "report_sections": ("findings", "impression"),  # Of indication, comparison, findings, impression.
    })
