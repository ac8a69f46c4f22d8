"""What training reads: plans the streams, finds the tokeniser, opens the records, batches them onto the devices."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from lgdea_jax.data import dataset, pipeline
from lgdea_jax.data import plan as data_plan
from lgdea_jax.data.batch import STREAMS
from lgdea_jax.data.dataset import DatasetMetadata
from lgdea_jax.errors import UserError
from lgdea_jax.experiment import Experiment
from lgdea_jax.findings.label_sets import label_columns
from lgdea_jax.preprocess.augment import Augment, VolumeAugment
from lgdea_jax.preprocess.image import RECORD_TRANSFORM
from lgdea_jax.preprocess.text import TextTokenizer
from lgdea_jax.runtime import sharding
from lgdea_jax.runtime.progress import Progress

log = logging.getLogger("lgdea_jax")


@dataclasses.dataclass(frozen=True)
class Data:
    """What training reads, and what a checkpoint must know of it.

    Attributes:
      batches: a `grain.MapDataset` of batches by step number; this process's rows of each.
      tokenizer, label_names, record_transform: of the data sets; labels without the name of their set.
      sizes: stream -> rows of a global batch; `counts`: stream with such rows -> items to draw from.
      items: stream -> its parts as random access to items, without augmentation, with their weights in the mixture.
      truth: the reports that the unpaired images really have, as items; empty unless `config.memory.truth`.
      names: of the data sets with rows in the batch; `digest`: SHA-256 over their shards, so that a resumed run reads
        the same data.
      record_size: longer side in pixels to which the build reduced images; 0 where the data sets differ or do not say.
    """

    batches: Any
    items: Mapping[str, Sequence[tuple[pipeline.Items, float]]]
    truth: Sequence[pipeline.Items]
    tokenizer: TextTokenizer
    label_names: tuple[str, ...]
    record_transform: str
    sizes: Mapping[str, int]
    counts: Mapping[str, int]
    names: tuple[str, ...]
    digest: str
    record_size: int = 0


def prepare_data(experiment: Experiment, mesh: jax.sharding.Mesh, *, show: bool,
                 pairs_file: Path | None = None) -> Data:
    """Plans the streams and opens them.

    Args:
      experiment: what is trained.
      mesh: decides which rows this process feeds.
      show: whether this process logs it.
      pairs_file: where this process lists near-duplicates across splits; None for nowhere.

    Raises:
      UserError: no data, a leak, streams that do not fit the batch, a tokeniser that cannot be read.
    """
    config, volume = experiment.config, experiment.volume
    sizes = batch_sizes(experiment, mesh)
    plan = data_plan.make_plan(config.data, seed=config.seed, held_out=[config.eval.dir] if config.eval.dir else [],
                               pairs_file=pairs_file)
    directories = list(dict.fromkeys(part.directory for parts in plan.parts.values() for part in parts))
    metadata = [dataset.load_metadata(directory) for directory in directories]
    transforms = sorted({meta.transform for meta in metadata})
    wanted = volume.geometry.name if volume else RECORD_TRANSFORM
    if transforms != [wanted]:
        of_volumes = {meta.volume for meta in metadata if meta.volume}
        hint = "build the data set again"
        if of_volumes and not volume:
            hint = f"--config.image.modality=ct --config.volume.geometry={sorted(of_volumes)[0]} trains on volumes"
        raise UserError(f"the records were made with the transform {', '.join(transforms)}; this code trains on "
                        f"{wanted}: {hint}")
    tokenizer = load_tokenizer(config, directories, metadata)
    label_names = tuple(dict.fromkeys(
        name for meta in metadata for name in label_columns(meta.label_names, config.data.labels)))
    counts = {stream: plan.count(stream) for stream in STREAMS}
    unused = [stream for stream in STREAMS if counts[stream] and not sizes[stream]]
    if show:
        log.info("data: %s", ", ".join(f"{count} {stream}" for stream, count in counts.items()))
    if show and unused:
        log.info("not trained on: %s", ", ".join(f"{counts[stream]} {stream} (batch.{stream}=0)" for stream in unused))
    trained_on = [meta for directory, meta in zip(directories, metadata, strict=True) if any(
        part.directory == directory for stream in STREAMS if sizes[stream] for part in plan.parts[stream])]
    items = open_items(experiment, plan, tokenizer, label_names, show=show)
    truth = open_truth(experiment, plan, tokenizer) if experiment.method.has_memory and config.memory.truth else []
    if volume:
        augment = VolumeAugment(volume, random_crop=config.volume.random_crop, shift=config.volume.shift,
                                noise=config.volume.noise, enabled=config.augment.enabled)
    else:
        augment = Augment(**{k: tuple(v) if isinstance(v, (tuple, list)) else v for k, v in config.augment.items()})
    batches = pipeline.make_batches(
        items, sizes=sizes, rows_of=lambda rows: sharding.rows_of_process(rows, mesh), augment=augment,
        seed=config.seed)
    return Data(batches=batches, items=items, truth=truth, tokenizer=tokenizer, label_names=label_names,
                record_transform=transforms[0], sizes=sizes,
                counts={stream: count for stream, count in counts.items() if sizes[stream]},
                names=tuple(meta.name for meta in trained_on), digest=shards_digest(trained_on),
                record_size=record_size(metadata))


def record_size(metadata: Sequence[DatasetMetadata]) -> int:
    """The `image_size` that all data sets were built with, 0 where there is no such."""
    sizes = {meta.image_size for meta in metadata}
    return sizes.pop() if len(sizes) == 1 else 0


def batch_sizes(experiment: Experiment, mesh: jax.sharding.Mesh) -> dict[str, int]:
    """Rows of each stream in a global batch.

    Raises:
      UserError: negative, not divisible by the devices, without the pairs that the method needs, or of unpaired items
        that it does not read.
    """
    method, sizes = experiment.method, {stream: experiment.config.batch[stream] for stream in STREAMS}
    for stream, rows in sizes.items():
        if rows < 0 or rows % mesh.size:
            raise UserError(f"batch.{stream}={rows} must be a multiple of the {mesh.size} devices")
    if method.text and not sizes["pairs"]:
        raise UserError(f"the method {method.name} needs pairs: batch.pairs must be positive")
    for stream in STREAMS:
        if sizes[stream] and stream not in method.streams:
            raise UserError(f"the method {method.name} does not learn from unpaired {stream}: batch.{stream} must be 0")
    if not sizes["pairs"] and not sizes["images"]:
        raise UserError("batch.pairs and batch.images are both 0: nothing to train on")
    return sizes


def open_items(experiment: Experiment, plan: data_plan.Plan, tokenizer: TextTokenizer, label_names: Sequence[str], *,
               show: bool) -> dict[str, list[tuple[pipeline.Items, float]]]:
    """The parts of each stream that the batch uses, with their weights in the mixture; read at once if cached."""
    config, schema = experiment.config, experiment.batch_schema(len(label_names))
    used = [stream for stream in STREAMS if config.batch[stream]]
    progress = Progress(sum(plan.count(stream) for stream in used), "reading item", active=show and config.data.cache)
    items: dict[str, list] = {stream: [] for stream in STREAMS}
    for stream in used:
        # Rows of the evidence memory: pairs first on both sides.
        first = plan.count("pairs") if stream != "pairs" and config.batch.pairs else 0
        for part, weight in weighted_parts(plan.parts[stream], config.data[f"{stream}_from"]):
            items[stream].append((pipeline.Items(
                part.directory, part.split, part.rows, stream=stream, schema=schema, tokenizer=tokenizer,
                label_names=label_names, labels=config.data.labels, cache=config.data.cache, first=first,
                progress=progress.advance), weight))
            first += len(part.rows)
    progress.end()
    return items


def open_truth(experiment: Experiment, plan: data_plan.Plan, tokenizer: TextTokenizer) -> list[pipeline.Items]:
    """The hidden reports of the unpaired images: what an upper bound learns from, and diagnostics compare with.

    Raises:
      UserError: an unpaired image has no report.
    """
    config, items = experiment.config, []
    for part in plan.parts["images"] if config.batch.images else ():
        index = dataset.load_index(part.directory, part.split)
        if not index["has_report"][part.rows].all():
            raise UserError(f"memory.truth: unpaired images of {part.directory} have no report to compare with")
        items.append(pipeline.Items(
            part.directory, part.split, part.rows, stream="reports", schema=experiment.batch_schema(0),
            tokenizer=tokenizer, label_names=(), cache=config.data.cache))
    return items


def weighted_parts(
    parts: Sequence[data_plan.Part], entries: Sequence[str]
) -> Iterator[tuple[data_plan.Part, float]]:
    """Each part of a stream with its weight in the mixture: that of the config, or its size when none is given.

    Args:
      parts: of the stream.
      entries: DIR or DIR:WEIGHT, as the config has them; a data set without a weight beside some that have one has 1.
    """
    given = dict(data_plan.parse_weights(entries))
    explicit = any(weight is not None for weight in given.values())
    for part in parts:
        weight = given.get(part.directory)
        yield part, (1.0 if weight is None else weight) if explicit else float(len(part.rows))


def load_tokenizer(config: Any, directories: Sequence[str], metadata: Sequence[DatasetMetadata]) -> TextTokenizer:
    """The tokeniser that the config names, or that of the data set of the pairs, or the only one that there is.

    Raises:
      UserError: none, or several data sets that carry different ones.
    """
    if config.text.tokenizer:
        return TextTokenizer.load(config.text.tokenizer)
    own = {directory: TextTokenizer.load(Path(directory) / meta.tokenizer)
           for directory, meta in zip(directories, metadata, strict=True) if meta.tokenizer}
    if not own:
        raise UserError("no data set carries a tokeniser: name one with --config.text.tokenizer=FILE")
    paired = data_plan.pair_directories(config.data)
    if len(paired) == 1 and paired[0] in own:
        return own[paired[0]]
    if len({tokenizer.digest for tokenizer in own.values()}) > 1:
        raise UserError("the data sets carry different tokenisers: name the one to use with "
                        f"--config.text.tokenizer=FILE (for example {next(iter(own))}/{dataset.TOKENIZER_FILE})")
    return next(iter(own.values()))


def shards_digest(metadata: Sequence[DatasetMetadata]) -> str:
    """SHA-256 (hex) over the digests of all shards of the data sets."""
    digest = hashlib.sha256()
    for meta in metadata:
        for shards in meta.shards.values():
            for shard in shards:
                digest.update(shard.sha256.encode())
    return digest.hexdigest()


def device_batches(experiment: Experiment, mesh: jax.sharding.Mesh, data: Data, start: int) -> Iterator[Any]:
    """Batches on the devices from step `start` on; a generator: closing it ends the worker processes."""
    part = experiment.config.data
    host = pipeline.iterate(data.batches, start=start, workers=part.workers, threads=part.threads)
    return pipeline.prefetch_to_device(host, lambda batch: sharding.put_batch(batch, mesh))
