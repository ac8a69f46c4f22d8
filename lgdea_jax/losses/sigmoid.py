"""The sigmoid loss against targets of a similarity, in chunks, with its gradient written out (`jax.custom_vjp`).

The gradient needs no sums over rows: the forward pass makes it together with the value, for 3 matrix products. Memory
is linear in the batch. The results are exact up to the order of float32 sums.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from lgdea_jax.arrays import as_float
from lgdea_jax.losses.chunks import (
    Plan,
    gather,
    over_devices,
    products,
    scale_gradients,
    scan_chunks,
    sum_over_devices,
    weighted_rows,
)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def sigmoid_loss(plan: Plan, image: jax.Array, text: jax.Array, scale: jax.Array, bias: jax.Array, masks: Any,
                 features: Any) -> jax.Array:
    """The loss of `contrastive.sigmoid_contrastive`; arguments as prepared by `chunks.prepare`."""
    return _pass(plan, image, text, scale, bias, masks, features, slopes=False)[0]


def _forward(plan: Plan, image: jax.Array, text: jax.Array, scale: jax.Array, bias: jax.Array, masks: Any,
             features: Any) -> tuple[jax.Array, Any]:
    value, gradients = _pass(plan, image, text, scale, bias, masks, features, slopes=True)
    return value, (image, scale, gradients)


def _backward(plan: Plan, kept: Any, cotangent: jax.Array) -> tuple:
    image, scale, (image_gradient, text_gradient, bias_gradient) = kept
    *gradients, _, _ = scale_gradients(image, scale, image_gradient, text_gradient, cotangent)
    return (*gradients, cotangent * bias_gradient, None, None)


sigmoid_loss.defvjp(_forward, _backward)


def _pass(plan: Plan, image: jax.Array, text: jax.Array, scale: jax.Array, bias: jax.Array, masks: Any,
          features: Any, *, slopes: bool) -> tuple[jax.Array, Any]:
    """(value, gradients with respect to scale x image, text and bias; None without `slopes`)."""
    chunks = plan.chunks
    weight = (masks[0] / jnp.maximum(jnp.sum(masks[0]), 1)).astype(image.dtype)

    def local(image: jax.Array, text: jax.Array, masks: Any, features: Any, weight: jax.Array,
              bias: jax.Array) -> Any:
        text, columns, text_features = gather((text, masks[1], features[1]), chunks.axes)

        def step(carry: Any, part: Any) -> tuple[Any, Any]:
            value, text_gradient, bias_gradient = carry
            *part, weight = part
            image, _, features = part
            logits = products(image, text) + bias
            share = weight[:, None] * columns[None, :]
            small = jnp.exp(-jnp.abs(logits))  # Shared by the loss and its slope.
            losses = jnp.maximum(logits, 0.0) + jnp.log1p(small)
            slope = jnp.where(logits >= 0, 1.0, small) / (1.0 + small)
            if plan.similarity is not None:
                targets = as_float(plan.similarity(features, text_features))
                losses, slope = losses - targets * logits, slope - targets
            value += jnp.sum(share * losses)
            if not slopes:
                return (value, text_gradient, bias_gradient), None
            slope = share * slope
            carry = (value, text_gradient + weighted_rows(slope, image, transpose=True), bias_gradient + jnp.sum(slope))
            return carry, weighted_rows(slope, text)

        zero = jnp.zeros([], image.dtype)
        (value, text_gradient, bias_gradient), image_gradient = scan_chunks(
            step, (zero, jnp.zeros_like(text) if slopes else zero, zero), (image, masks[0], features[0], weight),
            chunks.rows)
        value, bias_gradient = sum_over_devices((value, bias_gradient), chunks.axes)
        if not slopes:
            return value
        if chunks.axes:
            text_gradient = jax.lax.psum_scatter(text_gradient, chunks.axes, scatter_dimension=0, tiled=True)
        return value, image_gradient, text_gradient, bias_gradient

    scaled = image * scale
    out = ("all", "rows", "rows", "all") if slopes else "all"
    result = over_devices(local, chunks, out=out)(scaled, text, masks, features, weight, bias)
    value, gradients = (result[0], result[1:]) if slopes else (result, None)
    if plan.own_share:
        own = weight * masks[1]
        value -= jnp.sum(own * (jnp.sum(scaled * text, axis=1) + bias))
        if slopes:
            gradients = (gradients[0] - own[:, None] * text, gradients[1] - own[:, None] * scaled,
                         gradients[2] - jnp.sum(own))
    return value, gradients
