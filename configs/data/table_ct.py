"""Your own volumes: the table of configs/data/table.py with NIfTI files, DICOM folders or .npz files as images.

    python -m data_prep.build --config=configs/data/table_ct.py --config.table.path=studies.csv --out=DATA
"""

from ml_collections import ConfigDict

from . import table


def get_config(arg=None):
    """`arg` is not used."""
    config = table.get_config(arg)
    config.name = "table_ct"
    config.table.modality = "CT"
    config.volume = ConfigDict({"geometry": "ct_clip"})  # ct_clip, fvlm_centre, phantom_ct or native.
    config.shard_studies = 50
    return config
