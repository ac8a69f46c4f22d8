"""CLIP on chest CT, volumes against reports: from scratch, or from a supervised image tower (arXiv 2509.13175).

    python -m lgdea_jax.train --config=configs/clip_ct.py --workdir=RUN --config.data.dir=DATA
        [--config.init_from=SUPERVISED]
    python -m lgdea_jax.train --config=configs/clip_ct.py:phantom --workdir=runs/clip_ct
        [--config.init_from=runs/supervised_ct]

SUPERVISED is a run of configs/supervised_ct.py of the same argument; of its modules only the image tower is taken. The
text tower's weights are expected below pretrained/ and are not downloaded: pretrained/CXR-BERT
(microsoft/BiomedVLP-CXR-BERT-specialized, tokeniser included), as CT-CLIP's.
"""

from . import common, supervised_ct


def get_config(arg=None):
    """`arg` is "ct_rate" (the default) or "phantom"."""
    return base(arg, method="clip")


def base(arg, *, method):
    """What experiments with a text tower share."""
    config = supervised_ct.base(arg, method=method)
    config.init_parts = ("image_tower",)
    if common.read_arg(arg, "ct_rate", "phantom")[0] != "phantom":
        config.model.text.weights = config.text.tokenizer = "pretrained/CXR-BERT"
        config.model.text.bert.variant = "base"
        config.model.text.bert.pool = "cls"
        config.optim.rate = 1e-4
        config.optim.rates = ("^text_tower/=0.3",)
        # Device hours, an estimate from arithmetic, not measured: the 3D ResNet-18 costs about 1.6 TFLOP a volume
        # forward (half of it at 60 x 120 x 120 positions of 64 channels) and five times that with checkpointing, parts
        # and backward; 32 volumes x 29,000 steps = 7e18 FLOP. At 30% of an H100's 989 TFLOP/s (bfloat16) that is 7
        # hours.
    return config
