"""The tokens of a split's reports, made once and mapped into memory: a file of the data set, DATA/tokens/.

Its name holds a digest of all that decides what is in it: the tokeniser, the text view, the shards. So another
tokeniser gets a file of its own, and a stale one is never read. Tokens are the reports' words, and stay with them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lgdea_jax.data import dataset, source
from lgdea_jax.errors import UserError
from lgdea_jax.preprocess.text import TextTokenizer
from lgdea_jax.preprocess.text_view import FINDING_IDS, TextView, encode_text
from lgdea_jax.runtime.files import write_atomically

FOLDER = "tokens"
# To be raised where `encode_text` gives something else for the same report and view.
VERSION = 2
_DIGEST_BYTES, _BLOCK = 32, 1 << 20


class TokenFile:
    """What `encode_text` gives for each record of a split, by row. Picklable: a worker process maps the file itself.

    Args:
      directory, split: of the data set.
      view, tokenizer: of the text.

    Attributes:
      path: of the file, which need not be there before `make`.
    """

    def __init__(self, directory: str, split: str, view: TextView, tokenizer: TextTokenizer) -> None:
        shards = dataset.load_metadata(directory).shards[split]
        self._count = sum(shard.records for shard in shards)
        decides = [VERSION, tokenizer.digest, dataclasses.asdict(view), list(FINDING_IDS),
                   [shard.sha256 for shard in shards]]
        key = hashlib.sha256(json.dumps(decides).encode()).hexdigest()
        self.path = Path(directory) / FOLDER / f"{split}-{view.kind}-{key[:16]}.npy"
        ids = np.min_scalar_type(tokenizer.vocab_size - 1)
        self._dtype = np.dtype([
            ("tokens", ids, (view.num_variants, *view.shape)), ("weight", np.float32, (view.phrases,)),
            ("finding", np.int32, (view.phrases,)), ("normal", np.bool_)])
        self._source = directory, split, view, tokenizer
        self._rows: np.ndarray | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_rows": None}

    def __len__(self) -> int:
        return self._count

    def make(self, progress: Callable[[], None]) -> None:
        """Writes the file; `progress` is called after each record.

        Raises:
          UserError: it cannot be written there.
        """
        directory, split, view, tokenizer = self._source

        def write(file: Any) -> None:
            np.lib.format.write_array_header_1_0(file, {
                "descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": (self._count,)})
            row, total = np.zeros(1, self._dtype), hashlib.sha256()
            for record in source.open_records(directory, split):
                for name, value in encode_text(record, view, tokenizer).items():
                    row[name] = value
                file.write(content := row.tobytes())
                total.update(content)
                progress()
            file.write(total.digest())  # Behind the array, where NumPy does not look.

        try:
            self.path.parent.mkdir(exist_ok=True)
            write_atomically(self.path, write)
        except OSError as error:
            raise UserError(f"tokens cannot be kept in {self.path.parent} ({error.strerror}): "
                            "--config.data.keep_tokens=False tokenises each time") from None

    def read(self, rows: np.ndarray) -> np.ndarray:
        """The records at `rows`, int [n], as a structured array of `encode_text`'s entries.

        Raises:
          UserError: the file is damaged.
        """
        if self._rows is None:
            try:
                mapped = np.load(self.path, mmap_mode="r", allow_pickle=False)
            except (OSError, EOFError, ValueError) as error:
                raise self._damaged(type(error).__name__) from None
            if mapped.shape != (self._count,) or mapped.dtype != self._dtype:
                raise self._damaged("another shape")
            with open(self.path, "rb") as file:
                file.seek(-mapped.nbytes - _DIGEST_BYTES, os.SEEK_END)
                total = hashlib.sha256()
                for left in range(mapped.nbytes, 0, -_BLOCK):
                    total.update(file.read(min(left, _BLOCK)))
                if file.read() != total.digest():
                    raise self._damaged("its checksum differs")
            self._rows = mapped
        return self._rows[rows]

    def _damaged(self, why: str) -> UserError:
        return UserError(f"{self.path} is missing or damaged ({why}): delete it, and it is made again")
