"""Contrastive losses between images and texts: softmax (CLIP), soft targets, sigmoid (SigLIP), phrase to image.

All take embeddings (or, for phrases, scores), compute in float32 at full matmul precision, and return a scalar mean
over the valid rows; a batch without valid rows gives 0. Masked rows are neither anchors nor negatives. The signatures
do not show the [B, B] logits, so that a version that makes them in chunks can replace any of them.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lgdea_jax.arrays import as_float, masked_mean, normalize

__all__ = ["normalize", "phrase_image", "scored_contrastive", "sigmoid_contrastive", "soft_contrastive",
           "softmax_contrastive"]


def _scores(image: jax.Array, text: jax.Array, scale: jax.Array | float) -> jax.Array:
    return scale * jnp.matmul(as_float(image), as_float(text).T,
                              precision=jax.lax.Precision.HIGHEST)


def _valid(mask: jax.Array | None, rows: int) -> jax.Array:
    return jnp.ones(rows, bool) if mask is None else mask != 0


def _log_softmax(scores: jax.Array, columns: jax.Array) -> jax.Array:
    """Row-wise log-softmax over the valid columns; 0 in the others (there is nothing to multiply there)."""
    # With no valid column at all the softmax is over every column: finite, and no row of it is ever used.
    columns = columns | ~jnp.any(columns, axis=-1, keepdims=True)
    logs = jax.nn.log_softmax(jnp.where(columns, scores, -jnp.inf), axis=-1)
    return jnp.where(columns, logs, 0.0)


def softmax_contrastive(image: jax.Array, text: jax.Array, scale: jax.Array | float, *,
                        mask: jax.Array | None = None) -> jax.Array:
    """Symmetric InfoNCE (CLIP, Radford et al., 2021, arXiv 2103.00020).

    With s_ij = scale x_i . y_j:  1/2 mean_i [-log softmax_j(s_ij)_i] + 1/2 mean_j [-log softmax_i(s_ij)_j].

    Args:
      image, text: [B, E], row i of one belongs to row i of the other; unit norm expected, not enforced.
      scale: inverse temperature, > 0.
      mask: bool [B], rows that exist.

    Returns:
      A scalar >= 0; log(number of valid rows) when everything is alike.
    """
    scores, valid = _scores(image, text, scale), _valid(mask, image.shape[0])
    rows = jnp.diagonal(_log_softmax(scores, valid[None, :]))
    columns = jnp.diagonal(_log_softmax(scores.T, valid[None, :]))
    return -0.5 * (masked_mean(rows, valid) + masked_mean(columns, valid))


def _soft_cross_entropy(scores: jax.Array, targets: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    targets = jnp.where(columns[None, :], as_float(targets), 0.0)
    mass = jnp.sum(targets, axis=1)
    targets = targets / jnp.where(mass > 0, mass, 1.0)[:, None]
    losses = -jnp.sum(targets * _log_softmax(scores, columns[None, :]), axis=1)
    return masked_mean(losses, rows & (mass > 0))


def soft_contrastive(image: jax.Array, text: jax.Array, scale: jax.Array | float, targets: jax.Array, *,
                     targets_text: jax.Array | None = None, image_mask: jax.Array | None = None,
                     text_mask: jax.Array | None = None) -> jax.Array:
    """InfoNCE against soft targets: cross-entropy of the softmax over texts with targets[i] and the other way round.

    1/2 mean_i [-sum_j T_ij log softmax_j(s_ij)] + 1/2 mean_j [-sum_i U_ji log softmax_i(s_ij)]; T = U = identity is
    `softmax_contrastive`. Its minimum is the entropy of the targets, not 0.

    Args:
      image: [I, E]; text: [R, E]; scale: inverse temperature, > 0. I and R may differ (soft links of unpaired data).
      targets: T [I, R], >= 0, rows sum to 1. Mass on masked texts is dropped and the row scaled back to 1; a row
        without mass is left out.
      targets_text: U [R, I], rows sum to 1; default: `targets` itself, which is right for square targets made by
        normalising the rows of a symmetric similarity (`evidence.soft_targets`), where row i is for text i as well.
      image_mask: bool [I]; text_mask: bool [R]; rows that exist. In a square call `text_mask` defaults to `image_mask`.

    Raises:
      ValueError: shapes that do not fit, or I != R without `targets_text`.
    """
    images, texts = image.shape[0], text.shape[0]
    if targets.shape != (images, texts):
        raise ValueError(f"targets must be [{images}, {texts}], not {list(targets.shape)}")
    if targets_text is None:
        if images != texts:
            raise ValueError(f"{images} images and {texts} texts: targets_text [{texts}, {images}] is needed")
        targets_text = targets
    if targets_text.shape != (texts, images):
        raise ValueError(f"targets_text must be [{texts}, {images}], not {list(targets_text.shape)}")
    if text_mask is None and images == texts:
        text_mask = image_mask
    rows, columns = _valid(image_mask, images), _valid(text_mask, texts)
    return _both_ways(_scores(image, text, scale), targets, targets_text, rows, columns)


def _both_ways(scores: jax.Array, targets: jax.Array, targets_text: jax.Array, rows: jax.Array,
               columns: jax.Array) -> jax.Array:
    return 0.5 * (_soft_cross_entropy(scores, targets, rows, columns)
                  + _soft_cross_entropy(scores.T, targets_text, columns, rows))


def scored_contrastive(scores: jax.Array, targets: jax.Array) -> jax.Array:
    """`soft_contrastive` of scores that are no products of embeddings, such as those of words and regions.

    Args:
      scores: [B, B], image i against text j, temperature applied.
      targets: [B, B], of a symmetric similarity, rows sum to 1; both directions use them.
    """
    everything = jnp.ones(len(scores), bool)
    return _both_ways(as_float(scores), targets, targets, everything, everything)


def sigmoid_contrastive(image: jax.Array, text: jax.Array, scale: jax.Array | float, bias: jax.Array | float, *,
                        targets: jax.Array | None = None, image_mask: jax.Array | None = None,
                        text_mask: jax.Array | None = None) -> jax.Array:
    """Sigmoid loss (SigLIP, Zhai et al., 2023, arXiv 2303.15343): every image-text couple is a binary question.

    With l_ij = scale x_i . y_j + bias:  mean_i sum_j -[t_ij log sigma(l_ij) + (1 - t_ij) log sigma(-l_ij)], the mean
    over the valid images and the sum over the valid texts, as the paper's 1/|B| sum_ij.

    Args:
      image: [I, E]; text: [R, E]; scale > 0 (10 at the start in the paper); bias: (-10).
      targets: t [I, R] in [0, 1]; several positives a row and soft values are allowed; default: the identity.
      image_mask: bool [I]; text_mask: bool [R]. In a square call `text_mask` defaults to `image_mask`.

    Raises:
      ValueError: targets of another shape, or I != R without targets.
    """
    images, texts = image.shape[0], text.shape[0]
    if targets is None:
        if images != texts:
            raise ValueError(f"{images} images and {texts} texts: targets are needed")
        targets = jnp.eye(images, dtype=jnp.float32)
    if targets.shape != (images, texts):
        raise ValueError(f"targets must be [{images}, {texts}], not {list(targets.shape)}")
    if text_mask is None and images == texts:
        text_mask = image_mask
    logits, targets = _scores(image, text, scale) + bias, as_float(targets)
    losses = -targets * jax.nn.log_sigmoid(logits) - (1.0 - targets) * jax.nn.log_sigmoid(-logits)
    rows, columns = _valid(image_mask, images), _valid(text_mask, texts)
    return masked_mean(jnp.sum(jnp.where(columns[None, :], losses, 0.0), axis=1), rows)


def phrase_image(scores: jax.Array, positives: jax.Array, *, phrase_mask: jax.Array | None = None,
                 image_mask: jax.Array | None = None, both_directions: bool = True) -> jax.Array:
    """Phrases against images with several positives: -log of the positives' share of the softmax.

    mean_r [-log (sum_{i in P(r)} exp s_ri / sum_i exp s_ri)], the multiple-instance form of InfoNCE (MIL-NCE, Miech et
    al., 2020, arXiv 1912.06430): some positive image must win, not all of them. With `both_directions` the mean of
    this and of the same over phrases for each image.

    Args:
      scores: [R, I], logits (temperature applied), e.g. a phrase against the pooled patches of an image.
      positives: bool [R, I], True where image i shows what phrase r says. Phrases (images) without a valid positive
        are left out as anchors and stay as negatives.
      phrase_mask: bool [R]; image_mask: bool [I]; rows that exist.
    """
    scores = as_float(scores)
    rows, columns = _valid(phrase_mask, scores.shape[0]), _valid(image_mask, scores.shape[1])
    positives = (positives != 0) & rows[:, None] & columns[None, :]

    def direction(scores: jax.Array, positives: jax.Array, columns: jax.Array) -> jax.Array:
        anchored = jnp.any(positives, axis=1)
        # Rows that are left out get every column as a positive: finite values and zero gradients instead of NaN.
        chosen = positives | ~anchored[:, None]
        log_p = _log_softmax(scores, columns[None, :])
        return masked_mean(-jax.nn.logsumexp(log_p, axis=1, where=chosen), anchored)

    loss = direction(scores, positives, columns)
    if not both_directions:
        return loss
    return 0.5 * (loss + direction(scores.T, positives.T, rows))
