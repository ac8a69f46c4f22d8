"""From records to fixed-shape batches: pairs, unpaired images and unpaired reports, with exact resume.

Batch number n is a pure function of (config, n): the order (`order.py`), the mixture and what augmentation draws are
computed from the positions of its rows. So the order is the same for any number of worker processes, every process of
a run takes its own rows of each global batch, and the whole state is one step number. A batch is made in one step, its
rows read and decoded into the arrays that are handed on; grain reads whole batches ahead, in threads or processes.

`data.batch` is the schema of a batch.
"""

from __future__ import annotations

import contextlib
import signal
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np
from absl import flags

from lgdea_jax import records
from lgdea_jax.data import dataset, order, source
from lgdea_jax.data.batch import STREAMS, BatchSchema, empty
from lgdea_jax.data.shard_file import StoredVolume
from lgdea_jax.data.sums import VERIFY, DamagedData
from lgdea_jax.data.token_file import TokenFile
from lgdea_jax.errors import UserError
from lgdea_jax.findings import label_sets
from lgdea_jax.io import decode_image
from lgdea_jax.io.encoded_volume import DamagedVolume
from lgdea_jax.preprocess.augment import Augment, VolumeAugment
from lgdea_jax.preprocess.image import letterbox
from lgdea_jax.preprocess.text import TextTokenizer
from lgdea_jax.preprocess.text_view import encode_text
from lgdea_jax.runtime.processes import end_with_parent

_STEPS = 2**31  # The step number is an int32.


class Items:
    """Random access to rows of one split of one data set as fixed-shape arrays; picklable for worker processes.

    Args:
      directory, split: the data set.
      rows: int64, row numbers in that split.
      stream, schema: what an item holds, see `BatchSchema.item_fields`.
      tokenizer: of the text; None without any.
      tokens: of the split, kept; None tokenises each time.
      label_names: order of the labels; one that the data set lacks is MISSING.
      labels: which set of labels `label_names` are taken from (`label_sets.label_columns`).
      cache: decode and tokenise everything now, and keep it in memory (a copy in every worker process); volumes are
        cached compressed, as they are stored.
      first: the first row's number in the evidence memory.
      progress: called after each row that is read into the cache.
    """

    def __init__(
        self, directory: str, split: str, rows: np.ndarray, *, stream: str, schema: BatchSchema,
        tokenizer: TextTokenizer | None, label_names: Sequence[str], cache: bool, labels: str = "", first: int = 0,
        progress: Callable[[], None] | None = None, tokens: TokenFile | None = None,
    ) -> None:
        self._records, metadata = source.open_records(directory, split), dataset.load_metadata(directory)
        self._format = metadata.image_encoding
        have = label_sets.label_columns(metadata.label_names, labels) if label_names else {}
        columns = [(have[name], column) for column, name in enumerate(label_names) if name in have]
        self._label_columns = tuple(np.array(columns, int).reshape(-1, 2).T)
        self._rows, self._first = _compact(rows), first
        self.stream, self.schema, self._tokenizer, self._tokens = stream, schema, tokenizer, tokens
        self.fields = schema.item_fields(stream)
        self._cache: dict[str, np.ndarray] | None = None
        if cache and len(self):
            self._cache = self._read_all(progress)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        item = {name: values[0] for name, values in self.read(np.array([index])).items()}
        if "volume" in item:
            with damaged_volumes():
                item["image"] = self.schema.image_spec.prepare(item.pop("volume"))
        return item

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Several items, each array with the items first; the arrays are the caller's own.

        Args:
          indices: int64 [n], n > 0.

        Raises:
          DamagedData: a record or its image is damaged.
        """
        if self._cache is not None:
            return {name: values[indices] for name, values in self._cache.items()}
        items = empty(self.fields, len(indices))
        for name in ("image_index", "report_index"):
            if name in items:
                items[name][:] = self._first + indices
        rows = [int(self._rows[index]) for index in indices.tolist()]
        if self._tokens is not None:
            self._fill_text(items, self._tokens.read(np.array(rows)))
            if self.stream == "reports":
                return items
        studies, labels, contents = [], [], self._contents(rows, items.get("image"))
        for slot, row in enumerate(rows):
            try:
                study, values, content = next(contents)
            except ValueError as error:  # The row names the record and says nothing about the patient.
                raise DamagedData(f"record {row} of {self._records!r}: {error}: {VERIFY}") from error
            studies.append(study & 0x7FFFFFFF)  # 31 bits tell a batch's studies apart, and fit a device's integers.
            labels.append(values)
            for name, value in content.items():
                items[name][slot] = value
        if "study" in items:
            items["study"][:] = studies
        if "labels" in items:
            theirs, ours = self._label_columns
            items["labels"][:] = records.MISSING
            items["labels"][:, ours] = np.stack(labels)[:, theirs]
        return items

    def _contents(self, rows: Sequence[int], images: np.ndarray | None,
                  ) -> Iterator[tuple[int, np.ndarray, dict[str, Any]]]:
        """(hash of the study, labels of the data set, stored volume and text) of records; fills `images`."""
        if isinstance(self.schema.image_spec, int) and not self._reads_text:
            for slot, fields in enumerate(self._records.image_fields(rows)):
                if images is not None:
                    self._fill(images[slot], fields.image)
                yield fields.study, fields.labels, {}
            return
        for slot, row in enumerate(rows):
            yield self._read_row(row, None if images is None else images[slot])

    @property
    def _reads_text(self) -> bool:
        """Whether text is tokenised here."""
        return self._tokens is None and not {"tokens", "hidden_tokens"}.isdisjoint(self.fields)

    def _read_row(self, row: int, image: np.ndarray | None) -> tuple[int, np.ndarray, dict[str, Any]]:
        """The same of one record that has text or a volume."""
        content: dict[str, Any] = {}
        volumes = not isinstance(self.schema.image_spec, int)
        record, stored = self._records.parts(row) if volumes else (self._records[row], None)
        if "volume" in self.fields:
            content["volume"] = stored
        if image is not None:
            self._fill(image, record.image)
        if self._reads_text:
            text = encode_text(record, self.schema.text, self._tokenizer)
            if "tokens" in self.fields:
                content |= text
            if "hidden_tokens" in self.fields:
                content |= {"hidden_tokens": text["tokens"][0], "hidden_weight": text["weight"]}
        return records.hash64(record.study_id), record.labels, content

    def _fill_text(self, items: dict[str, np.ndarray], kept: np.ndarray) -> None:
        """Writes the kept text of rows (`TokenFile.read`) into their items."""
        for name in kept.dtype.names if "tokens" in self.fields else ():
            items[name][:] = kept[name]
        if "hidden_tokens" in self.fields:
            items["hidden_tokens"][:], items["hidden_weight"][:] = kept["tokens"][:, 0], kept["weight"]

    def _fill(self, image: np.ndarray, data: bytes) -> None:
        """Decodes a stored image into uint8 [S, S], the input of the model."""
        decoded = decode_image(data, self._format, image)
        if decoded is not image:
            image[:] = letterbox(decoded, self.schema.image_spec)

    def _read_all(self, progress: Callable[[], None] | None) -> dict[str, np.ndarray]:
        arrays = empty(self.fields, len(self))
        for index in range(len(self)):
            for name, (value,) in self.read(np.array([index])).items():
                if isinstance(value, StoredVolume):
                    value = value.read(0, len(value)).tobytes()
                arrays[name][index] = value
            if progress:
                progress()
        return arrays


@contextlib.contextmanager
def damaged_volumes() -> Iterator[None]:
    """Turns what is wrong with a stored volume, found while it is decoded, into a user's error."""
    try:
        yield
    except DamagedVolume as error:
        raise DamagedData(f"{error}: {VERIFY}") from None


