"""Small array functions that models, losses and relations share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp


def as_float(x: jax.Array) -> jax.Array:
    """`x` as float32, or as float64 where it is that already (gradient checks)."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def normalize(x: jax.Array, eps: float = 1e-6) -> jax.Array:
    """`x / |x|` over the last axis in float32; zero vectors stay zero, with finite gradients."""
    x = as_float(x)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(jnp.square(x), axis=-1, keepdims=True), eps**2))


def masked_mean(values: jax.Array, valid: jax.Array) -> jax.Array:
    """Mean of `values` where `valid` holds; 0 where it holds nowhere. Invalid values may be anything finite or not."""
    return jnp.sum(jnp.where(valid, values, 0.0)) / jnp.maximum(jnp.sum(valid), 1)


def flatten(tree: Any) -> dict[str, Any]:
    """{path: leaf}: names that do not depend on container classes, so that a mismatch can be named."""
    return {path_string(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def unflatten(target: Any, flat: Mapping[str, Any]) -> Any:
    """The tree of `target`'s structure with the leaves of `flat`."""
    paths = [path_string(path) for path, _ in jax.tree_util.tree_leaves_with_path(target)]
    return jax.tree.unflatten(jax.tree.structure(target), [flat[path] for path in paths])


def path_string(path: Sequence[Any]) -> str:
    """`image_tower/blocks/0/kernel` for a key path of `jax.tree_util`."""
    names = (getattr(key, "key", getattr(key, "name", getattr(key, "idx", key))) for key in path)
    return "/".join(str(name) for name in names)
