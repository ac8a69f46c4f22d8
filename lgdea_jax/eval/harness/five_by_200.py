"""The 5x200 protocol (GLoRIA, Huang et al., ICCV 2021): 200 images of each of five findings that have no other.

- clean: drawn here, seeded, from the split's frontal images with that finding positive and all 12 other pathology
  labels exactly 0 (blank counts as 0, uncertain does not; Support Devices is one of the 12, No Finding is not).
- official, ours: the images of a list file (`--list`), with its labels, since every paper's draw is its own. Without
  a list there is no such number.

Protocols of the second mode:
- gloria (official): the highest cosine to five prompts drawn from GLoRIA's combinations; each class's scores are
  standardised over the images, and the highest class wins. GLoRIA averages this global similarity with one of words and
  regions, which models here do not have.
- medclip (official): the mean of the cosines to ten prompts of the same combinations; the highest class wins.
- ours: cosines to the mean of the normalised prompts of `findings/prompts.py`; the highest class wins.

A list is JSON, `{image id: {"image_path": ..., "label": one-hot}}` where the label is five numbers in the order of
CLASSES or `{class: 0 or 1}` (or the classes are keys beside the path), or CSV with a path or id column and a column
for each class. Images are found in DATA by id, by path, or by the end of the path.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from lgdea_jax.data.dataset import DatasetMetadata
from lgdea_jax.errors import UserError, choose
from lgdea_jax.eval.harness import flags, runner
from lgdea_jax.eval.harness.benchmark import Benchmark
from lgdea_jax.eval.harness.protocol import published
from lgdea_jax.eval.harness.selection import Selection
from lgdea_jax.evaluators.class_retrieval import CANDIDATES
from lgdea_jax.findings.label_sets import LABEL_SETS
from lgdea_jax.findings.protocol_prompts import GLORIA, MEDCLIP
from lgdea_jax.findings.vocabulary import NO_FINDING, find_label
from lgdea_jax.records import MISSING, POSITIVE, Record, is_frontal

CLASSES = LABEL_SETS["chexpert5"]
PATHOLOGIES = tuple(name for name in LABEL_SETS["chexpert14"] if name != NO_FINDING)
PER_CLASS = 200
SECOND = ("official", "ours")  # Values of --mode that leave the clean mode out.
# The list is the file that the user names: the scripts read one that their authors did not publish.
PROTOCOLS = (
    published("gloria", prompts=GLORIA, ensemble="max", standardised=True, scoring="positive", differs=(
        "global similarities only: the script's mean with those of words and regions needs a model that has them",
        "precision@K ranks the reports, or the prompts, not GLoRIA's sentences")),
    published("medclip", prompts=MEDCLIP, ensemble="mean_cosine", scoring="positive", differs=(
        "one draw of ten prompts a class; the script averages five",)))
_PATH_COLUMNS = ("image_path", "imgpath", "path", "image_id", "id", "dicom_id")
_LABEL_KEYS = ("label", "labels", "one_hot")


def run(benchmark: Benchmark, argv: Sequence[str]) -> int:
    """The whole script: parses `argv`, selects, evaluates, returns the exit status."""
    parser = flags.make_parser(benchmark, example="--mode=official --list=5x200.json")
    parser.add_argument("--list", metavar="FILE", help="JSON or CSV of the images and labels of official and ours")
    parser.add_argument("--per_class", type=int, default=PER_CLASS,
                        help=f"images of each class that the clean mode draws (default: {PER_CLASS})")
    parser.add_argument("--candidates", choices=CANDIDATES, default="auto",
                        help="what precision@K ranks: the images' reports, or class prompts (default: reports if all "
                             "images have one)")
    parser.add_argument("--ensemble", choices=("normalised", "max"), default=benchmark.ensemble,
                        help="prompts of a class in clean and --protocol=ours: mean of the normalised ones, or the "
                             "nearest (default: normalised)")
    args = parser.parse_args(argv)
    if args.mode in SECOND and not args.list:
        raise UserError(f"--mode={args.mode} needs --list=FILE: the published numbers are of one list of images")
    return runner.evaluate(args, argv, dataclasses.replace(benchmark, ensemble=args.ensemble), Path(args.data_dir),
                           select=lambda source, metadata, bar: select(args, source, metadata, bar))


def select(args: argparse.Namespace, source: Sequence[Record], metadata: DatasetMetadata, progress: Any,
           ) -> dict[str, Selection]:
    """{"clean": our draw, "official": the list's images}, as far as they are wanted and possible.

    Raises:
      UserError: the data set lacks the labels, a class has no image, or an image of the list is missing.
    """
    out = {}
    ids: dict[str, int] = {}
    labels = np.zeros((len(source), len(PATHOLOGIES)), np.int8)
    columns = [metadata.label_names.index(choose("label of the data set", name, metadata.label_names))
               for name in PATHOLOGIES] if args.mode not in SECOND else []
    usable = np.zeros(len(source), bool)
    for row, record in enumerate(source):
        usable[row] = record.has_image and (args.views == "all" or is_frontal(record.view))
        if columns:
            labels[row] = record.labels[columns]
        if record.has_image:
            ids.setdefault(record.image_id, row)
            ids.setdefault(str(PurePosixPath(record.image_id).with_suffix("")) if record.image_id else "", row)
        progress("selecting", row + 1, len(source))
    if args.mode not in SECOND:
        out["clean"] = draw(labels, usable, args.per_class, args.seed)
    if args.mode != "clean" and args.list:
        out["official"] = from_list(read_list(Path(args.list)), ids, args.list)
    return out


def single_pathology(labels: np.ndarray) -> np.ndarray:
    """The class (index into CLASSES) of each image that has it as its only pathology, -1 for others: int64 [N].

    Args:
      labels: int8 [N, 13], in the order of PATHOLOGIES.
    """
    values = np.where(labels == MISSING, 0, labels)
    out = np.full(len(values), -1, np.int64)
    for c, name in enumerate(CLASSES):
        own = PATHOLOGIES.index(name)
        others = np.delete(values, own, axis=1)
        out[(values[:, own] == POSITIVE) & (others == 0).all(1)] = c
    return out


def draw(labels: np.ndarray, usable: np.ndarray, per_class: int, seed: int) -> Selection:
    """`per_class` images of each class, or as many as the rarest has; seeded.

    Raises:
      UserError: a class has none.
    """
    classes = np.where(usable, single_pathology(labels), -1)
    pools = [np.flatnonzero(classes == c) for c in range(len(CLASSES))]
    size = min([per_class, *map(len, pools)])
    if size < 1:
        empty = [name for name, pool in zip(CLASSES, pools) if not len(pool)]
        raise UserError(f"no image with {empty[0]} as its only pathology" if empty else "--per_class must be positive")
    rng = np.random.default_rng(seed)
    rows = np.sort(np.concatenate([rng.choice(pool, size, replace=False) for pool in pools]))
    few = "" if size == per_class else f" (the rarest class has no more; {per_class} were wanted)"
    return Selection(rows, CLASSES, np.eye(len(CLASSES), dtype=np.int8)[classes[rows]],
                     f"{size} images of each of {len(CLASSES)} classes{few}, drawn with seed {seed}")


def from_list(entries: Mapping[str, tuple[str, int]], ids: Mapping[str, int], name: str) -> Selection:
    """The images of a list.

    Args:
      entries: {image id: (path, class)}.
      ids: {image id, with and without its suffix: row}.
      name: of the list, for errors and the note.

    Raises:
      UserError: an image is not in the data, or named twice.
    """
    rows, missing = {}, []
    for image_id, (path, cls) in entries.items():
        row = next((ids[key] for key in _keys(image_id, path) if key in ids), None)
        if row is None:
            missing.append(image_id)
        elif row in rows:
            raise UserError(f"{name} names the image of {image_id} twice")
        else:
            rows[row] = cls
    if missing:
        raise UserError(f"{len(missing)} of {len(entries)} images of {name} are not in this split of the data set, the "
                        f"first is {missing[0]}")
    order = np.array(sorted(rows), np.int64)
    classes = np.array([rows[row] for row in order.tolist()])
    return Selection(order, CLASSES, np.eye(len(CLASSES), dtype=np.int8)[classes],
                     f"{len(order)} images of {Path(name).name}")


def _keys(image_id: str, path: str) -> Iterator[str]:
    """What an image may be called in the data: its id, then ever shorter ends of its path, each without suffix too."""
    for text in filter(None, (image_id, path)):
        parts = PurePosixPath(text.replace("\\", "/")).parts
        for start in range(len(parts)):
            tail = PurePosixPath(*parts[start:])
            yield str(tail)
            yield str(tail.with_suffix(""))


def read_list(path: Path) -> dict[str, tuple[str, int]]:
    """{image id: (path, class)} of a JSON or CSV list.

    Raises:
      UserError: unreadable, or an entry whose label is not exactly one class.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the list {path} ({type(error).__name__})") from None
    out = {}
    for image_id, image_path, label in (_json_entries if path.suffix == ".json" else _csv_entries)(text, path):
        if sorted(label) != [0, 0, 0, 0, 1]:
            raise UserError(f"{path}: {image_id} has the label {label}, not one of {len(CLASSES)} classes")
        out[image_id] = image_path, label.index(1)
    if not out:
        raise UserError(f"{path} lists no image")
    return out


def _json_entries(text: str, path: Path) -> Iterator[tuple[str, str, list[int]]]:
    try:
        content = json.loads(text)
        items = [(str(key), dict(value)) for key, value in content.items()]
    except (ValueError, AttributeError, TypeError) as error:
        raise UserError(f"{path} is not a JSON list of images ({type(error).__name__})") from None
    for image_id, value in items:
        label = next((value[key] for key in _LABEL_KEYS if key in value), value)
        numbers = list(label) if isinstance(label, list) else _by_class(label, path)
        yield image_id, str(value.get("image_path", "")), [_number(number, path) for number in numbers]


def _csv_entries(text: str, path: Path) -> Iterator[tuple[str, str, list[int]]]:
    for row in csv.DictReader(text.splitlines()):
        lower = {(key or "").strip().lower(): value for key, value in row.items()}
        path_text = next((lower[key] for key in _PATH_COLUMNS if lower.get(key)), None)
        if path_text is None:
            raise UserError(f"{path} needs a column {' or '.join(_PATH_COLUMNS[:3])} with a value in every row")
        yield path_text, path_text, [_number(number, path) for number in _by_class(row, path)]


def _by_class(row: Mapping[str, Any], path: Path) -> list[Any]:
    found = {find_label(key): value for key, value in row.items() if key and find_label(key) in CLASSES}
    if len(found) != len(CLASSES):
        raise UserError(f"{path} needs a value for each of {', '.join(CLASSES)}")
    return [found[name] for name in CLASSES]


def _number(value: Any, path: Path) -> int:
    try:
        number = float(value or 0)
    except (TypeError, ValueError):
        raise UserError(f"{path}: {value!r} is no label") from None
    return int(number) if number in (0, 1) else -1
