"""3D ResNet image tower for grey volumes (Hara et al., CVPR 2018, arXiv 1711.09577; He et al., 2016).

The same contract as `resnet.ResNet`, with one axis more: volumes in, `(pooled, {"patches", "grid"})` out, the grid
being (depth, rows, columns). Chest CT is trained a few volumes at a time, for which the moments of a batch are noise:
instance and group norm keep none. Sizes are those of torchvision's and MedicalNet's ResNets; bottlenecks stride in the
3 x 3 x 3 convolution.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from lgdea_jax.models import layers
from lgdea_jax.models.resnet import POOLS, Block, pool_patches

Axes = tuple[int, int, int]

VARIANTS: dict[str, dict[str, Any]] = {
    "resnet6": {"stage_sizes": (1, 1), "bottleneck": False, "width": 16},
    "resnet8": {"stage_sizes": (1, 1, 1), "bottleneck": False, "width": 16},
    "resnet10": {"stage_sizes": (1, 1, 1, 1), "bottleneck": False, "width": 64},
    "resnet18": {"stage_sizes": (2, 2, 2, 2), "bottleneck": False, "width": 64},
    "resnet34": {"stage_sizes": (3, 4, 6, 3), "bottleneck": False, "width": 64},
    "resnet50": {"stage_sizes": (3, 4, 6, 3), "bottleneck": True, "width": 64},
}
NORMS: dict[str, Callable[..., nnx.Module]] = {
    "batch": layers.BatchNorm, "group": layers.GroupNorm,
    "instance": functools.partial(layers.GroupNorm, group_size=1)}
# Stem -> (kernel of the convolution, its stride, whether 3 x 3 x 3 max pooling of stride 2 follows, patch to channels).
STEMS: dict[str, tuple[Axes, Axes, bool, Axes]] = {
    "imagenet": ((7, 7, 7), (2, 2, 2), True, (1, 1, 1)),
    "kinetics": ((3, 7, 7), (1, 2, 2), False, (1, 1, 1)),
    "small": ((3, 3, 3), (1, 1, 1), False, (1, 1, 1)),
    "patch2": ((3, 3, 3), (1, 1, 1), False, (2, 2, 2)),
    "patch4": ((3, 3, 3), (1, 1, 1), False, (4, 4, 4)),
    "plane2": ((3, 3, 3), (1, 1, 1), False, (1, 2, 2)),
    # A convolution as wide as its stride is a dense layer on the voxels of a patch.
    "embed2": ((1, 1, 1), (1, 1, 1), False, (2, 2, 2)),
    "embed4": ((1, 1, 1), (1, 1, 1), False, (4, 4, 4)),
}
CONVS = ("slices", "native")


def sizes(variant: str, **overrides: Any) -> dict[str, Any]:
    """Sizes of a variant: "resnet18" -> {stage_sizes, bottleneck, width}; keyword arguments replace them.

    Raises:
      ValueError: unknown variant or unknown override.
    """
    if variant not in VARIANTS:
        raise ValueError(f"unknown 3D ResNet variant {variant!r}; known: {', '.join(VARIANTS)}")
    if unknown := sorted(set(overrides) - set(VARIANTS[variant])):
        raise ValueError(f"unknown 3D ResNet sizes {unknown}; known: {', '.join(VARIANTS[variant])}")
    return {**VARIANTS[variant], **overrides}


class Conv3(nnx.Module):
    """A 3D convolution without bias, zero padding `kernel // 2`, kernel [kd, kh, kw, cin, cout] float32.

    `how="native"` is XLA's 3D convolution, of one channel in strides as one of patches (`strided_as_patches`);
    `"slices"` is the same sum as one 2D convolution for each depth of the kernel. The parameters are the same. With
    jaxlib 0.10.2 on CPU, forward and backward through 3 x 3 x 3 kernels of 16 to 32 channels are 5 to 70 times as fast
    in slices; on accelerators take native.
    """

    def __init__(self, cin: int, cout: int, kernel: Axes, *, rngs: nnx.Rngs, stride: Axes = (1, 1, 1),
                 how: str = "slices", dtype: DTypeLike = jnp.float32):
        if how not in CONVS:
            raise ValueError(f"conv must be one of {', '.join(CONVS)}, not {how!r}")
        self.stride, self.how, self.dtype = tuple(stride), how, dtype
        self.kernel = nnx.Param(layers.HE_FAN_OUT(rngs.params(), (*kernel, cin, cout), jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, D, H, W, cin] -> [B, ceil(D / stride), ..., cout] in the compute dtype."""
        kernel, x = self.kernel[...].astype(self.dtype), x.astype(self.dtype)
        padding = tuple((size // 2, size // 2) for size in kernel.shape[:3])
        if self.how == "native":
            stride = self.stride
            if max(stride) > 1 and x.shape[-1] == 1:
                x, kernel, padding = strided_as_patches(x, kernel, stride)
                stride = (1, 1, 1)
            return jax.lax.conv_general_dilated(x, kernel, stride, padding,
                                                dimension_numbers=("NDHWC", "DHWIO", "NDHWC"))
        batch, depth = x.shape[:2]
        step = self.stride[0]
        slices = -(-depth // step)
        x = jnp.pad(x, ((0, 0), padding[0], (0, 0), (0, 0), (0, 0)))
        total: Any = 0.0
        for tap in range(kernel.shape[0]):
            part = x[:, tap:tap + (slices - 1) * step + 1:step]
            total = total + jax.lax.conv_general_dilated(
                part.reshape(batch * slices, *part.shape[2:]), kernel[tap], self.stride[1:], padding[1:],
                dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return total.reshape(batch, slices, *total.shape[1:])


def patches_to_channels(x: jax.Array, patch: Axes) -> jax.Array:
    """[B, D, H, W, C] -> [B, D/pd, H/ph, W/pw, pd*ph*pw*C]: the voxels of a patch as channels, slice by slice.

    Raises:
      ValueError: a side is not a multiple of the patch.
    """
    batch, *shape, channels = x.shape
    if any(side % size for side, size in zip(shape, patch, strict=True)):
        raise ValueError(f"a volume of {shape} voxels does not divide into patches of {list(patch)}")
    (d, h, w), (pd, ph, pw) = (side // size for side, size in zip(shape, patch)), patch
    x = x.reshape(batch, d, pd, h, ph, w, pw, channels).transpose(0, 1, 3, 5, 2, 4, 6, 7)
    return x.reshape(batch, d, h, w, pd * ph * pw * channels)


def strided_as_patches(x: jax.Array, kernel: jax.Array, stride: Axes) -> tuple[jax.Array, jax.Array, Any]:
    """A convolution in strides as one without: the voxels of a stride become channels, a large kernel a smaller one.

    The sum is the same, term by term, beside terms of zero. One channel leaves matrix units idle; a kernel of 7 x 7 x 7
    and stride 2 on it is one of 4 x 4 x 4 on 8 channels.

    Args:
      x: [B, D, H, W, C]; kernel: [kd, kh, kw, C, cout], odd sides, of a convolution with padding `side // 2`.

    Returns:
      (x, kernel, padding of each axis) of the convolution of stride 1.
    """
    x = jnp.pad(x, ((0, 0), *((0, -side % step) for side, step in zip(x.shape[1:4], stride)), (0, 0)))
    taps, spare, padding = [], [], []
    for size, step in zip(kernel.shape, stride):
        # Tap t reads voxel i * step + t - size // 2, which is in the patch i + (t - size // 2) // step.
        before, after = -(-(size // 2) // step), (size // 2) // step
        taps.append(before + after + 1)
        spare.append((before * step - size // 2, (after + 1) * step - size // 2 - 1))
        padding.append((before, after))
    kernel = jnp.pad(kernel, (*spare, (0, 0), (0, 0)))
    (d, h, w), (sd, sh, sw), (*_, cin, cout) = taps, stride, kernel.shape
    kernel = kernel.reshape(d, sd, h, sh, w, sw, cin, cout).transpose(0, 2, 4, 1, 3, 5, 6, 7)
    return patches_to_channels(x, stride), kernel.reshape(d, h, w, sd * sh * sw * cin, cout), tuple(padding)


def centre_cells(volumes: jax.Array, shift: Axes) -> jax.Array:
    """Moves [B, D, H, W, C] by `shift` voxels towards the origin; the border repeats. See `resnet.centre_cells`."""
    if not any(shift):
        return volumes
    padded = jnp.pad(volumes, ((0, 0), *((0, by) for by in shift), (0, 0)), mode="edge")
    d, h, w = (slice(by, by + side) for by, side in zip(shift, volumes.shape[1:4]))
    return padded[:, d, h, w]


class Stem(nnx.Module):
    """Convolution, norm, ReLU and, with `max_pool`, 3 x 3 x 3 max pooling of stride 2."""

    def __init__(self, conv: nnx.Module, norm: nnx.Module, max_pool: bool) -> None:
        self.conv, self.norm, self.max_pool = conv, norm, max_pool

    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        x = jax.nn.relu(self.norm(self.conv(x), train=train))
        return nnx.max_pool(x, (3, 3, 3), strides=(2, 2, 2), padding=((1, 1),) * 3) if self.max_pool else x


class ResNet3D(nnx.Module):
    """`(pooled, out) = ResNet3D(**sizes("resnet18"), rngs=rngs)(volumes)`.

    Attributes:
      stride: (depth, rows, columns), voxels per position of the patch grid (where the sides are multiples of it).
      width: channels of `pooled` and of the patches.
      offset: (depth, rows, columns), voxels by which the centre of a patch's receptive field lies after the middle of
        its cell (negative: before), where the sides are multiples of the stride. Heatmaps are corrected by it.
      patch_size: side of the patch that the stem makes into channels, in slices; 1 without one.
    """

    def __init__(self, *, stage_sizes: tuple[int, ...], bottleneck: bool, width: int, rngs: nnx.Rngs,
                 channels: int = 1, stem: str = "kinetics", conv: str = "slices", norm: str = "instance",
                 pool: str = "mean", zero_init: bool = True, dtype: DTypeLike = jnp.float32, remat: bool = False):
        """Args:
          stage_sizes: residual blocks of each stage; every stage but the first halves the grid and doubles the width.
          width: channels of the first stage.
          channels: 1, grey.
          stem: "imagenet": 7 x 7 x 7 of stride 2 and max pooling (a quarter of the resolution); "kinetics": 3 x 7 x 7
            that halves the planes and keeps all slices, for slices twice as thick as pixels are wide; "small":
            3 x 3 x 3 (full resolution); "patch2", "patch4", "plane2": voxels of a 2 x 2 x 2, 4 x 4 x 4 or 1 x 2 x 2
            patch to channels, then 3 x 3 x 3; "embed2", "embed4": a 2 x 2 x 2 convolution of stride 2, or 4 x 4 x 4 of
            stride 4, as GreenRFM (arXiv 2603.06467) replaces the first one of the Kinetics network.
          conv: "slices" or "native" (see `Conv3`): the same function and parameters, another speed.
          norm: "instance", "group" or "batch".
          pool: "mean" over the patches, their "max", or "lse" (log-mean-exp): a nodule in one patch of hundreds is not
            drowned by the others.
          zero_init: blocks begin as the identity; False for shallow towers, which then learn from the first step.
          remat: recompute stem and blocks in the backward pass (a full-size volume's activations do not fit otherwise);
            not with batch norm, whose moments it would update twice.

        Raises:
          ValueError: unknown `stem`, `conv`, `norm` or `pool`; batch norm with `remat`.
        """
        for name, value, known in (("norm", norm, NORMS), ("pool", pool, POOLS), ("stem", stem, STEMS)):
            if value not in known:
                raise ValueError(f"unknown {name} {value!r}; known: {', '.join(known)}")
        if norm == "batch" and remat:
            raise ValueError("norm='batch' and remat exclude each other")
        self.channels, self.remat, self.dtype, self.stem, self.pool = channels, remat, dtype, stem, pool
        self.stage_sizes, self.bottleneck, self.norm = tuple(stage_sizes), bottleneck, norm
        kernel, stem_stride, self.max_pool, self.patch = STEMS[stem]
        self.patch_size = self.patch[0]
        halvings = 2 ** (len(stage_sizes) - 1 + self.max_pool)
        self.stride = tuple(p * s * halvings for p, s in zip(self.patch, stem_stride))
        # Published stems stay as they were trained: `offset` holds the shift instead.
        published = stem in ("imagenet", "kinetics", "embed2", "embed4")
        self.shift = (0, 0, 0) if published else tuple((s - p) // 2 for s, p in zip(self.stride, self.patch))
        # Half a voxel is left where the two differ by an odd number.
        self.offset = tuple(by - (s - p) / 2 for by, s, p in zip(self.shift, self.stride, self.patch))
        self.stem_conv = Conv3(channels * math.prod(self.patch), width, kernel, stride=stem_stride, how=conv,
                               dtype=dtype, rngs=rngs)
        self.stem_norm = NORMS[norm](width)

        def convolution(cin: int, cout: int, size: int, stride: int) -> nnx.Module:
            return Conv3(cin, cout, (size,) * 3, stride=(stride,) * 3, how=conv, dtype=dtype, rngs=rngs)

        blocks, cin = [], width
        for stage, count in enumerate(stage_sizes):
            stage_width = width * 2**stage
            for index in range(count):
                blocks.append(Block(cin, stage_width, 2 if stage > 0 and index == 0 else 1, bottleneck=bottleneck,
                                    zero_init=zero_init, convolution=convolution, norm=NORMS[norm]))
                cin = stage_width * 4 if bottleneck else stage_width
        self.blocks = nnx.List(blocks)
        self.width = cin

    def __call__(self, volumes: jax.Array, *, deterministic: bool = True,
                 rngs: nnx.Rngs | None = None) -> tuple[jax.Array, dict[str, Any]]:
        """Args:
          volumes: float [B, D, H, W, channels], windowed by the caller; any sides.
          deterministic: False is training: batch norm then uses the batch's moments.
          rngs: accepted so that image towers are called alike; there is no dropout here.

        Returns:
          (pooled [B, width] float32, the patches pooled; {"patches": [B, L, width] in the compute dtype, slice by slice
          and row by row, "grid": (gd, gh, gw) static ints with gd * gh * gw = L}).

        Raises:
          ValueError: volumes of another rank or number of channels.
        """
        del rngs
        train = not deterministic
        if volumes.ndim != 5 or volumes.shape[-1] != self.channels:
            raise ValueError(f"volumes must be [B, D, H, W, {self.channels}], not {list(volumes.shape)}")
        x = centre_cells(volumes.astype(self.dtype), self.shift)
        x = patches_to_channels(x, self.patch) if max(self.patch) > 1 else x
        stem = Stem(self.stem_conv, self.stem_norm, self.max_pool)  # Here, so that no parameter changes its name.
        x = layers.call(stem, x, remat=True) if self.remat else stem(x, train=train)
        for block in self.blocks:
            x = layers.call(block, x, remat=True) if self.remat else block(x, train=train)
        grid = tuple(x.shape[1:4])
        patches = x.reshape(x.shape[0], -1, x.shape[-1])
        return pool_patches(patches, self.pool), {"patches": patches, "grid": grid}
