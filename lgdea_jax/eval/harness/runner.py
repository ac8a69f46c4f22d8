"""What every eval binary does: flags, model, data, tasks with intervals, results.json, samples, overlays, table.

OUT/results.json holds values with 95% bootstrap intervals over subjects; OUT/samples.npz the per-sample results for
paired tests (`evaluators.tasks.load_samples`, `metrics/hierarchical.py`); OUT/overlays the heatmaps of a seeded
sample. Subjects appear as digests, studies not at all. `python -m lgdea_jax.report OUT` makes a page of it.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from lgdea_jax import cli
from lgdea_jax.data.source import DatasetMetadata, load_metadata, open_records
from lgdea_jax.errors import UserError, choose
from lgdea_jax.eval.harness import examples as retrieval_examples
from lgdea_jax.eval.harness import guard, selection, subgroups
from lgdea_jax.eval.harness.benchmark import Benchmark, evaluator, zero_shot
from lgdea_jax.eval.harness.output import (
    OVERLAYS,
    RESULTS,
    SAMPLES,
    ModeResult,
    as_json,
    command_line,
    config_hash,
    make_folder,
    table,
    write_json,
)
from lgdea_jax.eval.harness.pictures import draw_overlays
from lgdea_jax.eval.harness.selection import Selection
from lgdea_jax.evaluators import classified, probe, tasks
from lgdea_jax.evaluators.base import Encoder, EvalData, Samples
from lgdea_jax.metrics import bootstrap
from lgdea_jax.metrics.bootstrap import Interval
from lgdea_jax.preprocess import regions
from lgdea_jax.preprocess.image import MODEL_TRANSFORM
from lgdea_jax.preprocess.image_spec import Frame, transform_name
from lgdea_jax.records import Record

# What a binary selects for each mode: (records, label names, progress) -> {mode: selection}; a mode may be missing.
Select = Callable[[Sequence[Record], DatasetMetadata, Any], Mapping[str, Selection]]


def make_parser(benchmark: Benchmark, *, data_dir: str = "required", epilog: str = "") -> cli.Parser:
    """The flags that all eval binaries share.

    Args:
      benchmark: which.
      data_dir: "required", "optional", or "none".
      epilog: shown at the end of --help.
    """
    parser = cli.Parser(prog=f"python -m lgdea_jax.eval.{benchmark.name}", description=benchmark.summary,
                        epilog=epilog)
    parser.add_argument("--checkpoint", required=True, metavar="RUN", help="run directory of lgdea_jax.train")
    if data_dir != "none":
        parser.add_argument("--data_dir", required=data_dir == "required", metavar="DATA",
                            help="folder written by data_prep.build")
    parser.add_argument("--out", required=True, metavar="OUT", help="folder for results.json, samples.npz, overlays/")
    parser.add_argument("--mode", choices=(*tasks.MODES, "both"), default="both",
                        help="clean: what a metric's name says; official: what public scripts compute (default: both)")
    parser.add_argument("--step", default="latest", help="latest, best or a step number (default: latest)")
    parser.add_argument("--split", default=benchmark.split,
                        help=f"train, validation or test (default: {benchmark.split})")
    parser.add_argument("--seed", type=int, default=0, help="of resampling, balanced draws and overlays (default: 0)")
    parser.add_argument("--bootstrap", type=_count, default=1000, metavar="N",
                        help="resamples of subjects for the 95%% intervals; 0: none (default: 1000)")
    parser.add_argument("--records", type=_count, default=0, metavar="N",
                        help="evaluate a seeded sample of N records; 0: all (default: 0)")
    parser.add_argument("--tasks", default=",".join(benchmark.tasks),
                        help=f"comma-separated, of {', '.join(tasks.TASKS)} (default: {','.join(benchmark.tasks)})")
    parser.add_argument("--overlays", type=_count, default=12, metavar="N",
                        help="heatmap pictures to draw, a seeded sample (default: 12)")
    parser.add_argument("--examples", type=_count, default=None, metavar="N",
                        help="retrieval examples to write, with report texts (default: 4 where all of the data are "
                             "under open terms, otherwise 0)")
    parser.add_argument("--views", choices=selection.VIEWS, default=benchmark.views,
                        help=f"frontal leaves lateral images out (default: {benchmark.views})")
    parser.add_argument("--probe", type=_shares, default=(), metavar="SHARES",
                        help=f"refused here: {benchmark.no_probe}" if benchmark.no_probe else
                             "linear probes on frozen features with these shares of DATA's training subjects, for "
                             "example 0.01,0.1,1 (default: none)")
    if benchmark.guard:
        parser.add_argument("--trained_on", type=_folders, default=(), metavar="DIR,...",
                            help="where the checkpoint's training data are now, if they have moved")
        parser.add_argument("--allow_leaks", action="store_true",
                            help="evaluate although subjects were trained on, or that cannot be checked; recorded")
    return parser


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError("must be 0 or more")
    return value


def _shares(text: str) -> tuple[float, ...]:
    values = tuple(float(part) for part in text.split(",") if part)
    if not all(0 < value <= 1 for value in values):
        raise argparse.ArgumentTypeError("shares lie in (0, 1]")
    return values


def _folders(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(",") if part)


def run_benchmark(benchmark: Benchmark, argv: Sequence[str]) -> int:
    """The whole binary of a benchmark that needs no flags of its own: parses `argv`, evaluates, returns the status."""
    args = make_parser(benchmark).parse_args(argv)
    return evaluate(args, argv, benchmark, Path(args.data_dir))


def evaluate(args: argparse.Namespace, argv: Sequence[str], benchmark: Benchmark, data_dir: Path, *,
             select: Select | None = None) -> int:
    """Runs the tasks on a split of `data_dir` and writes everything below `args.out`.

    Args:
      args: of `make_parser`.
      argv: the command line, for results.json.
      benchmark: which.
      data_dir: a data set of ours.
      select: which records with which labels in each mode; by default all that fit the benchmark, in both.

    Returns:
      cli.OK, or cli.PARTIAL when images had to be left out.

    Raises:
      UserError: no such checkpoint, data or split, unknown task, another transform than the checkpoint's, or subjects
        that it was trained on.
    """
    chosen = [choose("task", name.strip(), tasks.TASKS) for name in args.tasks.split(",") if name.strip()]
    if args.probe and benchmark.no_probe:
        raise UserError(f"--probe is refused by {benchmark.name}: {benchmark.no_probe}")
    metadata = load_metadata(data_dir)
    source = open_records(data_dir, args.split)
    # Here, not above: it imports JAX, and a wrong flag or folder should not wait for that.
    from lgdea_jax.inference.predictor import load_predictor

    for noisy in ("absl", "orbax", "jax"):  # Their warnings about reading a checkpoint tell a user nothing.
        logging.getLogger(noisy).setLevel(logging.ERROR)
    predict = load_predictor(args.checkpoint, args.step)
    check_transform(predict.transform, predict.frame, metadata)
    if not getattr(predict, "reads_text", True):
        if not args.probe:
            raise UserError("the checkpoint's method has no text tower: there is nothing to ask it in words"
                            + ("" if benchmark.no_probe else " (--probe=1 trains a probe on it)"))
        chosen = []
    modes = tasks.MODES if args.mode == "both" else (args.mode,)
    with _Bar() as bar:
        selected = _selected(args, benchmark, source, metadata, select, modes, bar)
        rows = np.unique(np.concatenate([part.rows for part in selected.values()]))
        leaks = guard.check(predict.spec, data_dir, args.split, rows, trained_on=args.trained_on,
                            allow=args.allow_leaks) if benchmark.guard else None
        out = make_folder(args.out)
        worlds = _worlds(benchmark, selected, source, metadata, predict, bar)
        probes = _probes(args, benchmark, data_dir, metadata, predict, worlds, bar)
        thresholds = _thresholds(args, benchmark, data_dir, metadata, predict, chosen, bar)
        results = []
        done: dict[Any, tuple[Samples, dict[str, Interval]]] = {}
        for mode, encoder in worlds.items():
            asked = {task: evaluator(
                benchmark, task, encoder.data, mode, seed=args.seed, how=tasks.asked_as(predict),
                thresholds=thresholds, thresholds_from="the validation split" if thresholds else "",
                candidates=getattr(args, "candidates", "auto"))
                     for task in _tasks_of(benchmark, mode, chosen)}
            asked |= {f"probe@{share:g}": item for share, item in zip(args.probe, probes.get(mode, ()))}
            results.append(measure(encoder, asked, mode, done, seed=args.seed, resamples=args.bootstrap, progress=bar,
                                   note=selected[mode].note))
        shown, first = next(iter(worlds.items()))
        part = selected[shown]
        pictures = draw_overlays(first, _Rows(source, part.rows), out / OVERLAYS, args.overlays, args.seed,
                                 sigma=benchmark.sigma if shown == "official" else 0.0, progress=bar)
        examples = 0
        if "retrieval" in chosen:
            wanted = args.examples
            if wanted is None:
                wanted = 4 if {item.terms for item in metadata.sources} == {"open"} else 0
            examples = retrieval_examples.write_examples(
                first, _Rows(source, part.rows), out / retrieval_examples.FOLDER, wanted, args.seed)
    data = first.data
    tasks.save_samples(out / SAMPLES, {result.mode: result.samples for result in results})
    rejected = {int(part.rows[row]): reason for mode, part in selected.items()
                for row, reason in worlds[mode].data.rejected}
    head = {
        "benchmark": benchmark.name, "data": metadata.name, "split": args.split, "records": len(part.rows),
        "command": command_line(benchmark.name, argv), "config_hash": config_hash(predict.spec.get("config", {})),
        "checkpoint": str(args.checkpoint), "method": predict.spec.get("config", {}).get("method", ""),
        "step": int(predict.spec["step"]), "transform": predict.transform, "seed": args.seed,
        "bootstrap": args.bootstrap, "subjects": len(np.unique(data.subjects)), "images": len(data.images),
        "lacks": [why for task, why in data.lacks.items() if task in chosen],
        "views": args.views, "overlays": shown if pictures else "", "leakage": leaks,
        "report_sections": _report_sections(metadata), "terms": sorted({item.terms for item in metadata.sources}),
        "rejected": [{"record": row, "reason": reason} for row, reason in sorted(rejected.items())]}
    write_json(out / RESULTS, {**head, "results": [as_json(result) for result in results]})
    print(table(head, results))
    print(f"wrote {out / RESULTS}, {out / SAMPLES}, {pictures} pictures in {out / OVERLAYS}"
          + (f", {examples} examples in {out / retrieval_examples.FOLDER}" if examples else ""))
    for row, reason in sorted(rejected.items()):
        print(f"record {row} left out: {reason}", file=sys.stderr)
    return cli.PARTIAL if rejected else cli.OK


def _tasks_of(benchmark: Benchmark, mode: str, chosen: Sequence[str]) -> list[str]:
    """The chosen tasks, and in the official mode of CT the operating point of the zero-shot classification."""
    point = benchmark.volumes and mode == "official" and "zero_shot" in chosen
    return [*chosen, "operating_point"] if point else list(chosen)


def _report_sections(metadata: DatasetMetadata) -> list[str]:
    """The sections that the data set's reports consist of, as its build's config says; [] where it does not."""
    groups = [group for group in metadata.config.values() if isinstance(group, Mapping)]
    return next((list(group["report_sections"]) for group in groups if "report_sections" in group), [])


def measure(encoder: Encoder, asked: Mapping[str, Any], mode: str, done: dict[Any, tuple[Samples, dict[str, Interval]]],
            *, seed: int, resamples: int, progress: Any = None, note: str = "") -> ModeResult:
    """Runs the evaluators of one mode and makes intervals, in all and by subgroup.

    Args:
      encoder: of the mode's data.
      asked: {task or probe: evaluator}.
      done: results of earlier modes: an evaluator that is the same there is not run again.
    """
    intervals, sizes, info, kept = {}, {}, {}, []
    for task, item in asked.items():
        key = _key(item)
        if key not in done:
            samples = item.run(encoder)
            done[key] = samples, bootstrap.intervals(samples.metrics, samples.subjects, resamples=resamples, seed=seed)
        samples, found = done[key]
        intervals |= found
        sizes |= samples.sizes()
        info[task] = dict(samples.info)
        kept.append(samples)
        if progress is not None:
            progress(f"{task} ({mode})", 1, 1)
    if note:
        info["selection"] = note
    groups = subgroups.measure(kept, encoder.data, resamples=resamples, seed=seed)
    return ModeResult(mode, intervals, sizes, info, tuple(kept), groups)


def _key(item: Any) -> Any:
    """Equal for evaluators that give equal results; arrays count by identity."""
    return type(item), tuple((field.name, repr(value) if isinstance(value, (str, float, int, dict, type(None)))
                              else id(value))
                             for field in dataclasses.fields(item) for value in [getattr(item, field.name)])


def check_transform(trained_with: str, frame: Frame, metadata: DatasetMetadata) -> None:
    """Refuses data that the model would see through another transform than in training.

    Raises:
      UserError: names both.
    """
    offered = f"{metadata.transform}+{transform_name(frame)}"
    if trained_with != offered:
        raise UserError(f"the checkpoint was trained with the transform {trained_with}, this data set would be seen "
                        f"with {offered}: build it with the version of lgdea-jax that made the training data")


def _selected(args: argparse.Namespace, benchmark: Benchmark, source: Sequence[Record], metadata: DatasetMetadata,
              select: Select | None, modes: Sequence[str], bar: _Bar) -> dict[str, Selection]:
    """{mode: what is evaluated in it}; the same object where modes agree."""
    if select is not None:
        found = select(source, metadata, bar)
        chosen = {mode: found[mode].sample(args.records, args.seed) for mode in modes if mode in found}
    else:
        frontal = args.views == "frontal"
        if frontal or benchmark.keep is not None:
            part = selection.matching(
                source, lambda record: (not frontal or regions.is_frontal(record.view))
                and (benchmark.keep is None or benchmark.keep(record)),
                ", ".join(filter(None, ("frontal images" if frontal else "", benchmark.keep_note))), bar)
        else:
            part = selection.all_rows(len(source))
        chosen = dict.fromkeys(modes, part.sample(args.records, args.seed))
    if not all(len(part.rows) for part in chosen.values()):
        raise UserError(f"no record of the {args.split} split is left to evaluate")
    return chosen


def _worlds(benchmark: Benchmark, selected: Mapping[str, Selection], source: Sequence[Record],
            metadata: DatasetMetadata, predict: Any, bar: _Bar) -> dict[str, Encoder]:
    """{mode: encoder of its data}; modes that see the same images the same way share one."""
    made: dict[tuple[int, str], Encoder] = {}
    out = {}
    for mode, part in selected.items():
        transform = benchmark.transform(mode) or MODEL_TRANSFORM
        key = id(part), transform
        if key not in made:
            data = EvalData.from_records(_Rows(source, part.rows), metadata, predict.frame, transform=transform,
                                         progress=bar)
            made[key] = Encoder(predict, _labelled(benchmark, part.relabel(data)), progress=bar)
        out[mode] = made[key]
    return out


def _labelled(benchmark: Benchmark, data: EvalData) -> EvalData:
    """The data with the labels that the benchmark scores."""
    for label, parts in benchmark.merged.items():
        if label not in data.label_names and set(parts) <= set(data.label_names):
            data = data.with_merged(label, parts)
    if benchmark.findings and data.label_names != benchmark.findings:
        names = benchmark.findings
        if benchmark.partial and set(names) & set(data.label_names):
            names = tuple(name for name in names if name in data.label_names)
        data = data.with_labels(names)
    return dataclasses.replace(data, labels=benchmark.filled(data.labels)) if benchmark.blank_is_negative else data


def _thresholds(args: argparse.Namespace, benchmark: Benchmark, data_dir: Path, metadata: DatasetMetadata, predict: Any,
                chosen: Sequence[str], bar: _Bar) -> dict[str, dict[str, float]] | None:
    """Thresholds of F1 and MCC for the clean mode, chosen on the validation split; None where there is none."""
    if ("zero_shot" not in chosen or args.mode == "official" or not benchmark.public or benchmark.exclusive
            or args.split == "validation" or "validation" not in metadata.splits):
        return None
    source = open_records(data_dir, "validation")
    # `keep` says whose labels are good enough to be measured against; for a threshold, any will do.
    rows = (selection.matching(source, lambda record: regions.is_frontal(record.view), "", bar)
            if args.views == "frontal" else selection.all_rows(len(source)))
    part = rows.sample(args.records, args.seed)
    data = _labelled(benchmark, EvalData.from_records(_Rows(source, part.rows), metadata, predict.frame,
                                                      progress=bar))
    scorer = zero_shot(benchmark, data, "clean", how=tasks.asked_as(predict))
    return classified.thresholds(scorer.run(Encoder(predict, data, progress=bar)))


def _probes(args: argparse.Namespace, benchmark: Benchmark, data_dir: Path, metadata: DatasetMetadata, predict: Any,
            worlds: Mapping[str, Encoder], bar: _Bar) -> dict[str, list[probe.Probe]]:
    """{mode: probes in the order of --probe}; a mode that sees the images in its own way has none.

    Raises:
      UserError: DATA has no training split, or no label that is scored here.
    """
    if not args.probe:
        return {}
    if "train" not in metadata.splits or args.split == "train":
        raise UserError(f"--probe needs labels to train on that are not evaluated: {data_dir} has the splits "
                        f"{', '.join(metadata.splits)}")
    features: dict[str, probe.Features] = {}
    names = next(iter(worlds.values())).data.label_names
    columns = np.array([metadata.label_names.index(choose("label of the data set", name, metadata.label_names))
                        for name in names], np.int64)
    for split in ("train", "validation"):
        if split in metadata.splits and split != args.split:
            found = probe.read_features(predict, open_records(data_dir, split), predict.frame, columns,
                                        progress=bar)
            features[split] = dataclasses.replace(found, labels=benchmark.filled(found.labels))
    made: dict[int, list[probe.Probe]] = {}
    for mode, encoder in worlds.items():
        if benchmark.transform(mode) is None and id(encoder) not in made:
            groups = benchmark.groups_of(encoder.data)
            made[id(encoder)] = [probe.Probe(encoder.data, features["train"], features.get("validation"), share,
                                             args.seed, groups, benchmark.exclusive) for share in args.probe]
    return {mode: made[id(encoder)] for mode, encoder in worlds.items() if id(encoder) in made}


class _Rows(Sequence[Record]):
    """Some records of a source."""

    def __init__(self, source: Sequence[Record], rows: np.ndarray) -> None:
        self._source, self._rows = source, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Record:  # type: ignore[override]
        return self._source[int(self._rows[index])]


class _Bar:
    """Progress on stderr: a bar in a terminal, nothing in a file."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None
        self._what = ""

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    def __call__(self, what: str, done: int, total: int) -> None:
        if self._bar is None or what != self._what:
            self._close()
            self._what, self._bar = what, tqdm(total=total, desc=what, disable=None, leave=False)
        self._bar.update(done - self._bar.n)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
