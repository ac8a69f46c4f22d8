"""The phantom CT world: synthetic chest volumes with reports, 3D boxes and three sets of labels, made from a seed.

    python -m data_prep.build --config=configs/data/phantom_ct.py --out=DATA
"""

from . import common


def get_config(arg=None):
    """`arg` is not used."""
    del arg
    config = common.volumes("phantom_ct", {
        "shape": (32, 48, 48),  # Voxels (z, y, x) over 320 x 360 x 360 mm.
        "train": 1500,  # Training studies; each split is a world of its own.
        "validation": 200,  # Validation studies.
        "test": 400,  # Test studies.
        "seed": 0,  # Of all worlds.
        "max_findings": 4,  # Per study.
        "normal_share": 0.25,  # Studies without a finding.
        "repeat_share": 0.1,  # Subjects that have two studies.
        # How reports differ from what was drawn (data_prep/synthetic/ct/reports.py).
        "omitted": 0.05,  # Share of findings that the report does not mention.
        "hedged": 0.12,  # Share of the mentioned ones that it hedges.
        "compared": 0.15,  # Share of the mentioned ones that it compares with an earlier examination.
        "overcalled": 0.012,  # Probability, for each absent finding, that the report suspects it.
        "resolved": 0.02,  # Probability, for each absent finding, that the report calls it resolved.
        "denied": 0.75,  # Probability of each denial that could be written.
    }, geometry="phantom_ct")
    config.derived_labels = ("silver", "weak")  # Beside the reference: the extractor's, and those of bare keywords.
    config.tokenizer.vocab_size = 4000
    config.shard_studies = 250
    return config
