"""From records to fixed-shape batches: pairs, unpaired images and unpaired reports, with exact resume.

Batch number n is a pure function of (config, n): the order (`order.py`), the mixture and what augmentation draws are
computed from the positions of its rows. So the order is the same for any number of worker processes, every process of
a run takes its own rows of each global batch, and the whole state is one step number. A batch is made in one step, its
rows read and decoded into the arrays that are handed on; grain reads whole batches ahead, in threads or processes.

A batch is a dict of streams, each a dict of arrays with the stream's rows first:
  pairs    image [B, S, S] uint8 (volumes: [B, D, H, W, 1] float32, windowed),
           text (see `TextView`), labels [B, n] int8, index [B] int32, study [B] int32; where the method learns from
           places, region [B, P, 4] float32 (`phrase_regions`) and frame [B, 2, 3] float32 (`Augment.image_and_frame`)
  images   the same without text
  reports  the same without image
"""

from __future__ import annotations

import dataclasses
import signal
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np
from absl import flags

from lgdea_jax import records
from lgdea_jax.data import dataset, order, source
from lgdea_jax.data.plan import STREAMS
from lgdea_jax.data.shard_file import StoredVolume
from lgdea_jax.errors import UserError, choose
from lgdea_jax.findings import label_sets
from lgdea_jax.findings.vocabulary import FINDINGS
from lgdea_jax.io import decode_image
from lgdea_jax.preprocess import regions as places
from lgdea_jax.preprocess.augment import Augment, VolumeAugment
from lgdea_jax.preprocess.evidence_text import NO_FINDING, canonical_phrase, usable_evidence
from lgdea_jax.preprocess.image import letterbox
from lgdea_jax.preprocess.text import TextTokenizer
from lgdea_jax.preprocess.volume import VolumeView
from lgdea_jax.runtime.processes import end_with_parent

_STEPS = 2**31  # The step number is an int32.

FINDING_IDS: Mapping[str, int] = {finding.name: index for index, finding in enumerate(FINDINGS)}


@dataclasses.dataclass(frozen=True)
class TextView:
    """Which text a method reads, as fixed-shape tokens.

    Attributes:
      kind: "report" (the whole report, [T]), "evidence" (its evidence phrases in one text, [T]), "phrases" (one row a
        phrase, [P, T]).
      length: T, tokens of a row.
      phrases: P, phrases kept of a report (present ones before uncertain ones).
      uncertain_weight: weight of a phrase that the report hedges, in [0, 1]; a present one has 1.
      variants: what a phrase reads like in training, one drawn at random: "verbatim" (the report's own words) and
        "canonical" ("small right pleural effusion", written from the extracted attributes).
    """

    kind: str
    length: int
    phrases: int
    uncertain_weight: float
    variants: tuple[str, ...]

    def __post_init__(self) -> None:
        choose("text.kind", self.kind, ("report", "evidence", "phrases"))
        if not self.variants:
            raise UserError("text.variants: at least one of verbatim, canonical")
        for variant in self.variants:
            choose("text variant", variant, ("verbatim", "canonical"))


def phrases_of(record: records.Record, view: TextView, variant: str) -> list[tuple[str, int, float]]:
    """(phrase, finding id, weight) of a record's report; a stated normal study gives "no finding" (id -1)."""
    items = usable_evidence(record.evidence, limit=view.phrases)
    if not items:
        return [(NO_FINDING, -1, 1.0)] if record.normal else []
    write = canonical_phrase if variant == "canonical" else lambda evidence: evidence.phrase
    weights = {"present": 1.0, "uncertain": view.uncertain_weight}
    return [(write(item), FINDING_IDS.get(item.finding, -1), weights[item.certainty]) for item in items]


def phrase_regions(record: records.Record, view: TextView) -> np.ndarray:
    """float32 [P, 4]: the region of the image that each of `phrases_of` names (`preprocess.places`)."""
    regions = np.tile(np.array(places.EVERYWHERE, np.float32), (view.phrases, 1))
    if places.is_frontal(record.view):
        for slot, item in enumerate(usable_evidence(record.evidence, limit=view.phrases)):
            regions[slot] = places.region(item.laterality, item.anatomy)
    return regions


