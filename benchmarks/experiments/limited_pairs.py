"""The limited-pairs experiment on the phantom world: arms x settings x seeds; tables, tests and plots.

    python -m benchmarks.experiments.limited_pairs --out=runs/limited_pairs                    # the docs' tables
    python -m benchmarks.experiments.limited_pairs --out=runs/limited_pairs --plan   # what that would run, and how long
    python -m benchmarks.experiments.limited_pairs --out=runs/limited_pairs --only-table       # from the finished runs
    python -m benchmarks.experiments.limited_pairs --out=runs/try --split=validation \\
        --cells=lgdea@0.01,lgdea@40+20000 --seeds=4 --first_seed=8 --set=memory.own=0.3

A setting is a share of pairs (0.01), in a larger world of the same kind a number of pairs and one of unpaired images
(40+20000), with 2,000 unpaired reports, or a share of the CT world (0.05ct). Every run trains with
`configs/phantom.py`, in the CT world with `configs/lgdea_ct.py:phantom`, and with its `limited` settings below 100%. In
a setting all arms have the same steps, pairs per batch and augmentation, and are evaluated on a split that is not
trained on; validation and test studies of the first two worlds are the same. Choices are made on the validation world
with seeds that the tables do not use; the tables are of the test world. Small shares and early seeds run first: an
interrupted experiment is a small complete one.

A finished run is never repeated. Its row is in OUT/runs.jsonl: metrics, their values under 400 resamples of the
subjects (which make every comparison paired, see `lgdea_jax/metrics/hierarchical.py`), and seconds. Rows of
benchmarks/experiments/limited_pairs.jsonl (committed) count as finished unless --fresh is given. After a kill the same
command continues. OUT/table.md, OUT/index.html (one file, nothing loaded from elsewhere) and OUT/*.png are made from
the rows.

With all pairs nothing is unpaired: the arms that differ from lgdea_pairs by unpaired items only are left out there.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.experiments import tables
from benchmarks.experiments.arms import (
    ARMS,
    GRID,
    Run,
    Setting,
    make_runs,
    parse_cell,
    select_cells,
)
from benchmarks.experiments.comparisons import METRICS, POST_HOC, PRE_SPECIFIED, Cell, Contrast
from benchmarks.experiments.plan import expected_seconds, plan
from benchmarks.experiments.plots import plot_findings, plot_images, plot_shares
from benchmarks.experiments.report import READING, page
from benchmarks.experiments.results import auroc_by_finding, read_results
from benchmarks.experiments.runs import Job, Journal, exits_on_sigterm, only_one, run_jobs, usable_cores
from benchmarks.experiments.worlds import WORLDS, add_flag, check_flag
from lgdea_jax import cli
from lgdea_jax.errors import UserError, require
from lgdea_jax.runtime.files import write_text_atomically
from lgdea_jax.runtime.log import read_rows
from lgdea_jax.runtime.progress import clock_text

COMMITTED = Path(__file__).with_suffix(".jsonl")
# Config keys that the grid sets.
OWN_KEYS = ("method", "seed", "total_steps", "data.pairs", "data.images", "data.reports", "data.dir",
            "checkpoint.every")


def make_job(run: Run, *, key: str, data: Path, out: Path) -> Job:
    """Trains and evaluates `run` in OUT/METHOD_SETTING_SEED_KEY."""
    folder = out / f"{run.folder}_{key[:6]}"
    commands = {
        "train": ["lgdea_jax.train", f"--config={run.setting.world.config}", f"--workdir={folder}",
                  f"--config.data.dir={data}",
                  *(f"--config.{setting}" for setting in run.settings())],
        # No intervals: the experiment has its own, over seeds too.
        "evaluate": ["lgdea_jax.eval.records", f"--checkpoint={folder}", f"--data_dir={data}", f"--split={run.split}",
                     f"--out={folder}/eval", "--mode=clean", "--overlays=0", "--bootstrap=0"],
    }
    resumed = (folder / "checkpoints").exists()

    def finish(seconds: dict[str, float]) -> dict[str, Any]:
        return {"key": key, **dataclasses.asdict(run), "config": run.config_hash(), "seconds": seconds,
                "resumed": resumed, **read_results(folder / "eval", METRICS),
                "findings": auroc_by_finding(folder / "eval", folder / "config.json")}

    return Job(run.name, folder, commands, finish)


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
            raise UserError(f"--set={setting}: {key} is set by the experiment itself")
    check_flag(arguments)
    if not arguments.plan:
        require("matplotlib.figure", "colab", "the plots")  # Before hours of training, not after.
    cells = select_cells(arguments)
    contrasts = [*PRE_SPECIFIED, *POST_HOC, *(parse_contrast(text, cells) for text in arguments.compare)]
    if arguments.first_seed < 0:
        raise UserError(f"--first_seed={arguments.first_seed}: at least 0")
    runs = make_runs(cells, seeds=arguments.seeds, steps=arguments.steps, split=arguments.split, extra=arguments.set,
                     first_seed=arguments.first_seed)
    folders = data_folders(arguments)
    digests = {world: WORLDS[world].digest(folders[world], arguments.extractor)
               for world in {run.setting.world.name for run in runs}}
    keys = {run: run.key(digests[run.setting.world.name]) for run in runs}
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
            for world in {run.setting.world.name: run.setting.world for run in todo}.values():
                world.make(folders[world.name])
            failures = run_all(todo, keys, finished, journal, arguments)
    table = {run: finished[keys[run]] for run in runs if keys[run] in finished}
    text = report(runs, table, contrasts, arguments.out,
                  "python -m benchmarks.experiments.limited_pairs " + shlex.join(argv))
    print(text)
    print(f"wrote {arguments.out / 'table.md'} and {arguments.out / 'index.html'}")
    for line in failures:
        print(f"failed: {line}", file=sys.stderr)
    return cli.PARTIAL if failures else cli.OK


def make_parser() -> cli.Parser:
    """The flags."""
    def by_setting(field: str) -> str:
        # argparse formats its help texts: a percent sign is written twice.
        text = ", ".join(f"{getattr(budget, field)} at {setting.code}" for setting, budget in GRID.items())
        return text.replace("%", "%%")

    parser = cli.Parser(prog="python -m benchmarks.experiments.limited_pairs", description=__doc__)
    parser.add_argument("--out", required=True, type=Path, help="folder for the runs, runs.jsonl, the table, the page")
    parser.add_argument("--methods", help=f"by commas, of {', '.join(ARMS)} (default: all)")
    parser.add_argument("--pairs", help=f"settings, by commas, of {', '.join(s.code for s in GRID)} (default: all)")
    parser.add_argument("--cells", help="METHOD@SETTING by commas, instead of --methods and --pairs")
    parser.add_argument("--seeds", type=int, help="seeds of each cell (default: " + by_setting("seeds") + ")")
    parser.add_argument("--first_seed", type=int, default=0,
                        help="the first of them (default: 0); a seed is the same training on either split, so choose "
                             "with seeds that are not reported")
    parser.add_argument("--steps", type=int, help="training steps of each run (default: " + by_setting("steps") + ")")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                        help="a key of the training config, for every run; may be given several times")
    parser.add_argument("--compare", action="append", default=[], metavar="METHOD@SETTING:METHOD@SETTING",
                        help="one more comparison of two cells; may be given several times")
    parser.add_argument("--split", choices=("validation", "test"), default="test", help="what is evaluated on")
    parser.add_argument("--data", type=Path, default=Path("data/phantom"), help="the phantom data set, made if missing")
    parser.add_argument("--large_data", type=Path, default=Path("data/phantom_large"),
                        help=f"the one with {WORLDS['large'].studies:,} training studies, likewise")
    parser.add_argument("--ct_data", type=Path, default=Path("data/phantom_ct"),
                        help="the phantom CT data set, likewise")
    add_flag(parser)
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


def data_folders(arguments: argparse.Namespace) -> dict[str, Path]:
    """{name of a world: the folder of its data set}."""
    return {"phantom": arguments.data, "large": arguments.large_data, "ct": arguments.ct_data}


def parse_contrast(text: str, cells: Sequence[tuple[str, Setting]]) -> Contrast:
    """A:B of --compare.

    Raises:
      UserError: not of that form, or a cell that is not in this experiment.
    """
    sides = [parse_cell(side) for side in text.split(":")]
    if len(sides) != 2:
        raise UserError(f"--compare={text}: METHOD@SETTING:METHOD@SETTING")
    for method, setting in sides:
        if (method, setting) not in cells:
            raise UserError(f"--compare={text}: {method}@{setting.code} is not among the cells of this experiment")
    return Contrast("Requested", *text.split(":"))


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

    folders = data_folders(arguments)
    jobs = [make_job(run, key=keys[run], out=arguments.out, data=folders[run.setting.world.name]) for run in todo]
    return run_jobs(jobs, side_by_side=arguments.jobs, done=done)


def report(runs: Sequence[Run], finished: dict[Run, dict], contrasts: Sequence[Contrast], out: Path,
           command: str) -> str:
    """Writes the tables, the plots and the page of the finished runs into `out`; returns the tables."""
    groups: dict[tuple[str, Setting], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.method, run.setting), []).append(run)
    cells = [Cell(method, setting, steps=mine[0].steps, config=mine[0].config_hash(),
                  expected=len(mine), rows=tuple(finished[run] for run in mine if run in finished))
             for (method, setting), mine in groups.items()]
    notes = [f"Evaluated on the {runs[0].split} split of the phantom world, with CT on that of the phantom CT world."]
    if runs[0].extra:
        notes.append("Settings of every run: " + ", ".join(runs[0].extra) + ".")
    return write(cells, contrasts, out, command=command, notes=notes)


def write(cells: Sequence[Cell], contrasts: Sequence[Contrast], out: Path, *, command: str,
          notes: Sequence[str] = ()) -> str:
    """Writes OUT/table.md, OUT/index.html and a PNG for each metric; returns the tables as Markdown.

    Args:
      cells: in the order of the tables.
      contrasts: those about cells that are not among `cells` are left out.
      out: a folder.
      command: that made the rows.
      notes: sentences for the top of the page.

    Raises:
      UserError: runs were evaluated on different subjects, so that nothing is paired, or matplotlib is missing.
    """
    subjects: dict[bool, set[str]] = {}
    for cell in cells:
        subjects.setdefault(cell.setting.ct, set()).update(row["subjects"] for row in cell.rows)
    if any(len(found) > 1 for found in subjects.values()):
        raise UserError("the finished runs were evaluated on different subjects: use another --out for each data set")
    made = (tables.results(cells, contrasts), tables.means(cells), tables.contrasts(cells, contrasts),
            tables.gap(cells), tables.settings(cells))
    blocks = [block for block in made if block]
    text = "\n\n".join(block.markdown() for block in blocks)
    write_text_atomically(out / "table.md", "\n".join(f"{note}\n" for note in [*notes, *READING]) + "\n" + text + "\n")
    pictures: dict[str, Path] = {}
    for name, shown in METRICS.items():
        file = name.replace("/", "_").replace("@", "_at_")
        pictures[f"{shown} against the share of pairs"] = plot_shares(cells, name, out / f"{file}.png")
        if any(cell.setting.world.name == "large" and cell.rows for cell in cells):
            pictures[f"{shown} against the number of unpaired images"] = plot_images(
                cells, name, out / f"images_{file}.png")
    if path := plot_findings(cells, out / "findings.png"):
        pictures["AUROC of each finding, lgdea minus lgdea_pairs, against its positive pairs"] = path
    write_text_atomically(out / "index.html", page(blocks, pictures, command=command, notes=notes))
    return text


if __name__ == "__main__":
    cli.run(main)
