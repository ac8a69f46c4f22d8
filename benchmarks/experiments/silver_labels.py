"""The silver-label experiment (arXiv 2509.13175) on the phantom CT world: CLIP after pretraining on labels.

    python -m benchmarks.experiments.silver_labels --out=runs/silver_labels
    python -m benchmarks.experiments.silver_labels --out=runs/silver_labels --plan          # what that would run
    python -m benchmarks.experiments.silver_labels --out=runs/silver_labels --only-table    # from the finished runs

Arms: CLIP from scratch; and CLIP from an image tower that was pretrained on labels, which are the reference (what was
drawn), silver (read from the reports by the extractor) or weak (bare keywords, which take every denial for a finding).
CLIP has the same steps in every arm: the pretraining comes on top, as in the paper, and `scratch_long`, which trains as
many steps of CLIP alone, shows what steps alone would give. All arms are evaluated against the reference labels of
the test world, whose reports have wordings that training never saw.

A finished run is never done again: its row is in OUT/runs.jsonl with its metrics and their values under 400 resamples
of the subjects; rows of benchmarks/experiments/silver_labels.jsonl (committed) count as finished unless --fresh is
given. The same command after a kill goes on. OUT/table.md is made from the rows.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.experiments.keys import decisive, digest
from benchmarks.experiments.results import read_results, runs_of
from benchmarks.experiments.runs import Job, Journal, exits_on_sigterm, only_one, run_jobs, usable_cores
from benchmarks.experiments.tables import p_text
from lgdea_jax import cli
from lgdea_jax.data import dataset, source
from lgdea_jax.errors import UserError, choose
from lgdea_jax.findings import label_sets
from lgdea_jax.metrics import classification
from lgdea_jax.metrics.hierarchical import compare, mean_interval
from lgdea_jax.records import NEGATIVE, POSITIVE
from lgdea_jax.runtime.log import read_rows
from lgdea_jax.runtime.progress import clock_text

COMMITTED = Path(__file__).with_suffix(".jsonl")
SUPERVISED, CLIP, DATA_CONFIG = "configs/supervised_ct.py:phantom", "configs/clip_ct.py:phantom", \
    "configs/data/phantom_ct.py"
# Arm -> the labels of its pretraining, "" without any.
ARMS: Mapping[str, str] = {"scratch": "", "scratch_long": "", "reference": "reference", "silver": "silver",
                           "weak": "weak"}
METRICS: Mapping[str, str] = {"zero_shot/auroc": "zero-shot AUROC", "retrieval/jaccard@10": "jaccard@10",
                              "retrieval/recall@10/text_to_image": "report to volume, recall@10"}
PRIMARY = "zero_shot/auroc"
MARGIN = 0.03  # Silver and reference are equivalent if the interval of their difference lies within this.
# Equivalence depends on the interval's width: with five seeds and an earlier, more conservative test, silver -
# reference was -0.013 [-0.034, +0.006], and the arms of that comparison were given five more.
SEEDS: Mapping[str, int] = {"scratch": 10, "scratch_long": 5, "reference": 10, "silver": 10, "weak": 5}
# Chosen on the validation world, with one seed (zero-shot AUROC of scratch and silver: 0.564 and 0.701).
STEPS = {"supervised": 600, "clip": 300}
NOT_IN_KEY = ("alarm", "compile_cache", "dry_run", "log", "data.dir", "data.make_from", "init_from", "checkpoint",
              # Of unpaired items, which this experiment has none of.
              "memory", "strong", "limited", "batch.images", "batch.reports", "batch.images_per_pair",
              "batch.reports_per_pair",
              "data.near_duplicates")  # Of which phantoms have none.
GUESS_SECONDS = 120.0  # Of an arm and a seed on one core.


@dataclasses.dataclass(frozen=True)
class Run:
    """One arm with one seed: pretraining if it has any, CLIP, evaluation."""

    arm: str
    seed: int
    steps: tuple[int, int]  # Of the supervised pretraining and of CLIP.
    split: str = "test"

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.arm} seed {self.seed}"

    def settings(self, stage: str) -> list[str]:
        """KEY=VALUE of a stage's config, beside the folders."""
        supervised, clip = self.steps
        steps = supervised if stage == "supervised" else clip + (supervised if self.arm == "scratch_long" else 0)
        labels = [f"data.labels={ARMS[self.arm]}"] if stage == "supervised" else []
        # A checkpoint at the end is enough: a run that is stopped saves first.
        return [f"seed={self.seed}", f"total_steps={steps}", f"checkpoint.every={steps}", "eval.every=0",
                "eval.records=1", "log.tensorboard=false", *labels]

    def stages(self) -> dict[str, str]:
        """{stage: its config}, in order."""
        return {"supervised": SUPERVISED, "clip": CLIP} if ARMS[self.arm] else {"clip": CLIP}

    def config(self) -> dict[str, Any]:
        """Everything in the configs that can change its numbers."""
        return {stage: resolved(path, self.settings(stage)) for stage, path in self.stages().items()}

    def key(self, data: str) -> str:
        """Names the run by everything that decides its numbers, except the code; `data` is `data_digest`'s."""
        return digest([self.arm, self.config(), self.split, data])


