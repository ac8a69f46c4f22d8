"""Builds a data set: source -> evidence -> ArrayRecord shards that `tfds.builder_from_directory` opens.

    python -m data_prep.build --config=configs/data/phantom.py --out=DATA [--config.key=value ...] [--dry_run]

Worker processes each turn slices of the source into shards. A build that was stopped goes on where it was when the
same command runs again: a finished shard is never redone, half a shard never counts. `--dry_run` reads everything and
counts, and writes nothing. Exit status 3: some rows were refused, see DATA/rejected.csv.

With `--config.extractor=openai` (any OpenAI-compatible endpoint), `genai` or `gemini`, a language model finds the
evidence (`config.llm`, keys from the environment); then `--dry_run` sends nothing and tells what it would cost,
`--max_cost` limits that, and `--attest_data_use="..."` is what data under credentialed terms need before a remote
endpoint is used.

`--runner=beam [-- BEAM OPTIONS]` works in an Apache Beam pipeline, on any of Beam's runners: what a language model is
asked, or the shards where none is. The source and DATA must lie on disks that all workers mount. The result is the
same, byte for byte.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import importlib
import json
import multiprocessing
import multiprocessing.connection
import os
import re
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data_prep.extract.extractors import LLM_EXTRACTORS
from data_prep.shards import finish
from data_prep.shards.worker import (
    COUNTS,
    RecordMaker,
    ShardSpec,
    Slice,
    SliceResult,
    SliceWork,
    load_extractor,
    process_slice,
    read_side_file,
)
from data_prep.study import SPLITS, Rejection
from lgdea_jax import cli
from lgdea_jax.data.dataset import BUILD_FOLDER, METADATA_FILE, load_metadata
from lgdea_jax.errors import UserError, choose, nearest, require
from lgdea_jax.findings.vocabulary import BY_NAME
from lgdea_jax.io import ENCODINGS
from lgdea_jax.preprocess.volume import find_geometry
from lgdea_jax.records import SCHEMA_VERSION
from lgdea_jax.runtime.files import write_atomically
from lgdea_jax.runtime.processes import end_with_parent

SOURCES = {
    "phantom": "data_prep.synthetic.xray.source",
    "table": "data_prep.sources.table",
    "openi": "data_prep.sources.openi",
    "mimic_cxr": "data_prep.sources.mimic_cxr",
    "ms_cxr": "data_prep.sources.ms_cxr",
    "chexpert": "data_prep.sources.chexpert",
    "padchest": "data_prep.sources.padchest",
    "chestxray14": "data_prep.sources.chestxray14",
    "chestx_det10": "data_prep.sources.chestx_det10",
    "rsna_pneumonia": "data_prep.sources.rsna_pneumonia",
    "siim_acr": "data_prep.sources.siim_acr",
    "covidx": "data_prep.sources.covidx",
    "vindr_cxr": "data_prep.sources.vindr_cxr",
    "phantom_ct": "data_prep.synthetic.ct.source",
    "ct_rate": "data_prep.sources.ct_rate",
    "rad_chestct": "data_prep.sources.rad_chestct",
}

DERIVED = ("silver", "weak")  # Sets of labels that are made from the reports.
RUNNERS = ("local", "beam")
FINGERPRINT_FILE = "build.json"


@dataclasses.dataclass(frozen=True)
class BuildReport:
    """What a build did.

    Attributes:
      out: the data set's folder, None after a dry run.
      counts: split -> COUNTS -> number (rows = read + rejected).
      converted: conversion -> number of images.
      rejections: the first refused rows (all of them are in rejected.csv).
      seconds: wall time; 0 when the data set was there already.
    """

    out: Path | None
    counts: dict[str, dict[str, int]]
    converted: dict[str, int]
    rejections: tuple[Rejection, ...]
    seconds: float

    @property
    def rejected(self) -> int:
        """Refused rows over all splits."""
        return sum(counts["rejected"] for counts in self.counts.values())


@dataclasses.dataclass(frozen=True)
class Plan:
    """A build before it starts: opened sources, slices, and what identifies the build."""

    sources: dict[str, Any]
    slices: tuple[Slice, ...]
    spec: ShardSpec
    fingerprint: dict[str, Any]


def open_sources(config: Any) -> dict[str, Any]:
    """The splits' sources by `config.source`; its keys stand in the group of the same name. Empty splits are left out.

    Raises:
      UserError: unknown kind, or what the source finds wrong with its files.
    """
    kind = choose("config.source", config.source, SOURCES)
    module = importlib.import_module(SOURCES[kind])
    if hasattr(module, "open_splits"):  # Sources that would read one table once per split.
        sources = module.open_splits(config)
    else:
        sources = {split: module.open_source(config, split) for split in SPLITS}
    sources = {split: source for split, source in sources.items() if len(source)}
    if not sources:
        raise UserError(f"the {kind} source has no studies")
    return sources


def make_plan(config: Any, out: Path | None) -> Plan:
    """Checks the configuration and cuts the sources into slices."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", config.name):
        raise UserError(f"config.name {config.name!r} must be lower case letters, digits and _ (it names the files)")
    choose("config.image_encoding", config.image_encoding, ENCODINGS)
    for key, low in (("image_size", 8), ("shard_studies", 1), ("workers", 0)):
        if config[key] < low:
            raise UserError(f"config.{key} must be at least {low}, not {config[key]}")
    job = _job(config, out) if config.extractor in LLM_EXTRACTORS else None
    extractor = job.name if job else (load_extractor(config.extractor) or ("",))[0]
    sources = open_sources(config)
    label_names = {tuple(source.label_names) for source in sources.values()}
    if len(label_names) != 1:
        raise ValueError("the source's splits have different label_names")
    names, derived = label_names.pop(), tuple(config.get("derived_labels", ()))
    for kind in derived:
        choose("config.derived_labels", kind, DERIVED)
    if "silver" in derived and not extractor:
        raise UserError("config.derived_labels: silver labels come from the evidence, and config.extractor is none")
    names += tuple(f"{kind}:{name}" for kind in derived for name in names if name in BY_NAME)
    slices = []
    for split, source in sources.items():
        starts = range(0, len(source), config.shard_studies)
        slices += [Slice(split, i, len(starts), start, min(start + config.shard_studies, len(source)))
                   for i, start in enumerate(starts)]
    volume = config.volume.geometry if "volume" in config else ""
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
        from data_prep.extract.llm.stage import RECORDED

        fingerprint["config"]["llm"] = {key: getattr(job.settings, key) for key in RECORDED}
    return Plan(sources, tuple(slices), spec, fingerprint)


