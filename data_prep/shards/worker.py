"""One slice of a source -> one finished ArrayRecord shard: what a worker process of `data_prep.build` does.

A shard depends on its slice and the configuration only, so its bytes do not depend on the number of workers. It is
written under a temporary name, synced and renamed; its side file (`.build/SPLIT-NNNNN.npz`: counts, rejections, index
columns, checksum) comes after it and is what makes the shard count as finished.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import importlib
import json
import math
import os
import re
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.extract.extractors import LANGUAGES, LLM_EXTRACTORS, reads
from data_prep.extract.rules import keywords
from data_prep.study import ImageRef, Reject, Rejection, Study
from lgdea_jax.data.codec import encode_record
from lgdea_jax.data.dataset import BUILD_FOLDER, INDEX_COLUMNS
from lgdea_jax.data.shard_file import WRITER_OPTIONS, find_offsets, fingerprint
from lgdea_jax.errors import choose
from lgdea_jax.findings.label_sets import labels_from_evidence
from lgdea_jax.io import (
    ImageInfo,
    UnreadableImage,
    VolumeInfo,
    encode_image,
    encode_volume,
    read_image_file,
    read_volume,
)
from lgdea_jax.io.encoded_volume import FORMAT as VOLUME_FORMAT
from lgdea_jax.preprocess.image import RECORD_TRANSFORM, difference_hash, grey8
from lgdea_jax.preprocess.volume import find_geometry, projection, to_record
from lgdea_jax.records import MISSING, NEGATIVE, POSITIVE, Box, Evidence, Record, hash64
from lgdea_jax.runtime.files import sync_folder, write_atomically

EXTRACTORS = {"rules": "data_prep.extract.rules.extractor"}
COUNTS = ("rows", "read", "rejected", "studies", "records", "images", "reports", "normal", "evidence")


@dataclasses.dataclass(frozen=True)
class ShardSpec:
    """What all slices of one build share.

    Attributes:
      out: the data set's folder, None to count without writing.
      name: of the data set.
      label_names: order of `Record.labels`.
      image_size: longest side of stored images, in pixels; image_encoding: one of `io.ENCODINGS`.
      extractor: a key of EXTRACTORS, one of LLM_EXTRACTORS, or "none".
      job: for LLM_EXTRACTORS, where the answers lie (`extract.jobs.Job`).
      volume: name of the geometry (`preprocess.volume.GEOMETRIES`) of a data set of volumes, "" for 2D images.
      derived: sets of labels that are made from the reports: "silver" (from the evidence), "weak" (from keywords).
    """

    out: Path | None
    name: str
    label_names: tuple[str, ...]
    image_size: int
    image_encoding: str
    extractor: str
    job: Any = None
    volume: str = ""
    derived: tuple[str, ...] = ()

    @property
    def transform(self) -> str:
        """What the build does to images, as records and metadata state it."""
        return find_geometry(self.volume).name if self.volume else RECORD_TRANSFORM


@dataclasses.dataclass(frozen=True)
class Slice:
    """Studies `start` to `stop` of a split: shard `shard` of `shards`."""

    split: str
    shard: int
    shards: int
    start: int
    stop: int


@dataclasses.dataclass
class SliceResult:
    """What is known about a finished slice.

    Attributes:
      counts: COUNTS -> number.
      converted: conversion -> number of images.
      rejections: refused rows in order.
      sources: (source, licence, terms) seen; languages and modalities likewise.
      file, records, bytes, sha256: of the shard; "" and 0 when nothing was written.
      columns: INDEX_COLUMNS, "key" (64-bit hash of study and image id) and, of a written shard of volumes, "offsets"
        (`data.shard_file`) -> array, one row per record.
    """

    counts: dict[str, int]
    converted: dict[str, int]
    rejections: list[Rejection]
    sources: list[tuple[str, str, str]]
    languages: list[str]
    modalities: list[str]
    file: str = ""
    records: int = 0
    bytes: int = 0
    sha256: str = ""
    columns: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)


def report_hash(report: str) -> int:
    """64-bit hash of a report's words in lower case, equal whatever the spacing and punctuation; 0 without words."""
    words = re.findall(r"\w+", report.lower())
    return hash64(" ".join(words)) if words else 0


