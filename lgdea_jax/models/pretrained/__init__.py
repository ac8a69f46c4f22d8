"""Published weights into our towers and back: `load_tower` reads a local directory or file, `save_tower` writes one.

    loaded = pretrained.load_tower(tower, "path/to/rad-dino")     # strict both ways; errors name the key
    pretrained.save_tower(tower, loaded.params, "out")            # model.safetensors and config.json

`files` reads and writes weight files, `layout` defines a naming scheme, `transfer` applies one. `bert_names`,
`vit_names`, `clip_names` and `resnet_names` hold the schemes, `vit_tokens` what those of ViTs share, `positions` the
interpolation of position embeddings. Nothing is downloaded, and torch is needed for torch files only.
"""

from lgdea_jax.models.pretrained.files import WeightsError
from lgdea_jax.models.pretrained.layout import parameters
from lgdea_jax.models.pretrained.transfer import NAMES, Loaded, describe, load_tower, save_own, save_tower

__all__ = ["NAMES", "Loaded", "WeightsError", "describe", "load_tower", "parameters", "save_own", "save_tower"]