def _compact(rows: np.ndarray) -> np.ndarray | range:
    """Row numbers, int64 [n], in little memory: a million rows are a thousand batches."""
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1 and (np.diff(rows) == 1).all():
        return range(int(rows[0]), int(rows[-1]) + 1)
    return rows.astype(np.int32 if not len(rows) or rows.max() < 2**31 else np.int64)


class _Stream:
    """One stream of the batch at a step: this process's rows, mixed, shuffled and augmented; picklable.

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
        self._augment, self._fields = augment, self._items[0].schema.batch_fields(self._items[0].stream)
        self._augment_key, *self._keys = np.random.SeedSequence(seed).generate_state(1 + len(parts), np.uint64).tolist()

    def at(self, step: int) -> dict[str, np.ndarray]:
        """The arrays of this stream in the batch of that step."""
        positions = step * self._global_rows + self._rows
        part, position = order.mixed(positions, self._weights)
        batch: dict[str, np.ndarray] = {}
        for number, items in enumerate(self._items):
            slots = np.flatnonzero(part == number)
            if not len(slots):
                continue
            found = items.read(order.shuffled(position[slots], len(items), self._keys[number]))
            if len(slots) == len(positions):
                batch = found
                break
            batch = batch or empty(items.fields, len(positions))
            for name, values in found.items():
                batch[name][slots] = values
        return self._randomised(batch, order.generators(positions, self._augment_key))

    def _randomised(self, batch: dict[str, Any], generators: Iterator[np.random.Generator]) -> dict[str, np.ndarray]:
        """`batch` with every row augmented; images in their own rows, volumes and tokens change their shape."""
        names = [name for name in batch if self._augment.changes(name)]
        new = {name: field for name, field in self._fields.items() if name == "tokens" or name not in batch}
        out = {name: values for name, values in batch.items() if name in self._fields} | empty(new, len(self._rows))
        for slot, generator in enumerate(generators if names else ()):
            with damaged_volumes():
                item = self._augment.random_map({name: batch[name][slot] for name in names}, generator)
            for name, value in item.items():
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
