"""LGDEA (arXiv 2602.07540) on pairs: evidence phrases and image patches meet in a space of learned prototypes.

    python -m lgdea_jax.train --config=configs/phantom.py --workdir=RUN --config.method=lgdea_pairs

From the paper: assignments (4), reconstruction L_rec (5), patch evidence (6), its pooling (7), report evidence (8) and
the pair loss L_evid_p (9); L_rec reads unpaired reports too. Ours, where the paper's text leaves room or the formula is
not available to us: log-sum-exp pooling over patches beside the mean over lesion queries, soft contrastive targets from
the overlap of the reports' evidence, and the anchor that keeps phrases of one finding together (without it the evidence
of a text tower that is trained from scratch drifts).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from lgdea_jax.losses import contrastive, evidence
from lgdea_jax.losses.chunks import Chunks
from lgdea_jax.losses.positives import positives_contrastive
from lgdea_jax.methods import _rows
from lgdea_jax.methods.base import Arrays, Method


@dataclasses.dataclass(frozen=True, kw_only=True)
class LgdeaPairs(Method):
    """See this module.

    Attributes:
      text_temperature, patch_temperature: tau_t (4) and tau_p (6).
      sharpness: r of the log-sum-exp over patches.
      prototype_decay: lambda of (5).
      contrast_temperature: of `align`, `phrase` and `anchor`.
      own_share, target_temperature: of the soft targets, see `_rows.finding_contrast`.
      stop_report: no gradient into the reports' evidence from `evid_pair`, `evid_lesion` and `align`; without it
        everything collapses (`losses.evidence.pair_loss`). False is for studying that.
      overall_score: weight of the global similarity in the score, beside that of the evidence.
      chunks: how `align`, `overall`, `phrase` and `anchor` are cut.
    """

    text_temperature: float
    patch_temperature: float
    sharpness: float
    prototype_decay: float
    contrast_temperature: float
    own_share: float
    target_temperature: float
    stop_report: bool
    overall_score: float

    needs = ("image", "text", "prototypes", "lesion_queries")
    loss_names = ("rec", "evid_pair", "evid_lesion", "align", "phrase", "anchor", "overall")
    unpaired_streams = ("reports",)

    def losses(self, outputs: Mapping[str, Any], rows: Mapping[str, Any], targets: Mapping[str, jax.Array],
               ) -> Arrays:
        """The terms of LGDEA that pairs (and, for `rec` and `anchor`, unpaired reports) give.

        - `rec`: L_rec (5) over all phrases.
        - `evid_pair`: L_evid_p (9), KL(Qbar_R || Qbar_I) with Qbar_I pooled from patches by log-sum-exp.
        - `evid_lesion`: the same with Qbar_I as the mean over lesion queries (7).
        - `align`: soft contrastive loss between evidence vectors sum_k Qbar(k) mu_k of images and reports.
        - `phrase`: each phrase against the images of the batch, scored by its best patches; images whose reports state
          the same finding are positives.
        - `anchor`: phrases of one finding against all others (text only).
        - `overall`: the global image-text loss, with soft targets.
        """
        terms, mu = self.terms, outputs["prototypes"]
        paired = functools.partial(_rows.of_pairs, rows=rows)
        z, weight = outputs["text"]["pooled"], rows["weight"]
        exists = weight > 0
        log_p = evidence.assign(z, mu, self.text_temperature)
        report, valid = evidence.report_evidence(log_p, exists, weight)
        report, valid = paired(report), paired(valid)
        result: Arrays = {}

        if "rec" in terms:
            result["rec"] = evidence.reconstruction_loss(z, log_p, mu, exists, decay=self.prototype_decay)
        if "anchor" in terms:
            result["anchor"] = anchor_loss(
                z, rows["finding"], exists, rows["normal"], temperature=self.contrast_temperature, chunks=self.chunks)
        if {"evid_pair", "align"} & terms:
            log_image = self.image_evidence(paired(outputs["image"]["patches"]), mu)
        if "evid_pair" in terms:
            result["evid_pair"] = evidence.pair_loss(report, log_image, valid, stop_report=self.stop_report)
        if "evid_lesion" in terms:
            lesions = evidence.similarities(paired(outputs["image"]["lesions"]), mu, self.patch_temperature)
            result["evid_lesion"] = evidence.pair_loss(
                report, evidence.image_evidence(lesions, pooling="mean"), valid, stop_report=self.stop_report)

        contrast = _rows.finding_contrast(
            rows, valid, temperature=self.target_temperature, own_share=self.own_share, chunks=self.chunks)
        if "align" in terms:
            # The report's side is a target here too: only the image moves (see `pair_loss`).
            image_vector = contrastive.normalize(jnp.exp(log_image) @ mu)
            stated = report @ mu
            report_vector = contrastive.normalize(jax.lax.stop_gradient(stated) if self.stop_report else stated)
            result["align"] = contrast(image_vector, report_vector, 1.0 / self.contrast_temperature)
        if "phrase" in terms:
            result["phrase"] = phrase_loss(
                *(paired(array) for array in (z, outputs["image"]["patches"], rows["finding"], exists, rows["normal"])),
                temperature=self.contrast_temperature, sharpness=self.sharpness, chunks=self.chunks)
        if "overall" in terms:
            image, _ = _rows.paired(outputs, rows)
            text = paired(_rows.report_vector(z, weight))
            result["overall"] = contrast(image, text, outputs["logit_scale"])
        return result

    def image_evidence(self, patches: jax.Array, prototypes: jax.Array) -> jax.Array:
        """log Qbar_I [B, K], pooled from patches [B, L, D] by log-sum-exp; prototypes [K, D]."""
        logits = evidence.similarities(patches, prototypes, self.patch_temperature)
        return evidence.image_evidence(logits, pooling="lse", sharpness=self.sharpness)

    def diagnostics(self, outputs: Mapping[str, Any], rows: Mapping[str, Any]) -> Arrays:
        """Entropies of report and image evidence and effective numbers of prototypes: the collapse alarms."""
        log_p = evidence.assign(outputs["text"]["pooled"], outputs["prototypes"], self.text_temperature)
        log_image = self.image_evidence(outputs["image"]["patches"], outputs["prototypes"])
        values = evidence.diagnostics(log_p, rows["weight"] > 0, log_image)
        return {"logit_scale": outputs["logit_scale"], **{f"evidence/{name}": value for name, value in values.items()}}

    def image_embedding(self, outputs: Mapping[str, Any]) -> Arrays:
        """Pooled evidence logits of the prototypes beside the pooled image; patches in the prototypes' space."""
        logits = evidence.similarities(outputs["image"]["patches"], outputs["prototypes"], self.patch_temperature)
        pooled = evidence.pool_patches(logits, self.sharpness)
        return {"embedding": jnp.concatenate([pooled, self.overall_score * outputs["image"]["pooled"]], axis=-1),
                "patches": outputs["image"]["patches"]}

    def text_embedding(self, outputs: Mapping[str, Any], weight: jax.Array) -> Arrays:
        """Report evidence Qbar_R beside the mean phrase; the query is the evidence as a vector, sum_k Qbar_R mu_k."""
        z, mu = outputs["text"]["pooled"], outputs["prototypes"]
        report, _ = evidence.report_evidence(evidence.assign(z, mu, self.text_temperature), weight > 0, weight)
        return {"embedding": jnp.concatenate([report, _rows.report_vector(z, weight)], axis=-1),
                "query": contrastive.normalize(report @ mu)}


