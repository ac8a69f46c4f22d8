"""Embeddings of images in parts: .npz files that are written one after the other and joined when they are read.

OUT/part-00000.npz holds `image` float32 [N, E], and what tells the rows apart: `record` int64 [N], the number of the
record in its split of a data set, or `name` [N], the file. A part is whole or not there, and one that is there is not
made again. OUT/about.json has the model, the data and the number of rows; it is written last.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from lgdea_jax.data.dataset import load_index, load_metadata
from lgdea_jax.data.source import open_records
from lgdea_jax.errors import UserError
from lgdea_jax.inference.images import Rejected
from lgdea_jax.inference.loading import check_transform
from lgdea_jax.inference.model import Model
from lgdea_jax.io import decode_image
from lgdea_jax.io.opening import printable
from lgdea_jax.io.raw_volume import NO_HEADER, VolumeHeader
from lgdea_jax.preprocess.image import letterbox
from lgdea_jax.runtime.files import write_atomically, write_text_atomically

ABOUT, PLAN = "about.json", ".plan.json"
# One part: from (first row, behind the last) to arrays of equal length, and (name, reason) of what cannot be read.
Part = tuple[dict[str, np.ndarray], list[tuple[str, str]]]


def of_split(model: Model, data_dir: str | Path, split: str) -> tuple[int, Callable[[int, int], Part]]:
    """(number of images, function that embeds a range of them) of a split of a data set, in the order of its records.

    Raises:
      UserError: no such data set or split, no image in it, or records of another transform than the model's.
    """
    predictor, metadata = model.predictor, load_metadata(data_dir)
    check_transform(predictor.transform, predictor.frame, metadata.transform)
    rows = np.flatnonzero(load_index(data_dir, split)["has_image"])
    if not len(rows):
        raise UserError(f"the split {split} of {data_dir} has no image")
    records = open_records(data_dir, split)

    def read(start: int, end: int) -> np.ndarray:
        found = (records[int(row)] for row in rows[start:end])
        return np.stack([predictor.frame.prepare(record.image) if model.volumes else letterbox(
            decode_image(record.image, record.image_format), predictor.frame) for record in found])

    def embed(start: int, end: int) -> Part:
        size, found = predictor.batch_size, []
        starts = list(range(start, end, size))
        with ThreadPoolExecutor(1) as pool:  # One batch is read while the model works on the one before it.
            coming = pool.submit(read, start, min(start + size, end))
            for following in [*starts[1:], None]:
                images = coming.result()
                if following is not None:
                    coming = pool.submit(read, following, min(following + size, end))
                found.append(predictor.images(images)["embedding"])
        return {"image": np.concatenate(found), "record": rows[start:end].astype(np.int64)}, []

    return len(rows), embed


def of_files(model: Model, files: Sequence[tuple[str, str]], *, header: VolumeHeader = NO_HEADER,
             ) -> tuple[int, Callable[[int, int], Part]]:
    """(number of files, function that embeds a range of them).

    Args:
      files: (path, what it is called); header: as of `Model.reader`.
    """

    def embed(start: int, end: int) -> Part:
        found, names, rejected = [], [], []
        with closing(model.read_ahead([(path, printable(name)) for path, name in files[start:end]],
                                      header=header)) as batches:
            for batch in batches:
                usable = [item for item in batch if not isinstance(item, Rejected)]
                rejected += [(item.name, item.reason) for item in batch if isinstance(item, Rejected)]
                names += [item.name for item in usable]
                if usable:
                    found.append(model.predictor.images(np.stack([item.model_input for item in usable]))["embedding"])
        return {"image": np.concatenate(found) if found else np.zeros((0, 1), np.float32),
                "name": np.array(names, np.str_)}, rejected

    return len(files), embed


def write(folder: Path, count: int, embed: Callable[[int, int], Part], *, part_rows: int, about: Mapping[str, Any],
          progress: Callable[[int, int], None] = lambda done, total: None) -> list[tuple[str, str]]:
    """Writes the parts that are missing.

    Args:
      folder: OUT; count, embed: of `of_split` or `of_files`; part_rows: rows of a part.
      about: what the embeddings are of; parts of something else in the folder are refused.
      progress: called with (parts done, parts).

    Returns:
      (name, reason) of every file that could not be read, those of earlier runs too.

    Raises:
      UserError: the folder has parts of another model or of other images.
    """
    plan = json.dumps({**about, "part_rows": part_rows, "count": count}, indent=1, sort_keys=True) + "\n"
    if (folder / PLAN).is_file() and (folder / PLAN).read_text(encoding="utf-8") != plan:
        raise UserError(f"{folder} has embeddings of another model or of other images: give another --out")
    write_text_atomically(folder / PLAN, plan)
    starts = range(0, count, part_rows)
    rejected, rows, width = [], 0, 0
    for number, start in enumerate(starts):
        file = folder / f"part-{number:05d}.npz"
        if not file.is_file():
            arrays, refused = embed(start, min(start + part_rows, count))
            table = np.array(refused, np.str_).reshape(-1, 2)
            write_atomically(file, lambda handle, arrays=arrays, table=table: np.savez(
                handle, **arrays, rejected=table))
        with np.load(file) as part:
            rejected += [(name, reason) for name, reason in part["rejected"].tolist()]
            rows, width = rows + len(part["image"]), max(width, part["image"].shape[1])
        progress(number + 1, len(starts))
    write_text_atomically(folder / ABOUT, json.dumps({**about, "rows": rows, "width": width, "parts": len(starts),
                                                      "rejected": len(rejected)}, indent=1) + "\n")
    return rejected


def read_parts(folder: str | Path) -> Iterator[dict[str, np.ndarray]]:
    """The parts of a finished folder in order, one in memory at a time.

    Raises:
      UserError: there are none, or they are not finished.
    """
    try:
        about = json.loads((Path(folder) / ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"no finished embeddings in {folder}: python -m lgdea_jax.embed writes them") from None
    for number in range(about["parts"]):
        with np.load(Path(folder) / f"part-{number:05d}.npz") as part:
            yield {name: part[name] for name in part.files if name != "rejected"}


def read(folder: str | Path) -> dict[str, np.ndarray]:
    """All parts joined: `image` float32 [N, E], and `record` int64 [N] or `name` [N]; errors as of `read_parts`."""
    parts = [part for part in read_parts(folder) if len(part["image"])]
    return {name: np.concatenate([part[name] for part in parts]) for name in (parts[0] if parts else ())}