class NoEvidence(Exception):
    """A report whose evidence cannot be had; `reason` holds no words of it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def load_extractor(name: str, job: Any = None) -> tuple[str, Callable[[str], Any]] | None:
    """(versioned name, `extract(report) -> Extraction`) of the extractor called `name`; None for "none".

    With a `job`, its answers are read from the cache; `extract` raises `NoEvidence` where there is none to use.

    Raises:
      UserError: unknown name.
    """
    if choose("extractor", name, (*EXTRACTORS, *LLM_EXTRACTORS, "none")) == "none":
        return None
    if name in LLM_EXTRACTORS:
        return _load_replies(job)
    module = importlib.import_module(EXTRACTORS[name])
    return module.NAME, module.extract


def _load_replies(job: Any) -> tuple[str, Callable[[str], Any]]:
    from data_prep.extract.llm.jobs import Quarantined, Replies  # Needs the extra "data".

    replies = Replies(job)

    def extract(report: str) -> Any:
        try:
            return replies.extract(report)
        except Quarantined as error:
            raise NoEvidence(error.reason) from None

    return replies.name, extract


Made = tuple[Record, np.ndarray]


class RecordMaker:
    """Turns studies into records by one `ShardSpec`."""

    def __init__(self, spec: ShardSpec) -> None:
        self._spec = spec
        self._extractor = load_extractor(spec.extractor, spec.job)

    def records(self, study: Study, index: int) -> tuple[list[Made], list[Rejection], Counter[str], int]:
        """The records of a study, each with its image's `difference_hash` (zeros without an image).

        Args:
          study: what the source yielded; index: its place in the source, the row number where there is no other.

        Returns:
          (records, rejections, conversions, input rows). An image that cannot be used is a rejection of its row; the
          study's report stays with its other rows, and goes with the last of them.
        """
        unknown = set(study.labels) - set(self._spec.label_names)
        if unknown:
            raise ValueError(f"the source yields labels that are not among its label_names: {sorted(unknown)}")
        row = study.row if study.row >= 0 else index
        rejections = list(study.rejections)
        rows = study.rows or max(1, len(study.images)) + len(rejections)
        report = study.report.strip()
        try:
            extracted = self._extract(report, study.language)
        except NoEvidence as error:
            # Without its evidence a report would look like one that finds nothing: the whole study is refused.
            places = [(ref.image_id, ref.row if ref.row >= 0 else row) for ref in study.images]
            places += [("", row)] * (rows - len(rejections) - len(places))
            rejections += [Rejection(study.study_id, image_id, place, error.reason) for image_id, place in places]
            return [], rejections, Counter(), rows
        converted: Counter[str] = Counter()
        if not study.images:
            if not report:
                if not rejections:
                    rejections.append(Rejection(study.study_id, "", row, "neither an image nor a report"))
                return [], rejections, converted, rows
            return [self._record(study, report, *extracted, None)], rejections, converted, rows
        images = []
        for ref in study.images:
            try:
                images.append((ref, *self._image(ref, converted)))
            except UnreadableImage as error:
                place = ref.row if ref.row >= 0 else row
                rejections.append(Rejection(study.study_id, ref.image_id, place, error.reason))
        if not images:
            # Rows are left only where one carried the report without an image: an unpaired report then.
            alone = rows > len(rejections) and report
            records = [self._record(study, report, *extracted, None)] if alone else []
            return records, rejections, converted, rows
        return [self._record(study, report, *extracted, image) for image in images], rejections, converted, rows

    def _extract(self, report: str, language: str) -> tuple[tuple[Evidence, ...], bool]:
        if not report or self._extractor is None:
            return (), False
        if not reads(self._spec.extractor, language):
            raise NoEvidence(f"a report in {language!r}: the extractor {self._extractor[0]} reads "
                             f"{', '.join(LANGUAGES[self._spec.extractor])} only")
        extraction = self._extractor[1](report)
        return tuple(extraction.evidence), bool(extraction.normal)

    def _image(self, ref: ImageRef, converted: Counter[str]) -> tuple[Any, ...]:
        if self._spec.volume:
            return self._volume(ref, converted)
        if ref.pixels is not None:
            pixels, info = ref.pixels, ImageInfo("", "")
        else:
            pixels, info = read_image_file(ref.path)
        if pixels.size == 0:
            raise UnreadableImage("the image has no pixels")
        if any(ref.size) and pixels.shape[:2] != ref.size:
            raise UnreadableImage(f"the image is {pixels.shape[0]} x {pixels.shape[1]} pixels, its boxes are for "
                                  f"{ref.size[0]} x {ref.size[1]}")
        boxes = tuple(self._clip(box, pixels.shape) for box in ref.boxes)
        image, conversions = grey8(pixels, self._spec.image_size)
        converted.update([*info.conversions, *conversions])
        return difference_hash(image), pixels.shape[:2], image, info, boxes

    def _volume(self, ref: ImageRef, converted: Counter[str]) -> tuple[Any, ...]:
        """As `_image`, for a volume; what is compared for duplicates is its projection from the front."""
        if ref.pixels is not None:
            volume, info = ref.pixels, VolumeInfo("", ref.header.spacing, np.eye(4))
            if volume.dtype != np.int16 or volume.ndim != 3 or not volume.size:
                raise ValueError(f"a volume is int16 [z, y, x], not {volume.dtype} {list(volume.shape)}")
        else:
            volume, info = read_volume(ref.path, ref.header)
        if any(ref.size):
            raise UnreadableImage("boxes with the size of a 2D image at a volume")
        boxes = tuple(self._clip(box, volume.shape) for box in ref.boxes)
        stored = to_record(volume, info.spacing, find_geometry(self._spec.volume))
        converted.update(info.conversions)
        return difference_hash(projection(stored)), volume.shape, stored, info, boxes

    @staticmethod
    def _clip(box: Box, shape: tuple[int, ...]) -> Box:
        """The part of the box on the image; boxes drawn a little over the edge are common."""
        left, top = max(0.0, box.x), max(0.0, box.y)
        width, height = min(shape[1], box.x + box.w) - left, min(shape[0], box.y + box.h) - top
        low, depth = box.z, box.d
        if len(shape) == 3 and shape[-1] > 4:
            left, top, low = max(0.0, box.x), max(0.0, box.y), max(0.0, box.z)
            depth, height, width = (min(size, start + extent) - max(0.0, start) for size, start, extent in zip(
                shape, (box.z, box.y, box.x), (box.d, box.h, box.w), strict=True))
        if width <= 0 or height <= 0 or depth <= 0:
            raise UnreadableImage("a box lies outside the image")
        return dataclasses.replace(box, x=left, y=top, z=low, w=width, h=height, d=depth)

    def _derived(self, report: str, evidence: tuple[Evidence, ...], normal: bool) -> dict[str, int]:
        """Labels of the sets that are made from the report: what it does not mention is negative there.

        The label sets of CT-RATE and their imitations have no third value for what a report passes over.
        """
        labels: dict[str, int] = {}
        if not report:
            return labels
        for kind in self._spec.derived:
            names = [name.partition(":")[2] for name in self._spec.label_names if name.startswith(f"{kind}:")]
            if kind == "silver":
                values = labels_from_evidence(evidence, normal, names, unmentioned=NEGATIVE).tolist()
            else:
                found = keywords.findings(report)
                values = [POSITIVE if name in found else NEGATIVE for name in names]
            labels |= {f"{kind}:{name}": value for name, value in zip(names, values, strict=True)}
        return labels

    def _record(self, study: Study, report: str, evidence: tuple[Evidence, ...], normal: bool,
                image: tuple[Any, ...] | None) -> Made:
        given = study.labels | self._derived(report, evidence, normal)
        labels = np.array([given.get(name, MISSING) for name in self._spec.label_names], np.int8)
        common = {
            "study_id": study.study_id, "subject_id": study.subject_id, "report": report, "evidence": evidence,
            "normal": normal, "labels": labels, "has_report": bool(report), "sex": study.sex, "age": study.age,
            "source": study.source, "licence": study.licence, "terms": study.terms, "language": study.language,
            "label_source": study.label_source,
            "extractor": self._extractor[0] if report and self._extractor else "",
        }
        if image is None:
            zeros = np.zeros(3, np.int32)
            record = Record(
                image_id="", modality=study.modality, view="", image=b"", image_format="", image_shape=zeros,
                original_shape=zeros, spacing=np.zeros(3, np.float32), boxes=(), has_image=False, transform="",
                **common)
            return record, np.zeros(4, np.uint64)
        ref, image_hash, original, pixels, info, boxes = image
        common["sex"] = study.sex or info.sex
        common["age"] = info.age if math.isnan(study.age) else study.age
        if self._spec.volume:
            record = Record(
                image_id=ref.image_id, modality=info.modality, view=ref.view, image=encode_volume(pixels),
                image_format=VOLUME_FORMAT, image_shape=np.array(pixels.shape, np.int32),
                original_shape=np.array(original, np.int32), spacing=np.array(info.spacing, np.float32), boxes=boxes,
                has_image=True, transform=self._spec.transform, **common)
            return record, image_hash
        record = Record(
            image_id=ref.image_id, modality=info.modality or study.modality, view=ref.view or info.view,
            image=encode_image(pixels, self._spec.image_encoding), image_format=self._spec.image_encoding,
            image_shape=np.array([1, *pixels.shape], np.int32), original_shape=np.array([1, *original], np.int32),
            spacing=np.array([0.0, *info.spacing], np.float32), boxes=boxes, has_image=True, transform=RECORD_TRANSFORM,
            **common)
        return record, image_hash


def index_row(record: Record, image_hash: np.ndarray) -> tuple[Any, ...]:
    """The record's row of the index: `key` and then INDEX_COLUMNS in order."""
    present = sum(item.certainty == "present" for item in record.evidence)
    return (hash64(f"{record.study_id}\0{record.image_id}"), hash64(record.subject_id), hash64(record.study_id),
            image_hash, report_hash(record.report), min(len(record.report.split()), 65535), record.has_image,
            record.has_report, min(present, 255), record.normal)