def _job(config: Any, out: Path | None) -> Any:
    """The job of an extractor that asks a language model; its replies lie beside the data set."""
    require("pydantic", "data", f"the extractor {config.extractor!r}")
    from data_prep.extract.llm.stage import make_job

    if "llm" not in config:
        raise UserError(f"the extractor {config.extractor!r} needs the group config.llm (see configs/data/table.py)")
    return make_job(config.extractor, config.llm.to_dict(), out if out is not None else Path(config.name))


def _ask(plan: Plan, config: Any, progress: bool, pipeline: Sequence[str] | None) -> None:
    """Asks the language model about every report that has no answer yet."""
    from data_prep.extract.llm.stage import SourceReports, ask

    reports = SourceReports(plan.sources)
    ask(reports, plan.spec.job, terms=lambda: reports.terms, where=f"config.{config.source}.terms", progress=progress,
        pipeline=pipeline)


def estimate(config: Any, out: Path | None) -> None:
    """The dry run of an extractor that asks a language model: prints reports, duplicates, tokens and cost."""
    from data_prep.extract.llm.stage import SourceReports
    from data_prep.extract.llm.stage import estimate as run

    plan = make_plan(config, out)
    run(SourceReports(plan.sources), plan.spec.job)


def build(config: Any, out: str | Path | None, *, command: str = "", progress: bool = True,
          pipeline: Sequence[str] | None = None) -> BuildReport:
    """Builds the data set of `config` in the folder `out`, or goes on with it.

    Args:
      config: as `configs/data/*.py` return it.
      out: the folder; None reads and counts without writing.
      command: for the metadata, how the build was called.
      progress: show a bar on stderr when that is a terminal.
      pipeline: options of Beam, to work in a pipeline of it; None works in processes of this machine.

    Returns:
      Counts. A data set that is complete already and was built from the same configuration is left as it is.

    Raises:
      UserError: a mistake in configuration or input that concerns the whole run.
      OSError: the disk is full (errno ENOSPC or EDQUOT).
    """
    started = time.monotonic()
    if pipeline is not None:
        from data_prep.shards import beam  # Says what to install where Beam is missing.
    plan = make_plan(config, Path(out) if out is not None else None)
    if plan.spec.out is None:
        results = [result for _, result in _run(plan, list(plan.slices), config.workers, progress)]
        counts, converted, rejections = _total(plan, results)
        return BuildReport(None, counts, converted, rejections, time.monotonic() - started)
    folder = plan.spec.out
    if (folder / METADATA_FILE).is_file():
        return _check_complete(folder, plan.fingerprint)
    with _own(folder, plan.fingerprint):
        todo = [part for part in plan.slices if read_side_file(folder, part) is None]
        if plan.spec.job and todo:
            try:
                _ask(plan, config, progress, pipeline)
            except UserError:
                if len(todo) == len(plan.slices):  # Nothing is built: another model, or an attestation, is welcome.
                    (folder / BUILD_FOLDER / FINGERPRINT_FILE).unlink()
                raise
        if pipeline is not None and not plan.spec.job:
            beam.run(todo, SliceWork(plan.sources, plan.spec), folder / BUILD_FOLDER, pipeline)
        else:  # With a job, what is left is to read its cache, which is a file of this machine.
            for _ in _run(plan, todo, config.workers, progress):
                pass
        metadata, rejections = finish.finish(folder, plan.slices, plan.spec, config, plan.fingerprint, command)
    finish.remove_build_folder(folder)
    return BuildReport(folder, metadata.counts, metadata.converted, rejections, time.monotonic() - started)


