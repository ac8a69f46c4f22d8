"""Small towers for a data set of your own, a table for example: hours become minutes, without an accelerator.

    python -m lgdea_jax.train --config=configs/small.py --workdir=RUN --config.data.dir=DATA

The towers of the quick start with more augmentation. Images are read at 64 px: enough to see that everything works, and
for large findings; --config.image.size=128 sees more and takes four times as long.
"""

from . import phantom


def get_config(arg=None):
    """The quick start's towers on `data.dir`, which must exist; `arg` is None, or "limited" for 1% of the pairs."""
    config = phantom.get_config(arg)
    config.limited = ("total_steps=2000", "eval.every=1000", "checkpoint.every=1000")
    config.data.dir = ""
    config.data.make_from = ""
    # Real images are few here and seen often.
    config.augment.crop = (0.7, 1.0)
    config.augment.aspect = 1.2
    config.augment.rotate = 8.0
    config.augment.gamma = 0.3
    config.augment.contrast = 0.3
    config.augment.brightness = 0.1
    config.augment.noise = 6.0
    return config
