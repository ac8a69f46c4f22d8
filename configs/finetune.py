"""Fine-tunes an image tower into a classifier of a data set's labels: `linear`, `partial` or `full`.

    python -m lgdea_jax.train --config=configs/finetune.py:linear --workdir=RUN --config.init_from=CHECKPOINT
        --config.data.dir=DATA
    python -m lgdea_jax.train --config=configs/finetune.py:full --workdir=RUN
        --config.model.image.weights=hf://OWNER/NAME --config.data.dir=DATA

CHECKPOINT is a run, an exported model or its address on the hub. The tower and the size of its images are those of the
checkpoint or of the weights' config.json. Labels that are missing or uncertain are left out of the loss
(`methods.supervised.uncertain`); `class_weights` and `positive_weights` there weigh the others. `--step=best` of other
commands is the checkpoint with the highest mean AUROC on the validation split.
"""

from . import common

# Share of the tower's blocks that stay as they are; peak learning rate of the classifier.
HOW = {"linear": (1.0, 1e-2), "partial": (0.75, 1e-3), "full": (0.0, 1e-3)}


def get_config(arg=None):
    """`arg` is "linear" (the default: the tower stays as it is), "partial" (its last quarter learns) or "full"."""
    (how,) = common.read_words(arg, tuple(HOW))
    config = common.get_config()
    config.method = "supervised"
    config.model.image.name = ""
    config.init_parts = ("image_tower",)
    config.optim.frozen, config.optim.rate = HOW[how]
    # What the tower knows is to be kept: it learns slower than the classifier, which starts from nothing.
    config.optim.rates = () if how == "linear" else ("^image_tower/=0.1",)
    config.total_steps = 1000
    config.batch.pairs = 64
    config.data.equal_reports = "allow"  # No report is read.
    config.optim.warmup_steps = 50
    config.optim.weight_decay = 0.01
    config.eval.metric = "classifier/auroc"
    config.eval.every = config.checkpoint.every = 200
    config.eval.records = 0
    return config