def resolved(path: str, settings: Sequence[str]) -> dict[str, Any]:
    """A config with its settings, without what cannot change a run's numbers."""
    config = cli.read_config(path)
    for setting in settings:
        key, _, value = setting.partition("=")
        cli.set_override(config, key, value)
    return decisive(config, NOT_IN_KEY)


def data_digest(folder: Path) -> str:
    """Of what decides the content of the phantom CT data set in `folder`, or of the one that would be made there.

    Raises:
      UserError: damaged, or not a phantom CT data set.
    """
    if folder.exists():
        config = dataset.load_metadata(folder).config
    else:
        config = json.loads(cli.read_config(DATA_CONFIG).to_json_best_effort())
    if "phantom_ct" not in config:
        raise UserError(f"--data={folder} is not a phantom CT data set")
    parts = ("phantom_ct", "extractor", "volume", "derived_labels", "tokenizer")
    return digest({name: config[name] for name in parts})


def make_job(run: Run, *, key: str, data: Path, out: Path) -> Job:
    """Trains and evaluates `run` in OUT/ARM_SEED_KEY."""
    folder = out / f"{run.arm}_{run.seed}_{key[:6]}"
    commands = {}
    for stage, path in run.stages().items():
        start = [f"--config.init_from={folder / 'supervised'}"] if stage == "clip" and ARMS[run.arm] else []
        commands[stage] = ["lgdea_jax.train", f"--config={path}", f"--workdir={folder / stage}",
                           f"--config.data.dir={data}", *start,
                           *(f"--config.{setting}" for setting in run.settings(stage))]
    # No intervals: the experiment has its own, over seeds too.
    commands["evaluate"] = ["lgdea_jax.eval.ct_rate", f"--checkpoint={folder / 'clip'}", f"--data_dir={data}",
                            f"--split={run.split}", f"--out={folder / 'eval'}", "--mode=clean", "--overlays=0",
                            "--bootstrap=0"]
    resumed = any((folder / stage / "checkpoints").exists() for stage in run.stages())

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


