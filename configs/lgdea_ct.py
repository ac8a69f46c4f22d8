"""LGDEA on chest CT: phrases of evidence against the patches of volumes; the image tower as in configs/clip_ct.py.

    python -m lgdea_jax.train --config=configs/lgdea_ct.py --workdir=RUN --config.data.dir=DATA
        [--config.init_from=SUPERVISED]
    python -m lgdea_jax.train --config=configs/lgdea_ct.py:phantom --workdir=runs/lgdea_ct
    python -m lgdea_jax.train --config=configs/lgdea_ct.py:phantom,limited --workdir=runs/lgdea_ct_limited

All pairs by default; `limited` keeps 5% of them and makes the rest unpaired volumes and reports, as
--config.data.pairs=SHARE does.
"""

from . import clip_ct, common


def get_config(arg=None):
    """`arg` is "ct_rate" (the default) or "phantom", and "limited" for 5% of the pairs."""
    config = clip_ct.base(arg, method="lgdea")
    # Volumes are few a step and dear: as many unpaired ones as pairs.
    config.batch.images_per_pair = 1.0
    if common.read_arg(arg, "ct_rate", "phantom")[0] == "phantom":
        config.total_steps = 1000
        # So small a 3D tower learns slowly: 0.16 nats at step 320, 0.3 at the end. Evidence that collapses has none.
        config.alarm.after, config.alarm.information = 300, 0.05
    else:
        config.text.phrases = 12
        config.text.length.phrases = 32
        config.memory.landmarks = 1024
    return config
