"""What the naming schemes of ViTs share: tokens, position embeddings, sizes.

Published ViTs have one position embedding with rows for the class token (and DeiT's distillation token) before those of
the patches. A token and its row only ever occur as their sum: our towers hold the sum as the token, and files that we
write have zeros in the row.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from lgdea_jax.models import vit
from lgdea_jax.models.pretrained import positions
from lgdea_jax.models.pretrained.files import WeightsError
from lgdea_jax.models.pretrained.layout import Tensors

QKV = ("query", "key", "value")


@dataclasses.dataclass(frozen=True)
class Tokens:
    """Names of the tokens and of the position embedding.

    Attributes:
      cls, position: of the class token and of the position embedding.
      extra: of the registers; "" where the scheme has none.
      extra_rows: whether they have rows in the position embedding.
      flat: the class token is [width] and the position embedding [rows, width], without a batch axis.
      antialias: whether the model's own code widens the cubic when it shrinks the embedding.
    """

    cls: str
    position: str
    extra: str = ""
    extra_rows: bool = False
    flat: bool = False
    antialias: bool = False


def unpack_tokens(tensors: Tensors, tower: vit.ViT, names: Tokens) -> list[str]:
    """Splits the position embedding, adds the tokens' rows to the tokens, and interpolates the patches' to the grid."""
    if names.position not in tensors or names.cls not in tensors:
        return []
    width = tower.features
    table = np.asarray(tensors[names.position], np.float32)
    if table.shape[-1] != width:
        return []  # The shapes are reported by name later.
    table = table.reshape(-1, width)
    tokens = np.asarray(tensors[names.cls], np.float32).reshape(1, width)
    rows = 1
    if names.extra and names.extra_rows and names.extra in tensors:
        extra = np.asarray(tensors[names.extra], np.float32).reshape(-1, width)
        rows += len(extra)
        tensors[names.extra] = (extra + table[1:rows])[None]
    elif names.extra and names.extra in tensors:
        tensors[names.extra] = np.asarray(tensors[names.extra], np.float32).reshape(1, -1, width)
    tensors[names.cls] = (tokens + table[:1])[None]
    side = math.isqrt(len(table) - rows)
    if side * side != len(table) - rows:
        raise WeightsError(f"{names.position} has {len(table)} rows, which are {rows} and no square of patches")
    patches = positions.interpolate(table[rows:], (side, side), tower.grid, antialias=names.antialias)
    tensors[names.position] = patches[None]
    if (side, side) == tower.grid:
        return []
    return [f"positions from {side} x {side} to {tower.grid[0]} x {tower.grid[1]}"]


def pack_tokens(tensors: Tensors, tower: vit.ViT, names: Tokens) -> None:
    """The inverse of `unpack_tokens`, in place."""
    width = tower.features
    rows = 1 + (tensors[names.extra].shape[1] if names.extra and names.extra_rows else 0)
    table = np.concatenate([np.zeros((rows, width), np.float32), tensors[names.position][0]])
    tensors[names.position] = table if names.flat else table[None]
    if names.flat:
        tensors[names.cls] = tensors[names.cls].reshape(width)


def refuses(tower: vit.ViT, families: tuple[str, ...], pools: tuple[str, ...] = ("gap", "cls")) -> str:
    """Why a tower is none of `families`; "" where it is one."""
    if not isinstance(tower, vit.ViT):
        return "it is no ViT"
    if tower.family not in families:
        return f"the tower is of family={tower.family}, not one of {', '.join(families)}"
    if tower.stem_kind != "linear" or tower.position is None:
        return "published ViTs have stem=linear and position=True"
    if tower.pool not in pools:
        return f"there are no weights for pool={tower.pool}; possible: {', '.join(pools)}"
    return ""


def sizes(tower: vit.ViT) -> dict[str, Any]:
    """What every Hugging Face config of a ViT contains."""
    height, width = tower.image_size
    return {"hidden_size": tower.features, "num_hidden_layers": len(tower.blocks), "num_attention_heads": tower.heads,
            "image_size": height if height == width else [height, width], "patch_size": tower.patch_size,
            "num_channels": tower.channels, "layer_norm_eps": tower.eps,
            "hidden_act": "quick_gelu" if tower.mlp == "quick_gelu" else "gelu"}


def options(config: Mapping[str, Any], mlp_dim: int) -> dict[str, Any]:
    """Options of the tower that a Hugging Face config of a ViT describes: the inverse of `sizes`.

    Args:
      config: of the file; mlp_dim: of the blocks.
    """
    return {"variant": f"B/{config['patch_size']}", "eps": config.get("layer_norm_eps", 0.0),
            "sizes": {"width": config["hidden_size"], "depth": config["num_hidden_layers"],
                      "heads": config["num_attention_heads"], "mlp_dim": mlp_dim}}