def table(rows: Sequence[Mapping[str, Any]], quality: Mapping[str, Mapping[str, float]] | None = None, *,
          expected: Mapping[str, int] = SEEDS) -> str:
    """The tables as Markdown: arms with means and spreads, and the comparisons; `expected` is seeds per arm.

    Raises:
      UserError: runs that were evaluated on different subjects.
    """
    if len({row["subjects"] for row in rows}) > 1:
        raise UserError("the finished runs were evaluated on different subjects: use another --out for each data set")
    arms = {arm: [row for row in rows if row["arm"] == arm] for arm in ARMS}
    lines = ["| arm | seeds | " + " | ".join(METRICS.values()) + " |", "|---|---|" + "---|" * len(METRICS)]
    for arm, mine in arms.items():
        if not mine:
            continue
        cells = []
        for name in METRICS:
            found = runs_of(mine, name)
            spread = f" ± {found.values.std(ddof=1):.3f}" if len(found.seeds) > 1 else ""
            ends = mean_interval(found)
            interval = f" [{ends.low:.3f}, {ends.high:.3f}]" if math.isfinite(ends.low) else ""
            cells.append(f"{found.values.mean():.3f}{spread}{interval}" if len(found.seeds) else "undefined")
        count = f"{len(mine)}" if len(mine) == expected[arm] else f"{len(mine)} of {expected[arm]}"
        lines.append(f"| `{arm}` | {count} | " + " | ".join(cells) + " |")
    lines += ["", f"| {METRICS[PRIMARY]} | seeds | difference [95%] | p | result |", "|---|---|---|---|---|"]
    for one, other, hypothesis in (("silver", "scratch", "lift"), ("silver", "scratch_long", "lift"),
                                 ("silver", "reference", "equivalence"), ("silver", "weak", "lift"),
                                 ("weak", "scratch", "lift")):
        if not arms[one] or not arms[other]:
            continue
        found = compare(runs_of(arms[one], PRIMARY), runs_of(arms[other], PRIMARY), pair_seeds=True)
        if hypothesis == "equivalence":
            within = found.low >= -MARGIN and found.high <= MARGIN
            verdict = f"{'within' if within else 'not within'} ± {MARGIN}"
        else:
            verdict = "higher" if found.p < 0.05 and found.difference > 0 else \
                "lower" if found.p < 0.05 else "no difference shown"
        if math.isnan(found.p):
            verdict = "needs two seeds"
        lines.append(f"| `{one}` - `{other}` | {found.seeds[0]} | {found.difference:+.3f} [{found.low:+.3f}, "
                     f"{found.high:+.3f}] | {p_text(found.p)} | {verdict} |")
    for kind, values in (quality or {}).items():
        lines += ["", f"{kind.capitalize()} labels of the training split against the reference: accuracy "
                  f"{values['accuracy']:.3f}, macro F1 {values['macro_f1']:.3f} where known; {values['unknown']:.1%} "
                  "are uncertain or missing."]
    lines += ["", "Mean ± standard deviation over seeds, with 95% intervals over seeds and test subjects (two-way "
              "random effects, t-distributed over seeds); arms are compared seed by seed on the same subjects; p is "
              "two-sided."]
    return "\n".join(lines) + "\n"


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
    for name in ("seeds", "jobs", "supervised_steps", "clip_steps"):
        if getattr(arguments, name) is not None and getattr(arguments, name) < 1:
            raise UserError(f"--{name}={getattr(arguments, name)}: at least 1")
    arms = [choose("arm", arm.strip(), ARMS) for arm in arguments.arms.split(",")]
    # Every arm's first seed, then every arm's second: an interrupted experiment is a small complete one.
    seeds = {arm: arguments.seeds or SEEDS[arm] for arm in ARMS}
    runs = [Run(arm, seed, (arguments.supervised_steps, arguments.clip_steps), arguments.split)
            for seed in range(max(seeds.values())) for arm in arms if seed < seeds[arm]]
    data = data_digest(arguments.data)
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
        from data_prep import build

        with only_one(arguments.out), exits_on_sigterm():
            if not arguments.data.exists():
                build.build(cli.read_config(DATA_CONFIG), arguments.data)

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
    rows = [finished[key] for key in keys.values() if key in finished]
    text = table(rows, label_quality(arguments.data) if arguments.data.exists() else None, expected=seeds)
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
    parser.add_argument("--arms", default=",".join(ARMS), help=f"by commas, of {', '.join(ARMS)} (default: all)")
    parser.add_argument("--seeds", type=int, help="seeds 0 .. N-1 of each arm (default: "
                        f"{', '.join(f'{arm} {count}' for arm, count in SEEDS.items())})")
    for stage, steps in STEPS.items():
        parser.add_argument(f"--{stage}_steps", type=int, default=steps, help=f"training steps (default: {steps})")
    parser.add_argument("--split", choices=("validation", "test"), default="test", help="what is evaluated on")
    parser.add_argument("--data", type=Path, default=Path("data/phantom_ct"),
                        help="the phantom CT data set, made if missing")
    parser.add_argument("--jobs", type=int, default=len(usable_cores()), help="runs side by side, a core each")
    parser.add_argument("--fresh", action="store_true", help="do committed runs again")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--plan", action="store_true", help="only print what would run and about how long")
    what.add_argument("--only-table", action="store_true", help="run nothing: the table of finished runs")
    return parser


if __name__ == "__main__":
    cli.run(main)
