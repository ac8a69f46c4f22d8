"""The limited-pair study on the phantom world: methods x shares of pairs x seeds; one table, its tests, its plots.

    python -m benchmarks.experiments.limited_pairs --out=runs/limited_pairs                    # the docs' tables
    python -m benchmarks.experiments.limited_pairs --out=runs/limited_pairs --plan   # what that would run, and how long
    python -m benchmarks.experiments.limited_pairs --out=runs/limited_pairs --only-table       # from the finished runs
    python -m benchmarks.experiments.limited_pairs --out=runs/try --split=validation \\
        --cells=lgdea@0.01,oracle@0.01 --seeds=4
        --first_seed=8 --set=memory.own=0.3

Every run trains with `configs/phantom.py`; at a share of pairs all methods have the same steps, pairs a batch and
augmentation, and are evaluated on a split that training never saw. Choices are made on the validation
world, the table is of the test world. Lesser shares and earlier seeds come first, so that a study cut short is a small
one rather than half of one.

A finished run is never done again: its row is in OUT/runs.jsonl with its metrics, their values under 400 resamples of
the subjects (which make every comparison paired, see study_statistics.py), and its seconds; rows of
benchmarks/experiments/limited_pairs.jsonl (committed) count as finished unless --fresh is given. The same command after
a kill goes on. OUT/table.md, OUT/index.html (one file, nothing loaded from elsewhere) and OUT/*.png are made from the
rows.

With all pairs nothing is unpaired: lgdea, mean_teacher and oracle would be lgdea_pairs, and are left out there.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import math
import shlex
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.experiments import report as study_report
from benchmarks.experiments.report import METRICS, Question, StudyCell, share_name
from benchmarks.experiments.runs import Job, Journal, exits_on_sigterm, only_one, run_jobs, usable_cores
from benchmarks.experiments.statistics import read_results
from lgdea_jax import cli
from lgdea_jax.errors import UserError, choose, require
from lgdea_jax.runtime.log import read_rows
from lgdea_jax.runtime.progress import clock_text

COMMITTED = Path(__file__).with_suffix(".jsonl")
CONFIG, DATA_CONFIG = "configs/phantom.py", "configs/data/phantom.py"


# With few pairs an image is seen hundreds of times: more augmentation than the quick start's. With all of them it is
# seen some thirty times: the quick start's is better, and so are larger batches (see limited_pairs.md).
STRONG = ("augment.crop=(0.7,1.0)", "augment.aspect=1.2", "augment.rotate=8", "augment.gamma=0.3",
          "augment.contrast=0.3", "augment.brightness=0.1", "augment.noise=6")


@dataclasses.dataclass(frozen=True)
class Share:
    """How often, how long and with what settings is trained at a share of pairs, by every method."""

    seeds: int
    steps: int
    settings: tuple[str, ...] = STRONG


# More seeds where results scatter more; more steps where there is more to learn from.
SHARES = {0.01: Share(8, 600), 0.05: Share(5, 800), 0.1: Share(3, 1000), 1.0: Share(3, 2000, ("batch.pairs=64",))}

# What each method reads beside the pairs, in the order of tables.
READS: dict[str, tuple[str, ...]] = {
    "clip": (), "clip_evidence": (), "clip_evidence_soft": (), "local": (),
    "lgdea_pairs": ("reports",), "lgdea_pairs_place": ("reports",), "mean_teacher": ("images", "reports"),
    "lgdea": ("images", "reports"), "lgdea_place": ("images", "reports"), "oracle": ("images", "reports"),
}


@dataclasses.dataclass(frozen=True)
class Arm:
    """A method with settings of its own under a name of the study; asked about up to a share of pairs."""

    method: str
    settings: tuple[str, ...] = ()
    up_to: float = 1.0


ARMS = {
    "lgdea_pairs_place": Arm("lgdea_pairs", ("methods.lgdea_pairs.weights.place=0.5",), up_to=0.05),
    "lgdea_place": Arm("lgdea", ("methods.lgdea.weights.place=0.5",), up_to=0.01),
}


def arm_of(name: str) -> Arm:
    """What a name of the study stands for; a method stands for itself."""
    return ARMS.get(name, Arm(name))


UNPAIRED_ROWS = 32  # Of each stream in a batch; as many as configs/phantom.py has pairs.
# The hidden reports are the oracle's targets; the others only log how far their targets are from them.
SEES_TRUTH = ("lgdea", "mean_teacher", "oracle")

COMMON = ("log.tensorboard=false", "eval.every=0")
# Of the config, what cannot change a run's numbers; so that a new folder does not make finished runs unfinished.
NOT_IN_KEY = ("alarm", "compile_cache", "dry_run", "log", "data.dir", "loss_chunk", "batch.micro", "model.remat_keep",
              # Of volumes, which this study has none of.
              "volume", "image.modality", "data.labels", "model.image.resnet3d")
# Terms of losses that rows of earlier builds knew nothing of: off, they change no number and no key.
LATER_TERMS = ("place",)
# Keys of a method that came later and follow from its name.
LATER_KEYS = ("objective", "targets")
# Set by the grid: a row names them.
OWN_KEYS = ("method", "seed", "total_steps", "data.pairs", "data.dir", "checkpoint.every")

# Before anything is finished: what a step and the start, compilation and evaluation take on one core of a laptop.
GUESS_STEP_SECONDS, GUESS_START_SECONDS = 0.12, 40.0

QUESTIONS = (
    Question("LGDEA against plain CLIP", "lgdea@0.01", "clip@0.01"),
    Question("Pairs-only LGDEA against the strongest CLIP baseline", "lgdea_pairs@0.01", "clip_evidence_soft@0.01"),
    Question("LGDEA at 5% pairs against plain CLIP at 100%", "lgdea@0.05", "clip@1.0",
             margins={"zero_shot/auroc": 0.02, "grounding/cnr": 0.05}),
    Question("What the unpaired images give", "lgdea@0.01", "lgdea_pairs@0.01"),
    Question("Relations against a mean teacher", "lgdea@0.01", "mean_teacher@0.01"),
)
# Asked when the results were there: they explore.
LATER = tuple(Question(f"Asked later: {title}", *pair.split(" - ")) for title, *pairs in (
    ("pairs-only LGDEA against the strongest CLIP baseline", "lgdea_pairs@0.05 - clip_evidence_soft@0.05",
     "lgdea_pairs@0.1 - clip_evidence_soft@0.1", "lgdea_pairs@1.0 - clip_evidence_soft@1.0"),
    ("evidence against whole reports", "lgdea_pairs@1.0 - clip@1.0", "clip_evidence_soft@1.0 - clip@1.0"),
    ("LGDEA at 10% pairs against plain CLIP at 100%", "lgdea@0.1 - clip@1.0"),
    ("what the unpaired images give", "lgdea@0.05 - lgdea_pairs@0.05"),
    ("what places in words give", "lgdea_pairs_place@0.01 - lgdea_pairs@0.01",
     "lgdea_pairs_place@0.05 - lgdea_pairs@0.05", "lgdea_place@0.01 - lgdea@0.01"),
    ("what the unpaired images give beside places in words", "lgdea_place@0.01 - lgdea_pairs_place@0.01",
     "lgdea_place@0.01 - lgdea_pairs@0.01", "lgdea_place@0.01 - mean_teacher@0.01"),
    ("pairs-only LGDEA with places at 5% against plain CLIP at 100%", "lgdea_pairs_place@0.05 - clip@1.0"),
    ("what better targets could give", "oracle@0.01 - lgdea_pairs@0.01", "oracle@0.05 - lgdea_pairs@0.05",
     "oracle@0.1 - lgdea_pairs@0.1"),
) for pair in pairs)


@dataclasses.dataclass(frozen=True)
class Run:
    """One training and its evaluation; `extra` holds KEY=VALUE of --set."""

    method: str
    pairs: float
    seed: int
    split: str
    steps: int
    extra: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """For messages and folders."""
        return f"{self.method} {share_name(self.pairs)} seed {self.seed}"

    @property
    def trained(self) -> str:
        """The method that training knows."""
        return arm_of(self.method).method

    def reads(self) -> tuple[str, ...]:
        """The unpaired streams of its batches; none when everything is paired."""
        return READS[self.method] if self.pairs < 1 else ()

    def settings(self) -> list[str]:
        """KEY=VALUE of the config beside the data set's folder; later ones win."""
        unpaired = [f"batch.{stream}={UNPAIRED_ROWS}" for stream in self.reads()]
        truth = ["memory.truth=True"] if self.trained in SEES_TRUTH and self.pairs < 1 else []
        # A checkpoint at the end is enough: a run that is stopped saves first.
        own = arm_of(self.method).settings
        return [f"method={self.trained}", f"data.pairs={self.pairs}", f"seed={self.seed}", f"total_steps={self.steps}",
                f"checkpoint.every={self.steps}", *COMMON, *SHARES[self.pairs].settings, *unpaired, *truth, *own,
                *self.extra]

    def config(self) -> dict[str, Any]:
        """Everything in the config that can change its numbers: the options of other methods are left out.

        Raises:
          UserError: an unknown key or a bad value in `extra`, or an option that the method does not take.
        """
        from lgdea_jax.experiment import load_method

        config = cli.read_config(CONFIG)
        for setting in self.settings():
            key, _, value = setting.partition("=")
            cli.set_override(config, key, value)
        method = load_method(config)
        kept = json.loads(config.to_json_best_effort())
        kept["methods"] = {self.trained: kept["methods"][self.trained]}
        weights = kept["methods"][self.trained]["weights"]
        for term in LATER_TERMS:
            if weights.get(term) == 0:
                del weights[term]
        for key in LATER_KEYS:
            kept["methods"][self.trained].pop(key, None)
        if not method.has_memory:
            del kept["memory"]
        for name in NOT_IN_KEY:
            *path, last = name.split(".")
            node = kept
            for part in path:
                node = node[part]
            del node[last]
        return kept

    def key(self, data: str) -> str:
        """Names the run by everything that decides its numbers, except the code; `data` is `data_digest`'s."""
        return _digest([self.config(), self.split, data])

    def config_hash(self) -> str:
        """Of the config without the seed: equal for the runs of a cell."""
        return _digest({**self.config(), "seed": None})


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


