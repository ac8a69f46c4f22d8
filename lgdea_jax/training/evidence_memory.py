"""Evidence memory: what a teacher saw in every training item at the last refresh, and the targets that come of it.

LGDEA (arXiv 2602.07540) learns from unpaired images and reports through relations that are propagated from the pairs.
The paper's formulas for the targets are not available to us; these are ours. Every `refresh` steps the teacher (the
averaged parameters, or the trained ones without an average) goes over all items without augmentation, and the targets
of the unpaired are made anew:

    relations  (S Qbar_R) / rowsum(S) for an image, its mirror for a report, over the graph of `relations`
    teacher    the teacher's own evidence of the image: a mean teacher, the control without any graph
    truth      the evidence of the report that the unpaired image really has: an upper bound, for studies only

then sharpened, and aligned to the mean evidence of the reports (a teacher that has seen few pairs overrates what it
knows best). The arrays are rows of `state["aux"]`, split over the devices like a batch, saved with every checkpoint,
and read by row in the step: its cost does not depend on the size of the data set.
"""

from __future__ import annotations

import concurrent.futures
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lgdea_jax.errors import UserError, choose
from lgdea_jax.losses import targets
from lgdea_jax.relations.graph import image_targets, relation_graph, report_targets
from lgdea_jax.relations.seeds import seed_edges
from lgdea_jax.runtime import sharding
from lgdea_jax.training import step as train_step

SOURCES = ("relations", "teacher", "truth")
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


class EvidenceMemory:
    """Refreshes the memory of a run.

    Args:
      config: the run's; see `config.memory` in configs/common.py.
      data: `training.data.Data`; method: `lgdea_jax.experiment.Method` with `targets`.
      graphdef: static part of the model; mesh: where the arrays live.
    """

    def __init__(self, config: Any, data: Any, method: Any, graphdef: Any, mesh: Mesh) -> None:
        self._options, self._source = config.memory, choose("memory targets", method.targets, SOURCES)
        self._seed, self._mesh = config.seed, mesh
        block, threads = config.memory.block, config.data.threads
        if block % mesh.size:
            raise UserError(f"memory.block={block} must be a multiple of the {mesh.size} devices")
        self._first = max(1, round(config.memory.start * config.total_steps))
        items = {stream: [part for part, _ in parts] for stream, parts in data.items.items()}
        self._images = Table([*items["pairs"], *items["images"]], ["image"], block=block, threads=threads)
        text = ["tokens", "weight", "normal"]
        self._reports = Table([*items["pairs"], *items["reports"]], text, block=block, threads=threads)
        self._truth = Table([*items["pairs"], *data.truth], text, block=block, threads=threads) if data.truth else None
        self.num_pairs = sum(len(part) for part in items["pairs"])
        self._unpaired = max(self._images.count, self._reports.count) > self.num_pairs
        if self._source == "truth" and self._unpaired and self._truth is None:
            raise UserError("the method needs the hidden reports of the unpaired images: --config.memory.truth=True")
        common = {"pad_id": data.tokenizer.pad_id, "mean": config.image.mean, "std": config.image.std,
                  "per_image": config.image.per_image}

        def image_pass(params: Any, batch: Mapping[str, jax.Array]) -> Arrays:
            outputs = train_step.forward(nnx.merge(graphdef, params), {"image": batch["image"]}, **common)
            return method.memory_image(outputs)

        def report_pass(params: Any, batch: Mapping[str, jax.Array]) -> Arrays:
            # The first variant: the report's own words.
            outputs = train_step.forward(nnx.merge(graphdef, params), {"tokens": batch["tokens"][:, 0]}, **common)
            return method.memory_report(outputs, batch)

        rows = NamedSharding(mesh, PartitionSpec(sharding.BATCH_AXES))
        self._image_pass = jax.jit(image_pass, out_shardings=rows)
        self._report_pass = jax.jit(report_pass, out_shardings=rows)
        self._join = jax.jit(lambda parts: jax.tree.map(lambda *x: jnp.concatenate(x), *parts), out_shardings=rows)
        options = self._options.to_dict()
        for name in ("start", "refresh", "ramp", "block", "truth"):
            del options[name]
        make = functools.partial(make_targets, source=self._source, num_pairs=self.num_pairs, shards=mesh.size,
                                 **options)
        self._make = jax.jit(make, out_shardings=(rows, NamedSharding(mesh, PartitionSpec())))

    def blank(self, prototypes: int) -> Arrays:
        """See `blank`, with the sizes of this run."""
        return blank(self._images.rows, self._reports.rows, prototypes)

    def due(self, step: int) -> bool:
        """Whether the memory is refreshed before step `step + 1`."""
        return self._unpaired and step >= self._first and (step - self._first) % self._options.refresh == 0

    def refresh(self, state: Mapping[str, Any], step: int) -> tuple[Arrays, dict[str, jax.Array]]:
        """(the memory made anew, what to log about it); a function of the state and the data alone."""
        params = state["ema"] or state["params"]
        images = self._pass(self._image_pass, params, self._images)
        reports = self._pass(self._report_pass, params, self._reports)
        truth = self._pass(self._report_pass, params, self._truth) if self._truth else None
        done = (step - self._first) // self._options.refresh + 1
        ramp = min(1.0, done / max(1, self._options.ramp))
        counts = {"images": np.int32(self._images.count), "reports": np.int32(self._reports.count)}
        return self._make(images, reports, truth, counts, jnp.float32(ramp), jax.random.key(self._seed))

    def _pass(self, function: Any, params: Any, table: Table) -> Arrays:
        rows = sharding.rows_of_process(table.block, self._mesh)
        parts = []
        for number in range(table.blocks):
            start = number * table.block
            batch = table.read(start + rows.start, start + rows.stop)
            parts.append(function(params, sharding.put_batch(batch, self._mesh)))
        return self._join(parts)


