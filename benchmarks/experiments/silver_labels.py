"""The silver-label experiment (arXiv 2509.13175, 2603.06467) on the phantom CT world: what supervision adds to CLIP.

    python -m benchmarks.experiments.silver_labels --out=runs/silver_labels
    python -m benchmarks.experiments.silver_labels --out=runs/silver_labels --plan          # what that would run
    python -m benchmarks.experiments.silver_labels --out=runs/silver_labels --only-table    # from the finished runs

Arms: CLIP from scratch; CLIP from an image tower that was pretrained on labels, which are the reference (what was
drawn), silver (read from the reports by the extractor) or weak (bare keywords, which take every denial for a finding);
`silver_both`, CLIP from both towers, each pretrained on silver labels; `silver_shared`, where alignment goes on
learning the labels through a classifier that both towers share; and `lgdea_ct`, evidence instead of CLIP after the
pretraining of `silver`. Every arm has the same number of steps but `scratch`, which has no pretraining: `scratch_long`
trains as many of CLIP alone. All arms are evaluated against the reference labels of the test world, whose reports have
wordings that training never saw.

A finished run is never done again: its row is in OUT/runs.jsonl with its metrics and their values under 400 resamples
of the subjects; rows of benchmarks/experiments/silver_labels.jsonl (committed) count as finished unless --fresh is
given. The same command after a kill goes on. OUT/table.md is made from the rows. Runs of an earlier build, whose
rules made other silver labels, are committed too; they have tables of their own.
"""

from __future__ import annotations

import dataclasses
import math
import shlex
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.experiments.results import read_results, runs_of
from benchmarks.experiments.runs import Job, Journal, exits_on_sigterm, only_one, run_jobs, usable_cores
from benchmarks.experiments.silver_arms import ARMS, BUILD, STEPS, Run
from benchmarks.experiments.tables import p_text
from benchmarks.experiments.worlds import WORLDS, add_flag, check_flag
from lgdea_jax import cli
from lgdea_jax.data import dataset, source
from lgdea_jax.errors import UserError, choose
from lgdea_jax.findings import label_sets
from lgdea_jax.metrics import classification
from lgdea_jax.metrics.hierarchical import compare, holm, mean_interval
from lgdea_jax.records import NEGATIVE, POSITIVE
from lgdea_jax.runtime.log import read_rows
from lgdea_jax.runtime.progress import clock_text

COMMITTED = Path(__file__).with_suffix(".jsonl")
METRICS: Mapping[str, str] = {"zero_shot/auroc": "zero-shot AUROC", "retrieval/jaccard@10": "jaccard@10",
                              "retrieval/recall@10/text_to_image": "report to volume, recall@10"}
MEANS, DIFFERENCES, EARLIER = "Means over seeds", "Differences in zero-shot AUROC", "Earlier build"
PRIMARY = "zero_shot/auroc"
EARLIER_RULES = "rules@2"  # Of the first build's silver labels.
MARGIN = 0.03  # Silver and reference are equivalent if the interval of their difference lies within this.
# Build -> arm -> seeds. Of the first build, only what is committed. Equivalence depends on the interval's width: with
# five seeds and an earlier, more conservative test, silver - reference was -0.013 [-0.034, +0.006], and the arms of
# that comparison were given five more. In each build every arm's first seed runs first, in this order.
SEEDS: Mapping[int, Mapping[str, int]] = {
    1: {"scratch": 10, "scratch_long": 5, "reference": 10, "silver": 10, "weak": 5},
    2: dict.fromkeys(("silver_shared", "silver_both", "lgdea_ct", "scratch_long", "silver", "reference", "scratch",
                      "weak"), 5),
}
# The comparisons, all specified before the runs of their build. Holm's correction is within each group: the question of
# the second build, and everything else. An equivalence is decided by its interval.
QUESTION = (("silver_both", "scratch_long"), ("silver_shared", "scratch_long"), ("lgdea_ct", "scratch_long"))
FURTHER = (("silver", "scratch_long"), ("silver_both", "silver"), ("silver_shared", "silver_both"),
           ("lgdea_ct", "silver"), ("silver", "scratch"), ("silver", "weak"), ("weak", "scratch"))
