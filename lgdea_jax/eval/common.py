"""What every eval binary does: flags, model, data, tasks with intervals, results.json, samples, overlays, table.

OUT/results.json holds values with 95% bootstrap intervals over subjects; OUT/samples.npz the per-sample results for
paired tests (`evaluators.tasks.load_samples`, `metrics.bootstrap.paired_test`); OUT/overlays the heatmaps of a seeded
sample. Subjects appear as digests, studies not at all.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import logging
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from lgdea_jax import cli
from lgdea_jax.cli import UserError
from lgdea_jax.evaluators import tasks
from lgdea_jax.evaluators.base import Encoder, EvalData, Samples
from lgdea_jax.evaluators.grounding import (
    GroundingSample,
    box_slices,
    grounding_samples,
    sample_heatmap,
    sample_queries,
)
from lgdea_jax.findings.vocabulary import BY_NAME
from lgdea_jax.io import decode_image
from lgdea_jax.metrics import bootstrap, grounding
from lgdea_jax.metrics.bootstrap import Interval
from lgdea_jax.overlay import Overlay, draw
from lgdea_jax.preprocess.image import MODEL_TRANSFORM
from lgdea_jax.record_source import DatasetMetadata, load_metadata, open_records
from lgdea_jax.records import POSITIVE, Record

RESULTS, SAMPLES, OVERLAYS = "results.json", "samples.npz", "overlays"


@dataclasses.dataclass(frozen=True)
class ModeResult:
    """The intervals of one mode, how many samples each metric rests on, and what each task says of itself."""

    mode: str
    intervals: dict[str, Interval]
    sizes: dict[str, int]
    info: dict[str, Any]
    samples: tuple[Samples, ...]


def make_parser(benchmark: str, description: str, *, data_dir: str, epilog: str = "") -> cli.Parser:
    """The flags that all eval binaries share.

    Args:
      benchmark: module name, for the usage line.
      description: shown by --help.
      data_dir: "required", "optional", or "none".
      epilog: shown at the end of --help.
    """
    parser = cli.Parser(prog=f"python -m lgdea_jax.eval.{benchmark}", description=description, epilog=epilog)
    parser.add_argument("--checkpoint", required=True, metavar="RUN", help="run directory of lgdea_jax.train")
    if data_dir != "none":
        parser.add_argument("--data_dir", required=data_dir == "required", metavar="DATA",
                            help="folder written by data_prep.build")
    parser.add_argument("--out", required=True, metavar="OUT", help="folder for results.json, samples.npz, overlays/")
    parser.add_argument("--mode", choices=(*tasks.MODES, "both"), default="both",
                        help="clean: what a metric's name says; official: what public scripts compute (default: both)")
    parser.add_argument("--step", default="latest", help="latest, best or a step number (default: latest)")
    parser.add_argument("--split", default="test", help="train, validation or test (default: test)")
    parser.add_argument("--seed", type=int, default=0, help="of resampling, balanced draws and overlays (default: 0)")
    parser.add_argument("--bootstrap", type=_count, default=1000, metavar="N",
                        help="resamples of subjects for the 95%% intervals; 0: none (default: 1000)")
    parser.add_argument("--records", type=_count, default=0, metavar="N",
                        help="evaluate a seeded sample of N records; 0: all (default: 0)")
    parser.add_argument("--tasks", default=",".join(tasks.TASKS),
                        help=f"comma-separated, of {', '.join(tasks.TASKS)} (default: all)")
    parser.add_argument("--overlays", type=_count, default=12, metavar="N",
                        help="heatmap pictures to draw, a seeded sample (default: 12)")
    return parser


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError("must be 0 or more")
    return value


def evaluate_dataset(args: argparse.Namespace, argv: Sequence[str], benchmark: str, data_dir: Path) -> int:
    """Runs the tasks on a split of `data_dir` and writes everything below `args.out`.

    Args:
      args: of `make_parser`.
      argv: the command line, for results.json.
      benchmark: its name in results.json.
      data_dir: a data set of ours.

    Returns:
      cli.OK, or cli.PARTIAL when images had to be left out.

    Raises:
      UserError: no such checkpoint, data or split, unknown task, or another transform than the checkpoint's.
    """
    chosen = [cli.choose("task", name.strip(), tasks.TASKS) for name in args.tasks.split(",") if name.strip()]
    metadata = load_metadata(data_dir)
    source = open_records(data_dir, args.split)
    # Here, not above: it imports JAX, and a wrong flag or folder should not wait for that.
    from lgdea_jax.predictor import load_predictor

    for noisy in ("absl", "orbax", "jax"):  # Their warnings about reading a checkpoint tell a user nothing.
        logging.getLogger(noisy).setLevel(logging.ERROR)
    predict = load_predictor(args.checkpoint, args.step)
    check_transform(predict.transform, predict.image_size, metadata)
    if not getattr(predict, "reads_text", True):
        raise UserError("the checkpoint's method has no text tower: there is nothing to ask it in words")
    rows = sample_rows(len(source), args.records, args.seed)
    out = make_folder(args.out)
    with _Bar() as bar:
        data = EvalData.from_records(_Rows(source, rows), metadata, predict.image_size, progress=bar)
        encoder = Encoder(predict, data, progress=bar)
        modes = tasks.MODES if args.mode == "both" else (args.mode,)
        results = measure(encoder, chosen, modes, seed=args.seed, resamples=args.bootstrap, progress=bar)
        pictures = draw_overlays(encoder, _Rows(source, rows), out / OVERLAYS, args.overlays, args.seed, progress=bar)
    tasks.save_samples(out / SAMPLES, {result.mode: result.samples for result in results})
    head = {
        "benchmark": benchmark, "data": metadata.name, "split": args.split, "records": len(rows),
        "command": command_line(benchmark, argv), "config_hash": config_hash(predict.spec.get("config", {})),
        "checkpoint": str(args.checkpoint), "step": int(predict.spec["step"]), "transform": predict.transform,
        "seed": args.seed, "bootstrap": args.bootstrap, "subjects": len(np.unique(data.subjects)),
        "rejected": [{"record": int(rows[row]), "reason": reason} for row, reason in data.rejected]}
    write_json(out / RESULTS, {**head, "results": [as_json(result) for result in results]})
    print(table(head, results))
    print(f"wrote {out / RESULTS}, {out / SAMPLES}, {pictures} pictures in {out / OVERLAYS}")
    for row, reason in data.rejected:
        print(f"record {rows[row]} left out: {reason}", file=sys.stderr)
    return cli.PARTIAL if data.rejected else cli.OK


def measure(encoder: Encoder, chosen: Sequence[str], modes: Sequence[str], *, seed: int, resamples: int,
            progress: Any = None) -> list[ModeResult]:
    """Runs the tasks in each mode and makes the intervals; a task that is the same in all modes is done once."""
    results, shared = [], {}
    for mode in modes:
        intervals, sizes, info, kept = {}, {}, {}, []
        for task in chosen:
            if task not in shared:
                samples = tasks.evaluator(
                    task, encoder.data, mode=mode, seed=seed, **tasks.asked_as(encoder.predict)).run(encoder)
                done = samples, bootstrap.intervals(samples.metrics, samples.subjects, resamples=resamples, seed=seed)
                if task == "zero_shot":
                    shared[task] = done
            else:
                done = shared[task]
            samples, found = done
            intervals |= found
            sizes |= samples.sizes()
            info[task] = dict(samples.info)
            kept.append(samples)
            if progress is not None:
                progress(f"{task} ({mode})", 1, 1)
        results.append(ModeResult(mode, intervals, sizes, info, tuple(kept)))
    return results


def check_transform(trained_with: str, image_size: int, metadata: DatasetMetadata) -> None:
    """Refuses data that the model would see through another transform than in training.

    Raises:
      UserError: names both.
    """
    offered = f"{metadata.transform}+{MODEL_TRANSFORM}:{image_size}"
    if trained_with != offered:
        raise UserError(f"the checkpoint was trained with the transform {trained_with}, this data set would be seen "
                        f"with {offered}: build it with the version of lgdea-jax that made the training data")


def sample_rows(total: int, wanted: int, seed: int) -> np.ndarray:
    """Record rows to evaluate, ascending: all, or a seeded sample."""
    if not wanted or wanted >= total:
        return np.arange(total)
    return np.sort(np.random.default_rng(seed).choice(total, wanted, replace=False))


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


# --- Pictures ---------------------------------------------------------------------------------------------------------


def draw_overlays(encoder: Encoder, records: Sequence[Record], folder: Path, count: int, seed: int, *,
                  progress: Any = None) -> int:
    """Draws a seeded sample of grounding samples; without boxes, of positive findings asked for with their prompts.

    File names hold a running number and the finding only. Pictures of an earlier evaluation are removed.

    Returns:
      Number of pictures.
    """
    for old in folder.glob("[0-9][0-9][0-9]_*.png"):
        old.unlink()
    data = encoder.data
    samples = grounding_samples(data) or positive_samples(data)
    if not count or not samples or not encoder.grounds or len(encoder.grid) != 2:
        return 0
    chosen = sorted(np.random.default_rng(seed).permutation(len(samples))[:count].tolist())
    samples = tuple(samples[i] for i in chosen)
    folder.mkdir(parents=True, exist_ok=True)
    for number, (sample, query) in enumerate(zip(samples, sample_queries(encoder, samples))):
        record = records[int(data.record_rows[sample.image])]
        heat = sample_heatmap(encoder, sample, query)
        picture = draw(describe(sample, decode_image(record.image, record.image_format), heat))
        name = "".join(c if c.isalnum() else "_" for c in sample.finding.lower())
        picture.save(folder / f"{number:03d}_{name}.png")
        if progress is not None:
            progress("overlays", number + 1, len(samples))
    return len(samples)


def positive_samples(data: EvalData) -> tuple[GroundingSample, ...]:
    """A sample without boxes for every positive label that has prompts."""
    known = [c for c, name in enumerate(data.label_names) if name in BY_NAME]
    return tuple(GroundingSample(image, "", data.label_names[c], ())
                 for image in range(len(data.images)) for c in known if data.labels[image, c] == POSITIVE)


def describe(sample: GroundingSample, image: np.ndarray, heat: np.ndarray) -> Overlay:
    """The picture of a sample: the image as stored, its heatmap in original pixels, and what was measured."""
    if not sample.boxes:
        line = "no reference box; asked for with prompts"
    else:
        boxes = box_slices(sample.boxes, heat.shape)
        mask = grounding.union_mask(boxes, heat.shape)
        hit, contrast = grounding.pointing(heat, mask), grounding.cnr(heat, boxes)[1]
        if math.isnan(hit):
            line = "reference box outside the image"
        else:
            verdict = "hit" if hit == 1 else "miss" if hit == 0 else f"tie, {hit:.2f} inside"
            line = f"pointing: {verdict}    CNR {contrast:+.2f}    box {100 * mask.mean():.1f}% of the image"
    return Overlay(image, heat, heat.shape, sample.boxes, sample.finding, (line,))


# --- Output -----------------------------------------------------------------------------------------------------------


def make_folder(path: str) -> Path:
    """The output folder, made.

    Raises:
      UserError: it cannot be made.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"--out={path} is not a folder") from None
    except PermissionError:
        raise UserError(f"no permission to write to --out={path}") from None
    return folder


