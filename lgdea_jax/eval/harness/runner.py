"""An evaluation from flags to OUT: model, data, tasks with intervals, results.json, samples, pictures, printed tables.

OUT/results.json holds values with 95% bootstrap intervals over subjects; OUT/samples.npz the per-sample results for
paired tests (`evaluators.tasks.load_samples`, `metrics/hierarchical.py`); OUT/overlays the heatmaps of a seeded sample.
Subjects appear as digests with a key that stays with the data set, studies not at all. `python -m lgdea_jax.report OUT`
makes a page of it.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lgdea_jax import cli
from lgdea_jax.data.dataset import DatasetMetadata
from lgdea_jax.data.verify import verified
from lgdea_jax.errors import UserError, choose
from lgdea_jax.eval.harness import examples as retrieval_examples
from lgdea_jax.eval.harness import guard
from lgdea_jax.eval.harness.benchmark import Benchmark
from lgdea_jax.eval.harness.flags import make_parser
from lgdea_jax.eval.harness.inputs import Inputs, Rows, Select
from lgdea_jax.eval.harness.measure import Done, evaluators, measure
from lgdea_jax.eval.harness.output import (
    OVERLAYS,
    RESULTS,
    SAMPLES,
    as_json,
    command_line,
    config_hash,
    save_samples,
    secret_key,
    table,
    write_json,
)
from lgdea_jax.eval.harness.pictures import draw_overlays
from lgdea_jax.eval.harness.progress import StageProgress
from lgdea_jax.eval.harness.protocol import choose_protocol
from lgdea_jax.eval.harness.selection import Selection
from lgdea_jax.evaluators import probe, tasks
from lgdea_jax.evaluators.encoder import Encoder
from lgdea_jax.runtime.files import own_folder


def run_benchmark(benchmark: Benchmark, argv: Sequence[str]) -> int:
    """The whole script of a benchmark without flags of its own: parses `argv`, evaluates, returns the exit status."""
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
      UserError: no such checkpoint, data or split, unknown task, a mode that the benchmark does not have, a transform
        other than the checkpoint's, a data set that is not the benchmark's, subjects that the checkpoint was trained
        on, damage that --verify finds, or --probe without scikit-learn.
    """
    chosen = _chosen_tasks(args, benchmark)
    benchmark = dataclasses.replace(benchmark, protocol=choose_protocol(
        benchmark.name, benchmark.protocols, benchmark.protocol, mode=args.mode, name=args.protocol))
    modes = {"both": tasks.MODES, "clean": ("clean",)}.get(args.mode, ("official",))
    if args.verify:
        print(verified([data_dir]), file=sys.stderr)
    with StageProgress() as progress, contextlib.ExitStack() as stack:
        inputs = Inputs.open(args, benchmark, data_dir, progress)
        if not inputs.model.reads_text:
            # Its classifier is measured on the data set's own labels, wherever those are scored one by one.
            chosen = ["classifier"] if inputs.model.classifies == "image" else []
            if not chosen and not args.probe:
                raise UserError("the checkpoint's method has no text tower, so that prompts and reports have no "
                                "embedding" + ("" if benchmark.no_probe else " (--probe=1 trains a probe on it)"))
        selected = inputs.select(modes, select)
        rows = np.unique(np.concatenate([part.rows for part in selected.values()]))
        leaks = guard.check(inputs.model.spec, data_dir, tuple(inputs.source.parts), rows, trained_on=args.trained_on,
                            allow=args.allow_leaks) if benchmark.guard else None
        secret = secret_key(data_dir, inputs.metadata)
        out = stack.enter_context(own_folder(args.out))
        encoders = inputs.encoders(selected)
        probes = inputs.probes(encoders)
        thresholds = inputs.thresholds(chosen)
        results, done = [], Done()
        for mode, encoder in encoders.items():
            items = evaluators(benchmark, encoder, mode, chosen, seed=args.seed, thresholds=thresholds,
                               candidates=getattr(args, "candidates", "auto"))
            items |= {f"probe@{share:g}": item for share, item in zip(args.probe, probes.get(mode, ()))}
            result = measure(encoder, items, mode, done, seed=args.seed, resamples=args.bootstrap, progress=progress,
                             note=selected[mode].note)
            if mode == "official":
                result = dataclasses.replace(result, mode=benchmark.protocol.mode, info={
                    "protocol": benchmark.protocol.describe(inputs.differences(encoder.data)), **result.info})
            results.append(result)
        shown = next(iter(encoders))
        first, records = encoders[shown], Rows(inputs.source, selected[shown].rows)
        pictures = draw_overlays(first, records, out / OVERLAYS, args.overlays, args.seed,
                                 sigma=benchmark.protocol.sigma if shown == "official" else 0.0, progress=progress)
        examples = 0
        if "retrieval" in chosen:
            examples = retrieval_examples.write_examples(
                first, records, out / retrieval_examples.FOLDER, _example_count(args, inputs.metadata), args.seed)
        save_samples(out / SAMPLES, {result.mode: result.samples for result in results}, key=secret)
        rejected = _rejected(selected, encoders)
        head = {**_head(inputs, argv, first, len(records), chosen), "leakage": leaks,
                "overlays": results[0].mode if pictures else "",
                "rejected": [{"record": row, "reason": reason} for row, reason in rejected.items()]}
        write_json(out / RESULTS, {**head, "results": [as_json(result) for result in results]})
    print(table(head, results))
    print(f"wrote {out / RESULTS}, {out / SAMPLES}, {pictures} pictures in {out / OVERLAYS}"
          + (f", {examples} examples in {out / retrieval_examples.FOLDER}" if examples else ""))
    for row, reason in rejected.items():
        print(f"record {row} left out: {reason}", file=sys.stderr)
    return cli.PARTIAL if rejected else cli.OK