EQUIVALENCE = (("silver", "reference"),)
GUESS_SECONDS = 120.0  # Of an arm and a seed on one core.


def make_job(run: Run, *, key: str, data: Path, out: Path) -> Job:
    """Trains and evaluates `run` in OUT/ARM_SEED_KEY."""
    folder = out / f"{run.arm}_{run.seed}_{key[:6]}"
    commands = {}
    for name, stage in run.stages().items():
        before = ",".join(str(folder / other) for other in stage.start)
        start = [f"--config.init_from={before}"] if before else []
        commands[name] = ["lgdea_jax.train", f"--config={stage.config}", f"--workdir={folder / name}",
                          f"--config.data.dir={data}", *start,
                          *(f"--config.{setting}" for setting in run.settings(name))]
    # No intervals: the experiment has its own, over seeds too.
    commands["evaluate"] = ["lgdea_jax.eval.ct_rate", f"--checkpoint={folder / list(run.stages())[-1]}",
                            f"--data_dir={data}", f"--split={run.split}", f"--out={folder / 'eval'}", "--mode=clean",
                            "--overlays=0", "--bootstrap=0"]
    resumed = any((folder / name / "checkpoints").exists() for name in run.stages())

    def finish(seconds: dict[str, float]) -> dict[str, Any]:
        return {"key": key, **dataclasses.asdict(run), "seconds": seconds, "resumed": resumed,
                **read_results(folder / "eval", METRICS)}

    return Job(run.name, folder, commands, finish)


def label_quality(folder: Path, split: str = "train") -> dict[str, dict[str, float]]:
    """{label set: {"accuracy", "macro_f1", "unknown"}} of the data set's silver and weak labels against the reference.

    Accuracy and F1 are means over the findings, where a label is known; `unknown` is the share that is not.
    """
    names = dataset.load_metadata(folder).label_names
    records = source.open_records(folder, split)
    table = np.stack([records[row].labels for row in range(len(records))])
    reference = label_sets.label_columns(names)
    out = {}
    for kind in ("silver", "weak"):
        columns = label_sets.label_columns(names, kind)
        accuracy, f1, known = [], [], []
        for name, column in columns.items():
            truth, label = table[:, reference[name]], table[:, column]
            sure = np.isin(label, (POSITIVE, NEGATIVE)) & np.isin(truth, (POSITIVE, NEGATIVE))
            matrix = classification.confusion(truth[sure] == POSITIVE, label[sure] == POSITIVE, 2)
            accuracy.append(float(classification.accuracy(matrix)))
            f1.append(float(classification.binary_f1(matrix)))
            known.append(float(sure.mean()))
        out[kind] = {"accuracy": float(np.nanmean(accuracy)), "macro_f1": float(np.nanmean(f1)),
                     "unknown": 1 - float(np.mean(known))}
    return out


def tables(rows: Sequence[Mapping[str, Any]], *, expected: Mapping[str, int]) -> dict[str, str]:
    """{title: table as Markdown} of the runs of one build; `expected` is seeds per arm, in the tables' order.

    Raises:
      UserError: runs that were evaluated on different subjects.
    """
    if len({row["subjects"] for row in rows}) > 1:
        raise UserError("the finished runs were evaluated on different subjects: use another --out for each data set")
    arms = {arm: [row for row in rows if row["arm"] == arm] for arm in expected}
    lines = ["| arm | seeds | " + " | ".join(METRICS.values()) + " |", "|---|---|" + "---|" * len(METRICS)]
    for arm in (arm for arm in ARMS if arms.get(arm)):
        cells = []
        for name in METRICS:
            found = runs_of(arms[arm], name)
            spread = f" ± {found.values.std(ddof=1):.3f}" if len(found.seeds) > 1 else ""
            ends = mean_interval(found)
            interval = f" [{ends.low:.3f}, {ends.high:.3f}]" if math.isfinite(ends.low) else ""
            cells.append(f"{found.values.mean():.3f}{spread}{interval}" if len(found.seeds) else "undefined")
        count = f"{len(arms[arm])}" if len(arms[arm]) == expected[arm] else f"{len(arms[arm])} of {expected[arm]}"
        lines.append(f"| `{arm}` | {count} | " + " | ".join(cells) + " |")
    return {MEANS: "\n".join(lines), DIFFERENCES: "\n".join(
        [f"| {METRICS[PRIMARY]} | seeds | difference [95%] | p | result |", "|---|---|---|---|---|",
         *(line for group in (QUESTION, FURTHER, EQUIVALENCE) for line in _differences(arms, group))])}