# --- The grid ---------------------------------------------------------------------------------------------------------


def parse_cell(text: str) -> tuple[str, float]:
    """METHOD@SHARE as (method, share).

    Raises:
      UserError: not of that form, an unknown method or share, or a cell that would repeat another.
    """
    method, at, share = text.strip().partition("@")
    if not at:
        raise UserError(f"{text!r}: METHOD@SHARE, as lgdea@0.01")
    return check_cell(check_method(method), check_share(share))


def check_method(name: str) -> str:
    """The study's method of that name; see `parse_cell`."""
    return choose("method", name.strip(), known_methods())


def check_share(text: str) -> float:
    """The study's share of that value; see `parse_cell`."""
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if share not in SHARES:
        raise UserError(f"unknown share of pairs {text.strip()!r}; known: {', '.join(f'{s:g}' for s in SHARES)}")
    return share


def check_cell(method: str, share: float) -> tuple[str, float]:
    """The cell; see `parse_cell`."""
    if repeats(method, share):
        raise UserError(f"{method}@{share:g}: with all pairs nothing is unpaired, and {method} is lgdea_pairs")
    if left_out(method, share):
        raise UserError(f"{method}@{share:g}: asked about where pairs are few only")
    return method, share


def repeats(method: str, share: float) -> bool:
    """Whether the cell would be lgdea_pairs under another name."""
    return share == 1 and "images" in READS[method]