def _chosen_tasks(args: argparse.Namespace, benchmark: Benchmark) -> list[str]:
    """The tasks of --tasks; what is wrong with the flags is found here, before anything is read."""
    known = tasks.known(benchmark.tasks)
    chosen = [choose("task", name.strip(), known) for name in args.tasks.split(",") if name.strip()]
    if args.probe:
        if benchmark.no_probe:
            raise UserError(f"--probe is refused by {benchmark.name}: {benchmark.no_probe}")
        probe.require_scikit_learn()
    return chosen


def _example_count(args: argparse.Namespace, metadata: DatasetMetadata) -> int:
    if args.examples is not None:
        return args.examples
    return 4 if {item.terms for item in metadata.sources} == {"open"} else 0


def _rejected(selected: Mapping[str, Selection], encoders: Mapping[str, Encoder]) -> dict[int, str]:
    """{record row: reason} of the images that could not be used, ascending."""
    found = {int(part.rows[row]): reason for mode, part in selected.items()
             for row, reason in encoders[mode].data.rejected}
    return dict(sorted(found.items()))


def _head(inputs: Inputs, argv: Sequence[str], first: Encoder, records: int, chosen: Sequence[str]) -> dict[str, Any]:
    """What results.json holds beside the results: command, checkpoint, data.

    Args:
      inputs: of the run; argv: its command line.
      first: the encoder of the first mode, with `records` records.
      chosen: the tasks.
    """
    args, benchmark, metadata, spec = inputs.args, inputs.benchmark, inputs.metadata, inputs.model.spec
    config, data = spec.get("config", {}), first.data
    return {
        "benchmark": benchmark.name, "data": metadata.name, "split": args.split, "records": records,
        "command": command_line(benchmark.name, argv), "config_hash": config_hash(config),
        "checkpoint": str(args.checkpoint), "method": config.get("method", ""), "step": int(spec["step"]),
        "transform": inputs.model.transform, "seed": args.seed, "bootstrap": args.bootstrap,
        "subjects": len(np.unique(data.subjects)), "images": len(data.images),
        "labels": data.label_set, "label_note": data.label_note,
        "lacks": [why for task, why in data.lacks.items() if task in chosen], "views": args.views,
        "report_sections": _report_sections(metadata), "terms": sorted({item.terms for item in metadata.sources})}


def _report_sections(metadata: DatasetMetadata) -> list[str]:
    """The report sections that the data set was built from; [] where its config does not name them."""
    groups = [group for group in metadata.config.values() if isinstance(group, Mapping)]
    return next((list(group["report_sections"]) for group in groups if "report_sections" in group), [])