def encode_text(record: records.Record, view: TextView, tokenizer: TextTokenizer) -> dict[str, np.ndarray]:
    """Tokens of one record's report.

    Returns:
      tokens: int32 [V, T] ("report": V = 1; "evidence") or [V, P, T] ("phrases"), V = number of variants.
      weight: float32 [P], 0 where there is no phrase; finding: int32 [P], -1 where there is none.
      normal: bool, normality is stated and nothing else.
    """
    per_variant = [phrases_of(record, view, variant) for variant in view.variants]
    weight = np.zeros([view.phrases], np.float32)
    finding = np.full([view.phrases], -1, np.int32)
    for slot, (_, number, value) in enumerate(per_variant[0]):
        weight[slot], finding[slot] = value, number
    if view.kind == "report":
        tokens = tokenizer.encode([record.report], view.length)
    elif view.kind == "evidence":
        tokens = tokenizer.encode([". ".join(text for text, _, _ in phrases) for phrases in per_variant], view.length)
    else:
        tokens = np.full([len(view.variants), view.phrases, view.length], tokenizer.pad_id, np.int32)
        for row, phrases in zip(tokens, per_variant, strict=True):
            if phrases:
                row[: len(phrases)] = tokenizer.encode([text for text, _, _ in phrases], view.length)
    normal = bool(record.normal and not usable_evidence(record.evidence, limit=1))
    return {"tokens": tokens, "weight": weight, "finding": finding, "normal": np.asarray(normal)}


