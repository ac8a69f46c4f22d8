"""Chunks of a contrastive loss: how the rows are divided over devices and steps, for `softmax` and `sigmoid`.

A scan over chunks of the images makes [chunk, R] scores at a time. On several devices each takes its own images against
all texts: only the embeddings are gathered, and [R] vectors are summed (as DisCo-CLIP, arXiv 2304.08480; the chunks are
those of Inf-CL, arXiv 2410.17243, and of SigLIP, arXiv 2303.15343).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from lgdea_jax.arrays import as_float

# The score of what does not exist: finite, so that sums over nothing but such scores are finite too.
ABSENT = -1e30

# (features of some images, features of all texts) -> [images, texts], >= 0; an entry depends on its two rows alone.
Similarity = Callable[[Any, Any], jax.Array]


@dataclasses.dataclass(frozen=True)
class Chunks:
    """How a loss is divided.

    Attributes:
      rows: images of a chunk, on one device; memory holds a few arrays [rows, texts] at a time.
      mesh: whose devices share the images and the texts, all axes taken together; None computes on one device.
    """

    rows: int
    mesh: Mesh | None = None

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ValueError(f"a chunk of {self.rows} rows: at least 1")

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the mesh axes that the rows are split over."""
        return self.mesh.axis_names if self.mesh is not None and self.mesh.size > 1 else ()


@dataclasses.dataclass(frozen=True)
class Plan:
    """The static part of a loss; hashable, as `jax.custom_vjp` requires."""

    chunks: Chunks
    similarity: Similarity | None
    own_share: float


def prepare(image: jax.Array, text: jax.Array, image_mask: Any, text_mask: Any, image_features: Any,
            text_features: Any, chunks: Chunks | None) -> tuple:
    """(image, text, masks, features, chunks): float arrays, with rows added so that they divide over the devices."""
    chunks = chunks or Chunks(max(1, image.shape[0]))
    if text_mask is None and image.shape[0] == text.shape[0]:
        text_mask = image_mask
    if text_features is None:
        text_features = image_features
    devices = chunks.mesh.size if chunks.axes else 1

    def divide(x: jax.Array) -> jax.Array:
        return fill(jnp.asarray(x), -(-x.shape[0] // devices) * devices)

    def valid(mask: Any, rows: int) -> jax.Array:
        return divide(jnp.ones(rows, bool) if mask is None else jnp.asarray(mask) != 0)

    masks = valid(image_mask, image.shape[0]), valid(text_mask, text.shape[0])
    features = jax.tree.map(divide, (image_features, text_features))  # No gradient: see `softmax`, `sigmoid`.
    return divide(as_float(image)), divide(as_float(text)), masks, features, chunks


def fill(x: jax.Array, rows: int) -> jax.Array:
    """Rows of zeros at the end, `rows` in all."""
    return x if x.shape[0] == rows else jnp.pad(x, [(0, rows - x.shape[0])] + [(0, 0)] * (x.ndim - 1))


def cut_rows(arrays: Any, rows: int) -> Any:
    """[N, ...] -> [chunks, rows, ...], filled with rows of zeros."""
    def cut(x: jax.Array) -> jax.Array:
        chunks = -(-len(x) // rows)
        return fill(x, chunks * rows).reshape(chunks, rows, *x.shape[1:])

    return jax.tree.map(cut, arrays)


def scan_chunks(step: Callable[[Any, Any], tuple[Any, Any]], carry: Any, arrays: Any, rows: int) -> tuple[Any, Any]:
    """`lax.scan` of `step` over chunks of `rows` of the arrays [N, ...]; the last one is filled with zeros.

    Returns:
      (the last carry, the results of all steps joined to [N, ...]); without a loop if there is one chunk.
    """
    count = jax.tree.leaves(arrays)[0].shape[0]
    if 0 < count <= rows:
        return step(carry, arrays)
    carry, out = jax.lax.scan(step, carry, cut_rows(arrays, rows))
    return carry, jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:count], out)


def gather(tree: Any, axes: tuple[str, ...]) -> Any:
    """The rows of all devices, in order."""
    return jax.tree.map(lambda x: jax.lax.all_gather(x, axes, tiled=True), tree) if axes else tree


def sum_over_devices(tree: Any, axes: tuple[str, ...]) -> Any:
    """Sums of the arrays over the devices."""
    return jax.lax.psum(tree, axes) if axes else tree


def over_devices(function: Callable[..., Any], chunks: Chunks, *, out: Any) -> Callable[..., Any]:
    """`function` of each device's rows; scalars go to every device.

    Args:
      function: of arrays (or trees of them) whose first dimension is the rows, or of scalars.
      out: a tree of "rows" and "all" with the structure of the result.
    """
    if not chunks.axes:
        return function
    rows, everywhere = PartitionSpec(chunks.axes), PartitionSpec()
    out_specs = jax.tree.map(lambda kind: rows if kind == "rows" else everywhere, out)

    def call(*args: Any) -> Any:
        in_specs = jax.tree.map(lambda leaf: rows if jnp.ndim(leaf) else everywhere, args)
        # Replicated results come from psum and pmax, which the check of varying axes does not follow.
        return jax.shard_map(function, mesh=chunks.mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)(*args)

    return call


def products(image: jax.Array, text: jax.Array) -> jax.Array:
    """image @ text.T at full float32 precision."""
    return jax.lax.dot_general(image, text, (((1,), (1,)), ((), ())), precision=jax.lax.Precision.HIGHEST)


def weighted_rows(scores: jax.Array, rows: jax.Array, *, transpose: bool = False) -> jax.Array:
    """scores @ rows, or scores.T @ rows, at full float32 precision."""
    return jax.lax.dot_general(scores, rows, (((0 if transpose else 1,), (0,)), ((), ())),
                               precision=jax.lax.Precision.HIGHEST)


def scale_gradients(image: jax.Array, scale: jax.Array, image_gradient: jax.Array, text_gradient: jax.Array,
                    cotangent: jax.Array) -> tuple:
    """Gradients of image, text and scale from those of scale x image and of text; none of masks and features."""
    scale_gradient = jnp.sum(image * image_gradient)
    return (cotangent * scale * image_gradient, cotangent * text_gradient, cotangent * scale_gradient, None, None)