def make_targets(
    images: Arrays, reports: Arrays, truth: Arrays | None, counts: Mapping[str, jax.Array], ramp: jax.Array,
    key: jax.Array, *, source: str, num_pairs: int, shards: int, features: str, graph: str, landmarks: int, top: int,
    neighbours: int, temperature: float, alpha: float, order: int, own: float, sharpen: float, align: int,
    confidence: float,
) -> tuple[Arrays, dict[str, jax.Array]]:
    """The memory's arrays from a pass of the teacher. Ours; see this module.

    Args:
      images: evidence [N_I, K] (Qbar_I), embedding and features [N_I, D]; reports: evidence [N_R, K] (Qbar_R), valid
        bool [N_R], embedding [N_R, D]. Pairs come first on both sides, row i with row i; padding comes last.
      truth: like `reports`, for the reports that the images really have, or None.
      counts: images, reports that exist. ramp: weight of all targets, in [0, 1]. key: of the landmarks.
      source: one of SOURCES. num_pairs: P. shards: devices that hold the rows.
      features, graph, landmarks, top, neighbours, temperature, alpha, order: of the graph, see `relations` and
        configs/common.py.
      own: share of the teacher's own evidence in a target that comes over relations.
      sharpen: temperature of the targets; align: rounds of alignment to the prior, 0 for none.
      confidence: quantile of the confidences that counts as full.

    Returns:
      (memory as `blank`, scalars to log).
    """
    there = jnp.arange(images["evidence"].shape[0]) < counts["images"]
    heard = (jnp.arange(reports["evidence"].shape[0]) < counts["reports"]) & reports["valid"]
    own_evidence = jnp.where(there[:, None], images["evidence"], 0.0)
    stated = jnp.where(heard[:, None], reports["evidence"], 0.0)
    prior = jnp.sum(stated, axis=0) / jnp.maximum(jnp.sum(heard), 1)
    log: dict[str, jax.Array] = {}
    report_target, report_weight = stated, jnp.zeros(heard.shape)
    if source == "relations":
        seeds = seed_edges(jnp.arange(num_pairs), jnp.arange(num_pairs), num_images=len(there),
                           num_reports=len(heard), weights=heard[:num_pairs])
        chosen = [side[features] for side in (images, reports)]
        links = relation_graph(
            graph, seeds, *chosen, alpha=alpha, order=order, key=key, num_landmarks=landmarks, top=top or None,
            neighbours=neighbours, temperature=temperature, image_mask=there, report_mask=heard, shards=shards)
        target, certain = image_targets(links, stated, shards=shards)
        mirror, trusted = report_targets(links, own_evidence, shards=shards)
        target = jnp.where(certain[:, None] > 0, (1 - own) * target + own * own_evidence, own_evidence)
        report_target = jnp.where(heard[:, None], mirror, 0.0)
        report_weight = _weights(trusted, heard, num_pairs, confidence)
    elif source == "teacher":
        target, certain = own_evidence, there.astype(jnp.float32)
    else:
        target = jnp.where((there & truth["valid"])[:, None], truth["evidence"], 0.0)
        certain = (there & truth["valid"]).astype(jnp.float32)
    if source != "truth":
        target = targets.sharpen(target, sharpen)
        if align:
            target = targets.align_to_prior(target, prior, iterations=align)
    weight = _weights(certain, there, num_pairs, confidence)
    unpaired = there & (jnp.arange(len(there)) >= num_pairs)

    def mean(values: jax.Array, where: jax.Array = unpaired) -> jax.Array:
        return jnp.sum(jnp.where(where, values, 0.0)) / jnp.maximum(jnp.sum(where), 1)

    log |= {"memory/target_entropy": mean(-jnp.sum(jax.scipy.special.xlogy(target, target), axis=-1)),
            "memory/confidence": mean(certain), "memory/confident": mean((weight > 0.5).astype(jnp.float32)),
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