def shard_name(name: str, part: Slice) -> str:
    """TFDS's file name of a shard."""
    return f"{name}-{part.split}.array_record-{part.shard:05d}-of-{part.shards:05d}"


def side_file(out: Path, part: Slice) -> Path:
    """Where the result of a finished slice stands until the build is complete."""
    return out / BUILD_FOLDER / f"{part.split}-{part.shard:05d}.npz"


def process_slice(source: Any, part: Slice, spec: ShardSpec, maker: RecordMaker | None = None) -> SliceResult:
    """Reads the slice's studies, writes their records as a shard (unless `spec.out` is None) and its side file.

    Raises:
      OSError: with errno ENOSPC or EDQUOT when the disk is full; nothing of the slice counts then.
      UserError: a fault of the whole run that only shows here.
    """
    maker = maker or RecordMaker(spec)
    counts: Counter[str] = Counter(dict.fromkeys(COUNTS, 0))
    converted: Counter[str] = Counter()
    rejections: list[Rejection] = []
    sources, languages, modalities = set(), set(), set()
    rows: list[tuple[Any, ...]] = []
    written: list[tuple[bytes, int, int, int]] = []
    writer = None
    if spec.out:
        writer = _ShardWriter(spec.out / shard_name(spec.name, part))
    try:
        for index in range(part.start, part.stop):
            try:
                study = source[index]
            except Reject as reject:
                counts.update(rows=1, rejected=1)
                rejections.append(Rejection(reject.study_id, reject.image_id, index, reject.reason))
                continue
            made, refused, changed, n_rows = maker.records(study, index)
            if len(refused) > n_rows:
                raise ValueError("a study has more rejections than rows")
            converted.update(changed)
            rejections.extend(refused)
            counts.update(rows=n_rows, rejected=len(refused), read=n_rows - len(refused), studies=bool(made))
            if made:
                record = made[0][0]
                sources.add((study.source, study.licence, study.terms))
                languages.add(study.language)
                counts.update(reports=record.has_report, normal=record.normal, evidence=len(record.evidence))
            for record, image_hash in made:
                counts.update(records=1, images=record.has_image)
                modalities.add(record.modality)
                rows.append(index_row(record, image_hash))
                if writer:
                    data = encode_record(record)
                    writer.write(data)
                    if spec.volume:
                        written.append(fingerprint(record, data))
    except BaseException:
        if writer:
            writer.abort()
        raise
    names = ("key", *INDEX_COLUMNS)
    types = {"key": ("<u8", ()), **INDEX_COLUMNS}
    columns = {name: np.array([row[i] for row in rows], types[name][0]).reshape(len(rows), *types[name][1])
               for i, name in enumerate(names)}
    result = SliceResult(dict(counts), dict(converted), rejections, sorted(sources), sorted(languages),
                         sorted(modalities), records=len(rows), columns=columns)
    if writer:
        result.file, result.bytes, result.sha256 = writer.path.name, *writer.finish(len(rows))
        if spec.volume:
            result.columns["offsets"] = find_offsets(writer.path, written)
        _write_side_file(side_file(spec.out, part), result)
    return result


