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
from lgdea_jax.data.sums import read_checked
from lgdea_jax.data.token_file import TokenFile
from lgdea_jax.errors import UserError
from lgdea_jax.experiment import Experiment
from lgdea_jax.findings.label_sets import label_columns
from lgdea_jax.preprocess.image import RECORD_TRANSFORM
from lgdea_jax.preprocess.text import TextTokenizer
from lgdea_jax.runtime import hub, sharding
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
      names: of the data sets with rows in the batch; `digest`: SHA-256 over their shards, so that a resumed run reads
        the same data.
      tokenizer_subjects: how many subjects' reports have each of its words; 0 where it is not one of `data_prep.build`.
      record_size: longer side in pixels to which the build reduced images; 0 where the data sets differ or do not say.
      sources: origins of what is trained on, with their terms.
    """

    batches: Any
    items: Mapping[str, Sequence[tuple[pipeline.Items, float]]]
    tokenizer: TextTokenizer
    label_names: tuple[str, ...]
    record_transform: str
    sizes: Mapping[str, int]
    counts: Mapping[str, int]
    names: tuple[str, ...]
    digest: str
    record_size: int = 0
    tokenizer_subjects: int = 0
    sources: tuple[dataset.SourceTerms, ...] = ()


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
    tokenizer, subjects = load_tokenizer(config, directories, metadata)
    label_names = tuple(dict.fromkeys(
        name for meta in metadata for name in label_columns(meta.label_names, config.data.labels)))
    counts = {stream: plan.count(stream) for stream in STREAMS}
    sizes = batch_sizes(experiment, mesh, counts)
    if show:
        log.info("devices: %s, computing in %s", sharding.describe(mesh), config.dtype)
        log.info("data: %s", ", ".join(f"{count} {stream}" for stream, count in counts.items()))
        log.info("batch: %s; %d rows a device", ", ".join(
            f"{sizes[stream]} {stream}" for stream in STREAMS if sizes[stream]), sum(sizes.values()) // mesh.size)
        if not volume and 0 < record_size(metadata) < experiment.image_spec:
            log.warning("images: records of %d px are enlarged to image.size=%d: build the data set with "
                        "--config.image_size=%d", record_size(metadata), *[experiment.image_spec] * 2)
        if unused := not_trained_on(experiment, counts, sizes):
            log.info("not trained on: %s", unused)
    trained_on = [meta for directory, meta in zip(directories, metadata, strict=True) if any(
        part.directory == directory for stream in STREAMS if sizes[stream] for part in plan.parts[stream])]
    items = open_items(experiment, plan, tokenizer, label_names, sizes, show=show)
    batches = pipeline.make_batches(
        items, sizes=sizes, rows_of=lambda rows: sharding.rows_of_process(rows, mesh), augment=experiment.augment,
        seed=config.seed)
    return Data(batches=batches, items=items, tokenizer=tokenizer, label_names=label_names,
                record_transform=transforms[0], sizes=sizes,
                counts={stream: count for stream, count in counts.items() if sizes[stream]},
                names=tuple(meta.name for meta in trained_on), digest=shards_digest(trained_on),
                record_size=record_size(metadata), tokenizer_subjects=subjects,
                sources=tuple(dict.fromkeys(item for meta in trained_on for item in meta.sources)))


def record_size(metadata: Sequence[DatasetMetadata]) -> int:
    """The `image_size` that all data sets were built with, 0 where there is no such."""
    sizes = {meta.image_size for meta in metadata}
    return sizes.pop() if len(sizes) == 1 else 0


def batch_sizes(experiment: Experiment, mesh: jax.sharding.Mesh, counts: Mapping[str, int] | None = None,
                ) -> dict[str, int]:
    """Rows of each stream in a global batch.

    `auto` rows of unpaired items are a ratio of the pairs (`batch.images_per_pair`, `batch.reports_per_pair`) where
    there are such items and the method learns from them, and 0 elsewhere.

    Args:
      counts: stream -> items; None before the data are read: unpaired items are then expected where the config asks for
        them.

    Raises:
      UserError: negative, not divisible by the devices, without the pairs that the method needs, or of unpaired items
        that it does not read.
    """
    method, config = experiment.method, experiment.config
    # Without text a pair is an image: where no image has a report, the rows of pairs are those of images.
    alone = counts is not None and not method.text and not counts["pairs"] and counts["images"] > 0
    if counts is None:
        counts = {stream: int(config.data.pairs != 1 or bool(config.data[f"{stream}_from"])) for stream in STREAMS}
    sizes: dict[str, int] = {}
    for stream in STREAMS:
        rows = config.batch[stream]
        if stream == "pairs" and alone:
            rows = 0
        elif stream == "images" and rows == "auto" and alone:
            rows = config.batch.pairs
        elif rows == "auto":
            wanted = config.batch[f"{stream}_per_pair"] * sizes["pairs"] / mesh.size
            rows = max(1, round(wanted)) * mesh.size if stream in method.streams and counts[stream] and wanted else 0
        if rows < 0 or rows % mesh.size:
            raise UserError(f"batch.{stream}={rows} must be a multiple of the {mesh.size} devices")
        sizes[stream] = rows
    if method.text and not sizes["pairs"]:
        raise UserError(f"the method {method.name} needs pairs: batch.pairs must be positive")
    for stream in STREAMS:
        if sizes[stream] and stream not in method.streams:
            raise UserError(f"the method {method.name} does not learn from unpaired {stream}: batch.{stream} must be 0")
    if not sizes["pairs"] and not sizes["images"]:
        raise UserError("batch.pairs and batch.images are both 0: nothing to train on")
    return sizes


def not_trained_on(experiment: Experiment, counts: Mapping[str, int], sizes: Mapping[str, int]) -> str:
    """The streams that have items and no rows in the batch, each with its reason; "" without any."""
    reasons = {stream: f"batch.{stream}=0" if stream in experiment.method.streams else
               f"the method {experiment.method.name} does not learn from unpaired {stream}" for stream in STREAMS}
    return ", ".join(f"{counts[stream]} {stream} ({reasons[stream]})" for stream in STREAMS
                     if counts[stream] and not sizes[stream])


def open_items(experiment: Experiment, plan: data_plan.Plan, tokenizer: TextTokenizer, label_names: Sequence[str],
               sizes: Mapping[str, int], *, show: bool) -> dict[str, list[tuple[pipeline.Items, float]]]:
    """The parts of each stream that the batch uses, with their weights in the mixture; read at once if cached.

    Raises:
      UserError: hidden reports are wanted, and an unpaired image has none.
    """
    config, schema = experiment.config, experiment.batch_schema(len(label_names))
    used = [stream for stream in STREAMS if sizes[stream]]
    tokens = kept_tokens(experiment, [part for stream in used for part in plan.parts[stream]], tokenizer, show=show)
    progress = Progress(sum(plan.count(stream) for stream in used), "reading item", active=show and config.data.cache)
    items: dict[str, list] = {stream: [] for stream in STREAMS}
    for stream in used:
        # Rows of the evidence memory: pairs first on both sides.
        first = plan.count("pairs") if stream != "pairs" and sizes["pairs"] else 0
        for part, weight in weighted_parts(plan.parts[stream], config.data[f"{stream}_from"]):
            if stream == "images" and schema.hidden_reports and not dataset.load_index(
                    part.directory, part.split)["has_report"][part.rows].all():
                raise UserError(f"memory.truth: unpaired images of {part.directory} have no report to compare with")
            items[stream].append((pipeline.Items(
                part.directory, part.split, part.rows, stream=stream, schema=schema, tokenizer=tokenizer,
                label_names=label_names, labels=config.data.labels, cache=config.data.cache, first=first,
                progress=progress.advance, tokens=tokens.get((part.directory, part.split))), weight))
            first += len(part.rows)
    progress.end()
    return items


def kept_tokens(experiment: Experiment, parts: Sequence[data_plan.Part], tokenizer: TextTokenizer, *, show: bool,
                ) -> dict[tuple[str, str], TokenFile]:
    """(data set, split) -> the tokens of its reports, made where they are missing; {} unless `data.keep_tokens`.

    Raises:
      UserError: they cannot be written.
    """
    found: dict[tuple[str, str], TokenFile] = {}
    if not experiment.config.data.keep_tokens or experiment.text is None:
        return found
    for directory, split in dict.fromkeys((part.directory, part.split) for part in parts):
        tokens = found[directory, split] = TokenFile(directory, split, experiment.text, tokenizer)
        for first in (True, False):  # Process 0 makes them; then others whose disk is not the same.
            if (jax.process_index() == 0) == first and not tokens.path.is_file():
                if show:
                    log.info("tokens: tokenising the %d reports of %s once with this tokeniser and text view; kept in "
                             "%s", len(tokens), directory, tokens.path)
                progress = Progress(len(tokens), "tokenising report", active=show)
                tokens.make(progress.advance)
                progress.end()
            sharding.wait_for_all("tokens kept")
    return found


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


def load_tokenizer(config: Any, directories: Sequence[str], metadata: Sequence[DatasetMetadata]
                   ) -> tuple[TextTokenizer, int]:
    """The tokeniser that the config names, or that of the data set of the pairs, or the only one that there is.

    Returns:
      (tokeniser, the least number of subjects whose reports have each of its words; 0 for one that the config names).

    Raises:
      UserError: none, or several data sets that carry different ones.
    """
    if config.text.tokenizer:
        return TextTokenizer.load(hub.fetch(config.text.tokenizer, hub.DESCRIPTIONS)), 0
    own = {directory: (TextTokenizer(read_checked(directory, meta.tokenizer).decode("utf-8")),
                       int(meta.config.get("tokenizer", {}).get("subjects", 0)))
           for directory, meta in zip(directories, metadata, strict=True) if meta.tokenizer}
    if not own:
        raise UserError("no data set carries a tokeniser: name one with --config.text.tokenizer=FILE")
    paired = data_plan.pair_directories(config.data)
    if len(paired) == 1 and paired[0] in own:
        return own[paired[0]]
    if len({tokenizer.digest for tokenizer, _ in own.values()}) > 1:
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
