"""What a build is before it starts: opened sources, one task per shard, and what identifies the build."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

from data_prep.extract.extractors import EXTRACTORS, LLM_EXTRACTORS, open_extractor
from data_prep.extract.llm.jobs import Job
from data_prep.extract.llm.quality import RECORDED
from data_prep.extract.llm.stage import make_job
from data_prep.sources.registry import open_sources
from lgdea_jax.errors import UserError, choose
from lgdea_jax.findings.label_sets import LABEL_SETS
from lgdea_jax.findings.vocabulary import BY_NAME
from lgdea_jax.io import ENCODINGS
from lgdea_jax.preprocess.image import RECORD_TRANSFORM
from lgdea_jax.preprocess.volume import find_geometry
from lgdea_jax.records import SCHEMA_VERSION

COUNTS = ("rows", "read", "rejected", "studies", "records", "images", "reports", "normal", "evidence")
DERIVED = ("silver", "weak")  # Sets of labels that are made from the reports.


@dataclasses.dataclass(frozen=True)
class ShardSpec:
    """What all shards of one build share.

    Attributes:
      out: the data set's folder, None to count without writing.
      name: of the data set.
      label_names: order of `Record.labels`.
      image_size: longest side of stored images, in pixels; image_encoding: one of `io.ENCODINGS`.
      extractor: a key of EXTRACTORS, one of LLM_EXTRACTORS, or "none".
      job: for LLM_EXTRACTORS, where the answers lie (`extract.llm.jobs.Job`).
      volume: name of the geometry (`preprocess.volume.GEOMETRIES`) of a data set of volumes, "" for 2D images.
      derived: sets of labels that are made from the reports: "silver" (from the evidence), "weak" (from keywords).
    """

    out: Path | None
    name: str
    label_names: tuple[str, ...]
    image_size: int
    image_encoding: str
    extractor: str
    job: Job | None = None
    volume: str = ""
    derived: tuple[str, ...] = ()

    @property
    def transform(self) -> str:
        """What the build does to images, as records and metadata state it."""
        return find_geometry(self.volume).name if self.volume else RECORD_TRANSFORM


@dataclasses.dataclass(frozen=True)
class ShardTask:
    """The work for one shard: studies `start` to `stop` of a split become shard `shard` of `shards`."""

    split: str
    shard: int
    shards: int
    start: int
    stop: int


@dataclasses.dataclass(frozen=True)
class Plan:
    """A build before it starts.

    Attributes:
      sources: split -> its opened source.
      tasks: one per shard, in the order of the splits.
      spec: what the shards share.
      fingerprint: what identifies the build: a build with another one is not continued.
    """

    sources: dict[str, Any]
    tasks: tuple[ShardTask, ...]
    spec: ShardSpec
    fingerprint: dict[str, Any]


def make_plan(config: Any, out: Path | None) -> Plan:
    """Checks the configuration and divides the sources into one task per shard.

    Raises:
      UserError: a value of the configuration is wrong, or the source finds a fault in its files.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", config.name):
        raise UserError(f"config.name {config.name!r} must be lower case letters, digits and _ (it names the files)")
    choose("config.image_encoding", config.image_encoding, ENCODINGS)
    for key, low in (("image_size", 8), ("shard_studies", 1), ("workers", 0)):
        if config[key] < low:
            raise UserError(f"config.{key} must be at least {low}, not {config[key]}")
    choose("extractor", config.extractor, (*EXTRACTORS, *LLM_EXTRACTORS, "none"))
    job = _job(config, out) if config.extractor in LLM_EXTRACTORS else None
    if job:
        extractor = job.name
    else:
        extractor = "" if config.extractor == "none" else open_extractor(config.extractor).name
    sources = open_sources(config)
    label_names = {tuple(source.label_names) for source in sources.values()}
    if len(label_names) != 1:
        raise ValueError("the source's splits have different label_names")
    volume, derived = config.volume.geometry if "volume" in config else "", tuple(config.get("derived_labels", ()))
    for kind in derived:
        choose("config.derived_labels", kind, DERIVED)
    if "silver" in derived and not extractor:
        raise UserError("config.derived_labels: silver labels come from the evidence, and config.extractor is none")
    names = label_names.pop()
    findings = [name for name in names if name in BY_NAME] or LABEL_SETS["ct_rate18" if volume else "chexpert14"]
    names += tuple(f"{kind}:{name}" for kind in derived for name in findings)
    tasks = []
    for split, source in sources.items():
        starts = range(0, len(source), config.shard_studies)
        tasks += [ShardTask(split, i, len(starts), start, min(start + config.shard_studies, len(source)))
                   for i, start in enumerate(starts)]
    if volume:
        find_geometry(volume)
    spec = ShardSpec(out, config.name, names, config.image_size, config.image_encoding, config.extractor, job, volume,
                     derived)
    values = json.loads(json.dumps(config.to_dict()))
    fingerprint = {
        "schema_version": SCHEMA_VERSION, "transform": spec.transform,
        "extractor": extractor,
        "config": {key: value for key, value in values.items() if key not in ("workers", "llm")},
        "input": {split: [len(source), getattr(source, "fingerprint", "")] for split, source in sources.items()},
    }
    if job:
        fingerprint["config"]["llm"] = {key: getattr(job.settings, key) for key in RECORDED}
    return Plan(sources, tuple(tasks), spec, fingerprint)


def _job(config: Any, out: Path | None) -> Job:
    """The job of an extractor that asks a language model; its replies lie beside the data set."""
    if "llm" not in config:
        raise UserError(f"the extractor {config.extractor!r} needs the group config.llm (see configs/data/table.py)")
    return make_job(config.extractor, config.llm.to_dict(), out if out is not None else Path(config.name))
