"""Any experiment small enough to train a step of in a test, with its structure kept."""

import re

from lgdea_jax.arrays import flatten
from lgdea_jax.experiment import Experiment

TRANSFORMER = {"width": 16, "depth": 2, "heads": 2, "mlp_dim": 32}


def shrink(config):
    """Makes an unlocked config tiny, in place: a few pixels, tokens, channels and blocks; no published weights.

    What it keeps is what it is for: method, options of the towers, dtype, schedule, averaging, and those of the
    learning-rate rules that still match a parameter (a rule for the twelfth of two blocks cannot). Configs that are
    small already (`configs/phantom.py`) keep their sizes.
    """
    config.total_steps, config.log.every, config.eval.every, config.batch.pairs = 2, 1, 0, 4
    config.eval.records, config.data.workers, config.optim.warmup_steps = 12, 0, 1
    config.model.image.weights = config.model.text.weights = config.text.tokenizer = ""
    config.model.image.name = config.model.image.name or "vit"  # An empty one is that of a checkpoint.
    if config.image.modality == "ct":  # What the data set of the tests was built with; few of its voxels.
        config.volume.geometry, config.volume.shape = "phantom_ct", (8, 16, 16)
        config.model.image.resnet3d.variant, config.model.image.resnet3d.sizes.width = "resnet8", 4
    elif config.image.size <= 64:
        return config
    config.image.size, config.model.width = 32, 16
    config.model.prototypes, config.model.lesion_queries = 8, 2
    for name in config.text.length:
        config.text.length[name] = 12
    config.text.phrases = 2
    vit, resnet = config.model.image.vit, config.model.image.resnet
    config.model.text.bert.sizes.update(TRANSFORMER)
    vit.variant = re.sub(r"/\d+$", "/8", vit.variant)
    vit.sizes.update(TRANSFORMER)
    resnet.variant, resnet.sizes.width = "resnet8", 8
    paths = flatten(Experiment.of(config).model.abstract(vocab_size=100, num_labels=2)[1])
    config.optim.rates = tuple(rule for rule in config.optim.rates
                               if any(re.search(rule.rpartition("=")[0], path) for path in paths))
    return config
