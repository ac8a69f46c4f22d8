"""Volumes for evaluators: decoded a few at a time, because a split of full-size CT fits no memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from lgdea_jax.errors import UserError
from lgdea_jax.preprocess.volume import VolumeMap, VolumeView
from lgdea_jax.records import Record


class Volumes:
    """The volumes of some records like an array int16 [N, D, H, W, 1] in HU; rows are decoded when they are indexed.

    Args:
      records: by row; rows: int64 [N], those that have a volume; view: a model's input.
    """

    dtype = np.dtype(np.int16)

    def __init__(self, records: Sequence[Record], rows: np.ndarray, view: VolumeView) -> None:
        self._records, self._rows, self.view = records, np.asarray(rows, np.int64), view

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, D, H, W, 1)."""
        return (len(self), *self.view.shape, 1)

    def __getitem__(self, key: Any) -> np.ndarray:
        """Of a slice or a list of rows, int16 [n, D, H, W, 1]; of a number, [D, H, W, 1].

        Raises:
          UserError: a stored volume is damaged.
        """
        rows = self._rows[key]
        if np.ndim(rows) == 0:
            return self._read(int(rows))
        out = np.zeros((len(rows), *self.shape[1:]), self.dtype)
        for position, row in enumerate(rows):
            out[position] = self._read(int(row))
        return out

    def _read(self, row: int) -> np.ndarray:
        try:
            return self.view.prepare(self._records[row].image)
        except ValueError as error:
            raise UserError(f"record {row}: {error}; build the data set again") from None


@dataclasses.dataclass(frozen=True)
class VolumeGeometry:
    """Maps a heatmap over a model's patches onto the original volume, as `Letterbox` does in 2D."""

    map: VolumeMap

    def heatmap(self, grid: np.ndarray, *, patch_offset: float | Sequence[float] = 0.0,
                voxels: Sequence[np.ndarray | None] = (None, None, None)) -> np.ndarray:
        """float32 [D, H, W] in original voxels; NaN outside the model's input, whose shape may be smaller.

        Args:
          grid: [gd, gh, gw], one value per patch.
          patch_offset: of each axis (or of all): how many cells the centre of a patch's receptive field lies behind
            its cell's middle (negative: before); see the image towers' `offset`.
          voxels: indices of the original voxels along each axis that are wanted; None, all of them.
        """
        cells = np.broadcast_to(np.asarray(patch_offset, np.float64), 3) * np.array(self.map.shape) / grid.shape
        # A shift of the content is a shift of the sampling positions the other way.
        moved = tuple((np.array(self.map.offset) - cells).tolist())
        out = dataclasses.replace(self.map, offset=moved).heatmap(grid, voxels)
        for axis in range(3):
            centre = self.map.centres(axis, voxels[axis])
            unseen = (centre < 0) | (centre > self.map.shape[axis])
            if unseen.any():
                out[(slice(None),) * axis + (unseen,)] = np.nan
        return out

    def of_model(self) -> VolumeGeometry:
        """The same with the model's own voxels for original ones: for pictures of the model's input."""
        shape = self.map.shape
        return VolumeGeometry(VolumeMap(shape, shape, (0, 0, 0), shape))