class Items:
    """Random access to rows of one split of one data set as fixed-shape arrays; picklable for worker processes.

    Args:
      directory, split: the data set.
      rows: int64, row numbers in that split.
      with_image, with_text: what a row holds.
      image_size, view, tokenizer: how images and text are made into arrays.
      label_names: order of the labels; one that the data set lacks is MISSING.
      cache: decode and tokenise everything now, and keep it in memory (a copy in every worker process).
      first: `index` of the first row: the row's place in the evidence memory.
      progress: called after each row that is read into the cache.
      volume: what the model sees of a data set of volumes; they are cached compressed, as they are stored.
      labels: which set of labels `label_names` are taken from (`label_sets.label_columns`).
      with_regions: where the phrases of the text are in the image; needs both, of radiographs.
    """

    def __init__(
        self, directory: str, split: str, rows: np.ndarray, *, with_image: bool, with_text: bool, image_size: int,
        view: TextView, tokenizer: TextTokenizer, label_names: Sequence[str], cache: bool, first: int = 0,
        progress: Callable[[], None] | None = None, volume: VolumeView | None = None, labels: str = "",
        with_regions: bool = False,
    ) -> None:
        self._records, metadata = source.open_records(directory, split), dataset.load_metadata(directory)
        self._format = metadata.image_encoding
        have = label_sets.label_columns(metadata.label_names, labels) if label_names else {}
        columns = [(have[name], column) for column, name in enumerate(label_names) if name in have]
        self._label_columns = tuple(np.array(columns, int).reshape(-1, 2).T)
        self._rows, self._first = _compact(rows), first
        self._with_image, self._with_text, self._with_regions = with_image, with_text, with_regions
        self._image_size, self._view, self._tokenizer = image_size, view, tokenizer
        self._num_labels = len(label_names)
        self.volume = volume
        self._cache: dict[str, np.ndarray] | None = None
        if cache and len(self):
            self._cache = self._read_all(progress)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        item = {name: values[0] for name, values in self.read(np.array([index])).items()}
        if "volume" in item:
            item["image"] = self.volume.prepare(item.pop("volume"))
        return item

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Several items, each array with the items first; the arrays are the caller's own.

        Volumes are left as they are stored, so that a random crop decodes only what it sees: `volume`, an object array
        of `StoredVolume`, of bytes once they are cached, stands in the place of `image`.

        Args:
          indices: int64 [n], n > 0.

        Raises:
          ValueError: a record or its image is damaged.
        """
        if self._cache is not None:
            return {name: values[indices] for name, values in self._cache.items()}
        items = {"index": (self._first + indices).astype(np.int32)}
        if self._with_image and self.volume is None:
            items["image"] = np.empty([len(indices), self._image_size, self._image_size], np.uint8)
        if self._with_regions:
            items["frame"] = np.tile(np.eye(2, 3, dtype=np.float32), (len(indices), 1, 1))
        rows = [int(self._rows[index]) for index in indices.tolist()]
        studies, labels, contents = [], [], self._contents(rows, items.get("image"))
        for place, row in enumerate(rows):
            try:
                study, values, content = next(contents)
            except ValueError as error:  # The row says which record it is, and nothing about the patient.
                raise ValueError(f"record {row} of {self._records!r}: {error}") from error
            studies.append(study & 0x7FFFFFFF)  # 31 bits do for telling a batch's apart, and fit a device's integers.
            labels.append(values)
            for name, value in content.items():
                if name not in items:
                    items[name] = _room(value, len(indices))
                items[name][place] = value
        theirs, ours = self._label_columns
        items["study"] = np.array(studies, np.int32)
        items["labels"] = np.full([len(indices), self._num_labels], records.MISSING, np.int8)
        items["labels"][:, ours] = np.stack(labels)[:, theirs]
        return items

    def _contents(self, rows: Sequence[int], images: np.ndarray | None,
                  ) -> Iterator[tuple[int, np.ndarray, dict[str, Any]]]:
        """(hash of the study, labels of the data set, stored volume and text) of records; fills `images`."""
        if images is not None and not self._with_text:
            for image, fields in zip(images, self._records.image_fields(rows), strict=True):
                self._fill(image, fields.image)
                yield fields.study, fields.labels, {}
            return
        for place, row in enumerate(rows):
            yield self._read_row(row, None if images is None else images[place])

    def _read_row(self, row: int, image: np.ndarray | None) -> tuple[int, np.ndarray, dict[str, Any]]:
        """The same of one record that has text or a volume."""
        content: dict[str, Any] = {}
        record, stored = (self._records[row], None) if self.volume is None else self._records.parts(row)
        if image is not None:
            self._fill(image, record.image)
        elif self._with_image:
            content["volume"] = stored
        if self._with_text:
            content |= encode_text(record, self._view, self._tokenizer)
        if self._with_regions:
            content["region"] = phrase_regions(record, self._view)
        return records.hash64(record.study_id), record.labels, content

    def _fill(self, image: np.ndarray, data: bytes) -> None:
        """Decodes a stored image into uint8 [S, S], as the model sees it."""
        decoded = decode_image(data, self._format, image)
        if decoded is not image:
            image[:] = letterbox(decoded, self._image_size)

    def _read_all(self, progress: Callable[[], None] | None) -> dict[str, np.ndarray]:
        arrays: dict[str, np.ndarray] = {}
        for index in range(len(self)):
            for name, (value,) in self.read(np.array([index])).items():
                if isinstance(value, StoredVolume):
                    value = value.read(0, len(value)).tobytes()
                if index == 0:
                    arrays[name] = _room(value, len(self))
                arrays[name][index] = value
            if progress:
                progress()
        return arrays


def _compact(rows: np.ndarray) -> np.ndarray | range:
    """Row numbers, int64 [n], in little memory: a million rows are a thousand batches."""
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1 and (np.diff(rows) == 1).all():
        return range(int(rows[0]), int(rows[-1]) + 1)
    return rows.astype(np.int32 if not len(rows) or rows.max() < 2**31 else np.int64)


def _room(value: Any, count: int) -> np.ndarray:
    """An array for `count` values like this one; of objects for what is no array."""
    if isinstance(value, np.ndarray | np.generic):
        return np.empty([count, *value.shape], value.dtype)
    return np.empty(count, object)


class _Stream:
    """One stream's part of the batch at a step: this process's rows, mixed, shuffled and augmented; picklable.

    Args:
      parts: items with their weights in the mixture, none of them empty.
      global_rows: of a batch; rows: those of them that this process reads.
      augment: random transform of one item.
      seed: any integers; what is drawn depends on them and on the position alone.
    """

    def __init__(
        self, parts: Sequence[tuple[Items, float]], *, global_rows: int, rows: slice,
        augment: Augment | VolumeAugment, seed: Sequence[int],
    ) -> None:
        self._items, self._weights = [items for items, _ in parts], [weight for _, weight in parts]
        self._global_rows, self._rows = global_rows, np.arange(rows.start, rows.stop)
        self._augment = augment
        self._augment_key, *self._keys = np.random.SeedSequence(seed).generate_state(1 + len(parts), np.uint64).tolist()

    def at(self, step: int) -> dict[str, np.ndarray]:
        """The arrays of this stream in the batch of that step."""
        positions = step * self._global_rows + self._rows
        part, place = order.mixed(positions, self._weights)
        batch: dict[str, np.ndarray] = {}
        for number, items in enumerate(self._items):
            slots = np.flatnonzero(part == number)
            if not len(slots):
                continue
            found = items.read(order.shuffled(place[slots], len(items), self._keys[number]))
            if len(slots) == len(positions):
                batch = found
                break
            for name, values in found.items():
                if name not in batch:
                    batch[name] = _room(values[0], len(positions))
                batch[name][slots] = values
        return self._randomised(batch, order.generators(positions, self._augment_key))

    def _randomised(self, batch: dict[str, Any], generators: Iterator[np.random.Generator]) -> dict[str, np.ndarray]:
        """`batch` with every row augmented; images in their places, volumes and tokens change their shape."""
        out = {name: values for name, values in batch.items() if name not in ("volume", "tokens")}
        names = [name for name in ("image", "frame", "volume", "tokens")
                 if name in batch and self._augment.changes(name)]
        for slot, generator in enumerate(generators if names else ()):
            item = self._augment.random_map({name: batch[name][slot] for name in names}, generator)
            for name, value in item.items():
                if name not in out:
                    out[name] = _room(value, len(self._rows))
                out[name][slot] = value
        return out


class _Batches(Sequence[dict[str, dict[str, np.ndarray]]]):
    """Batches by step number, as grain reads them."""

    def __init__(self, streams: Mapping[str, _Stream]) -> None:
        self._streams = streams

    def __len__(self) -> int:
        return _STEPS

    def __getitem__(self, step: int) -> dict[str, dict[str, np.ndarray]]:  # type: ignore[override]
        return {name: stream.at(step) for name, stream in self._streams.items()}


def make_batches(
    items: Mapping[str, Sequence[tuple[Items, float]]], *, sizes: Mapping[str, int],
    rows_of: Callable[[int], slice], augment: Augment | VolumeAugment, seed: int,
) -> grain.MapDataset:
    """Batches by step number, without end.

    Args:
      items: stream -> [(items, weight in the mixture)].
      sizes: stream -> rows of a global batch; 0 leaves the stream out.
      rows_of: global rows -> the slice that this process reads.
      augment: random transform of one item.
      seed: of shuffles, mixtures and augmentation.

    Raises:
      UserError: a stream has rows in the batch and no items.
    """
    streams = {}
    for number, stream in enumerate(STREAMS):
        if not sizes[stream]:
            continue
        parts = [(part, weight) for part, weight in items[stream] if len(part)]
        if not parts:
            raise UserError(f"batch.{stream} is {sizes[stream]} but there are no {stream} to train on")
        streams[stream] = _Stream(parts, global_rows=sizes[stream], rows=rows_of(sizes[stream]), augment=augment,
                                  seed=(seed % 2**64, number))
    return grain.MapDataset.source(_Batches(streams))


def iterate(batches: grain.MapDataset, *, start: int, workers: int, threads: int) -> Iterator[dict[str, Any]]:
    """Batches `start`, `start + 1`, ... read ahead by threads, or by worker processes when `workers` > 0."""
    dataset = batches.slice(slice(start, None)).to_iter_dataset(
        grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads))
    if workers:
        # grain asks absl's flags before it starts processes; this program parses none.
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()
        dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers), worker_init_fn=_start_worker)
    return iter(dataset)


def _start_worker(index: int, count: int) -> None:
    end_with_parent(ignore=(signal.SIGINT, signal.SIGTERM))


def prefetch_to_device(batches: Iterator[Any], put: Callable[[Any], Any], *, depth: int = 2) -> Iterator[Any]:
    """Keeps `depth` batches on the way to the devices; closing it closes `batches`."""
    queue: deque = deque()
    try:
        for batch in batches:
            queue.append(put(batch))
            if len(queue) > depth:
                yield queue.popleft()
        yield from queue
    finally:
        if hasattr(batches, "close"):
            batches.close()
