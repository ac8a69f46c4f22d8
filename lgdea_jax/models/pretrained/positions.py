"""Bicubic interpolation of position embeddings to another grid, as `torch.nn.functional.interpolate` computes it.

`jax.image.resize` uses another cubic (a = -0.5 for torch's -0.75) and other borders: the patches of a published model
would get positions that it was not trained with.
"""

from __future__ import annotations

import numpy as np


def cubic(x: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic convolution kernel with parameter `a`, 0 beyond a distance of 2."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((x - 5) * x + 8) * x * a - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def weights(old: int, new: int, *, antialias: bool) -> np.ndarray:
    """float64 [new, old], rows sum to 1: each new cell as a combination of the old ones.

    Args:
      old, new: number of cells.
      antialias: widen the kernel when shrinking, and cut it off at the border instead of repeating the border.
    """
    matrix = np.zeros((new, old))
    scale = old / new
    for row in range(new):
        centre = scale * (row + 0.5)
        if antialias:
            stretch = max(scale, 1.0)
            columns = np.arange(max(int(centre - 2 * stretch + 0.5), 0), min(int(centre + 2 * stretch + 0.5), old))
            values = cubic((columns + 0.5 - centre) / stretch, -0.5)
            values = values / values.sum()
        else:
            first = int(np.floor(centre - 0.5)) - 1
            taps = np.arange(first, first + 4)
            values = cubic(taps + 0.5 - centre, -0.75)
            columns = np.clip(taps, 0, old - 1)
        np.add.at(matrix[row], columns, values)
    return matrix


def interpolate(embedding: np.ndarray, grid: tuple[int, int], new_grid: tuple[int, int], *,
                antialias: bool) -> np.ndarray:
    """[gh * gw, W] -> float32 [new_gh * new_gw, W]; unchanged when the grids are equal."""
    if grid == new_grid:
        return np.asarray(embedding, np.float32)
    rows, columns = (weights(old, new, antialias=antialias) for old, new in zip(grid, new_grid, strict=True))
    image = np.asarray(embedding, np.float64).reshape(*grid, -1)
    return np.einsum("ir,jc,rcw->ijw", rows, columns, image, optimize=True).reshape(
        new_grid[0] * new_grid[1], -1).astype(np.float32)