def left_out(method: str, share: float) -> bool:
    """Whether the cell is none of the study's."""
    return repeats(method, share) or share > arm_of(method).up_to


def known_methods() -> list[str]:
    """Methods of the study that this version has."""
    available = cli.read_config(CONFIG).methods
    return [name for name in READS if arm_of(name).method in available]


def select_cells(arguments: argparse.Namespace) -> list[tuple[str, float]]:
    """(method, share) of --cells, or of --methods x --pairs without those that would repeat others."""
    if arguments.cells:
        if arguments.methods or arguments.pairs:
            raise UserError("--cells excludes --methods and --pairs")
        cells = [parse_cell(cell) for cell in arguments.cells.split(",")]
    else:
        methods, shares = known_methods(), list(SHARES)
        if arguments.methods:
            methods = [check_method(name) for name in arguments.methods.split(",")]
        if arguments.pairs:
            shares = [check_share(text) for text in arguments.pairs.split(",")]
        cells = [(method, share) for share in shares for method in methods if not left_out(method, share)]
        if not cells:
            check_cell(methods[0], shares[0])
    order = list(READS)
    return sorted(set(cells), key=lambda cell: (cell[1], order.index(cell[0])))


def make_runs(cells: Sequence[tuple[str, float]], *, seeds: int | None, steps: int | None, split: str,
              extra: Sequence[str], first_seed: int = 0) -> list[Run]:
    """The runs in the order in which they are done: a first seed of every cell, small shares first, then a second."""
    runs = []
    for seed in range(max(seeds or SHARES[share].seeds for _, share in cells)):
        for method, share in cells:
            if seed < (seeds or SHARES[share].seeds):
                runs.append(Run(method, share, first_seed + seed, split, steps or SHARES[share].steps, tuple(extra)))
    return runs


