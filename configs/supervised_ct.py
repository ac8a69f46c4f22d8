"""Supervised pretraining of a 3D ResNet-18 on the 18 labels of CT-RATE, silver or reference (arXiv 2509.13175).

    python -m lgdea_jax.train --config=configs/supervised_ct.py --workdir=RUN --config.data.dir=DATA
        [--config.data.labels=silver]
    python -m lgdea_jax.train --config=configs/supervised_ct.py:phantom --workdir=runs/supervised_ct

`phantom` is small, for the phantom CT world, which is made on the spot when `data.dir` is missing. Missing and
uncertain labels are left out of the loss; `methods.supervised.class_weights` and `positive_weights` weigh the others.
The run's image tower is what configs/clip_ct.py starts from.
"""

from . import common


def get_config(arg=None):
    """`arg` is "ct_rate" (the default) or "phantom"."""
    return base(arg, method="supervised")


def base(arg, *, method):
    """What the three experiments on chest CT share; `arg` may name "limited" too, for 5% of the pairs."""
    world, limited = common.read_arg(arg, "ct_rate", "phantom")
    config = common.get_config()
    config.data.pairs = 0.05 if limited else 1.0
    config.method = method
    config.image.modality = "ct"
    config.model.image.name = "resnet3d"
    config.data.equal_reports = "drop"  # Templated normal reports are equal across patients.
    config.eval.metric = "classifier/auroc" if method == "supervised" else "zero_shot/auroc"
    phantom(config) if world == "phantom" else paper_scale(config)
    return config


def paper_scale(config):
    """3D ResNet-18 at CT-CLIP's geometry: 480 x 480 x 240 voxels of 0.75 x 0.75 x 1.5 mm."""
    config.dtype = "bfloat16"
    config.data.dir = "data/ct_rate"
    config.data.workers = 8
    config.volume.geometry = "ct_clip"
    config.batch.pairs = 32  # Over all devices.
    config.batch.micro = 4  # A quarter of them at a time: all fit one device of 80 GB, or share up to 8 of them.
    config.model.remat = True
    config.total_steps = 29_000  # 20 times the training split's 46,000 volumes.
    tower = config.model.image.resnet3d
    tower.variant, tower.stem, tower.norm, tower.conv = "resnet18", "imagenet", "instance", "native"
    config.text.length.report = 512
    config.optim.rate = 3e-4
    config.optim.warmup_steps = 1000
    config.optim.weight_decay = 0.01
    config.optim.ema = 0.999
    config.eval.every = config.checkpoint.every = 2900
    config.log.every = 50


def phantom(config):
    """The phantom CT world in minutes on a laptop's CPU."""
    config.data.dir = "data/phantom_ct"
    config.data.make_from = "configs/data/phantom_ct.py"
    config.data.cache = True
    config.volume.geometry = "phantom_ct"
    config.batch.pairs = 16
    config.total_steps = 600 if config.method == "supervised" else 300
    tower = config.model.image.resnet3d
    tower.variant, tower.sizes.width, tower.stem, tower.norm, tower.conv = "resnet6", 16, "patch4", "batch", "slices"
    tower.pool, tower.zero_init = "lse", False
    config.model.width = 64
    config.model.prototypes = 48
    config.model.lesion_queries = 6
    config.text.length.report = 160
    config.text.length.evidence = 48
    config.text.length.phrases = 20
    config.text.phrases = 5
    config.model.text.bert.variant = "XS"
    config.model.text.bert.sizes.depth = 1
    config.model.text.bert.sizes.mlp_dim = 128
    config.model.text.bert.pool = "mean"
    config.optim.rate = 3e-3
    config.optim.warmup_steps = 25
    config.optim.ema = 0.98
    config.eval.records = 200
    config.checkpoint.every = 300
