"""CLIP on MIMIC-CXR, images against reports, at the scale of the papers: the baseline of `lgdea_mimic`.

    python -m lgdea_jax.train --config=configs/clip_mimic.py --workdir=RUN --config.data.dir=DATA
    python -m lgdea_jax.train --config=configs/clip_mimic.py:resnet50 --workdir=RUN --config.data.dir=DATA

DATA and the published weights below pretrained/ are those of configs/lgdea_mimic.py.
"""

from . import common


def get_config(arg=None):
    """Published towers on MIMIC-CXR; `arg` is "vit" (the default) or "resnet50", and "limited" for 1% of the pairs."""
    tower, limited = common.read_arg(arg, "vit", "resnet50")
    config = common.get_config()
    config.data.pairs = 0.01 if limited else 1.0
    config.method = "clip"
    config.dtype = "bfloat16"
    config.data.dir = "data/mimic_cxr"
    config.data.equal_reports = "drop"  # Templated normal reports are equal across subjects by the thousand.
    config.data.workers = 8
    config.data.keep_tokens = True
    config.augment.device = True
    config.batch.pairs = 256
    config.total_steps = 36_000  # 25 times the training split's 369,000 images.
    config.image.size = 224
    config.text.length.report = 128
    config.model.text.weights = config.text.tokenizer = "pretrained/Bio_ClinicalBERT"
    config.model.text.bert.variant = "base"
    config.model.text.bert.pool = "mean"
    # As GLoRIA and MGCA do: the first nine blocks of the text tower stay as they are, which also saves their backward
    # pass; on both sides the blocks far from the heads learn slower, because what they know is general.
    rates = common.layer_rates("text_tower", 12, decay=0.8, frozen=9)
    if tower == "vit":
        config.model.image.vit.variant = "B/16"
        config.model.image.vit.family = "vit"
        config.model.image.vit.pool = "gap"
        config.model.image.weights = "pretrained/vit-base-patch16-224-in21k"
        config.image.mean, config.image.std = 0.5, 0.5  # What the published tower saw; grey for its three channels.
        rates += common.layer_rates("image_tower", 12, decay=0.75)
    else:
        config.model.image.name = "resnet"
        config.model.image.resnet.variant = "resnet50"
        config.model.image.weights = "pretrained/resnet-50"
        config.image.mean, config.image.std = 0.449, 0.226  # ImageNet's, the mean over the three channels.
        rates += ("^image_tower/=0.3",)
    config.optim.rates = rates
    config.optim.rate = 2e-4
    config.optim.warmup_steps = 1500
    config.optim.weight_decay = 0.05
    config.optim.ema = 0.999
    config.eval.every = 3000
    config.checkpoint.every = 3000
    config.log.every = 50
    # Device hours, an estimate from arithmetic, not measured: a pair costs 3 x 35 GFLOP (ViT-B/16: 2 x 86 M parameters
    # x 197 tokens, forward and backward; ResNet-50: 3 x 8 GFLOP) + 2 x 86 M x 128 tokens = 22 GFLOP forward and half
    # of that backward through the three blocks of the text tower that learn = 138 GFLOP (57 with ResNet-50); 256 pairs
    # x 36,000 steps = 1.3e18 FLOP. At 40% of an H100's 989 TFLOP/s (bfloat16) that is 0.9 hours (0.4), of an A100's
    # 312 TFLOP/s 2.8 hours (1.2); reading 9.2 million images may cost more than that.
    return config
