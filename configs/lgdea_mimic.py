"""LGDEA on MIMIC-CXR at the scale of the papers: a ViT-B/16 (or ResNet-50) and Bio_ClinicalBERT.

    python -m lgdea_jax.train --config=configs/lgdea_mimic.py --workdir=RUN --config.data.dir=DATA
    python -m lgdea_jax.train --config=configs/lgdea_mimic.py:resnet50 --workdir=RUN --config.data.dir=DATA
    python -m lgdea_jax.train --config=configs/lgdea_mimic.py:vit,limited --workdir=RUN --config.data.dir=DATA

DATA is written by data_prep.build; `limited` keeps 1% of the pairs, --config.data.pairs=SHARE another share. The
published weights are expected below pretrained/ and are not downloaded:
pretrained/Bio_ClinicalBERT (emilyalsentzer/Bio_ClinicalBERT, tokeniser included) and
pretrained/vit-base-patch16-224-in21k (google/vit-base-patch16-224-in21k) or pretrained/resnet-50 (microsoft/resnet-50).
RAD-DINO (microsoft/rad-dino): --config.model.image.weights=DIR --config.model.image.vit.variant=B/14
--config.model.image.vit.family=dinov2 --config.model.image.vit.pool=cls --config.image.mean=0.5307
--config.image.std=0.2583.
"""

from . import clip_mimic


def get_config(arg=None):
    """As `clip_mimic`, with phrases of evidence for reports, and its arguments."""
    config = clip_mimic.get_config(arg)
    config.method = "lgdea"
    config.batch.pairs = 256
    config.text.phrases = 6
    config.text.length.phrases = 24
    config.text.distinct = 0.5  # A report has about two phrases of six.
    config.model.prototypes = 256
    config.model.lesion_queries = 8
    config.memory.landmarks = 1024
    config.memory.graph_every = 500  # A rebuild costs about as much as a quarter of a step.
    # Device hours, an estimate from arithmetic, not measured: a pair costs 3 x 35 GFLOP (ViT-B/16: 2 x 86 M parameters
    # x 197 tokens, forward and backward) + 2 x 86 M x 144 tokens = 25 GFLOP forward and half of that backward through
    # the three blocks of the text tower that learn = 142 GFLOP; 256 pairs x 36,000 steps = 1.3e18 FLOP. At 40% of an
    # H100's 989 TFLOP/s (bfloat16) that is 0.9 hours, of an A100's 312 TFLOP/s 2.9 hours; reading 9.2 million images
    # may cost more than that.
    return config
