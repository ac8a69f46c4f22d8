"""Gradients against central finite differences in float64, along random directions."""

from collections.abc import Callable

import jax
import numpy as np


def check_gradients(loss: Callable[..., jax.Array], *arrays: np.ndarray, seed: int = 0, step: float = 1e-5) -> None:
    """Asserts that the gradient of `loss` with respect to every array is that of finite differences.

    Two random directions an array; the loss must be smooth at this point.
    """
    rng = np.random.default_rng(seed)
    with jax.enable_x64(True):
        arrays = [np.asarray(array, np.float64) for array in arrays]
        gradient_of = jax.jit(jax.grad(loss, argnums=tuple(range(len(arrays)))))
        gradients = gradient_of(*[jax.numpy.asarray(a) for a in arrays])
        value_of = jax.jit(loss)
        for index, (array, gradient) in enumerate(zip(arrays, gradients, strict=True)):
            assert gradient.dtype == np.float64
            assert np.all(np.isfinite(gradient)), f"argument {index}"
            for _ in range(2):
                direction = rng.normal(size=array.shape)
                moved = [[*arrays[:index], array + sign * step * direction, *arrays[index + 1:]] for sign in (1, -1)]
                high, low = (float(value_of(*[jax.numpy.asarray(a) for a in point])) for point in moved)
                expected = (high - low) / (2 * step)
                actual = float(np.sum(np.asarray(gradient) * direction))
                np.testing.assert_allclose(actual, expected, rtol=2e-6, atol=1e-8, err_msg=f"argument {index}")
