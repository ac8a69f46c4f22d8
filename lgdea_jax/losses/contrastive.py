"""Contrastive losses between images and texts: softmax (CLIP), soft targets, sigmoid (SigLIP).

The losses of embeddings take `chunks`, how the loss is divided over steps and devices (`chunks.Chunks`): memory is then
linear in the batch. None makes all scores at once; values and gradients are the same up to the order of float32 sums.
Soft targets are not a matrix but a similarity of features of the rows, made for one chunk at a time.

All compute in float32 at full matmul precision and return a scalar mean over the valid rows; a batch without valid rows
gives 0. Masked rows are neither anchors nor negatives.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from lgdea_jax.arrays import as_float, normalize
from lgdea_jax.losses.chunks import Chunks, Plan, Similarity, gather, over_devices, prepare, products, scan_chunks
from lgdea_jax.losses.sigmoid import sigmoid_loss
from lgdea_jax.losses.softmax import softmax_loss

__all__ = ["Chunks", "Similarity", "best_text", "normalize", "scored_contrastive", "sigmoid_contrastive",
           "soft_contrastive", "softmax_contrastive"]


def softmax_contrastive(image: jax.Array, text: jax.Array, scale: jax.Array | float, *,
                        mask: jax.Array | None = None, chunks: Chunks | None = None) -> jax.Array:
    """Symmetric InfoNCE (CLIP, Radford et al., 2021, arXiv 2103.00020).

    With s_ij = scale x_i . y_j:  1/2 mean_i [-log softmax_j(s_ij)_i] + 1/2 mean_j [-log softmax_i(s_ij)_j].

    Args:
      image, text: [B, E], row i of one belongs to row i of the other; unit norm expected, not enforced.
      scale: inverse temperature, > 0.
      mask: bool [B], rows that exist; chunks: see the module.

    Returns:
      A scalar >= 0; log(number of valid rows) when everything is alike.

    Raises:
      ValueError: another number of texts than of images.
    """
    return soft_contrastive(image, text, scale, similarity=None, own_share=1.0, image_mask=mask, chunks=chunks)


def soft_contrastive(
    image: jax.Array, text: jax.Array, scale: jax.Array | float, *, similarity: Similarity | None,
    image_features: Any = None, text_features: Any = None, own_share: float = 0.0,
    image_mask: jax.Array | None = None, text_mask: jax.Array | None = None, chunks: Chunks | None = None,
) -> jax.Array:
    """InfoNCE against the soft targets of a similarity W_ij = similarity(f_i, g_j) of features of images and texts.

    1/2 mean_i [-sum_j T_ij log softmax_j(s_ij)] + 1/2 mean_j [-sum_i U_ji log softmax_i(s_ij)], s_ij = scale x_i . y_j,
    T_ij = own_share [i = j] + (1 - own_share) W_ij / sum_j W_ij over the valid texts, and U_ji the same with sum_i W_ij
    over the valid images. The minimum is the entropy of the targets, not 0.

    Args:
      image: [I, E]; text: [R, E]; scale: inverse temperature, > 0. I and R may differ (soft links of unpaired data).
      similarity: see `chunks.Similarity`; no gradient flows into it. None with `own_share=1`.
      image_features, text_features: trees of arrays [I, ...] and [R, ...]; those of the texts default to the images'.
      own_share: in [0, 1]; more than 0 needs I = R.
      image_mask: bool [I]; text_mask: bool [R]; rows that exist. With I = R `text_mask` defaults to `image_mask`.
      chunks: see the module.

    Returns:
      A scalar. A row without mass in W is left out as an anchor; with own_share > 0 it is its own whole target.

    Raises:
      ValueError: own_share outside [0, 1]; I != R where row i must belong to row i; no similarity where one is needed.
    """
    if own_share and image.shape[0] != text.shape[0]:
        raise ValueError(f"own_share={own_share} needs as many texts as images, not {image.shape[0]} and "
                         f"{text.shape[0]}")
    if not 0.0 <= own_share <= 1.0:
        raise ValueError(f"own_share must be in [0, 1], not {own_share}")
    if (similarity is None) != (own_share == 1.0):
        raise ValueError("a similarity is needed if, and only if, own_share is below 1")
    image, text, masks, features, chunks = prepare(
        image, text, image_mask, text_mask, image_features, text_features, chunks)
    plan = Plan(chunks, similarity, own_share)
    return softmax_loss(plan, image, text, jnp.asarray(scale, image.dtype), masks, features)


def sigmoid_contrastive(
    image: jax.Array, text: jax.Array, scale: jax.Array | float, bias: jax.Array | float, *,
    similarity: Similarity | None = None, image_features: Any = None, text_features: Any = None,
    image_mask: jax.Array | None = None, text_mask: jax.Array | None = None, chunks: Chunks | None = None,
) -> jax.Array:
    """Sigmoid loss (SigLIP, Zhai et al., 2023, arXiv 2303.15343): every image-text combination is a binary question.

    With l_ij = scale x_i . y_j + bias:  mean_i sum_j -[t_ij log sigma(l_ij) + (1 - t_ij) log sigma(-l_ij)], the mean
    over the valid images and the sum over the valid texts, as the paper's 1/|B| sum_ij.

    Args:
      image: [I, E]; text: [R, E]; scale > 0 (10 at the start in the paper); bias: of the logits (-10).
      similarity: makes the targets t_ij in [0, 1], several positives per row allowed; None: the identity, with I = R.
      image_features, text_features, image_mask, text_mask, chunks: as in `soft_contrastive`.

    Raises:
      ValueError: I != R without a similarity.
    """
    if similarity is None and image.shape[0] != text.shape[0]:
        raise ValueError(f"{image.shape[0]} images and {text.shape[0]} texts: a similarity is needed")
    image, text, masks, features, chunks = prepare(
        image, text, image_mask, text_mask, image_features, text_features, chunks)
    plan = Plan(chunks, similarity, 1.0 if similarity is None else 0.0)
    return sigmoid_loss(plan, image, text, jnp.asarray(scale, image.dtype), jnp.asarray(bias, image.dtype), masks,
                        features)


def best_text(image: jax.Array, text: jax.Array, chunks: Chunks | None = None) -> jax.Array:
    """int32 [I]: the text with the highest product for each image, the first of equals; image [I, E], text [R, E]."""
    rows = image.shape[0]
    image, text, masks, _, chunks = prepare(image, text, None, None, None, None, chunks)

    def local(image: jax.Array, text: jax.Array, columns: jax.Array) -> jax.Array:
        text, columns = gather((text, columns), chunks.axes)

        def step(_: None, image: jax.Array) -> tuple[None, jax.Array]:
            return None, jnp.argmax(jnp.where(columns, products(image, text), -jnp.inf), axis=1).astype(jnp.int32)

        return scan_chunks(step, None, image, chunks.rows)[1]

    return over_devices(local, chunks, out="rows")(image, text, masks[1])[:rows]


def scored_contrastive(scores: jax.Array, targets: jax.Array) -> jax.Array:
    """`soft_contrastive` of scores that are no products of embeddings, such as those of words and regions.

    Args:
      scores: [B, B], image i against text j, temperature applied.
      targets: [B, B], of a symmetric similarity, rows sum to 1; both directions use them.
    """
    scores, targets = as_float(scores), as_float(targets)
    logs = jax.nn.log_softmax(scores, axis=1) + jax.nn.log_softmax(scores.T, axis=1)
    return -0.5 * jnp.mean(jnp.sum(targets * logs, axis=1))