def as_json(result: ModeResult) -> dict[str, Any]:
    """One entry of `results`: undefined numbers are null."""
    def number(value: float) -> float | None:
        return float(value) if math.isfinite(value) else None

    metrics = {name: {"value": number(i.value), "low": number(i.low), "high": number(i.high), "n": result.sizes[name]}
               for name, i in result.intervals.items()}
    return {"mode": result.mode, "metrics": metrics, "info": result.info}


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes strict JSON, whole or not at all."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    temporary.replace(path)


def config_hash(config: Any) -> str:
    """12 hex digits of a config's canonical JSON."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12]


def command_line(benchmark: str, argv: Sequence[str]) -> str:
    """The command, to be run again."""
    import shlex

    return shlex.join(["python", "-m", f"lgdea_jax.eval.{benchmark}", *argv])


def table(head: dict[str, Any], results: Sequence[ModeResult]) -> str:
    """The printed tables: metrics with intervals, a column per mode; then the findings, a row each."""
    # What depends on the mode stands in columns of its own: the two never mix.
    lines = ["", f"{head['benchmark']}: {head['data']} / {head['split']}, {head['records']} records of "
             f"{head['subjects']} subjects, checkpoint {head['checkpoint']} step {head['step']}"]
    if head["bootstrap"]:
        lines.append(f"95% intervals: {head['bootstrap']} resamples of subjects, seed {head['seed']}")
    for result in results:
        lines += _notes(result)
    overall = [name for name in results[0].intervals if name.count("/") == 1 or name.startswith("retrieval/")]
    width = max((len(name) for name in overall), default=0)
    lines += ["", f"{'metric':<{width}}" + "".join(f"  {r.mode:>22}" for r in results) + f"  {'n':>6}"]
    lines += [f"{name:<{width}}" + "".join(f"  {_cell(r.intervals[name]):>22}" for r in results)
              + f"  {results[0].sizes[name]:>6}" for name in overall]
    return "\n".join(lines + _finding_lines(results[0])) + "\n"


def _finding_lines(result: ModeResult) -> list[str]:
    columns = {"zero_shot/auroc": "AUROC", "grounding/cnr": "CNR", "grounding/pointing": "pointing"}
    per_finding = [name.split("/", 2) for name in result.intervals if name.rsplit("/", 1)[0] in columns]
    columns = {name: title for name, title in columns.items() if any(name == f"{a}/{b}" for a, b, _ in per_finding)}
    findings = list(dict.fromkeys(finding for *_, finding in per_finding))
    if not findings:
        return []
    width = max(len(name) for name in (*findings, "finding"))
    lines = ["", f"{'finding':<{width}}" + "".join(f"  {f'{title} ({result.mode})':>22}  {'n':>6}"
                                                   for title in columns.values())]
    for finding in findings:
        cells = []
        for name in columns:
            interval = result.intervals.get(f"{name}/{finding}")
            size = result.sizes.get(f"{name}/{finding}", 0)
            cells.append(f"  {_cell(interval) if interval else '':>22}  {size if interval else '':>6}")
        lines.append(f"{finding:<{width}}" + "".join(cells))
    return lines


def _cell(interval: Interval) -> str:
    if not math.isfinite(interval.value):
        return "undefined"
    if not math.isfinite(interval.low):
        return f"{interval.value:.3f}"
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _notes(result: ModeResult) -> list[str]:
    """What a reader must know beside the numbers."""
    lines = []
    if "zero_shot" in result.info and result.mode == "clean":
        info = result.info["zero_shot"]
        lines += [f"  zero-shot leaves out {', '.join(info[key])} ({why})"
                  for key, why in (("one_class_only", "one class only"), ("no_prompts", "no prompts")) if info[key]]
    if "retrieval" in result.info:
        part, recall = result.info["retrieval"]["precision"], result.info["retrieval"]["recall"]
        own = "the own one among them" if part["own_report_is_a_candidate"] else "the own one left out"
        chance = "" if part["chance"] is None else f", chance {part['chance']:.3f}"
        few = f"; too few of {', '.join(part['classes_left_out'])}" if part["classes_left_out"] else ""
        if part["candidates"] > 0:
            lines.append(f"  precision@K ({result.mode}): {part['candidates']} reports of single-finding studies, "
                         f"{own}, {part['per_class']} in each of {len(part['classes'])} classes{chance}{few}")
        else:
            lines.append(f"  precision@K ({result.mode}): undefined without two classes of single-finding studies{few}")
        lines.append(f"  recall@K ({result.mode}): {recall['reports']} reports ({recall['distinct_reports']} "
                     f"counted as distinct), {recall['images']} images; a hit is {recall['hit']}")
    if "grounding" in result.info and result.info["grounding"]["samples"]:
        info = result.info["grounding"]
        lines.append(f"  grounding ({result.mode}): {info['boxes']} boxes of {info['images']} images, grid "
                     f"{' x '.join(map(str, info['grid']))}, pointing by chance {info['pointing_by_chance']:.3f}")
    return lines
