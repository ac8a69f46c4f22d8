"""Evidence memory: the teacher's evidence of every training item at the last refresh, and the targets made of it.

LGDEA (arXiv 2602.07540) learns from unpaired images and reports through relations that are propagated from the pairs.
The paper's formulas for the targets are not available to us; these are ours. Every `refresh` steps the teacher (the
averaged parameters, or the trained ones without an average) goes over all items without augmentation, and the targets
of the unpaired are made anew:

    relations  (S Qbar_R) / rowsum(S) for an image, its mirror for a report, over the graph of `relations`
    teacher    the teacher's own evidence of the image: a mean teacher, the control without any graph
    truth      the evidence of the report that the unpaired image really has: an upper bound, for studies only

then sharpened, and aligned to the mean evidence of the reports (a teacher that was trained on few pairs overrates what
it knows best). The arrays are rows of `state["aux"]`, split over the devices like a batch, saved with every checkpoint,
and read by row in the step: its cost does not depend on the size of the data set.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lgdea_jax.errors import UserError
from lgdea_jax.experiment import Experiment
from lgdea_jax.losses import targets
from lgdea_jax.methods.base import Method
from lgdea_jax.models.forward import ForwardOptions, forward
from lgdea_jax.relations.graph import image_targets, relation_graph, report_targets
from lgdea_jax.relations.seeds import seed_edges
from lgdea_jax.runtime import sharding

Arrays = dict[str, jax.Array]


def blank(images: int, reports: int, prototypes: int) -> Arrays:
    """The memory before its first refresh: no target has any weight.

    Args:
      images, reports: rows of each side, padding included; prototypes: K.

    Returns:
      image_target, report_target float32 [N, K], rows sum to 1 once they are filled; image_weight, report_weight
      float32 [N] in [0, 1], the confidence in each target times the ramp.
    """
    return {"image_target": jnp.zeros([images, prototypes]), "image_weight": jnp.zeros([images]),
            "report_target": jnp.zeros([reports, prototypes]), "report_weight": jnp.zeros([reports])}


class Table:
    """Items of several streams one after the other, read by the block; rows past the end repeat the last one.

    Args:
      items: random access to dicts of arrays; they must have the names of `names` in common.
      names: what is read of an item.
      block: rows of a block, over all processes.
      threads: that read.
    """

    def __init__(self, items: Sequence[Any], names: Sequence[str], *, block: int, threads: int) -> None:
        self._items, self._names, self._threads = [part for part in items if len(part)], tuple(names), threads
        self._ends = np.cumsum([len(part) for part in self._items])
        self.count = int(self._ends[-1]) if len(self._ends) else 0
        self.block, self.blocks = block, -(-self.count // block)

    @property
    def rows(self) -> int:
        """Rows with the padding."""
        return self.blocks * self.block

    def read(self, start: int, stop: int) -> dict[str, np.ndarray]:
        """Rows `start` to `stop` as stacked arrays."""
        def one(row: int) -> dict[str, np.ndarray]:
            row = min(row, self.count - 1)
            part = int(np.searchsorted(self._ends, row, side="right"))
            item = self._items[part][row - (int(self._ends[part - 1]) if part else 0)]
            return {name: item[name] for name in self._names}

        with concurrent.futures.ThreadPoolExecutor(max(1, self._threads)) as pool:
            items = list(pool.map(one, range(start, stop)))
        return {name: np.stack([item[name] for item in items]) for name in self._names}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TargetOptions:
    """How targets are made of the teacher's evidence; `config.memory` has the reasons.

    Attributes:
      source: where the targets come from, one of `methods.lgdea.TARGETS`.
      features: what the graph compares: "pooled", "features" or "evidence".
      graph: "anchors" or "knn"; landmarks, top, neighbours, temperature, alpha, order: of it, see `relations`.
      own: share of the teacher's own evidence in a target that comes over relations.
      sharpen: temperature of the targets; align: rounds of alignment to the prior, 0 for none.
      confidence: quantile of the confidences that counts as full.
    """

    source: str
    features: str
    graph: str
    landmarks: int
    top: int
    neighbours: int
    temperature: float
    alpha: float
    order: int
    own: float
    sharpen: float
    align: int
    confidence: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemoryOptions:
    """When and how the memory is refreshed.

    Attributes:
      first: step of the first refresh; refresh: steps from one to the next.
      ramp: refreshes until the targets have their full weight.
      block: items of one pass of the teacher, over all devices; threads: that read them.
      seed: of the landmarks.
      targets: how targets are made.
    """

    first: int
    refresh: int
    ramp: int
    block: int
    threads: int
    seed: int
    targets: TargetOptions

    @classmethod
    def of(cls, experiment: Experiment) -> MemoryOptions:
        """Those of an experiment whose method has a memory."""
        config, method = experiment.config, experiment.method
        part = config.memory.to_dict()
        names = {field.name for field in dataclasses.fields(TargetOptions)} - {"source"}
        return cls(first=max(1, round(part["start"] * config.total_steps)), refresh=part["refresh"], ramp=part["ramp"],
                   block=part["block"], threads=config.data.threads, seed=config.seed,
                   targets=TargetOptions(source=method.targets, **{name: part[name] for name in names}))


class EvidenceMemory:
    """Refreshes the memory of a run.

    Args:
      options: see `MemoryOptions`.
      items: stream -> random access to its items (`data.pipeline.Items`), in the order of the memory's rows.
      truth: the reports that the unpaired images really have, in their order; () where they are not read.
      method: with `has_memory`.
      graphdef: static part of the model; forward_options: of its towers.
      mesh: where the arrays live.

    Raises:
      UserError: sizes that do not go together, or no hidden reports where they are the targets.
    """

    def __init__(
        self, options: MemoryOptions, *, items: Mapping[str, Sequence[Any]], truth: Sequence[Any], method: Method,
        graphdef: Any, forward_options: ForwardOptions, mesh: Mesh,
    ) -> None:
        self._options, self._mesh = options, mesh
        if options.block % mesh.size:
            raise UserError(f"memory.block={options.block} must be a multiple of the {mesh.size} devices")

        def table(parts: Sequence[Any], *names: str) -> Table:
            return Table(parts, names, block=options.block, threads=options.threads)

        self._images = table([*items["pairs"], *items["images"]], "image")
        self._reports = table([*items["pairs"], *items["reports"]], "tokens", "weight")
        self._truth = table([*items["pairs"], *truth], "tokens", "weight") if truth else None
        self.num_pairs = sum(len(part) for part in items["pairs"])
        self._unpaired = max(self._images.count, self._reports.count) > self.num_pairs
        if options.targets.source == "truth" and self._unpaired and self._truth is None:
            raise UserError("the method needs the hidden reports of the unpaired images: --config.memory.truth=True")

        def image_pass(params: Any, batch: Mapping[str, jax.Array]) -> Arrays:
            outputs = forward(nnx.merge(graphdef, params), {"image": batch["image"]}, options=forward_options)
            return method.memory_image(outputs)

        def report_pass(params: Any, batch: Mapping[str, jax.Array]) -> Arrays:
            # The first variant: the report's own words.
            outputs = forward(nnx.merge(graphdef, params), {"tokens": batch["tokens"][:, 0]}, options=forward_options)
            return method.memory_report(outputs, batch["weight"])

        rows = NamedSharding(mesh, PartitionSpec(sharding.BATCH_AXES))
        self._image_pass = jax.jit(image_pass, out_shardings=rows)
        self._report_pass = jax.jit(report_pass, out_shardings=rows)
        self._join = jax.jit(lambda parts: jax.tree.map(lambda *x: jnp.concatenate(x), *parts), out_shardings=rows)
        make = functools.partial(make_targets, options=options.targets, num_pairs=self.num_pairs, shards=mesh.size)
        self._make = jax.jit(make, out_shardings=(rows, NamedSharding(mesh, PartitionSpec())))

    @property
    def rows(self) -> tuple[int, int]:
        """Rows of images and of reports, padding included."""
        return self._images.rows, self._reports.rows

    def due(self, step: int) -> bool:
        """Whether the memory is refreshed before step `step + 1`."""
        first, every = self._options.first, self._options.refresh
        return self._unpaired and step >= first and (step - first) % every == 0

    def ramp(self, step: int) -> float:
        """Weight of the targets that are made after `step` steps: 1 / ramp at the first refresh, then up to 1."""
        refreshes = (step - self._options.first) // self._options.refresh + 1
        return min(1.0, refreshes / max(1, self._options.ramp))

    def refresh(self, state: Mapping[str, Any], step: int) -> tuple[Arrays, dict[str, jax.Array]]:
        """(the memory made anew, what to log about it); a function of the state and the data alone."""
        params = state["ema"] or state["params"]  # The teacher.
        images = self._pass(self._image_pass, params, self._images)
        reports = self._pass(self._report_pass, params, self._reports)
        truth = self._pass(self._report_pass, params, self._truth) if self._truth else None
        counts = {"images": np.int32(self._images.count), "reports": np.int32(self._reports.count)}
        return self._make(images=images, reports=reports, truth=truth, counts=counts,
                          ramp=jnp.float32(self.ramp(step)), key=jax.random.key(self._options.seed))

    def _pass(self, function: Any, params: Any, table: Table) -> Arrays:
        rows = sharding.rows_of_process(table.block, self._mesh)
        parts = []
        for number in range(table.blocks):
            start = number * table.block
            batch = table.read(start + rows.start, start + rows.stop)
            parts.append(function(params, sharding.put_batch(batch, self._mesh)))
        return self._join(parts)


def make_targets(
    *, images: Arrays, reports: Arrays, truth: Arrays | None, counts: Mapping[str, jax.Array], ramp: jax.Array,
    key: jax.Array, options: TargetOptions, num_pairs: int, shards: int,
) -> tuple[Arrays, dict[str, jax.Array]]:
    """The memory's arrays from a pass of the teacher. Ours; see this module.

    Args:
      images: evidence [N_I, K] (Qbar_I), pooled and features [N_I, D]; reports: evidence [N_R, K] (Qbar_R), valid
        bool [N_R], pooled and features [N_R, D]. Pairs come first on both sides, row i with row i; padding comes last.
      truth: like `reports`, for the reports that the images really have, or None.
      counts: images, reports that exist. ramp: weight of all targets, in [0, 1]. key: of the landmarks.
      options: see `TargetOptions`. num_pairs: P. shards: devices that hold the rows.

    Returns:
      (memory as `blank`, scalars to log).
    """
    image_exists = jnp.arange(images["evidence"].shape[0]) < counts["images"]
    has_evidence = (jnp.arange(reports["evidence"].shape[0]) < counts["reports"]) & reports["valid"]
    own_evidence = jnp.where(image_exists[:, None], images["evidence"], 0.0)
    report_evidence = jnp.where(has_evidence[:, None], reports["evidence"], 0.0)
    prior = jnp.sum(report_evidence, axis=0) / jnp.maximum(jnp.sum(has_evidence), 1)
    log: dict[str, jax.Array] = {}
    report_target, report_weight = report_evidence, jnp.zeros(has_evidence.shape)
    if options.source == "relations":
        seeds = seed_edges(
            jnp.arange(num_pairs), jnp.arange(num_pairs), num_images=len(image_exists), num_reports=len(has_evidence),
            weights=has_evidence[:num_pairs])
        chosen = [side[options.features] for side in (images, reports)]
        links = relation_graph(
            options.graph, seeds, *chosen, alpha=options.alpha, order=options.order, key=key,
            num_landmarks=options.landmarks, top=options.top or None, neighbours=options.neighbours,
            temperature=options.temperature, image_mask=image_exists, report_mask=has_evidence, shards=shards)
        target, confidence = image_targets(links, report_evidence, shards=shards)
        mirror, report_confidence = report_targets(links, own_evidence, shards=shards)
        mixed = (1 - options.own) * target + options.own * own_evidence
        target = jnp.where(confidence[:, None] > 0, mixed, own_evidence)
        report_target = jnp.where(has_evidence[:, None], mirror, 0.0)
        report_weight = _weights(report_confidence, has_evidence, num_pairs, options.confidence)
    elif options.source == "teacher":
        target, confidence = own_evidence, image_exists.astype(jnp.float32)
    else:
        known = image_exists & truth["valid"]
        target, confidence = jnp.where(known[:, None], truth["evidence"], 0.0), known.astype(jnp.float32)
    if options.source != "truth":
        target = targets.sharpen(target, options.sharpen)
        if options.align:
            target = targets.align_to_prior(target, prior, iterations=options.align)
    weight = _weights(confidence, image_exists, num_pairs, options.confidence)
    unpaired = image_exists & (jnp.arange(len(image_exists)) >= num_pairs)

    def mean(values: jax.Array, where: jax.Array = unpaired) -> jax.Array:
        return jnp.sum(jnp.where(where, values, 0.0)) / jnp.maximum(jnp.sum(where), 1)

    log |= {"memory/target_entropy": mean(-jnp.sum(jax.scipy.special.xlogy(target, target), axis=-1)),
            "memory/confidence": mean(confidence), "memory/confident": mean((weight > 0.5).astype(jnp.float32)),
            "memory/target_to_teacher": mean(targets.total_variation(target, own_evidence)), "memory/ramp": ramp}
    if truth is not None:
        known = unpaired & truth["valid"]
        log |= {"memory/target_to_truth": mean(targets.total_variation(target, truth["evidence"]), known),
                "memory/teacher_to_truth": mean(targets.total_variation(own_evidence, truth["evidence"]), known)}
    memory = {"image_target": target, "image_weight": ramp * weight,
              "report_target": report_target, "report_weight": ramp * report_weight}
    return memory, log


def _weights(confidence: jax.Array, exists: jax.Array, num_pairs: int, quantile: float) -> jax.Array:
    """Confidences of the unpaired scaled so that their `quantile` is 1, and cut there; 0 for pairs and padding."""
    unpaired = exists & (jnp.arange(len(exists)) >= num_pairs)
    full = jnp.nanquantile(jnp.where(unpaired, confidence, jnp.nan), quantile)
    full = jnp.where(full > 0, full, 1.0)
    return jnp.where(unpaired, jnp.clip(confidence / full, 0.0, 1.0), 0.0)