def _differences(arms: Mapping[str, Sequence[Mapping[str, Any]]], group: Sequence[tuple[str, str]]) -> list[str]:
    known = {pair: compare(*(runs_of(arms[arm], PRIMARY) for arm in pair), pair_seeds=True)
             for pair in group if all(arms.get(arm) for arm in pair)}
    adjusted = holm({pair: found.p for pair, found in known.items()})
    lines = []
    for pair, found in known.items():
        p = adjusted[pair]
        if math.isnan(p):
            verdict = "needs two seeds"
        elif group is EQUIVALENCE:
            within = found.low >= -MARGIN and found.high <= MARGIN
            verdict, p = f"{'within' if within else 'not within'} ± {MARGIN}", math.nan
        else:
            verdict = "no difference shown" if p >= 0.05 else "higher" if found.difference > 0 else "lower"
        interval = f" [{found.low:+.3f}, {found.high:+.3f}]" if math.isfinite(found.low) else ""
        lines.append(f"| `{pair[0]}` - `{pair[1]}` | {found.seeds[0]} | {found.difference:+.3f}{interval} | "
                     f"{p_text(p)} | {verdict} |")
    return lines


def report(rows: Sequence[Mapping[str, Any]], earlier: Sequence[Mapping[str, Any]],
           quality: Mapping[str, Mapping[str, float]] | None = None, *, expected: Mapping[str, int]) -> str:
    """The page as Markdown: tables of this build's rows, then of the earlier build's where there are any."""
    parts = [f"### {title}\n\n{text}" for title, text in tables(rows, expected=expected).items()]
    if earlier:
        parts += [f"### {EARLIER}: {title[0].lower()}{title[1:]}\n\n{text}"
                  for title, text in tables(earlier, expected=SEEDS[1]).items()]
    parts += [f"{kind.capitalize()} labels of the training split against the reference: accuracy "
              f"{values['accuracy']:.3f}, macro F1 {values['macro_f1']:.3f} where known; {values['unknown']:.1%} "
              "are uncertain or missing." for kind, values in (quality or {}).items()]
    return "\n\n".join([*parts, "Mean ± standard deviation over seeds, with 95% intervals over seeds and test subjects "
                         "(two-way random effects, t-distributed over seeds); arms are compared seed by seed on the "
                         "same subjects; p is two-sided and adjusted (Holm), intervals are not."]) + "\n"


def expected_seconds(run: Run, rows: Sequence[Mapping[str, Any]]) -> float:
    """Of a run on one core: the median of the finished ones of its arm, or of all, or a guess."""
    total = [(row["arm"], sum(row["seconds"].values())) for row in rows if not row["resumed"]]
    for like in ([seconds for arm, seconds in total if arm == run.arm], [seconds for _, seconds in total]):
        if like:
            return statistics.median(like)
    return GUESS_SECONDS


