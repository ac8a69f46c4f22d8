"""The quick start: synthetic chest radiographs at 64 px, tiny towers, minutes on a laptop's CPU.

    python -m lgdea_jax.train --config=configs/phantom.py --workdir=runs/phantom
    python -m lgdea_jax.eval.phantom --checkpoint=runs/phantom --out=runs/phantom/eval

The data set is made on the spot when `data.dir` is missing.
"""

from . import common


def get_config(arg=None):
    """Tiny towers on the phantom world."""
    config = common.get_config()
    config.total_steps = 600
    config.data.dir = "data/phantom"
    config.data.make_from = "configs/data/phantom.py"
    config.data.cache = True
    config.data.equal_reports = "drop"
    config.batch.pairs = 64
    config.image.size = 64
    config.model.width = 64
    config.model.prototypes = 48
    config.model.lesion_queries = 6
    config.model.image.name = "vit"
    config.model.image.vit.variant = "XS/8"
    config.model.image.vit.stem = "hybrid"
    config.model.image.vit.sizes.depth = 2
    config.model.text.bert.variant = "XS"
    config.model.text.bert.pool = "mean"
    config.optim.rate = 1e-3
    config.optim.warmup_steps = 50
    config.optim.ema = 0.99
    config.eval.every = 300
    config.eval.records = 500
    config.checkpoint.every = 300
    return config
