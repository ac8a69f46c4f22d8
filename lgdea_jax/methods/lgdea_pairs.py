"""LGDEA (arXiv 2602.07540) on pairs: evidence phrases and image patches meet in a space of learned prototypes.

    python -m lgdea_jax.train --config=configs/phantom.py --workdir=RUN --config.method=lgdea_pairs

From the paper: assignments (4), reconstruction L_rec (5), patch evidence (6), its pooling (7), report evidence (8) and
the pair loss L_evid_p (9); L_rec reads unpaired reports too. Ours, where the paper's text leaves room or the formula is
not available to us: log-sum-exp pooling over patches beside the mean over lesion queries, soft contrastive targets from
the overlap of the reports' evidence, the anchor that keeps phrases of one finding together (without it the evidence of
a text tower that is trained from scratch drifts), and `place`, off by default (`losses.place`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from lgdea_jax.losses import contrastive, evidence, location
from lgdea_jax.losses.chunked import Chunks
from lgdea_jax.methods import _rows

NEEDS = ("image", "text", "prototypes", "lesion_queries")
UNPAIRED_STREAMS = ("reports",)
LOSSES = ("rec", "evid_pair", "evid_lesion", "align", "phrase", "anchor", "overall", "place")


def losses(
    outputs: Mapping[str, Any], rows: Mapping[str, Any], aux: Any, step: jax.Array, *, terms: tuple[str, ...],
    text_temperature: float, patch_temperature: float, sharpness: float, prototype_decay: float,
    contrast_temperature: float, own_share: float, target_temperature: float, stop_report: bool,
    chunks: Chunks | None = None,
) -> dict[str, jax.Array]:
    """The terms of LGDEA that pairs (and, for `rec` and `anchor`, unpaired reports) give.

    - `rec`: L_rec (5) over all phrases.
    - `evid_pair`: L_evid_p (9), KL(Qbar_R || Qbar_I) with Qbar_I pooled from patches by log-sum-exp.
    - `evid_lesion`: the same with Qbar_I as the mean over lesion queries (7).
    - `align`: soft contrastive loss between evidence vectors sum_k Qbar(k) mu_k of images and reports.
    - `phrase`: each phrase against the images of the batch, scored by its best patches; images whose reports state the
      same finding are positives.
    - `anchor`: phrases of one finding against all others (text only).
    - `overall`: the global image-text loss, with soft targets.
    - `place`: phrases that name a side or a height attend to patches there; only the patches move.

    Args:
      text_temperature, patch_temperature: tau_t (4) and tau_p (6).
      sharpness: r of the log-sum-exp over patches.
      prototype_decay: lambda of (5).
      contrast_temperature: of `align`, `phrase` and `anchor`.
      own_share, target_temperature: of the soft targets, see `_rows.finding_contrast`.
      stop_report: no gradient into the reports' evidence from `evid_pair`, `evid_lesion` and `align`; without it
        everything collapses (`losses.evidence.pair_loss`). False is for studying that.
      chunks: how `align` and `overall` are cut, None makes all scores at once; `anchor` and `phrase` always do.
    """
    count, mu = rows["num_pairs"], outputs["prototypes"]
    z, weight = outputs["text"]["pooled"], rows["weight"]
    exists = weight > 0
    log_p = evidence.assign(z, mu, text_temperature)
    report, valid = evidence.report_evidence(log_p, exists, weight)
    report, valid = report[:count], valid[:count]
    result: dict[str, jax.Array] = {}

    if "rec" in terms:
        result["rec"] = evidence.reconstruction_loss(z, log_p, mu, exists, decay=prototype_decay)
    if "anchor" in terms:
        result["anchor"] = anchor_loss(z, rows["finding"], exists, rows["normal"], temperature=contrast_temperature)
    if {"evid_pair", "align"} & set(terms):
        logits = evidence.similarities(outputs["image"]["patches"][:count], mu, patch_temperature)
        log_image = evidence.image_evidence(logits, pooling="lse", sharpness=sharpness)
    if "evid_pair" in terms:
        result["evid_pair"] = evidence.pair_loss(report, log_image, valid, stop_report=stop_report)
    if "evid_lesion" in terms:
        lesions = evidence.similarities(outputs["image"]["lesions"][:count], mu, patch_temperature)
        result["evid_lesion"] = evidence.pair_loss(
            report, evidence.image_evidence(lesions, pooling="mean"), valid, stop_report=stop_report)

    contrast = _rows.finding_contrast(rows, valid, temperature=target_temperature, own_share=own_share, chunks=chunks)
    if "align" in terms:
        # The report's side is a target here too: only the image moves (see `pair_loss`).
        image_vector = contrastive.normalize(jnp.exp(log_image) @ mu)
        stated = report @ mu
        report_vector = contrastive.normalize(jax.lax.stop_gradient(stated) if stop_report else stated)
        result["align"] = contrast(image_vector, report_vector, 1.0 / contrast_temperature)
    if "phrase" in terms:
        result["phrase"] = phrase_loss(
            z[:count], outputs["image"]["patches"][:count], rows["finding"][:count], exists[:count],
            rows["normal"][:count], temperature=contrast_temperature, sharpness=sharpness)
    if "overall" in terms:
        image, _ = _rows.paired(outputs, rows)
        text = _rows.report_vector(z, weight)[:count]
        result["overall"] = contrast(image, text, outputs["logit_scale"])
    if "place" in terms:
        patches = outputs["image"]["patches"][:count]
        scores = jnp.einsum("bpd,bld->bpl", jax.lax.stop_gradient(z[:count]), patches) / contrast_temperature
        result["place"] = location.place_loss(
            scores, location.inside_regions(rows["region"], rows["frame"], patches.shape[1]), weight[:count])
    return result


def anchor_loss(z: jax.Array, finding: jax.Array, exists: jax.Array, normal: jax.Array, *,
                temperature: float) -> jax.Array:
    """Phrases against phrases: those of one finding are positives; stated normality is a finding of its own.

    Args:
      z: [R, P, D] unit phrases; finding: int32 [R, P], -1 unknown; exists: bool [R, P]; normal: bool [R].
    """
    flat = z.reshape(-1, z.shape[-1])
    # -2 is "normal", which the extractor states for the study; an unknown finding (-1) is nobody's positive.
    kind = jnp.where(normal[:, None], -2, finding).reshape(-1)
    mask = exists.reshape(-1)
    same = (kind[:, None] == kind[None, :]) & (kind != -1)[:, None]
    scores = flat @ flat.T / temperature
    # A phrase is not its own positive, and not its own negative either.
    itself = jnp.eye(len(flat), dtype=bool)
    return contrastive.phrase_image(jnp.where(itself, -1e9, scores), same & ~itself, phrase_mask=mask, image_mask=mask,
                                    both_directions=False)


def phrase_loss(z: jax.Array, patches: jax.Array, finding: jax.Array, exists: jax.Array, normal: jax.Array, *,
                temperature: float, sharpness: float) -> jax.Array:
    """Phrases [B, P, D] against images by their best patches [B, L, D]; positives state the same finding."""
    phrases = z.reshape(-1, z.shape[-1])
    scores = jnp.einsum("nd,bld->bln", phrases, patches) / temperature
    pooled = evidence.pool_patches(scores, sharpness).T  # [phrases, images]
    kind = jnp.where(normal[:, None], -2, finding)
    states = (kind.reshape(-1)[:, None, None] == kind[None]) & exists[None]
    own = jnp.repeat(jnp.eye(len(patches), dtype=bool), z.shape[1], axis=0)
    positives = states.any(axis=-1) & (kind.reshape(-1) != -1)[:, None] | own
    return contrastive.phrase_image(pooled, positives, phrase_mask=exists.reshape(-1),
                                    image_mask=exists.any(axis=1), both_directions=True)


def memory_image(outputs: Mapping[str, Any], *, patch_temperature: float, sharpness: float) -> dict[str, jax.Array]:
    """What an evidence memory keeps of images: evidence Qbar_I [B, K], pooled embedding, features of the tower."""
    logits = evidence.similarities(outputs["image"]["patches"], outputs["prototypes"], patch_temperature)
    log_image = evidence.image_evidence(logits, pooling="lse", sharpness=sharpness)
    return {"evidence": jnp.exp(log_image), "pooled": outputs["image"]["pooled"],
            "features": outputs["image"]["features"]}


def memory_report(outputs: Mapping[str, Any], rows: Mapping[str, Any], *, text_temperature: float,
                  ) -> dict[str, jax.Array]:
    """What an evidence memory keeps of reports: evidence Qbar_R [B, K], whether there is any, the mean phrase."""
    z, weight = outputs["text"]["pooled"], rows["weight"]
    report, valid = evidence.report_evidence(
        evidence.assign(z, outputs["prototypes"], text_temperature), weight > 0, weight)
    mean = _rows.report_vector(z, weight)
    return {"evidence": report, "valid": valid, "pooled": mean, "features": mean}


def diagnostics(outputs: Mapping[str, Any], rows: Mapping[str, Any], *, text_temperature: float,
                patch_temperature: float, sharpness: float) -> dict[str, jax.Array]:
    """Entropies of report and image evidence and effective numbers of prototypes: the collapse alarms."""
    log_p = evidence.assign(outputs["text"]["pooled"], outputs["prototypes"], text_temperature)
    logits = evidence.similarities(outputs["image"]["patches"], outputs["prototypes"], patch_temperature)
    log_image = evidence.image_evidence(logits, pooling="lse", sharpness=sharpness)
    values = evidence.diagnostics(log_p, rows["weight"] > 0, log_image)
    return {"logit_scale": outputs["logit_scale"], **{f"evidence/{name}": value for name, value in values.items()}}


def image_embedding(outputs: Mapping[str, Any], *, patch_temperature: float, sharpness: float,
                    overall_score: float) -> dict[str, jax.Array]:
    """Pooled evidence logits of the prototypes beside the pooled image; patches in the prototypes' space.

    Args:
      overall_score: weight of the global similarity in the score, beside that of the evidence.
    """
    logits = evidence.similarities(outputs["image"]["patches"], outputs["prototypes"], patch_temperature)
    pooled = evidence.pool_patches(logits, sharpness)
    return {"embedding": jnp.concatenate([pooled, overall_score * outputs["image"]["pooled"]], axis=-1),
            "patches": outputs["image"]["patches"]}


def text_embedding(outputs: Mapping[str, Any], weight: jax.Array, *, text_temperature: float) -> dict[str, jax.Array]:
    """Report evidence Qbar_R beside the mean phrase; the query is the evidence as a vector, sum_k Qbar_R(k) mu_k."""
    z, mu = outputs["text"]["pooled"], outputs["prototypes"]
    report, _ = evidence.report_evidence(evidence.assign(z, mu, text_temperature), weight > 0, weight)
    return {"embedding": jnp.concatenate([report, _rows.report_vector(z, weight)], axis=-1),
            "query": contrastive.normalize(report @ mu)}