def main(argv: list[str]) -> int:
    """The command line; returns the exit status: 3 when runs failed, which does not stop the others."""
    arguments = make_parser().parse_args(argv)
    # Two towers share the supervised steps.
    for name, least in (("seeds", 1), ("jobs", 1), ("supervised_steps", 2), ("clip_steps", 1)):
        if getattr(arguments, name) is not None and getattr(arguments, name) < least:
            raise UserError(f"--{name}={getattr(arguments, name)}: at least {least}")
    check_flag(arguments)
    arms = [choose("arm", arm.strip(), ARMS) for arm in arguments.arms.split(",")]
    seeds = {arm: arguments.seeds or count for arm, count in SEEDS[BUILD].items()}
    steps = (arguments.supervised_steps, arguments.clip_steps)
    # Every arm's first seed, then every arm's second: an interrupted experiment is a small complete one.
    runs = [Run(arm, seed, steps, arguments.split) for seed in range(max(seeds.values()))
            for arm in arms if seed < seeds[arm]]
    world = WORLDS["ct"]
    data = world.digest(arguments.data, arguments.extractor)
    keys = {run: run.key(data) for run in runs}
    journal = Journal(arguments.out / "runs.jsonl")
    finished = {row["key"]: row for row in [*([] if arguments.fresh else read_rows(COMMITTED)), *journal.rows()]}
    todo = [run for run in runs if keys[run] not in finished]
    if arguments.plan:
        seconds = sum(expected_seconds(run, list(finished.values())) for run in todo) / max(1, arguments.jobs)
        print(f"{len(runs)} runs, {len(runs) - len(todo)} finished, {len(todo)} to do, {arguments.jobs} at a time: "
              f"about {clock_text(seconds)}\n" + "\n".join(f"  {run.name}" for run in todo))
        return cli.OK
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise UserError(f"--out={arguments.out}: {error.strerror}") from None
    failures: list[str] = []
    if todo and not arguments.only_table:
        with only_one(arguments.out), exits_on_sigterm():
            world.make(arguments.data)

            def done(job: Job, row: dict[str, Any]) -> None:
                journal.append(row)
                finished[row["key"]] = row
                left = sum(keys[run] not in finished for run in todo)
                shown = "  ".join(f"{METRICS[name]} {math.nan if value is None else value:.3f}"
                                  for name, value in row["metrics"].items())
                print(f"{job.name}: {shown}  {sum(row['seconds'].values()):.0f} s; {left} left", file=sys.stderr,
                      flush=True)

            jobs = [make_job(run, key=keys[run], data=arguments.data, out=arguments.out) for run in todo]
            failures = run_jobs(jobs, side_by_side=arguments.jobs, done=done)
    before = world.digest(arguments.data, EARLIER_RULES)
    earlier = [Run(arm, seed, steps, arguments.split, build=1).key(before)
               for arm, count in SEEDS[1].items() for seed in range(count)]
    text = report(*([finished[key] for key in some if key in finished] for some in (keys.values(), earlier)),
                  label_quality(arguments.data) if arguments.data.exists() else None, expected=seeds)
    command = "python -m benchmarks.experiments.silver_labels " + shlex.join(argv)
    (arguments.out / "table.md").write_text(f"{text}\nCommand: `{command}`\n", encoding="utf-8")
    print(text)
    print(f"wrote {arguments.out / 'table.md'}")
    for line in failures:
        print(f"failed: {line}", file=sys.stderr)
    return cli.PARTIAL if failures else cli.OK


def make_parser() -> cli.Parser:
    """The flags."""
    parser = cli.Parser(prog="python -m benchmarks.experiments.silver_labels", description=__doc__)
    parser.add_argument("--out", required=True, type=Path, help="folder for the runs, runs.jsonl and the table")
    parser.add_argument("--arms", default=",".join(SEEDS[BUILD]),
                        help=f"by commas, of {', '.join(ARMS)}, in the order of running (default: all)")
    parser.add_argument("--seeds", type=int, help=f"seeds 0 .. N-1 of each arm (default: {max(SEEDS[BUILD].values())})")
    for (stage, steps), what in zip(STEPS.items(), ("the supervised pretraining", "what follows it"), strict=True):
        parser.add_argument(f"--{stage}_steps", type=int, default=steps, help=f"steps of {what} (default: {steps})")
    parser.add_argument("--split", choices=("validation", "test"), default="test", help="what is evaluated on")
    parser.add_argument("--data", type=Path, default=Path("data/phantom_ct"),
                        help="the phantom CT data set, made if missing")
    add_flag(parser)
    parser.add_argument("--jobs", type=int, default=len(usable_cores()), help="runs side by side, a core each")
    parser.add_argument("--fresh", action="store_true", help="do committed runs again")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--plan", action="store_true", help="only print what would run and about how long")
    what.add_argument("--only-table", action="store_true", help="run nothing: the table of finished runs")
    return parser


if __name__ == "__main__":
    cli.run(main)