# The extractor states normality for the study; an unknown finding is nobody's positive.
_NORMAL, _UNKNOWN = -2, -1


def anchor_loss(z: jax.Array, finding: jax.Array, exists: jax.Array, normal: jax.Array, *, temperature: float,
                chunks: Chunks | None = None) -> jax.Array:
    """Phrases against phrases: those of one finding are positives; stated normality is a finding of its own.

    Args:
      z: [R, P, D] unit phrases; finding: int32 [R, P], -1 unknown; exists: bool [R, P]; normal: bool [R].
    """
    phrases = {"z": z.reshape(-1, z.shape[-1]), "kind": jnp.where(normal[:, None], _NORMAL, finding).reshape(-1),
               "number": jnp.arange(exists.size)}

    def tile(a: Any, b: Any) -> tuple[jax.Array, jax.Array]:
        same = (a["kind"][:, None] == b["kind"][None, :]) & (a["kind"] != _UNKNOWN)[:, None]
        # A phrase is not its own positive, and not its own negative either.
        itself = a["number"][:, None] == b["number"][None, :]
        return jnp.where(itself, -1e9, a["z"] @ b["z"].T / temperature), same & ~itself

    mask = exists.reshape(-1)
    return positives_contrastive(phrases, phrases, tile, row_mask=mask, column_mask=mask, both_directions=False,
                                 chunks=chunks)


def phrase_loss(z: jax.Array, patches: jax.Array, finding: jax.Array, exists: jax.Array, normal: jax.Array, *,
                temperature: float, sharpness: float, chunks: Chunks | None = None) -> jax.Array:
    """Phrases [B, P, D] against images by their best patches [B, L, D]; positives state the same finding.

    With `chunks` a tile has as many phrases as images, for each of which it holds the scores of all patches.
    """
    kind = jnp.where(normal[:, None], _NORMAL, finding)
    images = {"patches": patches, "kind": jnp.where(exists, kind, _UNKNOWN), "number": jnp.arange(len(patches))}
    phrases = {"z": z.reshape(-1, z.shape[-1]), "kind": kind.reshape(-1),
               "number": jnp.repeat(jnp.arange(len(z)), z.shape[1])}

    def tile(images: Any, phrases: Any) -> tuple[jax.Array, jax.Array]:
        scores = jnp.einsum("nd,bld->bln", phrases["z"], images["patches"]) / temperature
        states = (images["kind"][:, :, None] == phrases["kind"]).any(axis=1) & (phrases["kind"] != _UNKNOWN)
        own = images["number"][:, None] == phrases["number"][None, :]
        return evidence.pool_patches(scores, sharpness), states | own

    return positives_contrastive(images, phrases, tile, row_mask=exists.any(axis=1), column_mask=exists.reshape(-1),
                                 chunks=chunks, column_chunk=chunks.rows if chunks else 0)
