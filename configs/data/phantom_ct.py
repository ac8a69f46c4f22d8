"""The phantom CT world: synthetic chest volumes with reports, 3D boxes and three sets of labels, made from a seed.

    python -m data_prep.build --config=configs/data/phantom_ct.py --out=DATA
"""

from . import common


def get_config(arg=None):
    """`arg` is not used."""
    del arg
    config = common.volumes("phantom_ct", {
        "shape": (32, 48, 48),  # Voxels (z, y, x) over 320 x 360 x 360 mm.
        "train": 1500,  # Studies in each split; each split is a world of its own.
        "validation": 200,
        "test": 400,
        "seed": 0,
        "max_findings": 4,
        "normal_share": 0.25,
        "repeat_share": 0.1,  # Subjects that have two studies.
        # How the reports stray from the pictures (data_prep/synthetic/ct/reports.py):
        "omitted": 0.05,
        "hedged": 0.12,
        "compared": 0.15,
        "overcalled": 0.012,
        "resolved": 0.02,
        "denied": 0.75,
    }, geometry="phantom_ct")
    config.derived_labels = ("silver", "weak")  # Beside the reference: the extractor's, and those of bare keywords.
    config.tokenizer.vocab_size = 4000
    config.shard_studies = 250
    return config
