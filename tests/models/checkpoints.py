"""Towers without values, and checkpoints of the models in `published` on disk: what the importers' tests share."""

import jax
import jax.numpy as jnp
from flax import nnx
from safetensors.torch import save_file

from lgdea_jax.models import pretrained
from tests.models import published

VIT = {"width": 16, "depth": 2, "heads": 4, "mlp_dim": 24, "patch_size": 4, "image_size": 16, "channels": 3}
BERT = {"vocab_size": published.VOCAB, "width": 16, "depth": 2, "heads": 4, "mlp_dim": 24,
        "max_length": published.LENGTH}
RESNET = {"stage_sizes": (1, 2, 1), "bottleneck": True, "width": 8, "channels": 3, "norm": "batch"}


def tower_of(cls, sizes, **options):
    """A tower without values."""
    return nnx.eval_shape(lambda: cls(**{**sizes, **options}, rngs=nnx.Rngs(0)))


def filled(tower, params):
    """The tower with the parameters of an importer."""
    graphdef, state = nnx.split(tower)
    flat, treedef = jax.tree_util.tree_flatten_with_path(nnx.to_pure_dict(state))
    values = [jnp.asarray(params["/".join(str(key.key) for key in path)]) for path, _ in flat]
    return nnx.merge(graphdef, jax.tree.unflatten(treedef, values))


def loaded(tower, path):
    """The tower with the weights at `path`, strictly."""
    return filled(tower, pretrained.load_tower(tower, path).params)


def saved(model, folder):
    """Saves a torch model as Hugging Face does, or its state_dict where it is not theirs."""
    if hasattr(model, "save_pretrained"):
        model.save_pretrained(folder)
    else:
        folder.mkdir(exist_ok=True)
        save_file({name: value.contiguous() for name, value in model.state_dict().items()},
                  folder / "model.safetensors")
    return folder
