"""Evidence memory: what was found in every image and report at its last visit, and the targets that are made of it.

LGDEA (arXiv 2602.07540) learns from unpaired images and reports through relations that are propagated from the pairs.
The paper's formulas for the targets are not available to us; these are ours. In each step the teacher (the averaged
parameters, or the trained ones without an average) reads the unpaired images of the batch (`training.teacher`), and

- the evidence and features of the batch's items are written to their rows of the memory, with the step of the visit;
- the target of an unpaired image is made: its evidence by the teacher, mixed with what it inherits over the relations
  (`memory.own`), sharpened, and aligned: times the running mean of the reports' evidence, over the running mean of the
  images' (a teacher that was trained on few pairs overrates what it knows best);
- it is weighted by its certainty: the largest entry over its median in the batch, at most 1, squared.

Relations are made anew from the memory every `memory.graph_every` steps (`rebuild`); between two rebuilds a target
needs the landmarks and one small array. No pass over the data set is made, and a step costs the same at any size of it.
The memory's arrays are `state["aux"]`: rows split over the devices like a batch, saved with every checkpoint.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from lgdea_jax.experiment import Experiment
from lgdea_jax.losses import targets
from lgdea_jax.relations.anchors import (
    assign_to_landmarks,
    landmark_evidence,
    landmarks,
    related_evidence,
    relation_factor,
)
from lgdea_jax.relations.rows import Rows
from lgdea_jax.relations.seeds import seed_edges

Arrays = dict[str, Any]
SIDES = ("images", "reports")
PADDING = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemoryOptions:
    """How targets are made; `config.memory` has the reasons.

    Attributes:
      source: where the targets come from, one of `methods.lgdea.TARGETS`.
      start, full: steps at which targets begin to have weight, and have their full weight.
      graph_every: steps from one rebuild of the relations to the next; the first is at `start`.
      landmarks, top, temperature, alpha, order: of the relations, see `relations.anchors`; top 0 is all.
      own: share of the teacher's own evidence in a target that has relations.
      sharpen: temperature of the targets; align: power of the alignment, 0 for none; momentum: of the running means.
      seed: of the landmarks.
    """

    source: str
    start: int
    full: int
    graph_every: int
    landmarks: int
    top: int
    temperature: float
    alpha: float
    order: int
    own: float
    sharpen: float
    align: float
    momentum: float
    seed: int

    @classmethod
    def of(cls, experiment: Experiment) -> MemoryOptions:
        """Those of an experiment whose method has a memory."""
        config = experiment.config
        part = config.memory.to_dict()
        names = {field.name for field in dataclasses.fields(cls)} - {"source", "start", "full", "seed"}
        start, full = (max(1, config.optim.warmup_steps, round(part[name] * config.total_steps))
                       for name in ("start", "full"))
        return cls(source=experiment.method.targets, start=start, full=full, seed=config.seed,
                   **{name: part[name] for name in names})


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvidenceMemory:
    """The memory of a run: its arrays, and functions of them. Nothing here is differentiated.

    Attributes:
      options: see `MemoryOptions`.
      num_pairs: P; the pairs are the first rows of both sides, row i with row i.
      images, reports: rows of each side that exist.
      prototypes, width: K of evidence, D of features.
      shards: devices that share the rows.
    """

    options: MemoryOptions
    num_pairs: int
    images: int
    reports: int
    prototypes: int
    width: int
    shards: int = 1

    @property
    def has_rows(self) -> bool:
        """Whether items have rows: relations need them, other targets only the running means."""
        return self.options.source == "relations"

    def rows(self, side: str) -> int:
        """Rows of a side, padded: as many on every mesh whose size divides PADDING, so that a run can move."""
        block = math.lcm(PADDING, self.shards)
        return -(-getattr(self, side) // block) * block

    def row_bytes(self) -> int:
        """Bytes of one item; 0 without rows."""
        return 4 * (self.prototypes + self.width + 1) if self.has_rows else 0

    def blank(self) -> Arrays:
        """The memory before the first step.

        Returns:
          `means`: for images and reports the running mean of their evidence (`sum` [K] over `mass` []).
          With rows, for images and reports: `evidence` [N, K], `features` [N, D], `visited` int32 [N], the step of the
          last visit, 0 before it; and `graph`: for each side `landmarks` [L, D] and `offered` [L, K + 1].
        """
        arrays: Arrays = {"means": {side: {"sum": jnp.zeros(self.prototypes), "mass": jnp.zeros([])} for side in SIDES}}
        if self.has_rows:
            arrays["graph"] = {}
            for side in SIDES:
                count = self.rows(side)
                arrays[side] = {"evidence": jnp.zeros([count, self.prototypes]),
                                "features": jnp.zeros([count, self.width]), "visited": jnp.zeros([count], jnp.int32)}
                num = min(self.options.landmarks, count)
                arrays["graph"][side] = {"landmarks": jnp.zeros([num, self.width]),
                                         "offered": jnp.zeros([num, self.prototypes + 1])}
        return arrays

    def ramp(self, step: jax.Array) -> jax.Array:
        """Weight of all targets in the step that follows `step` steps: 0 before `start`, 1 from `full` on."""
        first, last = self.options.start, max(self.options.full, self.options.start + 1)
        return jnp.clip((step - first + 1) / (last - first), 0.0, 1.0)

    def image_targets(self, aux: Arrays, evidence: jax.Array, features: jax.Array, step: jax.Array,
                      ) -> tuple[Arrays, jax.Array, jax.Array, dict[str, jax.Array]]:
        """Targets of the batch's unpaired images.

        Args:
          aux: the memory's arrays.
          evidence: Qbar_I [B, K] by the teacher; features: [B, D]; step: steps so far.

        Returns:
          (aux with the images' running mean moved on, targets [B, K], weights [B] in [0, 1], scalars to log).
        """
        mixed, confidence = self._mix(aux, "images", evidence, features)
        mixed = targets.sharpen(mixed, self.options.sharpen)
        aux = self.count(aux, "images", mixed, jnp.ones(len(mixed)))
        target = targets.align(mixed, self._mean(aux, "images"), self._mean(aux, "reports"), self.options.align)
        weight = targets.certainty(target) * self.ramp(step)
        log = {"memory/target_entropy": jnp.mean(-jnp.sum(jax.scipy.special.xlogy(target, target), axis=-1)),
               "memory/target_to_teacher": jnp.mean(targets.total_variation(target, evidence)),
               "memory/certainty": jnp.mean(targets.certainty(target)), "memory/ramp": self.ramp(step)}
        if self.has_rows:
            log["memory/confidence"] = jnp.mean(confidence)
        return aux, target, weight, log

    def report_targets(self, aux: Arrays, index: jax.Array, step: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Targets [B, K] and weights [B] of unpaired reports, by the features of their last visit; 0 before it.

        Args:
          index: int32 [B], rows of the memory.
        """
        held = {name: array[index] for name, array in aux["reports"].items()}
        target, confidence = self._related(aux, "reports", held["features"])
        target = targets.sharpen(target, self.options.sharpen)
        weight = targets.certainty(target) * ((held["visited"] > 0) & (confidence > 0))
        return target, weight * self.ramp(step)

    def count(self, aux: Arrays, side: str, evidence: jax.Array, weight: jax.Array) -> Arrays:
        """`aux` with a side's running mean moved on by evidence [B, K] with weights [B]; stays where all weigh 0."""
        moved, keep = aux["means"][side], self.options.momentum
        total = jnp.sum(weight)
        share = jnp.where(total > 0, 1.0 - keep, 0.0)
        mean = weight @ evidence / jnp.where(total > 0, total, 1.0)
        new = {"sum": (1.0 - share) * moved["sum"] + share * mean, "mass": (1.0 - share) * moved["mass"] + share}
        return {**aux, "means": {**aux["means"], side: new}}

    def visit(self, aux: Arrays, side: str, index: jax.Array, evidence: jax.Array, features: jax.Array,
              step: jax.Array) -> Arrays:
        """`aux` with the rows of a side that a batch has read.

        Args:
          index: int32 [B], rows of the memory; of equal ones the last counts.
          evidence: [B, K]; features: [B, D]; step: of this visit, from 1 on.
        """
        if not self.has_rows:
            return aux
        # A scatter with equal indices has no defined order on an accelerator: all but the last are sent out of range.
        later = jnp.triu(index[:, None] == index[None, :], k=1).any(axis=1)
        index = jnp.where(later, self.rows(side), index)
        new = {"evidence": evidence, "features": features, "visited": jnp.full(index.shape, step, jnp.int32)}
        held = {name: array.at[index].set(new[name], mode="drop") for name, array in aux[side].items()}
        return {**aux, side: held}

    def due(self, step: int) -> bool:
        """Whether relations are made anew before step `step + 1`."""
        first, every = self.options.start, self.options.graph_every
        return self.has_rows and step >= first and (step - first) % every == 0

    def rebuild(self, aux: Arrays) -> Arrays:
        """`aux` with relations made anew from the rows that were visited: a function of the rows and the seed alone."""
        options, keys = self.options, jax.random.split(jax.random.key(self.options.seed))
        seen = {side: aux[side]["visited"] > 0 for side in SIDES}
        # A report without evidence says nothing about an image, and an image that relates to it inherits nothing.
        seen["reports"] &= jnp.sum(aux["reports"]["evidence"], axis=-1) > 0
        centres, assigned = {}, {}
        for side, key in zip(SIDES, keys, strict=True):
            features = aux[side]["features"]
            centres[side] = landmarks(key, features, len(aux["graph"][side]["landmarks"]), mask=seen[side],
                                      shards=self.shards)
            assigned[side] = self._assign(features, centres[side], mask=seen[side], shards=self.shards)
        pairs = jnp.arange(self.num_pairs)
        seeds = seed_edges(pairs, pairs, num_images=len(seen["images"]), num_reports=len(seen["reports"]),
                           weights=seen["images"][:self.num_pairs] & seen["reports"][:self.num_pairs])
        factor = relation_factor(seeds, assigned["images"], assigned["reports"], alpha=options.alpha,
                                 order=options.order, shards=self.shards)
        offered = {}
        for side, other, to_side in (("images", "reports", factor), ("reports", "images", factor.T)):
            given = jnp.where(seen[other][:, None], aux[other]["evidence"], 0.0)
            offered[side] = landmark_evidence(to_side, assigned[other], given, shards=self.shards)
        return {**aux, "graph": {side: {"landmarks": centres[side], "offered": offered[side]} for side in SIDES}}

    def _assign(self, features: jax.Array, centres: jax.Array, **options: Any) -> Rows:
        top = min(self.options.top, len(centres)) or None
        return assign_to_landmarks(features, centres, temperature=self.options.temperature, top=top, **options)

    def _related(self, aux: Arrays, side: str, features: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(evidence [B, K] that items with these features inherit, confidence [B]); zeros before the first rebuild."""
        graph = aux["graph"][side]
        return related_evidence(self._assign(features, graph["landmarks"]), graph["offered"])

    def _mix(self, aux: Arrays, side: str, evidence: jax.Array, features: jax.Array) -> tuple[jax.Array, jax.Array]:
        if not self.has_rows or self.options.own == 1.0:
            return evidence, jnp.zeros(len(evidence))
        related, confidence = self._related(aux, side, features)
        mixed = self.options.own * evidence + (1.0 - self.options.own) * related
        return jnp.where(confidence[:, None] > 0, mixed, evidence), confidence

    def _mean(self, aux: Arrays, side: str) -> jax.Array:
        """A side's running mean [K]; zeros before anything was counted."""
        moved = aux["means"][side]
        return moved["sum"] / jnp.where(moved["mass"] > 0, moved["mass"], 1.0)
