"""Random numbers of the phantom worlds: reproducible streams keyed by integers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class RandomStream:
    """Random numbers of one stream, keyed by integers: the same key gives the same numbers in any process."""

    def __init__(self, *key: int) -> None:
        self._generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
        self._buffer: list[float] = []

    def random(self) -> float:
        """Uniform in [0, 1)."""
        if not self._buffer:
            self._buffer = self._generator.random(96).tolist()
        return self._buffer.pop()

    def uniform(self, low: float, high: float) -> float:
        """Uniform in [low, high)."""
        return low + (high - low) * self.random()

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.random() < probability

    def integer(self, low: int, high: int) -> int:
        """One of low, ..., high."""
        return low + int((high - low + 1) * self.random())

    def pick(self, items: Sequence):  # noqa: ANN201 (the items' type)
        """One of the items, all equally likely."""
        return items[int(len(items) * self.random())]

    def weighted(self, weights: Sequence[float]) -> int:
        """An index, with probability in proportion to its weight."""
        left = self.random() * sum(weights)
        for index, weight in enumerate(weights):
            left -= weight
            if left < 0:
                return index
        return len(weights) - 1

    def shuffled(self, items: Sequence) -> list:
        """The items in random order."""
        out = list(items)
        for i in range(len(out) - 1, 0, -1):
            j = int((i + 1) * self.random())
            out[i], out[j] = out[j], out[i]
        return out

    def normal(self, shape: tuple[int, ...]) -> np.ndarray:
        """float32 standard normal numbers."""
        return self._generator.standard_normal(shape, dtype=np.float32)
