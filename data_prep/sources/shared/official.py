"""What the readers of official releases share: rows grouped into studies and splits, image folders, shares by hash."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from data_prep.sources.shared.tables import Packed, Row
from data_prep.study import SPLITS, Rejection, Study
from lgdea_jax.errors import UserError, choose

FRONTAL = frozenset({"PA", "AP", "FRONTAL", "AP SUPINE", "AP_HORIZONTAL"})
VIEWS = ("all", "frontal")


class Reader(Protocol):
    """What a data set's file adds: how rows become a study. Picklable."""

    label_names: tuple[str, ...]

    def study(self, split: str, rows: Sequence[Row]) -> Study:
        """The study of rows without faults; what it cannot use goes into `Study.rejections`."""


class Studies:
    """The studies of one split. Picklable."""

    def __init__(self, split: str, reader: Reader, table: Packed, ranges: np.ndarray, order: np.ndarray,
                 identity: Callable[[Row], tuple[str, str]], fingerprint: str) -> None:
        self._split, self._reader, self._table, self._identity = split, reader, table, identity
        self._ranges, self._order = ranges, order
        self.fingerprint = fingerprint
        self.label_names = reader.label_names

    def __len__(self) -> int:
        return len(self._ranges)

    def __getitem__(self, index: int) -> Study:
        """The study at `index`; rows that cannot be used are in its `rejections`."""
        start, stop = (int(value) for value in self._ranges[index])
        rows = [self._table[int(position)] for position in self._order[start:stop]]
        bad = tuple(Rejection(*self._identity(row), row.number, row.fault) for row in rows if row.fault)
        good = [row for row in rows if not row.fault]
        if not good:
            return Study(bad[0].study_id, "", self._split, row=rows[0].number, rows=len(rows), rejections=bad)
        study = self._reader.study(self._split, good)
        fields = dict(vars(study))
        fields |= {"row": good[0].number, "rows": len(rows), "rejections": (*bad, *study.rejections)}
        return Study(**fields)


def group(reader: Reader, table: Packed, *, study: Sequence[str], subject: Sequence[str], split: Sequence[str],
          identity: Callable[[Row], tuple[str, str]], digest: Iterable[bytes] = ()) -> dict[str, Studies]:
    """Groups the rows of a table into studies, and these into splits.

    Args:
      reader: makes the studies.
      table: the rows.
      study, subject, split: of every row. A row with a fault is a study of its own, so that it never spoils another.
      identity: row -> (study id, image id), for what is refused; a module-level function.
      digest: what else decides about the result (other tables, options), for the fingerprint.

    Returns:
      split -> its studies in order of their first row.

    Raises:
      UserError: no rows, or a subject lies in two splits.
    """
    if not len(table):
        raise UserError("the data set has no rows")
    homes: dict[str, str] = {}
    numbers: dict[tuple[str, str], int] = {}
    of_study, of_split = np.empty(len(table), np.int64), np.empty(len(table), np.int8)
    for position, (one, who, where) in enumerate(zip(study, subject, split, strict=True)):
        if who and homes.setdefault(who, where) != where:
            raise UserError(f"row {table[position].number}: the subject lies both in {homes[who]} and in {where}")
        of_study[position] = numbers.setdefault((where, one or f"\0row {position}"), len(numbers))
        of_split[position] = SPLITS.index(where)
    order = np.argsort(of_study, kind="stable")
    starts = np.flatnonzero(np.diff(of_study[order], prepend=-1))
    ranges = np.stack([starts, np.append(starts[1:], len(order))], axis=1)
    fingerprint = hashlib.sha256(table.digest_bytes())
    for data in (of_study.tobytes(), of_split.tobytes(), *digest):
        fingerprint.update(data)
    home = of_split[order][starts]
    return {name: Studies(name, reader, table, ranges[home == position], order, identity, fingerprint.hexdigest())
            for position, name in enumerate(SPLITS)}


def open_folder(config: Any, name: str, what: str) -> Path:
    """The folder `config.path` of the group called `name`.

    Raises:
      UserError: not given, or no folder; `what` says what it should hold.
    """
    if not config.path:
        raise UserError(f"config.{name}.path is needed: the folder with {what}")
    folder = Path(config.path)
    if not folder.is_dir():
        raise UserError(f"config.{name}.path={folder} is no folder")
    return folder


def image_folder(folder: Path, choice: str, candidates: Sequence[str]) -> Path | None:
    """The folder of the images: the first of `candidates` there is for "auto", else the one given; None for "none".

    Raises:
      UserError: there is none.
    """
    if choice == "none":
        return None
    names = candidates if choice == "auto" else (choice,)
    for name in names:
        if (folder / name).is_dir():  # An absolute path stays what it is.
            return folder / name
    raise UserError(f"no image folder {' or '.join(str(folder / name) for name in names)}: unpack the images there, or "
                    "give the folder as images=..., or images=none for reports alone")


def keep_view(view: str, views: str) -> bool:
    """Whether an image of this view is wanted: `views` is one of VIEWS. An unknown view is not taken for a frontal."""
    return choose("views", views, VIEWS) == "all" or view.upper() in FRONTAL


def share(key: str, seed: int) -> float:
    """A number in [0, 1) that depends on the key and the seed alone: splits are the same whatever else is there."""
    digest = hashlib.blake2b(f"{seed}/{key}".encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64


def split_by_share(key: str, config: Any) -> str:
    """The split of a subject by the shares `config.test` (none where there is no such key), `config.validation`."""
    draw, test = share(key, config.seed), config.get("test", 0.0)
    return "test" if draw < test else "validation" if draw < test + config.validation else "train"


def check_shares(config: Any, name: str) -> None:
    """Raises a UserError unless `config.validation` and `config.test` are shares that leave room for training."""
    shares = [config.get(key, 0.0) for key in ("validation", "test")]
    if any(not 0 <= value <= 1 for value in shares) or sum(shares) > 1:
        raise UserError(f"config.{name}.validation and config.{name}.test are shares that leave room for training")


def permuted_split(n: int, *, held_out: float, seed: int = 0) -> list[str]:
    """The splits of `n` rows as much of the field's code makes them: scikit-learn's `train_test_split` twice.

    First `held_out` of the rows are split off, then these are halved: the first half is the test, the second the
    validation set. `random_state=seed` both times.

    Returns:
      The split of every row.
    """
    train, rest = _train_test(np.arange(n), held_out, seed)
    test, validation = _train_test(rest, 0.5, seed) if len(rest) else (rest, rest)
    splits: Mapping[str, np.ndarray] = {"train": train, "test": test, "validation": validation}
    out = [""] * n
    for name, rows in splits.items():
        for row in rows:
            out[int(row)] = name
    return out


def _train_test(rows: np.ndarray, test_size: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    count = int(np.ceil(test_size * len(rows)))
    order = np.random.RandomState(seed).permutation(len(rows))  # The generator that scikit-learn uses.
    return rows[order[count:]], rows[order[:count]]
