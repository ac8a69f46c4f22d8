"""A config whose towers train in seconds: 32 px, width 16, one block, 4 to 8 rows a batch.

    --config=tests/training/tiny.py[:METHOD]
"""

from lgdea_jax import cli


def get_config(arg=None):
    """The tiny experiment with the method `arg` (lgdea by default)."""
    config = cli.read_config("configs/common.py")
    config.method = arg or "lgdea"
    config.total_steps = 6
    config.data.cache = True
    config.data.equal_reports = "drop"
    config.batch.pairs = 8
    config.image.size = 32
    config.text.length.report, config.text.length.evidence, config.text.length.phrases = 24, 16, 8
    config.text.phrases = 3
    config.model.width = 16
    config.model.prototypes = 8
    config.model.lesion_queries = 2
    config.model.image.vit.variant = "XS/8"
    config.model.text.bert.variant = "XS"
    small = {"width": 16, "depth": 1, "heads": 2, "mlp_dim": 32}
    for name, value in small.items():
        config.model.image.vit.sizes[name] = value
        config.model.text.bert.sizes[name] = value
    config.memory.start, config.memory.full, config.memory.graph_every, config.memory.landmarks = 0.3, 0.6, 2, 4
    config.optim.rate = 1e-2
    config.optim.warmup_steps = 2
    config.eval.records = 8
    config.checkpoint.every = 3
    config.log.every = 1
    config.log.tensorboard = False
    config.compile_cache = ""
    return config
