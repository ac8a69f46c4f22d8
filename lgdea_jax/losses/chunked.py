"""Contrastive losses whose memory is linear in the batch: the values and gradients of `contrastive`, made in chunks.

The [I, R] scores are never held: a scan over chunks of the images makes [chunk, R] of them at a time, in the forward
pass for the log-sum-exps of both directions and once more in the backward pass for the gradient, which is written out
(`jax.custom_vjp`; the softmax costs 4 matrix products instead of 3, the sigmoid 3, because its gradient needs no sums
and is made in the forward pass). On several devices each takes its own images against all texts: only the embeddings
are gathered, and [R] vectors are summed (as DisCo-CLIP, arXiv 2304.08480; the chunks are those of Inf-CL, 2410.17243,
and of SigLIP, 2303.15343). The results are exact up to the order of float32 sums.

Soft targets are not given as a matrix but as a similarity of features of the rows, made for a chunk at a time.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from lgdea_jax.arrays import as_float

# The score of what does not exist: finite, so that sums over nothing but such scores are finite too.
_ABSENT = -1e30

# (features of some images, features of all texts) -> [images, texts], >= 0; must be elementwise in the couples.
Similarity = Callable[[Any, Any], jax.Array]


@dataclasses.dataclass(frozen=True)
class Chunks:
    """How a loss is cut.

    Attributes:
      rows: images of a chunk, on one device; held at a time are some [rows, texts] arrays.
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
class _Plan:
    """What is known when the loss is compiled; hashable, as `jax.custom_vjp` wants it."""

    chunks: Chunks
    similarity: Similarity | None
    own_share: float


def softmax_contrastive(image: jax.Array, text: jax.Array, scale: jax.Array | float, *, chunks: Chunks,
                        mask: jax.Array | None = None) -> jax.Array:
    """`contrastive.softmax_contrastive` in chunks; arguments and result as there."""
    return soft_contrastive(image, text, scale, similarity=None, own_share=1.0, image_mask=mask, text_mask=mask,
                            chunks=chunks)


def soft_contrastive(
    image: jax.Array, text: jax.Array, scale: jax.Array | float, *, similarity: Similarity | None, chunks: Chunks,
    image_features: Any = None, text_features: Any = None, own_share: float = 0.0,
    image_mask: jax.Array | None = None, text_mask: jax.Array | None = None,
) -> jax.Array:
    """`contrastive.soft_contrastive` in chunks, against the targets of a similarity W_ij = similarity(f_i, g_j).

    T_ij = own_share [i = j] + (1 - own_share) W_ij / sum_j W_ij over the valid texts; the targets of the texts are the
    same with sum_i over the valid images.

    Args:
      image: [I, E]; text: [R, E]; scale: inverse temperature, > 0.
      similarity: see `Similarity`; no gradient flows into it. None with `own_share=1`.
      image_features, text_features: trees of arrays [I, ...] and [R, ...]; those of the texts default to the images'.
      own_share: in [0, 1]; more than 0 needs I = R.
      image_mask: bool [I]; text_mask: bool [R]; rows that exist.
      chunks: how it is cut.

    Returns:
      A scalar; rows without mass in W are left out, unless they have themselves (`own_share`).

    Raises:
      ValueError: I != R where row i must belong to row i; no similarity where one is needed.
    """
    if own_share and image.shape[0] != text.shape[0]:
        raise ValueError(f"own_share={own_share} needs as many texts as images, not {image.shape[0]} and "
                         f"{text.shape[0]}")
    if (similarity is None) != (own_share == 1.0):
        raise ValueError("a similarity is needed if, and only if, own_share is below 1")
    image, text, masks, features, chunks = _prepare(image, text, image_mask, text_mask, image_features, text_features,
                                                    chunks)
    plan = _Plan(chunks, similarity, own_share)
    return _softmax(plan, image, text, jnp.asarray(scale, image.dtype), masks, features)


