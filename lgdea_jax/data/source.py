"""Random access to the records of a data set: ArrayRecord shards, read directly.

The same folder opens with `tfds.builder_from_directory(folder).as_data_source(split)`. Nothing here imports TFDS,
TensorFlow or JAX.

Every record is checked when it is read: by ArrayRecord, or by checksums of ours where it is read around ArrayRecord.
"""

from __future__ import annotations

import bisect
import contextlib
import io
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lgdea_jax.data.codec import ImageFields, decode_image_fields, decode_record
from lgdea_jax.data.dataset import Shard, load_metadata
from lgdea_jax.data.shard_file import COLUMNS, ShardFile, StoredVolume, offsets_file, without_image
from lgdea_jax.data.sums import VERIFY, DamagedData, read_checked
from lgdea_jax.errors import choose
from lgdea_jax.records import Record

# Shards that a source holds open: systems allow a process about a thousand files, for three streams and all else.
MOST_OPEN = 256


def open_records(data_dir: str | Path, split: str) -> RecordSource:
    """Random access to the records of one split.

    Raises:
      UserError: no such data set or split.
      DamagedData: a shard is missing or has another size than when it was written; the byte offsets of a data set of
        volumes are missing or damaged.
    """
    metadata = load_metadata(data_dir)
    choose(f"split of {data_dir}", split, metadata.splits)
    folder = Path(data_dir)
    for shard in metadata.shards[split]:
        file = folder / shard.file
        if not file.is_file():
            raise DamagedData(f"the shard {file} is missing: {VERIFY}")
        if file.stat().st_size != shard.bytes:
            raise DamagedData(f"the shard {file} has {file.stat().st_size} bytes instead of {shard.bytes}: {VERIFY}")
    return RecordSource(folder, metadata.shards[split], offsets_file(folder, split) if metadata.volume else None)


class RecordSource(Sequence[Record]):
    """The records of one split, by index. Picklable; files open on first use, in whichever process uses it.

    Args:
      folder, shards: of the data set.
      offsets: `shard_file.offsets_file` of a split of volumes; without it there are no `parts`.

    Raises:
      DamagedData: the file of offsets is missing or damaged.
    """

    def __init__(self, folder: Path, shards: Sequence[Shard], offsets: Path | None = None) -> None:
        self._folder, self._shards = folder, tuple(shards)
        self._ends = list(itertools.accumulate(shard.records for shard in shards))
        self._offsets_file = offsets
        self._offsets = None if offsets is None else _read_offsets(offsets, len(self))
        self._readers: dict[int, tuple[Any, threading.Lock]] = {}
        self._files: dict[int, ShardFile] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple:
        return RecordSource, (self._folder, self._shards, self._offsets_file)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> Record:  # type: ignore[override]
        """The record at `index` (negative counts from the end), its image still encoded.

        Raises:
          DamagedData: it is not what was written.
        """
        with self._damage(index):
            return decode_record(self.read_bytes(index))

    def parts(self, index: int) -> tuple[Record, StoredVolume]:
        """(the record without its volume, the encoded volume in its file), for data sets of volumes.

        Of the volume only what is needed is read then: see `io.decode_volume`.

        Raises:
          DamagedData: the record is not what was written; that of its volume is found when it is decoded.
        """
        shard, _ = self._locate(index)
        file, offsets = self._opened(self._files, shard, ShardFile), self._offsets[index].tolist()
        with self._damage(index):
            return without_image(file, offsets), StoredVolume(file, offsets)

    def image_fields(self, indices: Sequence[int]) -> Iterator[ImageFields]:
        """The encoded images and what else training reads of records without text: faster than whole records.

        Args:
          indices: of records, not negative.
        """
        for index in indices:
            with self._damage(index):
                fields = decode_image_fields(self.read_bytes(index))
            yield fields

    def __iter__(self) -> Iterator[Record]:
        for index in range(len(self)):
            yield self[index]

    def __repr__(self) -> str:
        return f"RecordSource({str(self._folder)!r}, {len(self)} records in {len(self._shards)} shards)"

    def read_bytes(self, index: int) -> bytes:
        """The serialised record at `index`.

        Raises:
          IndexError: out of range.
          DamagedData: it is not what was written.
        """
        shard, row = self._locate(index)
        with self._damage(index):
            reader, lock = self._opened(self._readers, shard, _open_reader)
            # Not `read([row])`: that takes time in proportion to the records of the shard.
            with lock:
                reader.seek(row)
                return reader.read()

    @contextlib.contextmanager
    def _damage(self, index: int) -> Iterator[None]:
        """Names the shard and the record where one is damaged; says nothing about the patient."""
        try:
            yield
        except (RuntimeError, ValueError, IndexError) as error:  # The first is ArrayRecord's.
            shard, row = self._locate(index)
            with self._lock:  # A reader of ArrayRecord that has met damage reads nothing more.
                self._readers.pop(shard, None)
            raise DamagedData(f"record {row} of {self._folder / self._shards[shard].file} is damaged "
                              f"({_reason(error)}): {VERIFY}") from None

    def _locate(self, index: int) -> tuple[int, int]:
        """(shard, row in it) of a record."""
        index = index.__index__()
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        shard = bisect.bisect_right(self._ends, index)
        return shard, index - self._ends[shard] + self._shards[shard].records

    def _opened(self, kept: dict[int, Any], shard: int, open_file: Callable[[Path], Any]) -> Any:
        """The entry of `shard` in `kept`, opened if it is not there; the least recently used one makes room."""
        with self._lock:  # grain reads from several threads.
            found = kept.pop(shard, None)
            if found is None:
                if len(kept) >= MOST_OPEN:  # A thread that still reads it keeps it alive.
                    del kept[next(iter(kept))]
                found = open_file(self._folder / self._shards[shard].file)
            kept[shard] = found
            return found


def _reason(error: Exception) -> str:
    """The first words of an error, without ArrayRecord's details."""
    return str(error).splitlines()[0].split("; ")[0][:100]


def _open_reader(path: Path) -> tuple[Any, threading.Lock]:
    """ArrayRecord's reader of a shard, and the lock of its position."""
    from array_record.python.array_record_module import ArrayRecordReader

    # Without read-ahead: access is random, and the buffers of many shards would add up.
    return ArrayRecordReader(str(path), "readahead_buffer_size:0,max_parallelism:0"), threading.Lock()


def _read_offsets(path: Path, count: int) -> np.ndarray:
    try:
        offsets = np.load(io.BytesIO(read_checked(path.parent, path.name)), allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        raise DamagedData(f"{path} is missing or damaged ({type(error).__name__}): build the data set again") from None
    if offsets.shape != (count, len(COLUMNS)) or offsets.dtype != np.int64:
        raise DamagedData(f"{path} does not belong to its shards: build the data set again")
    return offsets
