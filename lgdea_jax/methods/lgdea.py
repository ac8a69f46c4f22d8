"""LGDEA (arXiv 2602.07540) in full: `lgdea_pairs`, and unpaired images and reports through propagated relations.

    python -m lgdea_jax.train --config=configs/phantom.py --workdir=RUN --config.data.pairs=0.01

The pairs are the seed edges of a graph over all images and all reports; propagated along similar images and similar
reports they give every unpaired image the evidence of the reports that it is related to, and the mirror. The targets
mix it with what the averaged model finds in the image itself, and are made in the training step
(`training.teacher`, `training.evidence_memory`, `relations`). The paper's L_evid_u and L_evi-align use such relations;
its formulas are not available to us, and these are ours:

- `evid_image`: KL(target || Qbar_I) of a strongly disturbed view of the unpaired images, weighted by the certainty of
  the target.
- `evid_report`: the mirror for the unpaired reports.
- `evid_align`: soft contrastive loss between the evidence vectors of all images and all reports of the batch; how much
  an image and a report match is the overlap of the image's target with the report's evidence.

Two presets differ in where the targets come from:

- `mean_teacher` (Tarvainen & Valpola, 2017): the averaged model's own evidence of the image alone, sharpened and
  aligned in the same way; unpaired reports have no targets. The control without any graph that relations must beat.
- `oracle` (with --config.memory.truth=True): the evidence of the reports that the unpaired images really have. Not a
  method but an upper bound: what lies between it and `lgdea` is what better targets could win.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from lgdea_jax.errors import choose
from lgdea_jax.losses import contrastive, evidence
from lgdea_jax.losses.targets import distribution_overlap
from lgdea_jax.methods import _rows
from lgdea_jax.methods.base import Arrays
from lgdea_jax.methods.lgdea_pairs import LgdeaPairs
from lgdea_jax.models.forward import join_rows, pairs_of, unpaired_of

UNPAIRED = ("evid_image", "evid_report", "evid_align")
# Where the targets of unpaired items come from, see `training.evidence_memory`.
TARGETS = ("relations", "teacher", "truth")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lgdea(LgdeaPairs):
    """See this module.

    Attributes:
      targets: where the targets of unpaired items come from, one of TARGETS.
    """

    targets: str

    loss_names = (*LgdeaPairs.loss_names, *UNPAIRED)
    unpaired_streams = ("images", "reports")
    has_memory = True

    def __post_init__(self) -> None:
        choose(f"config.methods.{self.name}.targets", self.targets, TARGETS)

    def losses(self, outputs: Mapping[str, Any], rows: Mapping[str, Any], targets: Mapping[str, jax.Array]) -> Arrays:
        """The terms of `LgdeaPairs.losses` and those of this module; the latter are 0 without targets."""
        result = super().losses(outputs, rows, targets)
        wanted = self.terms & set(UNPAIRED)
        result |= dict.fromkeys(wanted, jnp.zeros([]))
        if not wanted or not targets:
            return result
        count, mu = rows["num_pairs"], outputs["prototypes"]
        log_p = evidence.assign(outputs["text"]["pooled"], mu, self.text_temperature)
        report, has_evidence = evidence.report_evidence(log_p, rows["weight"] > 0, rows["weight"])
        log_image = self.image_evidence(outputs["image"]["patches"], mu)
        if "evid_image" in wanted and "image_target" in targets:
            result["evid_image"] = weighted_pair_loss(
                targets["image_target"], unpaired_of(log_image, count), targets["image_weight"])
        if "evid_report" in wanted and "report_target" in targets:
            log_report = jnp.log(jnp.maximum(unpaired_of(report, count), 1e-8))
            result["evid_report"] = weighted_pair_loss(
                targets["report_target"], log_report,
                jnp.where(unpaired_of(has_evidence, count), targets["report_weight"], 0.0))
        if "evid_align" in wanted and "image_target" in targets:
            # A pair's own report is its target, with full confidence; without any other target there is nothing to add.
            report = jax.lax.stop_gradient(report)
            target = join_rows(pairs_of(report, count), targets["image_target"])
            confidence = join_rows(pairs_of(has_evidence, count).astype(jnp.float32), targets["image_weight"])

            def match(images: Any, reports: Any) -> jax.Array:
                overlap = distribution_overlap(images["target"], reports["report"])
                overlap = overlap ** (1.0 / self.target_temperature)
                return overlap * images["confidence"][:, None] * reports["has_evidence"][None, :]

            aligned = contrastive.soft_contrastive(
                contrastive.normalize(jnp.exp(log_image) @ mu), contrastive.normalize(report @ mu),
                1.0 / self.contrast_temperature, similarity=match,
                image_features={"target": target, "confidence": confidence},
                text_features={"report": report, "has_evidence": has_evidence},
                image_mask=confidence > 0, text_mask=has_evidence, chunks=self.chunks)
            result["evid_align"] = aligned * jnp.any(targets["image_weight"] > 0)
        return result

    def memory_image(self, outputs: Mapping[str, Any]) -> Arrays:
        """What the evidence memory keeps of images: evidence Qbar_I [B, K], and the pooled embedding as features."""
        log_image = self.image_evidence(outputs["image"]["patches"], outputs["prototypes"])
        return {"evidence": jnp.exp(log_image), "features": outputs["image"]["pooled"]}

    def memory_report(self, outputs: Mapping[str, Any], weight: jax.Array) -> Arrays:
        """What the evidence memory keeps of reports: evidence Qbar_R [B, K], if `valid`; the mean phrase as features.

        Args:
          weight: float32 [B, P], of the phrases.
        """
        z = outputs["text"]["pooled"]
        report, valid = evidence.report_evidence(
            evidence.assign(z, outputs["prototypes"], self.text_temperature), weight > 0, weight)
        return {"evidence": report, "valid": valid, "features": _rows.report_vector(z, weight)}


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
