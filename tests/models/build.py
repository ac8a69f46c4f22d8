"""Random models for tests without compiling their initialisers, and their jitted application."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx


def random_model(make: Callable[[], nnx.Module], seed: int = 0, noise: float = 0.2) -> nnx.Module:
    """The model that `make()` describes with random NumPy parameters.

    Kernels have variance 1 / fan-in, scales are near 1 and biases near 0, but none is exactly there: parameters that
    start at 0 or 1 could hide a mistake. Much faster than `make()`, which compiles an initialiser for every shape.
    """
    rng = np.random.default_rng(seed)
    graphdef, state = nnx.split(nnx.eval_shape(make))

    def fill(path: Any, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        name = jax.tree_util.keystr(path)
        if len(leaf.shape) < 2:
            value = float("scale" in name) + noise * rng.normal(size=leaf.shape)
        else:
            value = rng.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]))
        return jnp.asarray(value.astype(leaf.dtype))

    return nnx.merge(graphdef, jax.tree_util.tree_map_with_path(fill, state))


def apply(model: nnx.Module, *args: Any, **options: Any) -> Any:
    """`model(*args, **options)` under jit; static results of a tower (`grid`) come back as they were."""
    graphdef, state = nnx.split(model)
    static = {}

    @jax.jit
    def function(state: Any, args: Any) -> Any:
        result = nnx.merge(graphdef, state)(*args, **options)
        if isinstance(result, tuple):
            static["grid"] = result[1].pop("grid", None)
        return result

    result = function(state, args)
    if static.get("grid") is not None:
        result[1]["grid"] = static["grid"]
    return result


def traced(make: Callable[[], nnx.Module], shape: tuple[int, ...]) -> tuple[nnx.Module, Any, dict[str, Any]]:
    """(image tower without values, its pooled output, its other outputs) for images of a shape; compiles nothing."""
    model = nnx.eval_shape(make)
    graphdef, state = nnx.split(model)
    static = {}

    def function(state: Any, images: jax.Array) -> Any:
        pooled, out = nnx.merge(graphdef, state)(images)
        static["grid"] = out.pop("grid")
        return pooled, out

    pooled, out = jax.eval_shape(function, state, jax.ShapeDtypeStruct(shape, jnp.float32))
    return model, pooled, {**out, **static}