def sigmoid_contrastive(
    image: jax.Array, text: jax.Array, scale: jax.Array | float, bias: jax.Array | float, *, chunks: Chunks,
    similarity: Similarity | None = None, image_features: Any = None, text_features: Any = None,
    image_mask: jax.Array | None = None, text_mask: jax.Array | None = None,
) -> jax.Array:
    """`contrastive.sigmoid_contrastive` in chunks.

    Args:
      image: [I, E]; text: [R, E]; scale > 0; bias: of the logits.
      similarity: makes the targets t_ij in [0, 1] of a chunk; None: the identity, for which I = R.
      image_features, text_features, image_mask, text_mask, chunks: as in `soft_contrastive`.

    Raises:
      ValueError: I != R without a similarity.
    """
    if similarity is None and image.shape[0] != text.shape[0]:
        raise ValueError(f"{image.shape[0]} images and {text.shape[0]} texts: a similarity is needed")
    image, text, masks, features, chunks = _prepare(image, text, image_mask, text_mask, image_features, text_features,
                                                    chunks)
    plan = _Plan(chunks, similarity, 1.0 if similarity is None else 0.0)
    return _sigmoid(plan, image, text, jnp.asarray(scale, image.dtype), jnp.asarray(bias, image.dtype), masks, features)


def best_text(image: jax.Array, text: jax.Array, chunks: Chunks) -> jax.Array:
    """int32 [I]: the text with the highest product for each image, the first of equals; [I, E], [R, E]."""
    rows = image.shape[0]
    image, text, masks, _, chunks = _prepare(image, text, None, None, None, None, chunks)

    def local(image: jax.Array, text: jax.Array, columns: jax.Array) -> jax.Array:
        text, columns = _gather((text, columns), chunks.axes)
        pieces = _pieces(image, chunks.rows)
        best = jax.lax.map(lambda piece: jnp.argmax(jnp.where(columns, piece @ text.T, -jnp.inf), axis=1), pieces)
        return best.reshape(-1)[: image.shape[0]].astype(jnp.int32)

    return _over_devices(local, chunks, out="rows")(image, text, masks[1])[:rows]


