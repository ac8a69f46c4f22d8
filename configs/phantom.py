"""The quick start: synthetic chest radiographs at 64 px, tiny towers, minutes on a laptop's CPU.

    python -m lgdea_jax.train --config=configs/phantom.py --workdir=runs/phantom
    python -m lgdea_jax.eval.phantom --checkpoint=runs/phantom --out=runs/phantom/eval

The data set is made on the spot when `data.dir` is missing. `configs/phantom.py:limited` keeps 1% of the pairs, in the
setting of the limited-pairs experiment (docs/results/limited_pairs.md); so does --config.data.pairs=SHARE, for a share.
"""

from . import common


def get_config(arg=None):
    """Tiny towers on the phantom world; `arg` is None, or "limited" for 1% of the pairs."""
    _, limited = common.read_arg(arg)
    config = common.get_config()
    config.data.pairs = 0.01 if limited else 1.0
    # Few pairs are seen hundreds of times: more augmentation. Patches of 8 pixels: smaller ones, taught by 40 pairs,
    # have less contrast (benchmarks/experiments/limited_pairs.md).
    config.limited = ("model.image.resnet.pyramid=0", "total_steps=2000", "augment.crop=(0.7,1.0)",
                      "augment.aspect=1.2", "augment.rotate=8", "augment.gamma=0.3", "augment.contrast=0.3",
                      "augment.brightness=0.1", "augment.noise=6", "eval.every=1000", "checkpoint.every=1000")
    config.total_steps = 500
    config.data.dir = "data/phantom"
    config.data.make_from = "configs/data/phantom.py"
    config.data.cache = True
    config.data.equal_reports = "drop"
    config.batch.pairs = 32
    config.image.size = 64
    config.image.per_image = True  # Exposure varies from phantom to phantom and means nothing.
    config.text.phrases = 4
    config.text.length.report = 112
    config.text.length.evidence = 40
    config.text.length.phrases = 16
    # Little augmentation: a short training sees every image only a few times.
    config.augment.crop = (0.9, 1.0)
    config.augment.aspect = 1.1
    config.augment.rotate = 4.0
    config.augment.gamma = 0.15
    config.augment.contrast = 0.15
    config.augment.brightness = 0.05
    config.augment.noise = 2.0
    config.model.width = 64
    config.model.prototypes = 48
    config.model.lesion_queries = 6
    config.model.image.name = "resnet"
    config.model.image.resnet.variant = "resnet8"
    config.model.image.resnet.sizes.width = 24
    config.model.image.resnet.stem = "patch2"
    config.model.image.resnet.pyramid = 1  # Patches of 4 pixels: a nodule is smaller than one of 8.
    config.model.image.resnet.pool = "lse"  # A lesion in one patch of 256 is not drowned by the others.
    config.model.image.resnet.zero_init = False
    config.model.text.bert.variant = "XS"
    config.model.text.bert.sizes.depth = 1
    config.model.text.bert.sizes.mlp_dim = 128
    config.model.text.bert.pool = "mean"
    config.optim.rate = 3e-3
    config.optim.warmup_steps = 50
    config.optim.ema = 0.98
    config.eval.every = 250
    config.eval.records = 500
    config.checkpoint.every = 250
    return config
