"""The online teacher: what the averaged model finds in the unpaired items of a batch, as targets of the student.

The teacher (Tarvainen & Valpola, 2017: the averaged parameters; the trained ones where there is no average) reads the
unpaired images as the input pipeline gives them; the student gets a strongly disturbed view of the same images
(`preprocess.strong_view`), as in FixMatch (Sohn et al., 2020, arXiv 2001.07685). `training.evidence_memory` makes the
targets. With hidden reports in the batch (`memory.truth`) the targets of the preset `oracle` are their evidence.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from lgdea_jax.losses import targets
from lgdea_jax.methods.base import Method
from lgdea_jax.models.forward import Batch, ForwardOptions, forward, pairs_of, unpaired_of
from lgdea_jax.preprocess.strong_view import StrongView
from lgdea_jax.training.evidence_memory import Arrays, EvidenceMemory

# Set apart from the dropout masks, which are drawn by (seed, step) too.
_VIEW_STREAM = 1


@dataclasses.dataclass(frozen=True)
class Lesson:
    """What the student is taught in a step.

    Attributes:
      batch: with the student's view of the unpaired images.
      aux: the memory's arrays, with what the teacher found.
      targets: image_target [B_image, K], image_weight [B_image]; report_target, report_weight where a loss reads them.
      log: scalars.
    """

    batch: Batch
    aux: Arrays
    targets: dict[str, jax.Array]
    log: dict[str, jax.Array]


def teach(state: Mapping[str, Any], batch: Batch, *, graphdef: Any, method: Method, memory: EvidenceMemory,
          view: StrongView, options: ForwardOptions, seed: int, micro: int) -> Lesson:
    """Runs the teacher on the unpaired items of a batch.

    Args:
      state: of the training; its averaged parameters are the teacher.
      batch: streams of arrays; the student's views are drawn from (seed, step, row).
      options: of the towers; micro: parts that the towers process the rows in.
    """
    aux, step = state["aux"], state["step"]
    found: dict[str, jax.Array] = {}
    log: dict[str, jax.Array] = {}
    if "images" in batch:
        teacher = nnx.merge(graphdef, jax.lax.stop_gradient(state["ema"] or state["params"]))
        images = dict(batch["images"])
        hidden = {name: images.pop(name) for name in ("hidden_tokens", "hidden_weight") if name in images}
        seen = method.memory_image(forward(teacher, {"image": images["image"]}, options=options, micro=micro))
        aux, target, weight, log = memory.image_targets(aux, seen["evidence"], seen["features"], step)
        aux = memory.visit(aux, "images", images["image_index"], seen["evidence"], seen["features"], step + 1)
        if hidden:
            truth = method.memory_report(
                forward(teacher, {"tokens": hidden["hidden_tokens"]}, options=options), hidden["hidden_weight"])
            known = truth["valid"].astype(jnp.float32)
            if memory.options.source == "truth":
                target, weight = truth["evidence"], known * memory.ramp(step)
            for name, guess in (("target", target), ("teacher", seen["evidence"])):
                distance = targets.total_variation(guess, truth["evidence"])
                log[f"memory/{name}_to_truth"] = jnp.sum(known * distance) / jnp.maximum(jnp.sum(known), 1.0)
        found |= {"image_target": target, "image_weight": weight}
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), _VIEW_STREAM), step)
        batch = {**batch, "images": {**images, "image": view(key, images["image"])}}
    if "reports" in batch and "evid_report" in method.terms and memory.has_rows:
        found["report_target"], found["report_weight"] = memory.report_targets(
            aux, batch["reports"]["report_index"], step)
    return Lesson(batch, aux, jax.lax.stop_gradient(found), log)


def found(method: Method, outputs: Mapping[str, Any], rows: Mapping[str, Any]) -> dict[str, Any]:
    """What the student found in the pairs' images (`image`) and in all reports (`report`), for `remember`."""
    image = {name: pairs_of(value, rows["num_pairs"]) for name, value in outputs["image"].items()}
    return {"image": method.memory_image({**outputs, "image": image}),
            "report": method.memory_report(outputs, rows["weight"])}


def remember(aux: Arrays, memory: EvidenceMemory, outputs: Mapping[str, Any], rows: Mapping[str, Any],
             step: jax.Array) -> Arrays:
    """`aux` with what the student found in the pairs' images and in all reports.

    Args:
      outputs: of `found`.
      rows: of the batch; step: of this visit, from 1 on.
    """
    pairs = rows["num_pairs"]
    image, report = outputs["image"], outputs["report"]
    aux = memory.visit(aux, "images", pairs_of(rows["image_index"], pairs), image["evidence"], image["features"], step)
    aux = memory.visit(aux, "reports", rows["report_index"], report["evidence"], report["features"], step)
    # The unpaired reports stand for the population; the pairs are few, and come again and again.
    counted = [report[name] if len(report[name]) == pairs else unpaired_of(report[name], pairs)
               for name in ("evidence", "valid")]
    return memory.count(aux, "reports", counted[0], counted[1].astype(jnp.float32))
