"""LGDEA (arXiv 2602.07540) in full: `lgdea_pairs`, and unpaired images and reports through propagated relations.

    python -m lgdea_jax.train --config=configs/phantom.py --workdir=RUN --config.data.pairs=0.01
        --config.batch.images=32 --config.batch.reports=32

The pairs are the seed edges of a graph over all images and all reports; propagated along similar images and similar
reports they give every unpaired image the evidence of the reports that it is related to, and the mirror
(`evidence_memory`, `relations`). The paper's L_evid_u and L_evi-align use such relations; its formulas are not
available to us, and these are ours:

- `evid_image`: KL(target || Qbar_I) of the unpaired images, weighted by the confidence of the target.
- `evid_report`: the mirror for the unpaired reports.
- `evid_align`: soft contrastive loss between the evidence vectors of all images and all reports of the batch; how much
  an image and a report match is the overlap of the image's target with the report's evidence.

Before the memory's first refresh all three are 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from lgdea_jax.losses import contrastive, evidence, targets
from lgdea_jax.losses.chunked import Chunks
from lgdea_jax.methods import lgdea_pairs
from lgdea_jax.methods.lgdea_pairs import diagnostics, image_embedding, memory_image, memory_report, text_embedding

__all__ = ["LOSSES", "NEEDS", "TARGETS", "UNPAIRED_STREAMS", "diagnostics", "image_embedding", "losses", "memory_image",
           "memory_report", "text_embedding"]

NEEDS = lgdea_pairs.NEEDS
UNPAIRED_STREAMS = ("images", "reports")
UNPAIRED = ("evid_image", "evid_report", "evid_align")
LOSSES = (*lgdea_pairs.LOSSES, *UNPAIRED)
TARGETS = "relations"


def losses(
    outputs: Mapping[str, Any], rows: Mapping[str, Any], aux: Mapping[str, jax.Array], step: jax.Array, *,
    terms: tuple[str, ...], text_temperature: float, patch_temperature: float, sharpness: float, prototype_decay: float,
    contrast_temperature: float, own_share: float, target_temperature: float, stop_report: bool,
    chunks: Chunks | None = None,
) -> dict[str, jax.Array]:
    """The terms of `lgdea_pairs.losses` and those of this module; options as there."""
    result = lgdea_pairs.losses(
        outputs, rows, aux, step, terms=tuple(term for term in terms if term not in UNPAIRED),
        text_temperature=text_temperature, patch_temperature=patch_temperature, sharpness=sharpness,
        prototype_decay=prototype_decay, contrast_temperature=contrast_temperature, own_share=own_share,
        target_temperature=target_temperature, stop_report=stop_report, chunks=chunks)
    wanted = set(terms) & set(UNPAIRED)
    if not wanted:
        return result
    count, mu = rows["num_pairs"], outputs["prototypes"]
    log_p = evidence.assign(outputs["text"]["pooled"], mu, text_temperature)
    report, heard = evidence.report_evidence(log_p, rows["weight"] > 0, rows["weight"])
    logits = evidence.similarities(outputs["image"]["patches"], mu, patch_temperature)
    log_image = evidence.image_evidence(logits, pooling="lse", sharpness=sharpness)
    image_target, image_weight = (aux[name][rows["image_index"]] for name in ("image_target", "image_weight"))
    if "evid_image" in wanted:
        result["evid_image"] = weighted_pair_loss(image_target[count:], log_image[count:], image_weight[count:])
    if "evid_report" in wanted:
        target, weight = (aux[name][rows["report_index"]][count:] for name in ("report_target", "report_weight"))
        log_report = jnp.log(jnp.maximum(report[count:], 1e-8))
        result["evid_report"] = weighted_pair_loss(target, log_report, jnp.where(heard[count:], weight, 0.0))
    if "evid_align" in wanted:
        # A pair's own report is its target, with full confidence; without any other target there is nothing to add.
        stated = jax.lax.stop_gradient(report)
        target = jnp.concatenate([stated[:count], image_target[count:]])
        trust = jnp.concatenate([heard[:count].astype(jnp.float32), image_weight[count:]])
        vectors = contrastive.normalize(jnp.exp(log_image) @ mu), contrastive.normalize(stated @ mu)

        def match(images: Any, reports: Any) -> jax.Array:
            overlap = targets.distribution_overlap(images["target"], reports["stated"]) ** (1.0 / target_temperature)
            return overlap * images["trust"][:, None] * reports["heard"][None, :]

        features = {"target": target, "trust": trust}, {"stated": stated, "heard": heard}
        aligned = contrastive.soft_contrastive(
            *vectors, 1.0 / contrast_temperature, similarity=match, image_features=features[0],
            text_features=features[1], image_mask=trust > 0, text_mask=heard, chunks=chunks)
        result["evid_align"] = aligned * jnp.any(image_weight[count:] > 0)
    return result


def weighted_pair_loss(target: jax.Array, log_evidence: jax.Array, weight: jax.Array) -> jax.Array:
    """L_evid_u: mean over rows of w KL(target || evidence); `losses.evidence.pair_loss` with a confidence a row.

    Args:
      target: [N, K], rows sum to 1; log_evidence: [N, K], log probabilities; weight: [N] in [0, 1].

    Returns:
      A scalar >= 0: sum_n w_n KL_n / N, so that doubtful targets weigh less, not only relatively; 0 without rows.
    """
    target = jax.lax.stop_gradient(target)
    divergence = jnp.sum(jax.scipy.special.xlogy(target, target) - target * log_evidence, axis=-1)
    return jnp.sum(weight * divergence) / max(1, len(weight))
