"""LGDEA on chest CT: phrases of evidence against the patches of volumes; the image tower as in configs/clip_ct.py.

    python -m lgdea_jax.train --config=configs/lgdea_ct.py --workdir=RUN --config.data.dir=DATA
        [--config.init_from=SUPERVISED]
    python -m lgdea_jax.train --config=configs/lgdea_ct.py:phantom --workdir=runs/lgdea_ct

All pairs by default (`lgdea_pairs`); with unpaired volumes and reports take --config.method=lgdea,
--config.data.pairs=SHARE, --config.batch.images=N and --config.batch.reports=N.
"""

from . import clip_ct


def get_config(arg=None):
    """`arg` is "ct_rate" (the default) or "phantom"."""
    config = clip_ct.base(arg, method="lgdea_pairs")
    if arg != "phantom":
        config.text.phrases = 12
        config.text.length.phrases = 32
    return config