def _total(plan: Plan, results: Sequence[SliceResult]) -> tuple[dict, dict, tuple[Rejection, ...]]:
    counts = {split: dict.fromkeys(COUNTS, 0) for split in plan.sources}
    converted: Counter[str] = Counter()
    rejections: list[Rejection] = []
    for part, result in zip(plan.slices, results, strict=True):
        for name in COUNTS:
            counts[part.split][name] += result.counts[name]
        converted.update(result.converted)
        rejections += result.rejections
    return counts, dict(converted), tuple(rejections)


def _check_complete(folder: Path, fingerprint: dict[str, Any]) -> BuildReport:
    metadata = load_metadata(folder)
    _compare(folder, {key: getattr(metadata, key) for key in fingerprint}, fingerprint)
    for shard in (shard for shards in metadata.shards.values() for shard in shards):
        file = folder / shard.file
        if not file.is_file() or file.stat().st_size != shard.bytes:
            raise UserError(f"the data set at {folder} is damaged ({shard.file}): delete the folder and build it again")
    return BuildReport(folder, metadata.counts, metadata.converted, finish.read_rejected(folder), 0.0)


def _compare(folder: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Raises a UserError that names the first difference between two builds' fingerprints."""
    def flat(value: Any, prefix: str = "") -> dict[str, Any]:
        if isinstance(value, dict):
            return {k: v for key, item in value.items() for k, v in flat(item, f"{prefix}{key}.").items()}
        return {prefix[:-1]: value}

    a, b = flat(old), flat(json.loads(json.dumps(new)))
    for key in sorted({*a, *b}):
        if a.get(key) != b.get(key):
            what = f"{key.removeprefix('config.')} was {a.get(key)!r}, now {b.get(key)!r}"
            if key.startswith("input."):
                what = "the input has changed"
            raise UserError(f"{folder} was begun with another configuration ({what}): give another --out, or delete it")


@contextmanager
def _own(folder: Path, fingerprint: dict[str, Any]) -> Iterator[None]:
    """Makes or reopens an unfinished data set folder, and holds its lock."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out={folder} is a file, not a folder")
    work = folder / BUILD_FOLDER
    if folder.is_dir() and any(folder.iterdir()) and not work.is_dir():
        raise UserError(f"--out={folder} is not empty and holds no data set of ours: give an empty or a new folder")
    try:
        work.mkdir(parents=True, exist_ok=True)
        lock = open(work / "lock", "w")  # noqa: SIM115 (held until the build is done)
    except PermissionError:
        raise UserError(f"no permission to write to --out={folder}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another build is writing to {folder}") from None
        file = work / FINGERPRINT_FILE
        if file.is_file():
            _compare(folder, json.loads(file.read_text(encoding="utf-8")), fingerprint)
        else:
            write_atomically(file, lambda f: f.write(json.dumps(fingerprint, sort_keys=True).encode("utf-8")))
        for stale in (*work.glob("*.tmp"), *work.glob(".*.tmp"), *folder.glob(".*.tmp")):
            stale.unlink(missing_ok=True)
        yield


# --- Worker processes -------------------------------------------------------------------------------------------------

_worker: tuple[dict[str, Any], ShardSpec, RecordMaker] | None = None  # Set once in each worker process, by `_start`.


def _start(sources: dict[str, Any], spec: ShardSpec) -> None:
    global _worker
    end_with_parent()
    _worker = (sources, spec, RecordMaker(spec))


def _work(part: Slice) -> SliceResult:
    sources, spec, maker = _worker
    result = process_slice(sources[part.split], part, spec, maker)
    if spec.out is not None:
        return dataclasses.replace(result, columns={}, rejections=[])  # They are in the side file.
    return dataclasses.replace(result, columns={})


def _run(plan: Plan, todo: list[Slice], workers: int, progress: bool) -> Iterator[tuple[Slice, SliceResult]]:
    """Processes the slices, yields their results in order, and shows how long it will take."""
    from tqdm import tqdm

    total = sum(part.stop - part.start for part in plan.slices)
    done = total - sum(part.stop - part.start for part in todo)
    workers = min(workers or len(os.sched_getaffinity(0)), max(1, len(todo)))
    with tqdm(total=total, initial=done, unit="study", desc=plan.spec.name, disable=None if progress else True) as bar:
        if workers == 1:
            maker = RecordMaker(plan.spec)
            for part in todo:
                result = process_slice(plan.sources[part.split], part, plan.spec, maker)
                bar.update(part.stop - part.start)
                yield part, result
            return
        # spawn: a parent that has threads (JAX, TFDS) cannot be forked safely.
        pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start, (plan.sources, plan.spec))
        try:
            yield from _in_order(todo, lambda part: pool.submit(_work, part), 2 * workers, bar.update)
        except BrokenProcessPool:
            raise UserError("a worker process was killed (out of memory?): run the same command again to go on, with a "
                            "smaller --config.workers if it happens again") from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _in_order(todo: list[Slice], submit: Callable[[Slice], Future], ahead: int,
              update: Callable[[int], Any]) -> Iterator[tuple[Slice, SliceResult]]:
    """Keeps `ahead` slices under way, so that what is held does not grow with the data set."""
    pending: dict[Future, Slice] = {}
    results: dict[Slice, SliceResult] = {}
    queue, emit = iter(todo), iter(todo)
    following = next(emit, None)
    while following is not None:
        for part in queue:
            pending[submit(part)] = part
            if len(pending) >= ahead:
                break
        finished, _ = wait(pending, return_when=FIRST_COMPLETED)
        for future in finished:
            part = pending.pop(future)
            results[part] = future.result()
            update(part.stop - part.start)
        while following in results:
            yield following, results.pop(following)
            following = next(emit, None)


# --- The command ------------------------------------------------------------------------------------------------------


def config_digest(fingerprint: dict[str, Any]) -> str:
    """Short SHA-256 of a fingerprint, for the console."""
    return hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode("utf-8")).hexdigest()[:12]


def summary(report: BuildReport) -> str:
    """A table of the counts, a line per split, and what was converted and refused."""
    names = ("rows", "read", "rejected", "studies", "records", "images", "reports", "normal", "evidence")
    lines = [f"{'split':<12}" + "".join(f"{name:>10}" for name in names)]
    lines += [f"{split:<12}" + "".join(f"{counts[name]:>10}" for name in names)
              for split, counts in report.counts.items()]
    if report.converted:
        lines.append("converted: " + ", ".join(f"{n} {what}" for what, n in sorted(report.converted.items())))
    if report.rejected:
        reasons = Counter(rejection.reason for rejection in report.rejections)
        lines.append("rejected: " + ", ".join(f"{n} x {reason}" for reason, n in reasons.most_common(5)))
    return "\n".join(lines)


def _help() -> cli.Parser:
    """What --help shows; `main` reads the flags itself, because the config's keys are flags too."""
    first, _, *rest = __doc__.split("\n\n")
    parser = cli.Parser(prog="python -m data_prep.build", description=first, epilog="\n\n".join(
        ["--config.KEY=VALUE changes a key of the config file, which says what each key is.", *rest]))
    parser.add_argument("--config", metavar="FILE", required=True, help="the data set: one of configs/data/*.py")
    parser.add_argument("--out", metavar="DATA", help="folder to write; an earlier build there goes on")
    parser.add_argument("--dry_run", action="store_true", help="read and count everything, write and send nothing")
    parser.add_argument("--runner", choices=RUNNERS, help="where the work is done (default: local)")
    parser.add_argument("--max_cost", metavar="DOLLARS", help="hard stop for what a language model may cost")
    parser.add_argument("--attest_data_use", metavar="TEXT",
                        help="who permits that credentialed reports are sent to a remote endpoint; it is recorded")
    return parser


def main(argv: list[str]) -> int:
    """Parses the command line and builds."""
    end = argv.index("--") if "--" in argv else len(argv)
    if {"-h", "--help"} & set(argv[:end]):
        _help().print_help()
        return cli.OK
    config, rest = cli.load_config(argv[:end])
    out, dry_run, runner = None, False, "local"
    llm = {"--attest_data_use": "llm.attest_data_use", "--max_cost": "llm.max_cost"}
    while rest:
        item = rest.pop(0)
        flag, equals, value = item.partition("=")
        if item == "--dry_run":
            dry_run = True
        elif flag in ("--out", "--runner") or flag in llm:
            value = value if equals else (rest.pop(0) if rest else "")
            if flag == "--out":
                out = value
            elif flag == "--runner":
                runner = choose("runner", value, RUNNERS)
            elif config.extractor not in LLM_EXTRACTORS:
                raise UserError(f"{flag} is for extractors that ask a language model: {', '.join(LLM_EXTRACTORS)}")
            else:
                cli.set_override(config, llm[flag], value)
        else:
            known = ["--out", "--runner", "--dry_run", "--config", *llm]
            raise UserError(f"unknown argument {item!r}{nearest(item, known)}")
    if not out and not dry_run:
        raise UserError("--out=DATA is needed (or --dry_run)")
    if end < len(argv) and runner != "beam":
        raise UserError("what follows -- are Beam's options: they need --runner=beam")
    if dry_run and config.extractor in LLM_EXTRACTORS:
        estimate(config, Path(out) if out else None)
        print("dry run: nothing was sent, nothing was written")
        return cli.OK
    command = shlex.join(["python", "-m", "data_prep.build", *argv])
    pipeline = argv[end + 1:] if runner == "beam" and not dry_run else None  # A dry run only reads: it stays here.
    report = build(config, None if dry_run else out, command=command, pipeline=pipeline)
    print(summary(report))
    if dry_run:
        print("dry run: nothing was written")
    elif report.seconds == 0:
        print(f"{report.out} was complete already")
    else:
        print(f"wrote {report.out} in {report.seconds:.0f} s")
    return cli.PARTIAL if report.rejected else cli.OK


if __name__ == "__main__":
    cli.run(main, sys.argv[1:])