def data_digest(folder: Path) -> str:
    """Of what decides the content of the phantom data set in `folder`, or of the one that would be made there.

    Raises:
      UserError: damaged, or not a phantom data set.
    """
    if folder.exists():
        from lgdea_jax.data.source import load_metadata

        config = load_metadata(folder).config
    else:
        config = json.loads(cli.read_config(DATA_CONFIG).to_json_best_effort())
    if "phantom" not in config:
        raise UserError(f"--data={folder} is not a phantom data set")
    return _digest({name: config[name] for name in ("phantom", "extractor", "image_size", "tokenizer")})


# --- Running ----------------------------------------------------------------------------------------------------------


def make_job(run: Run, *, key: str, data: Path, out: Path) -> Job:
    """Trains and evaluates `run` in OUT/METHOD_SHARE_SEED_KEY."""
    folder = out / f"{run.method}_{run.pairs:g}_{run.seed}_{key[:6]}"
    commands = {
        "train": ["lgdea_jax.train", f"--config={CONFIG}", f"--workdir={folder}", f"--config.data.dir={data}",
                  *(f"--config.{setting}" for setting in run.settings())],
        # No intervals: the study has its own, over seeds too.
        "evaluate": ["lgdea_jax.eval.records", f"--checkpoint={folder}", f"--data_dir={data}", f"--split={run.split}",
                     f"--out={folder}/eval", "--mode=clean", "--overlays=0", "--bootstrap=0"],
    }
    resumed = (folder / "checkpoints").exists()

    def finish(seconds: dict[str, float]) -> dict[str, Any]:
        return {"key": key, **dataclasses.asdict(run), "config": run.config_hash(), "seconds": seconds,
                "resumed": resumed, **read_results(folder / "eval", METRICS)}

    return Job(run.name, folder, commands, finish)


def expected_seconds(run: Run, rows: Sequence[dict]) -> float:
    """Of a run on one core, from finished rows: of its method and steps, else of its method, else of all, else a guess.

    Runs that were interrupted have lost the seconds of their first part and do not count.
    """
    timed = [row for row in rows if not row["resumed"]]
    total = [(row, sum(row["seconds"].values())) for row in timed]
    for like in ([s for row, s in total if (row["method"], row["steps"]) == (run.method, run.steps)],
                 [s * run.steps / row["steps"] for row, s in total if row["method"] == run.method],
                 [s * run.steps / row["steps"] for row, s in total]):
        if like:
            return statistics.median(like)
    return GUESS_START_SECONDS + GUESS_STEP_SECONDS * run.steps


