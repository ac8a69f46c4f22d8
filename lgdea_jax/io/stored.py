"""An image or a volume that stands in a file among others, of which only what is wanted is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class Stored(Protocol):
    """The encoded bytes of an image or a volume, somewhere else (`data.shard_file.StoredImage`)."""

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int) -> np.ndarray:
        """Bytes `start` to `stop`, uint8."""

    def read_into(self, views: Sequence[memoryview]) -> None:
        """The first bytes, into these views of bytes one after the other."""
