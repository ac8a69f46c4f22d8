"""INSPECT, CT pulmonary angiograms with impressions (see data_prep/sources/ct/inspect.py).

    python -m data_prep.build --config=configs/data/inspect.py --config.inspect.path=INSPECT --out=DATA
"""

from .common import volumes


def get_config(arg=None):
    """`arg` is not used."""
    del arg
    return volumes("inspect", {
        "path": "",  # The release, or its full/, with the tables *_20250611.tsv.
        "images": "auto",  # The folder CTPA/; none: reports only.
    }, geometry="ct_clip")