def plan(runs: Sequence[Run], todo: Sequence[Run], rows: Sequence[dict], *, jobs: int) -> str:
    """What is finished, what would run and for how long."""
    lines = ["| pairs | method | steps | unpaired it reads | seeds | finished | about |",
             "|---|---|---|---|---|---|---|"]
    for method, pairs in dict.fromkeys((run.method, run.pairs) for run in runs):
        cell = [run for run in runs if (run.method, run.pairs) == (method, pairs)]
        left = [run for run in cell if run in todo]
        seconds = sum(expected_seconds(run, rows) for run in left)
        lines.append(f"| {share_name(pairs)} | `{method}` | {cell[0].steps} | {', '.join(cell[0].reads()) or '-'} "
                     f"| {len(cell)} | {len(cell) - len(left)} | {clock_text(seconds)} |")
    seconds = sum(expected_seconds(run, rows) for run in todo) / max(1, min(jobs, len(todo)))
    source = "by the finished runs" if any(not row["resumed"] for row in rows) else "a guess, no run is finished"
    lines += ["", f"{len(runs)} runs, {len(runs) - len(todo)} finished, {len(todo)} to do, {jobs} at a time: "
              f"about {clock_text(seconds)} ({source})"]
    return "\n".join(lines)


# --- The command ------------------------------------------------------------------------------------------------------


def main(argv: list[str]) -> int:
    """The command line; returns the exit status: 3 when runs failed, which does not stop the others."""
    arguments = make_parser().parse_args(argv)
    for name in ("seeds", "steps", "jobs"):
        if (value := getattr(arguments, name)) is not None and value < 1:
            raise UserError(f"--{name}={value}: at least 1")
    for setting in arguments.set:
        if "=" not in setting:
            raise UserError(f"--set={setting}: KEY=VALUE, a key of the training config")
        if (key := setting.split("=")[0]) in OWN_KEYS:
            raise UserError(f"--set={setting}: {key} is set by the study itself")
    if not arguments.plan:
        require("matplotlib.figure", "colab", "the study's plots")  # Before hours of training, not after.
    cells = select_cells(arguments)
    questions = [*QUESTIONS, *LATER, *(parse_question(text, cells) for text in arguments.compare)]
    if arguments.first_seed < 0:
        raise UserError(f"--first_seed={arguments.first_seed}: at least 0")
    runs = make_runs(cells, seeds=arguments.seeds, steps=arguments.steps, split=arguments.split, extra=arguments.set,
                     first_seed=arguments.first_seed)
    data = data_digest(arguments.data)
    keys = {run: run.key(data) for run in runs}
    journal = Journal(arguments.out / "runs.jsonl")
    finished = {row["key"]: row for row in [*([] if arguments.fresh else read_rows(COMMITTED)), *journal.rows()]
                if row.get("replicates")}
    todo = [run for run in runs if keys[run] not in finished]
    rows = [finished[key] for key in keys.values() if key in finished]
    if arguments.plan:
        print(plan(runs, todo, rows, jobs=arguments.jobs))
        return cli.OK
    make_folder(arguments.out)
    failures: list[str] = []
    if todo and not arguments.only_table:
        with only_one(arguments.out), exits_on_sigterm():
            make_data(arguments.data)
            failures = run_all(todo, keys, finished, journal, arguments)
    table = {run: finished[keys[run]] for run in runs if keys[run] in finished}
    text = report(runs, table, questions, arguments.out,
                  "python -m benchmarks.experiments.limited_pairs " + shlex.join(argv))
    print(text)
    print(f"wrote {arguments.out / 'table.md'} and {arguments.out / 'index.html'}")
    for line in failures:
        print(f"failed: {line}", file=sys.stderr)
    return cli.PARTIAL if failures else cli.OK


