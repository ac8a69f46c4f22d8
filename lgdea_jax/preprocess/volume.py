"""CT volumes: named geometries ("ct_clip@2", "fvlm_centre@1", ...), what records store of them, and the model's input.

A geometry is a voxel spacing, a shape and a window. The record holds the volume resampled to that spacing and cut
(around its middle) to that shape where it is larger, in Hounsfield units; the model's input is cut or padded to its
shape, still int16, and windowed on the device (`models.forward`). Nothing is mirrored: volumes are [z, y, x] in the
frame of `lgdea_jax.io.volumes`, and image-left is patient-right. Boxes are in voxels of the original volume, where
voxel i covers the interval [i, i + 1).

Sources: `ct_clip` is the preprocessing of CT-CLIP (Hamamci et al., 2024): it clips before it interpolates, and rounds
the number of voxels down. Unlike its script, which keeps the order and direction of the file's axes, volumes are
oriented first, and interpolated values are stored as whole HU. `fvlm_centre` has the spacing, the window and the size
of the sliding window of fVLM (Shui et al., ICLR 2025), but cuts around the middle: fVLM crops to a mask of the organs
first and trains at (112, 256, 352). `green_rfm` is that of GreenRFM
(arXiv 2603.06467, https://github.com/SadVoxel/GreenRFM), whose model takes (96, 192, 192) voxels of it; how its authors
resample is not published.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from lgdea_jax.errors import UserError, choose
from lgdea_jax.io.encoded_volume import ByteSource, decode_volume, volume_shape
from lgdea_jax.records import Box

Triple = tuple[int, int, int]
AIR = -1024  # HU of what lies outside a volume.


@dataclasses.dataclass(frozen=True)
class Geometry:
    """One named way to lay out volumes.

    Attributes:
      name: with its version, as records and checkpoints state it; any change of a number makes another version.
      spacing: mm per voxel (z, y, x); None keeps the volume's own.
      shape: voxels (z, y, x) of the model's input and, at most, of a record; None keeps all (the model's shape must
        then be given).
      window: (low, high) in HU, mapped to `output`; what lies beyond is clipped, what is padded is `low`.
      clip: (low, high) in HU to which volumes are clipped before they are resampled, or None. Afterwards it would be
        another volume: next to metal or air an interpolated value depends on how far out its neighbours are.
    """

    name: str
    spacing: tuple[float, float, float] | None
    shape: Triple | None
    window: tuple[float, float] = (-1000.0, 1000.0)
    output: tuple[float, float] = (-1.0, 1.0)
    clip: tuple[int, int] | None = None


GEOMETRIES: Mapping[str, Geometry] = MappingProxyType({
    "ct_clip": Geometry("ct_clip@2", (1.5, 0.75, 0.75), (240, 480, 480), clip=(-1000, 1000)),
    "fvlm_centre": Geometry("fvlm_centre@1", (3.0, 1.0, 1.0), (112, 288, 352), (-1150.0, 350.0), (0.0, 1.0)),
    "green_rfm": Geometry("green_rfm@1", (3.0, 1.5, 1.5), (120, 240, 240), (-1000.0, 200.0)),
    "phantom_ct": Geometry("phantom_ct@1", (10.0, 7.5, 7.5), (32, 48, 48)),  # 320 x 360 x 360 mm.
    "native": Geometry("native@1", None, None),
})


def find_geometry(name: str) -> Geometry:
    """The geometry of that name ("ct_clip") or versioned name ("ct_clip@1").

    Raises:
      UserError: unknown.
    """
    for geometry in GEOMETRIES.values():
        if geometry.name == name:
            return geometry
    return GEOMETRIES[choose("volume geometry", name, GEOMETRIES)]


def resampled_shape(shape: Sequence[int], spacing: Sequence[float], geometry: Geometry) -> Triple:
    """Voxels (z, y, x) of the whole extent of a volume at the geometry's spacing: int(n * (old / new)), CT-CLIP's."""
    if geometry.spacing is None:
        return tuple(int(n) for n in shape)
    return tuple(max(1, int(n * (_as_written(old) / new)))
                 for n, old, new in zip(shape, spacing, geometry.spacing, strict=True))


def _as_written(mm: float) -> float:
    """The decimal of a spacing that was stored in single precision: 0.9 for 0.89999998, 0.7265625 for itself.

    Tables of metadata, from which the public script reads it, have the decimal: a quotient that is whole must not be
    rounded down because a header has it in single precision.
    """
    short = round(float(mm), 6)
    return short if np.float32(short) == np.float32(mm) else float(mm)


def resample(volume: np.ndarray, shape: Sequence[int], *, order: int = 1) -> np.ndarray:
    """Resamples the whole extent of a volume to `shape` voxels.

    Output voxel i lies at (i + 0.5) * old / new - 0.5, values beyond the outermost centres are those there: the same as
    torch's `interpolate(mode="trilinear", align_corners=False)`, which CT-CLIP uses.

    Args:
      volume: [z, y, x] of any real dtype.
      shape: of the result.
      order: 1 is trilinear, 0 nearest (for masks).

    Returns:
      The same dtype; integers are rounded.
    """
    from scipy import ndimage

    if tuple(volume.shape) == tuple(shape):
        return volume
    factors = [new / old for new, old in zip(shape, volume.shape, strict=True)]
    exact = np.issubdtype(volume.dtype, np.integer) and order > 0
    out = ndimage.zoom(volume, factors, output=np.float32 if exact else volume.dtype, order=order, mode="nearest",
                       grid_mode=True, prefilter=False)
    if out.shape != tuple(shape):
        raise ValueError(f"resampling {list(volume.shape)} gave {list(out.shape)} instead of {list(shape)}")
    return np.rint(out, out=out).astype(volume.dtype) if exact else out


def _middle(size: int, limit: int) -> int:
    """Where a cut to `limit` begins so that as much is lost on both sides; 0 where nothing is."""
    return max(0, (size - limit) // 2)


def to_record(volume: np.ndarray, spacing: Sequence[float], geometry: Geometry) -> np.ndarray:
    """What a record stores: clipped, resampled to the geometry's spacing, cut around the middle to at most its shape.

    Args:
      volume: int16 [z, y, x] in HU; spacing: mm (z, y, x).

    Returns:
      int16 [z, y, x].
    """
    volume = volume if geometry.clip is None else np.clip(volume, *geometry.clip)
    out = resample(volume, resampled_shape(volume.shape, spacing, geometry))
    if geometry.shape is None:
        return out
    return out[tuple(slice(start, start + limit) for start, limit in (
        (_middle(size, limit), limit) for size, limit in zip(out.shape, geometry.shape, strict=True)))]


@dataclasses.dataclass(frozen=True)
class VolumeView:
    """The part of stored volumes that a model takes as its input.

    Attributes:
      geometry: that the volumes were stored with; shape: (z, y, x) voxels of the model's input; window: HU (low, high).
    """

    geometry: Geometry
    shape: Triple
    window: tuple[float, float]

    @classmethod
    def of(cls, geometry: str, shape: Sequence[int] = (), window: Sequence[float] = ()) -> VolumeView:
        """The view of `config.volume`; an empty `shape` or `window` takes the geometry's.

        Raises:
          UserError: unknown geometry, or a shape or window that is none.
        """
        found = find_geometry(geometry)
        shape = tuple(int(n) for n in shape) or found.shape
        if shape is None:
            raise UserError(f"volume.shape is needed: the geometry {found.name} has none of its own")
        window = tuple(float(value) for value in window) or found.window
        if len(shape) != 3 or min(shape) < 1:
            raise UserError(f"volume.shape={tuple(shape)}: depth, height and width in voxels")
        if len(window) != 2 or not window[0] < window[1]:
            raise UserError(f"volume.window={tuple(window)}: the lowest and the highest HU")
        return cls(found, shape, window)

    @property
    def name(self) -> str:
        """The model transform, e.g. "window@1:240x480x480:-1000:1000"; checkpoints state it beside the record's."""
        return f"window@1:{'x'.join(map(str, self.shape))}:{self.window[0]:g}:{self.window[1]:g}"

    def offset(self, stored: Sequence[int]) -> Triple:
        """Where the stored volume's first voxel lies in the model's shape; negative where it is cut off."""
        return tuple(-((have - want) // 2) if have > want else (want - have) // 2
                     for want, have in zip(self.shape, stored, strict=True))

    def crop(self, data: bytes | ByteSource | np.ndarray, offset: Sequence[int]) -> np.ndarray:
        """The stored volume in the model's shape, still in HU; only the chunks inside it are decoded.

        Args:
          data: `Record.image` in the format "blosc2", or where it is stored, or what would be stored (`to_record`).
          offset: of the stored volume's first voxel.

        Returns:
          int16 [z, y, x]; AIR outside the volume.

        Raises:
          ValueError: damaged bytes.
        """
        stored = data.shape if isinstance(data, np.ndarray) else volume_shape(data)
        low = [max(0, -o) for o in offset]
        high = [min(have, want - o) for have, want, o in zip(stored, self.shape, offset, strict=True)]
        if any(a >= b for a, b in zip(low, high, strict=True)):
            return np.full(self.shape, AIR, np.int16)
        region = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        inner = data[region] if isinstance(data, np.ndarray) else decode_volume(data, region)
        if inner.shape == self.shape:
            return inner
        out = np.full(self.shape, AIR, np.int16)
        out[tuple(slice(a + o, b + o) for a, b, o in zip(low, high, offset, strict=True))] = inner
        return out

    def prepare(self, data: bytes | ByteSource | np.ndarray) -> np.ndarray:
        """A record's volume as the model's input without augmentation: centred, int16 [D, H, W, 1] in HU.

        Args:
          data: as of `crop`.

        Raises:
          ValueError: damaged bytes.
        """
        shape = data.shape if isinstance(data, np.ndarray) else volume_shape(data)
        return self.crop(data, self.offset(shape))[..., None]

    def map(self, original_shape: Sequence[int], spacing: Sequence[float]) -> VolumeMap:
        """Maps between the voxels of an original volume (z, y, x) of `spacing` mm and those of the model."""
        return VolumeMap.of(original_shape, spacing, self)


@dataclasses.dataclass(frozen=True)
class VolumeMap:
    """Original voxels <-> the model's voxels of one volume, without augmentation.

    Attributes:
      original: (z, y, x) of the original volume, the frame in which boxes are given.
      resampled: (z, y, x) after resampling its whole extent.
      offset: of the resampled volume's first voxel in the model's shape; negative where it is cut off.
      shape: of the model's input.
    """

    original: Triple
    resampled: Triple
    offset: Triple
    shape: Triple

    @classmethod
    def of(cls, original_shape: Sequence[int], spacing: Sequence[float], view: VolumeView) -> VolumeMap:
        """See `VolumeView.map`."""
        original = tuple(int(n) for n in original_shape)
        if len(original) != 3 or min(original) < 1:
            raise ValueError(f"a volume of {list(original)} voxels has no geometry")
        if view.geometry.spacing is not None and not all(mm > 0 for mm in spacing):
            raise ValueError("a volume without spacing cannot be mapped")
        resampled = resampled_shape(original, spacing, view.geometry)
        cut = [0, 0, 0]
        stored = list(resampled)
        if view.geometry.shape is not None:
            cut = [_middle(size, limit) for size, limit in zip(resampled, view.geometry.shape, strict=True)]
            stored = [min(size, limit) for size, limit in zip(resampled, view.geometry.shape, strict=True)]
        offset = tuple(first - start for first, start in zip(view.offset(stored), cut, strict=True))
        return cls(original, resampled, offset, view.shape)

    @property
    def scale(self) -> np.ndarray:
        """float64 [3]: the model's voxels per original voxel (z, y, x)."""
        return np.array(self.resampled) / np.array(self.original)

    def points(self, points: np.ndarray) -> np.ndarray:
        """Points [..., 3] (z, y, x) in original voxels -> in the model's; voxel i covers [i, i + 1)."""
        return np.asarray(points, np.float64) * self.scale + np.array(self.offset)

    def points_back(self, points: np.ndarray) -> np.ndarray:
        """The inverse of `points`."""
        return (np.asarray(points, np.float64) - np.array(self.offset)) / self.scale

    def box(self, box: Box) -> Box:
        """A box in original voxels -> in the model's (not clipped)."""
        z, y, x = self.points((box.z, box.y, box.x)).tolist()
        d, h, w = (self.scale * (box.d, box.h, box.w)).tolist()
        return dataclasses.replace(box, x=x, y=y, z=z, w=w, h=h, d=d)

    def box_back(self, box: Box) -> Box:
        """A box in the model's voxels -> in original ones (not clipped)."""
        z, y, x = self.points_back((box.z, box.y, box.x)).tolist()
        d, h, w = (np.array((box.d, box.h, box.w)) / self.scale).tolist()
        return dataclasses.replace(box, x=x, y=y, z=z, w=w, h=h, d=d)

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """A mask of the original volume (bool or integers) in the model's voxels (nearest); 0 outside."""
        near = resample(mask.astype(np.uint8) if mask.dtype == bool else mask, self.resampled, order=0)
        out = np.zeros(self.shape, near.dtype)
        into, inner = [], []
        for offset, size, want in zip(self.offset, self.resampled, self.shape, strict=True):
            low, high = max(0, -offset), min(size, want - offset)
            inner.append(slice(low, max(low, high)))
            into.append(slice(low + offset, max(low, high) + offset))
        out[tuple(into)] = near[tuple(inner)]
        return out.astype(mask.dtype)

    def centres(self, axis: int, voxels: np.ndarray | None = None) -> np.ndarray:
        """float64 [n]: where the middles of original voxels (None: all of them) lie along an axis of the model's."""
        voxels = np.arange(self.original[axis]) if voxels is None else voxels
        return (voxels + 0.5) * self.scale[axis] + self.offset[axis]

    def heatmap(self, grid: np.ndarray, voxels: Sequence[np.ndarray | None] = (None, None, None)) -> np.ndarray:
        """A heatmap over the model's patches, mapped back onto the original volume.

        Args:
          grid: [gd, gh, gw], one value per patch; patch (0, 0, 0) holds the model's first voxel.
          voxels: indices of the original voxels along each axis that are wanted; None, all of them.

        Returns:
          float32 [D, H, W]: trilinear between the patches' centres, constant outside the outermost ones.
        """
        out = np.asarray(grid, np.float32)
        for axis in range(3):
            cells = out.shape[axis]
            centre = self.centres(axis, voxels[axis])
            cell = np.clip(centre * (cells / self.shape[axis]) - 0.5, 0, cells - 1)
            low = np.minimum(cell.astype(np.int64), max(cells - 2, 0))
            high = np.minimum(low + 1, cells - 1)
            part = (cell - low).astype(np.float32).reshape([-1 if i == axis else 1 for i in range(3)])
            out = np.take(out, low, axis) * (1 - part) + np.take(out, high, axis) * part
        return out


def projection(volume: np.ndarray) -> np.ndarray:
    """uint8 [z, x], head up: the mean from front to back, from -1000 to 200 HU; to compare volumes by."""
    mean = volume.mean(axis=1, dtype=np.float32)[::-1]
    return np.rint(np.clip((mean + 1000) / 1200, 0, 1) * 255).astype(np.uint8)