class SliceWork:
    """`process_slice` for the workers of a pipeline: picklable, and makes its `RecordMaker` where it works."""

    def __init__(self, sources: dict[str, Any], spec: ShardSpec) -> None:
        self._sources, self._spec = sources, spec
        self._maker: RecordMaker | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maker": None}

    def __call__(self, part: Slice) -> None:
        """Writes the slice's shard and side file, unless they are there."""
        if read_side_file(self._spec.out, part) is None:
            self._maker = self._maker or RecordMaker(self._spec)
            process_slice(self._sources[part.split], part, self._spec, self._maker)


class _ShardWriter:
    """An ArrayRecord file under a temporary name until `finish`."""

    def __init__(self, path: Path) -> None:
        from array_record.python.array_record_module import ArrayRecordWriter

        self.path = path
        # The name has the process in it: a worker that outlives a killed build never writes to the same file.
        self._temporary = path.parent / BUILD_FOLDER / f"{path.name}.{os.getpid()}.tmp"
        self._writer = self._guard(lambda: ArrayRecordWriter(str(self._temporary), WRITER_OPTIONS))

    def write(self, data: bytes) -> None:
        self._guard(lambda: self._writer.write(data))

    def finish(self, records: int) -> tuple[int, str]:
        """Closes, checks, syncs and renames the file; returns its size in bytes and SHA-256."""
        from array_record.python.array_record_module import ArrayRecordReader

        try:
            self._guard(self._writer.close)
            with open(self._temporary, "rb") as file:
                os.fsync(file.fileno())
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            reader = ArrayRecordReader(str(self._temporary), "readahead_buffer_size:0,max_parallelism:0")
            if reader.num_records() != records:
                raise OSError(errno.EIO, "the shard cannot be read back", self.path.name)
            reader.close()
            size = self._temporary.stat().st_size
            os.replace(self._temporary, self.path)
            sync_folder(self.path.parent)
        except BaseException:
            self._temporary.unlink(missing_ok=True)
            raise
        return size, digest

    def abort(self) -> None:
        """Closes and removes the file; the fault that led here is the one to report, so a second one is not."""
        try:
            self._writer.close()
        except RuntimeError as error:
            if "No space left" not in str(error) and "quota" not in str(error):
                raise
        finally:
            self._temporary.unlink(missing_ok=True)

    def _guard(self, call: Callable[[], Any]) -> Any:
        """Turns the writer's RuntimeError about a full disk into the OSError that it was."""
        try:
            return call()
        except RuntimeError as error:
            text = str(error)
            if "No space left on device" in text:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path)) from None
            if "quota exceeded" in text.lower():
                raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), str(self.path)) from None
            raise


def _write_side_file(path: Path, result: SliceResult) -> None:
    names = (field.name for field in dataclasses.fields(result) if field.name != "columns")
    values = {name: getattr(result, name) for name in names}
    values["rejections"] = [dataclasses.astuple(rejection) for rejection in result.rejections]
    text = np.frombuffer(json.dumps(values).encode("utf-8"), np.uint8)
    write_atomically(path, lambda file: np.savez(file, result=text, **result.columns))


def read_side_file(out: Path, part: Slice, *, columns: tuple[str, ...] = ()) -> SliceResult | None:
    """The result of a finished slice with the named `columns`, or None when the slice has to be (re)done."""
    path = side_file(out, part)
    try:
        with np.load(path) as archive:
            values = json.loads(archive["result"].tobytes().decode("utf-8"))
            arrays = {name: archive[name] for name in columns}
    except FileNotFoundError:
        return None
    except (EOFError, ValueError, KeyError, zipfile.BadZipFile):
        return None
    shard = out / values["file"]
    if not shard.is_file() or shard.stat().st_size != values["bytes"]:
        return None
    values["rejections"] = [Rejection(*row) for row in values["rejections"]]
    values["sources"] = [tuple(row) for row in values["sources"]]
    return SliceResult(**values, columns=arrays)