def make_parser() -> cli.Parser:
    """The flags."""
    def by_share(field: str) -> str:
        # argparse formats its help texts: a percent sign is written twice.
        text = ", ".join(f"{getattr(share, field)} at {share_name(s)}" for s, share in SHARES.items())
        return text.replace("%", "%%")

    parser = cli.Parser(prog="python -m benchmarks.experiments.limited_pairs", description=__doc__)
    parser.add_argument("--out", required=True, type=Path, help="folder for the runs, runs.jsonl, the table, the page")
    parser.add_argument("--methods", help=f"by commas, of {', '.join(READS)} (default: all that there are)")
    parser.add_argument("--pairs", help=f"shares, by commas, of {', '.join(f'{s:g}' for s in SHARES)} (default: all)")
    parser.add_argument("--cells", help="METHOD@SHARE by commas, instead of --methods and --pairs")
    parser.add_argument("--seeds", type=int, help="seeds of each cell (default: " + by_share("seeds") + ")")
    parser.add_argument("--first_seed", type=int, default=0,
                        help="the first of them (default: 0); a seed is the same training on either split, so choose "
                             "with seeds that are not reported")
    parser.add_argument("--steps", type=int, help="training steps of each run (default: " + by_share("steps") + ")")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                        help="a key of the training config, for every run; may be given several times")
    parser.add_argument("--compare", action="append", default=[], metavar="METHOD@SHARE:METHOD@SHARE",
                        help="one more comparison of two cells; may be given several times")
    parser.add_argument("--split", choices=("validation", "test"), default="test", help="what is evaluated on")
    parser.add_argument("--data", type=Path, default=Path("data/phantom"), help="the phantom data set, made if missing")
    parser.add_argument("--jobs", type=int, default=len(usable_cores()), help="runs side by side, a core each")
    parser.add_argument("--fresh", action="store_true", help="do committed runs again")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--plan", action="store_true", help="only print what would run and about how long")
    what.add_argument("--only-table", action="store_true", help="run nothing: tables, plots and page of finished runs")
    return parser


def make_folder(folder: Path) -> None:
    """Makes the output folder.

    Raises:
      UserError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise UserError(f"--out={folder}: {error.strerror}") from None


def parse_question(text: str, cells: Sequence[tuple[str, float]]) -> Question:
    """A:B of --compare.

    Raises:
      UserError: not of that form, or a cell that is not in this study.
    """
    sides = [parse_cell(side) for side in text.split(":")]
    if len(sides) != 2:
        raise UserError(f"--compare={text}: METHOD@SHARE:METHOD@SHARE")
    for method, share in sides:
        if (method, share) not in cells:
            raise UserError(f"--compare={text}: {method}@{share:g} is not among the cells of this study")
    return Question("Also asked for", *text.split(":"))


def make_data(folder: Path) -> None:
    """Makes the phantom data set unless it is there."""
    from data_prep import build

    if not folder.exists():
        build.build(cli.read_config(DATA_CONFIG), folder)


def run_all(todo: Sequence[Run], keys: dict[Run, str], finished: dict[str, dict], journal: Journal,
            arguments: argparse.Namespace) -> list[str]:
    """Does the runs, adds their rows to `finished` and to the journal, and returns a line for each that failed."""
    left = dict.fromkeys(run.name for run in todo)
    by_name = {run.name: run for run in todo}

    def done(job: Job, row: dict[str, Any]) -> None:
        journal.append(row)
        finished[row["key"]] = row
        del left[job.name]
        rows = [finished[key] for key in keys.values() if key in finished]
        seconds = sum(expected_seconds(by_name[name], rows) for name in left) / arguments.jobs
        shown = "  ".join(f"{METRICS[name]} {math.nan if value is None else value:.3f}"
                          for name, value in row["metrics"].items())
        print(f"{job.name}: {shown}  {sum(row['seconds'].values()):.0f} s; {len(left)} left, about "
              f"{clock_text(seconds)}", file=sys.stderr, flush=True)

    jobs = [make_job(run, key=keys[run], data=arguments.data, out=arguments.out) for run in todo]
    return run_jobs(jobs, side_by_side=arguments.jobs, done=done)


def report(runs: Sequence[Run], table: dict[Run, dict], questions: Sequence[Question], out: Path, command: str) -> str:
    """Writes the table, the plots and the page of the finished runs into `out`; returns the table.

    Raises:
      UserError: rows that were evaluated on different subjects, so that nothing is paired.
    """
    cells = {}
    for run in runs:
        cells.setdefault((run.method, run.pairs), []).append(run)
    made = [StudyCell(method, pairs, steps=mine[0].steps, reads=mine[0].reads(), config=mine[0].config_hash(),
                      expected=len(mine), rows=tuple(table[run] for run in mine if run in table))
            for (method, pairs), mine in cells.items()]
    notes = [f"Evaluated on the {runs[0].split} split of the phantom world."]
    if runs[0].extra:
        notes.append("Settings of every run: " + ", ".join(runs[0].extra) + ".")
    return study_report.write(made, questions, out, command=command, notes=notes)


if __name__ == "__main__":
    cli.run(main)