def _prepare(image: jax.Array, text: jax.Array, image_mask: Any, text_mask: Any, image_features: Any,
             text_features: Any, chunks: Chunks) -> tuple:
    """Float rows, masks and features, with rows added so that they divide over the devices."""
    if text_mask is None and image.shape[0] == text.shape[0]:
        text_mask = image_mask
    if text_features is None:
        text_features = image_features
    devices = chunks.mesh.size if chunks.axes else 1

    def fill(x: jax.Array) -> jax.Array:
        return _fill(jnp.asarray(x), -(-x.shape[0] // devices) * devices)

    def valid(mask: Any, rows: int) -> jax.Array:
        return fill(jnp.ones(rows, bool) if mask is None else jnp.asarray(mask) != 0)

    masks = valid(image_mask, image.shape[0]), valid(text_mask, text.shape[0])
    features = jax.tree.map(lambda leaf: fill(jax.lax.stop_gradient(leaf)), (image_features, text_features))
    # No chunk is larger than what a device holds: small batches are not filled up.
    rows = min(chunks.rows, -(-image.shape[0] // devices))
    return (fill(as_float(image)), fill(as_float(text)), masks, features,
            dataclasses.replace(chunks, rows=max(1, rows)))


def _fill(x: jax.Array, rows: int) -> jax.Array:
    """Rows of zeros at the end, `rows` in all."""
    return x if x.shape[0] == rows else jnp.pad(x, [(0, rows - x.shape[0])] + [(0, 0)] * (x.ndim - 1))


def _pieces(tree: Any, rows: int) -> Any:
    """[N, ...] -> [ceil(N / rows), rows, ...], filled with zeros."""
    def cut(x: jax.Array) -> jax.Array:
        count = -(-x.shape[0] // rows)
        return _fill(x, count * rows).reshape(count, rows, *x.shape[1:])

    return jax.tree.map(cut, tree)


def _gather(tree: Any, axes: tuple[str, ...]) -> Any:
    """The rows of all devices, in order."""
    return jax.tree.map(lambda x: jax.lax.all_gather(x, axes, tiled=True), tree) if axes else tree


def _sum(tree: Any, axes: tuple[str, ...]) -> Any:
    return jax.lax.psum(tree, axes) if axes else tree


def _over_devices(function: Callable[..., Any], chunks: Chunks, *, out: Any) -> Callable[..., Any]:
    """`function` of each device's rows; scalars are given to all.

    Args:
      function: of arrays (or trees of them) whose first dimension is the rows, or scalars.
      out: tree of "rows" and "all" like the result.
    """
    if not chunks.axes:
        return function
    rows, everywhere = PartitionSpec(chunks.axes), PartitionSpec()
    out_specs = jax.tree.map(lambda kind: rows if kind == "rows" else everywhere, out)

    def call(*args: Any) -> Any:
        in_specs = jax.tree.map(lambda leaf: rows if jnp.ndim(leaf) else everywhere, args)
        # What is the same on all devices comes of psum and pmax: nothing to be checked.
        return jax.shard_map(function, mesh=chunks.mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)(*args)

    return call


def _scores(image: jax.Array, text: jax.Array) -> jax.Array:
    return jax.lax.dot_general(image, text, (((1,), (1,)), ((), ())), precision=jax.lax.Precision.HIGHEST)


def _product(scores: jax.Array, rows: jax.Array, *, transpose: bool = False) -> jax.Array:
    """scores @ rows, or scores.T @ rows."""
    return jax.lax.dot_general(scores, rows, (((0 if transpose else 1,), (0,)), ((), ())),
                               precision=jax.lax.Precision.HIGHEST)


def _tile(plan: _Plan, part: Any, text: jax.Array, columns: jax.Array, text_features: Any) -> tuple[jax.Array, Any]:
    """(scores [chunk, R] with what is absent put far down, the similarity [chunk, R] without it or None)."""
    image, rows, features = part
    there = rows[:, None] & columns[None, :]
    scores = jnp.where(there, _scores(image, text), _ABSENT)
    if plan.similarity is None:
        return scores, None
    return scores, jnp.where(there, as_float(plan.similarity(features, text_features)), 0.0)


@dataclasses.dataclass(frozen=True)
class _Sums:
    """Of one direction, a number a row: log-sum-exp of its scores, mass of its similarities, their product's sum."""

    lse: jax.Array
    mass: jax.Array
    match: jax.Array


jax.tree_util.register_dataclass(_Sums, data_fields=["lse", "mass", "match"], meta_fields=[])


def _softmax_sums(plan: _Plan, image: jax.Array, text: jax.Array, masks: Any, features: Any) -> tuple[_Sums, _Sums]:
    """The sums of the images and of the texts; `image` is scaled."""
    chunks = plan.chunks

    def local(image: jax.Array, text: jax.Array, masks: Any, features: Any) -> tuple[_Sums, _Sums]:
        rows, text, columns, text_features = masks[0], *_gather((text, masks[1], features[1]), chunks.axes)
        zeros = jnp.zeros(text.shape[0], image.dtype)

        def step(carry: Any, part: Any) -> Any:
            highest, total, mass, match = carry
            scores, weights = _tile(plan, part, text, columns, text_features)
            top = jnp.max(scores, axis=1)
            lse = top + jnp.log(jnp.sum(jnp.exp(scores - top[:, None]), axis=1))
            new = jnp.maximum(highest, jnp.max(scores, axis=0))
            total = total * jnp.exp(highest - new) + jnp.sum(jnp.exp(scores - new[None, :]), axis=0)
            if weights is None:
                return (new, total, mass, match), _Sums(lse, jnp.zeros_like(lse), jnp.zeros_like(lse))
            weighted = weights * scores
            carry = (new, total, mass + jnp.sum(weights, axis=0), match + jnp.sum(weighted, axis=0))
            return carry, _Sums(lse, jnp.sum(weights, axis=1), jnp.sum(weighted, axis=1))

        first = (zeros + _ABSENT, zeros, zeros, zeros)
        (highest, total, mass, match), by_row = jax.lax.scan(
            step, first, _pieces((image, rows, features[0]), chunks.rows))
        by_row = jax.tree.map(lambda x: x.reshape(-1)[: image.shape[0]], by_row)
        if chunks.axes:
            top = jax.lax.pmax(highest, chunks.axes)
            total, highest = jax.lax.psum(total * jnp.exp(highest - top), chunks.axes), top
        mass, match = _sum((mass, match), chunks.axes)
        # Absent texts of a device that has no rows at all: log 0 is kept finite.
        lse = highest + jnp.log(jnp.maximum(total, jnp.finfo(total.dtype).tiny))
        return by_row, _Sums(lse, mass, match)

    out = (_Sums("rows", "rows", "rows"), _Sums("all", "all", "all"))
    return _over_devices(local, chunks, out=out)(image, text, masks, features)


def _softmax_weights(plan: _Plan, valid: jax.Array, other: jax.Array, sums: _Sums) -> tuple[jax.Array, jax.Array]:
    """(weight of each row in the loss, the same over its mass)."""
    counted = valid & jnp.any(other)
    if not plan.own_share:
        counted &= sums.mass > 0
    weight = 0.5 * counted / jnp.maximum(jnp.sum(counted), 1)
    weight = weight.astype(sums.lse.dtype)
    return weight, (1.0 - plan.own_share) * weight / jnp.where(sums.mass > 0, sums.mass, 1.0)


def _own_scores(plan: _Plan, image: jax.Array, text: jax.Array) -> jax.Array | float:
    """own_share x the scores of the couples (i, i) [I]."""
    return plan.own_share * jnp.sum(image * text, axis=1) if plan.own_share else 0.0


def _softmax_value(plan: _Plan, image: jax.Array, text: jax.Array, scale: jax.Array, masks: Any,
                   features: Any) -> tuple[jax.Array, tuple[_Sums, _Sums]]:
    scaled = image * scale
    sums = _softmax_sums(plan, scaled, text, masks, features)
    own = _own_scores(plan, scaled, text)
    value = jnp.zeros([], image.dtype)
    for side, valid, other in ((sums[0], *masks), (sums[1], *masks[::-1])):
        weight, share = _softmax_weights(plan, valid, other, side)
        # Rows that do not count may hold anything finite.
        value += jnp.sum(weight * jnp.where(weight > 0, side.lse - own, 0.0) - share * side.match)
    return value, sums


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _softmax(plan: _Plan, image: jax.Array, text: jax.Array, scale: jax.Array, masks: Any, features: Any) -> jax.Array:
    return _softmax_value(plan, image, text, scale, masks, features)[0]


def _softmax_forward(plan: _Plan, image: jax.Array, text: jax.Array, scale: jax.Array, masks: Any,
                     features: Any) -> tuple[jax.Array, Any]:
    value, sums = _softmax_value(plan, image, text, scale, masks, features)
    return value, (image, text, scale, masks, features, sums)


def _softmax_backward(plan: _Plan, kept: Any, cotangent: jax.Array) -> tuple:
    image, text, scale, masks, features, sums = kept
    chunks = plan.chunks
    weight, share = _softmax_weights(plan, *masks, sums[0])
    text_weight, text_share = _softmax_weights(plan, *masks[::-1], sums[1])
    # a exp(s - lse) = exp(s - (lse - log a)): one exponential a couple and direction, no product.
    shift, text_shift = (jnp.where(w > 0, side.lse - jnp.log(jnp.where(w > 0, w, 1.0)), jnp.inf)
                         for side, w in ((sums[0], weight), (sums[1], text_weight)))

    def local(image: jax.Array, text: jax.Array, masks: Any, features: Any, by_row: Any, by_text: Any) -> Any:
        text, columns, text_features, (text_shift, text_share) = _gather(
            (text, masks[1], features[1], by_text), chunks.axes)

        def step(text_gradient: jax.Array, part: Any) -> tuple[jax.Array, jax.Array]:
            *part, (shift, share) = part
            scores, weights = _tile(plan, part, text, columns, text_features)
            slope = jnp.exp(scores - shift[:, None]) + jnp.exp(scores - text_shift[None, :])
            if weights is not None:
                slope -= weights * (share[:, None] + text_share[None, :])
            return text_gradient + _product(slope, part[0], transpose=True), _product(slope, text)

        text_gradient, image_gradient = jax.lax.scan(
            step, jnp.zeros_like(text), _pieces((image, masks[0], features[0], by_row), chunks.rows))
        image_gradient = image_gradient.reshape(-1, image.shape[1])[: image.shape[0]]
        if chunks.axes:
            text_gradient = jax.lax.psum_scatter(text_gradient, chunks.axes, scatter_dimension=0, tiled=True)
        return image_gradient, text_gradient

    # With respect to scale x image, and to text.
    image_gradient, text_gradient = _over_devices(local, chunks, out=("rows", "rows"))(
        image * scale, text, masks, features, (shift, share), (text_shift, text_share))
    if plan.own_share:
        own = plan.own_share * (weight + text_weight)[:, None]
        image_gradient, text_gradient = image_gradient - own * text, text_gradient - own * image * scale
    return _finish(image, scale, image_gradient, text_gradient, cotangent)


def _finish(image: jax.Array, scale: jax.Array, image_gradient: jax.Array, text_gradient: jax.Array,
            cotangent: jax.Array) -> tuple:
    """Gradients of image, text and scale from those of scale x image and of text; none of masks and features."""
    scale_gradient = jnp.sum(image * image_gradient)
    return (cotangent * scale * image_gradient, cotangent * text_gradient, cotangent * scale_gradient, None, None)


_softmax.defvjp(_softmax_forward, _softmax_backward)


def _sigmoid_pass(plan: _Plan, image: jax.Array, text: jax.Array, scale: jax.Array, bias: jax.Array, masks: Any,
                  features: Any, *, slopes: bool) -> tuple[jax.Array, Any]:
    """(value, gradients with respect to scale x image, text and bias; None without `slopes`)."""
    chunks = plan.chunks
    weight = (masks[0] / jnp.maximum(jnp.sum(masks[0]), 1)).astype(image.dtype)

    def local(image: jax.Array, text: jax.Array, masks: Any, features: Any, weight: jax.Array,
              bias: jax.Array) -> Any:
        text, columns, text_features = _gather((text, masks[1], features[1]), chunks.axes)

        def step(carry: Any, part: Any) -> tuple[Any, Any]:
            value, text_gradient, bias_gradient = carry
            *part, weight = part
            image, _, features = part
            logits = _scores(image, text) + bias
            share = weight[:, None] * columns[None, :]
            small = jnp.exp(-jnp.abs(logits))  # Of both the loss and its slope.
            losses = jnp.maximum(logits, 0.0) + jnp.log1p(small)
            slope = jnp.where(logits >= 0, 1.0, small) / (1.0 + small)
            if plan.similarity is not None:
                targets = as_float(plan.similarity(features, text_features))
                losses, slope = losses - targets * logits, slope - targets
            value += jnp.sum(share * losses)
            if not slopes:
                return (value, text_gradient, bias_gradient), None
            slope = share * slope
            carry = (value, text_gradient + _product(slope, image, transpose=True), bias_gradient + jnp.sum(slope))
            return carry, _product(slope, text)

        zero = jnp.zeros([], image.dtype)
        (value, text_gradient, bias_gradient), image_gradient = jax.lax.scan(
            step, (zero, jnp.zeros_like(text) if slopes else zero, zero),
            _pieces((image, masks[0], features[0], weight), chunks.rows))
        value, bias_gradient = _sum((value, bias_gradient), chunks.axes)
        if not slopes:
            return value
        image_gradient = image_gradient.reshape(-1, image.shape[1])[: image.shape[0]]
        if chunks.axes:
            text_gradient = jax.lax.psum_scatter(text_gradient, chunks.axes, scatter_dimension=0, tiled=True)
        return value, image_gradient, text_gradient, bias_gradient

    scaled = image * scale
    out = ("all", "rows", "rows", "all") if slopes else "all"
    result = _over_devices(local, chunks, out=out)(scaled, text, masks, features, weight, bias)
    value, gradients = (result[0], result[1:]) if slopes else (result, None)
    if plan.own_share:
        own = weight * masks[1]
        value -= jnp.sum(own * (jnp.sum(scaled * text, axis=1) + bias))
        if slopes:
            gradients = (gradients[0] - own[:, None] * text, gradients[1] - own[:, None] * scaled,
                         gradients[2] - jnp.sum(own))
    return value, gradients


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sigmoid(plan: _Plan, image: jax.Array, text: jax.Array, scale: jax.Array, bias: jax.Array, masks: Any,
             features: Any) -> jax.Array:
    return _sigmoid_pass(plan, image, text, scale, bias, masks, features, slopes=False)[0]


def _sigmoid_forward(plan: _Plan, image: jax.Array, text: jax.Array, scale: jax.Array, bias: jax.Array, masks: Any,
                     features: Any) -> tuple[jax.Array, Any]:
    value, gradients = _sigmoid_pass(plan, image, text, scale, bias, masks, features, slopes=True)
    return value, (image, scale, gradients)


def _sigmoid_backward(plan: _Plan, kept: Any, cotangent: jax.Array) -> tuple:
    image, scale, (image_gradient, text_gradient, bias_gradient) = kept
    *gradients, _, _ = _finish(image, scale, image_gradient, text_gradient, cotangent)
    return (*gradients, cotangent * bias_gradient, None, None)


_sigmoid.defvjp(_sigmoid_forward, _sigmoid_backward)
