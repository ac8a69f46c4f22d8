"""CT-RATE: chest CT with reports and 18 labels (see data_prep/sources/ct_rate.py).

    python -m data_prep.build --config=configs/data/ct_rate.py --config.ct_rate.path=CT_RATE --out=DATA
"""

from .common import volumes


def get_config(arg=None):
    """`arg` is not used."""
    del arg
    return volumes("ct_rate", {
        "path": "",  # The release, or its dataset/.
        "images": "auto",  # The folder with train_fixed/ and valid_fixed/; none: reports only.
        # file: the volumes' own headers are right (the _fixed folders). metadata: slope, intercept and spacing from the
        # tables (the first release).
        "headers": "file",
        "reconstructions": "all",  # all, or first: one volume a scan.
        "no_chest": "keep",  # keep, or leave_out: the volumes of metadata/no_chest_*.txt, which show no chest.
        # plain: findings and impression without headers, quotes and brackets, as CT-CLIP's scripts read them; sections:
        # each with its header.
        "text": "plain",
        "validation": 0.02,  # Share of the training patients; the official validation part is the test split.
        "seed": 0,  # Of the hash.
    }, geometry="ct_clip")
