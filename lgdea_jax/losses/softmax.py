"""The softmax loss against targets of a similarity, in chunks, with its gradient written out (`jax.custom_vjp`).

The forward pass keeps the log-sum-exps of both directions; the backward pass makes the scores once more. Memory is
linear in the batch, for 4 matrix products instead of 3. The results are exact up to the order of float32 sums.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from lgdea_jax.arrays import as_float
from lgdea_jax.losses.chunks import (
    ABSENT,
    Plan,
    gather,
    over_devices,
    products,
    scale_gradients,
    scan_chunks,
    sum_over_devices,
    weighted_rows,
)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Sums:
    """Of one direction, per row: log-sum-exp of its scores, sum of its similarities, sum of their products [N]."""

    lse: jax.Array
    mass: jax.Array
    match: jax.Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def softmax_loss(plan: Plan, image: jax.Array, text: jax.Array, scale: jax.Array, masks: Any,
                 features: Any) -> jax.Array:
    """The loss of `contrastive.soft_contrastive`; arguments as prepared by `chunks.prepare`."""
    return _value(plan, image, text, scale, masks, features)[0]


def _forward(plan: Plan, image: jax.Array, text: jax.Array, scale: jax.Array, masks: Any,
             features: Any) -> tuple[jax.Array, Any]:
    value, sums = _value(plan, image, text, scale, masks, features)
    return value, (image, text, scale, masks, features, sums)


def _backward(plan: Plan, kept: Any, cotangent: jax.Array) -> tuple:
    image, text, scale, masks, features, sums = kept
    chunks = plan.chunks
    weight, share, own = _weights(plan, *masks, sums[0])
    text_weight, text_share, text_own = _weights(plan, *masks[::-1], sums[1])
    # a exp(s - lse) = exp(s - (lse - log a)): one exponential per entry and direction, no product.
    shift, text_shift = (jnp.where(w > 0, side.lse - jnp.log(jnp.where(w > 0, w, 1.0)), jnp.inf)
                         for side, w in ((sums[0], weight), (sums[1], text_weight)))

    def local(image: jax.Array, text: jax.Array, masks: Any, features: Any, by_row: Any, by_text: Any) -> Any:
        text, columns, text_features, (text_shift, text_share) = gather(
            (text, masks[1], features[1], by_text), chunks.axes)

        def step(text_gradient: jax.Array, part: Any) -> tuple[jax.Array, jax.Array]:
            *part, (shift, share) = part
            scores, weights = _tile(plan, part, text, columns, text_features)
            slope = jnp.exp(scores - shift[:, None]) + jnp.exp(scores - text_shift[None, :])
            if weights is not None:
                slope -= weights * (share[:, None] + text_share[None, :])
            return text_gradient + weighted_rows(slope, part[0], transpose=True), weighted_rows(slope, text)

        text_gradient, image_gradient = scan_chunks(
            step, jnp.zeros_like(text), (image, masks[0], features[0], by_row), chunks.rows)
        if chunks.axes:
            text_gradient = jax.lax.psum_scatter(text_gradient, chunks.axes, scatter_dimension=0, tiled=True)
        return image_gradient, text_gradient

    # With respect to scale x image, and to text.
    image_gradient, text_gradient = over_devices(local, chunks, out=("rows", "rows"))(
        image * scale, text, masks, features, (shift, share), (text_shift, text_share))
    if plan.own_share:
        own = (own + text_own)[:, None]
        image_gradient, text_gradient = image_gradient - own * text, text_gradient - own * image * scale
    return scale_gradients(image, scale, image_gradient, text_gradient, cotangent)


softmax_loss.defvjp(_forward, _backward)


def _value(plan: Plan, image: jax.Array, text: jax.Array, scale: jax.Array, masks: Any,
           features: Any) -> tuple[jax.Array, tuple[_Sums, _Sums]]:
    scaled = image * scale
    sums = _sums(plan, scaled, text, masks, features)
    own_scores = jnp.sum(scaled * text, axis=1) if plan.own_share else 0.0
    value = jnp.zeros([], image.dtype)
    for side, valid, other in ((sums[0], *masks), (sums[1], *masks[::-1])):
        weight, share, own = _weights(plan, valid, other, side)
        # Rows that do not count may hold any finite number.
        value += jnp.sum(jnp.where(weight > 0, weight * side.lse - own * own_scores, 0.0) - share * side.match)
    return value, sums


def _sums(plan: Plan, image: jax.Array, text: jax.Array, masks: Any, features: Any) -> tuple[_Sums, _Sums]:
    """The sums of the images and of the texts; `image` is scaled."""
    chunks = plan.chunks

    def local(image: jax.Array, text: jax.Array, masks: Any, features: Any) -> tuple[_Sums, _Sums]:
        rows, text, columns, text_features = masks[0], *gather((text, masks[1], features[1]), chunks.axes)
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

        first = (zeros + ABSENT, zeros, zeros, zeros)
        (highest, total, mass, match), by_row = scan_chunks(step, first, (image, rows, features[0]), chunks.rows)
        if chunks.axes:
            top = jax.lax.pmax(highest, chunks.axes)
            total, highest = jax.lax.psum(total * jnp.exp(highest - top), chunks.axes), top
        mass, match = sum_over_devices((mass, match), chunks.axes)
        # Without any row the sum is 0; its logarithm stays finite.
        lse = highest + jnp.log(jnp.maximum(total, jnp.finfo(total.dtype).tiny))
        return by_row, _Sums(lse, mass, match)

    out = (_Sums("rows", "rows", "rows"), _Sums("all", "all", "all"))
    return over_devices(local, chunks, out=out)(image, text, masks, features)


def _weights(plan: Plan, valid: jax.Array, other: jax.Array, sums: _Sums) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Of each row [N]: its weight in the loss, the same over its mass, and the weight of its own partner's score."""
    counted = valid & jnp.any(other)
    has_mass = sums.mass > 0
    if not plan.own_share:
        counted &= has_mass
    weight = (0.5 * counted / jnp.maximum(jnp.sum(counted), 1)).astype(sums.lse.dtype)
    share = (1.0 - plan.own_share) * weight / jnp.where(has_mass, sums.mass, 1.0)
    # Without any other target a row is its own.
    return weight, share, weight * (jnp.where(has_mass, plan.own_share, 1.0) if plan.own_share else 0.0)


def _tile(plan: Plan, part: Any, text: jax.Array, columns: jax.Array, text_features: Any) -> tuple[jax.Array, Any]:
    """(scores [chunk, R], ABSENT in masked rows and columns; the similarity [chunk, R], 0 there, or None)."""
    image, rows, features = part
    exists = rows[:, None] & columns[None, :]
    scores = jnp.where(exists, products(image, text), ABSENT)
    if plan.similarity is None:
        return scores, None
    return scores, jnp.where(exists, as_float(plan.similarity(features, text_features)), 0.0)
