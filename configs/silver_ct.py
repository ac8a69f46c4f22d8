"""Chest CT from silver labels, every part supervised before and during alignment (arXiv 2509.13175, 2603.06467).

    python -m lgdea_jax.train --config=configs/silver_ct.py:image --workdir=IMAGES
    python -m lgdea_jax.train --config=configs/silver_ct.py:text --workdir=REPORTS
    python -m lgdea_jax.train --config=configs/silver_ct.py --workdir=RUN --config.init_from=IMAGES,REPORTS

Three stages, a command each: the image tower on labels, the text tower on labels, and their alignment with a classifier
that both share. A further word chooses the size, as in configs/silver_ct.py:image,lite; it is the same in all stages:

- `paper` (the default): crops of 192 x 192 x 96 voxels of 1.5 x 1.5 x 3 mm, a stem of stride 2, for 24 GB.
- `lite`: a stem of stride 4, for 6 GB.
- `ct_clip`: CT-CLIP's geometry, 480 x 480 x 240 voxels of 0.75 x 0.75 x 1.5 mm, with the stem of stride 4.
- `phantom`: a small tower on the phantom CT world, which is made on the spot when `data.dir` is missing.

Weights are expected below pretrained/ and are not downloaded: pretrained/r3d_18 (torchvision's, of Kinetics-400) and
pretrained/CXR-BERT (microsoft/BiomedVLP-CXR-BERT-specialized, tokeniser included). The numbers are those of the public
code of arXiv 2603.06467 (https://github.com/SadVoxel/GreenRFM, commit 25ad89b). Unlike it, uncertain labels are left
out of the losses (`methods.NAME.uncertain` chooses), the cosine ends at 0 instead of 1e-6, products are in bfloat16,
and biases and norms are not decayed. It has not been run at full size.
"""

from . import common, supervised_ct

METHODS = {"both": "clip_supervised", "image": "supervised", "text": "supervised_text"}
EPOCH = 4600  # Steps of 10 of the 46,000 training volumes.


def get_config(arg=None):
    """`arg`: a stage ("both", "image" or "text") and a size ("paper", "lite", "ct_clip" or "phantom"), by a comma."""
    stage, size = common.read_words(arg, tuple(METHODS), ("paper", "lite", "ct_clip", "phantom"))
    config = common.get_config()
    config.method = METHODS[stage]
    config.image.modality = "ct"
    config.model.image.name = "resnet3d"
    config.data.labels = "silver"
    config.data.equal_reports = "drop"  # Templated normal reports are equal across patients.
    config.eval.metric = "zero_shot/auroc" if stage == "both" else "classifier/auroc"
    if stage == "both":
        config.init_parts = ("image_tower", "text_tower")
    phantom(config, stage) if size == "phantom" else paper(config, stage, size)
    return config


def paper(config, stage, size):
    """The published recipe; `size` is "paper", "lite" or "ct_clip"."""
    config.dtype = "bfloat16"
    config.data.dir = "data/ct_rate"
    config.data.workers = 8
    config.batch.pairs = 10
    config.total_steps = 5 * EPOCH
    config.volume.geometry = "green_rfm"
    config.volume.shape = (96, 192, 192)  # A random crop in training, the middle in evaluation.
    config.volume.random_crop = True
    config.volume.shift = 0.0
    if size == "ct_clip":
        config.volume.geometry, config.volume.shape = "ct_clip", ()
    tower = config.model.image.resnet3d
    tower.variant, tower.norm, tower.conv = "resnet18", "batch", "native"
    tower.stem = "embed2" if size == "paper" else "embed4"
    config.model.width = 768
    config.text.length.report = 128
    bert = config.model.text.bert
    bert.variant, bert.pool, bert.dropout_rate = "base", "cls", 0.1
    if stage == "image":
        config.model.image.weights = "pretrained/r3d_18"
    else:
        config.text.tokenizer = "pretrained/CXR-BERT"
    if stage == "text":
        config.model.text.weights = "pretrained/CXR-BERT"
    config.optim.warmup_steps = 0
    config.optim.beta2 = 0.999
    if stage == "both":
        config.optim.schedule, config.optim.rate = "constant", 1e-5
        config.optim.weight_decay, config.optim.clip_norm = 0.0, 0.5
    else:
        config.optim.rate, config.optim.weight_decay, config.optim.clip_norm = 1e-4, 1e-4, 0.0
    config.eval.every = config.checkpoint.every = EPOCH
    config.log.every = 50


def phantom(config, stage):
    """The phantom CT world in minutes on a laptop's CPU."""
    supervised_ct.phantom(config)
    config.total_steps = {"image": 600, "text": 200, "both": 300}[stage]
    config.checkpoint.every = config.total_steps
